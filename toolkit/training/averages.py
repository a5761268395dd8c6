"""Exponential moving averages of the weights, with one `fit` call per epoch.

Keras overwrites the weights by their averages at the end of every `fit`, and on JAX the two then share a buffer that
the next `fit` gives away twice. So overwriting is put off; averages are lent to the model while it is validated or
saved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np


@contextlib.contextmanager
def finalising_put_off(optimizer: Any) -> Iterator[None]:
    """Within the block, the end of a `fit` leaves the weights as the last step left them."""
    optimizer.finalize_variable_values = lambda variables: None
    try:
        yield
    finally:
        del optimizer.finalize_variable_values  # the class's own method is seen again


@contextlib.contextmanager
def averaged_weights(model: Any) -> Iterator[None]:
    """Within the block, `model` has the averages as its weights, if its optimizer keeps any."""
    optimizer = model.optimizer
    if not optimizer.use_ema:
        yield
        return
    from keras import ops

    variables = model.trainable_variables
    kept = [np.array(ops.convert_to_numpy(variable)) for variable in variables]
    for variable, average in zip(variables, optimizer._model_variables_moving_average, strict=True):
        if average is not None:
            variable.assign(np.array(ops.convert_to_numpy(average)))  # a copy: the two must not share a buffer
    try:
        yield
    finally:
        if hasattr(model, "jax_state_sync"):
            model.jax_state_sync()  # where the block was left by an exception, JAX would later put the averages back
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
