"""Where a non-finite number came from: a step is computed again, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from toolkit.models.weights import named_variables

_SHOWN = 5  # ids in a message


def find_cause(model: keras.Model, inputs: Any, ids: Sequence[str], code: int) -> str:
    """One phrase on the first thing that is not finite: a weight, an input, a layer's output, the loss or a gradient.

    Args:
        model: as it was before the step.
        inputs: of the batch, as tf.data gives them.
        ids: of its examples.
        code: what the guard said, see `guard.KEY`.
    """
    inputs = keras.tree.map_structure(lambda value: ops.convert_to_tensor(value.numpy()), inputs)
    for name, variable in named_variables(model).items():
        if not np.isfinite(_array(variable)).all():
            return f"the weight {name} is not finite"
    for name, value in _named(inputs):
        rows = _bad_rows(value)
        if rows.any():
            return f"the input {name} is not finite in {_examples(rows, ids)}"
    for layer, value in _outputs(model, inputs):
        rows = _bad_rows(value)
        if rows.any():
            whose = f" for {_examples(rows, ids)}" if len(rows) == len(ids) else ""  # a first axis may be another
            return f"layer {layer} gives numbers that are not finite{whose}"
    if code > 0:
        trained = {id(variable): name for name, variable in named_variables(model).items()}
        return f"the gradient of {trained[id(model.trainable_variables[code - 1])]} is not finite"
    return "every layer's output is finite, the loss is not"


def _outputs(model: keras.Model, inputs: Any) -> list[tuple[str, Any]]:
    """Each layer's outputs, as in training, in the order of the layers; none where the layers are no graph."""
    if not isinstance(model, keras.Function | keras.Sequential):
        return []
    layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    outputs = [(layer.name, output) for layer in layers for output in keras.tree.flatten(layer.output)]
    kept = [(variable, np.array(_array(variable))) for variable in model.non_trainable_variables]
    start = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    try:
        values = keras.Model(start, [output for _, output in outputs])(inputs, training=True)
    finally:
        for variable, value in kept:
            variable.assign(value)
    return [(name, value) for (name, _), value in zip(outputs, values, strict=True)]


def _named(inputs: Any) -> list[tuple[str, Any]]:
    return list(inputs.items()) if isinstance(inputs, dict) else [("of the batch", inputs)]


def _bad_rows(value: Any) -> np.ndarray[Any, Any]:
    array = _array(value)
    if array.dtype.kind in "iub" or not array.ndim:
        return np.zeros(0, dtype=bool)
    bad: np.ndarray[Any, Any] = ~np.isfinite(array.astype("float32")).reshape(len(array), -1).all(axis=1)
    return bad


def _array(value: Any) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = ops.convert_to_numpy(value)
    return array


def _examples(rows: np.ndarray[Any, Any], ids: Sequence[str]) -> str:
    bad = [example for example, is_bad in zip(ids, rows, strict=True) if is_bad]
    more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    return f"{len(bad)} of {len(ids)} examples ({', '.join(bad[:_SHOWN])}{more})"
