"""Everything that a training changes, as named arrays, and back: weights, seeds, optimizer, metrics, torch's generator.

Names do not depend on what the process built before: weights have those of `toolkit.models.weights`; what the optimizer
keeps for a weight has the optimizer's attribute and the weight's name; seeds of random layers have their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from toolkit.errors import ToolkitError
from toolkit.models.weights import named_variables
from toolkit.runs.checkpoints import Checkpoint

TORCH_GENERATOR = "torch_generator"


def prepare(model: keras.Model, validation: Any) -> None:
    """Build what Keras builds at its first step, so that there is something to restore.

    Args:
        validation: batches for `evaluate`; only the first is used.
    """
    model.optimizer.build(model.trainable_variables)
    model.evaluate(validation.take(1), verbose=0)  # the one public way to build metrics
    model.reset_metrics()


def capture(model: keras.Model, generator: Generator) -> dict[str, np.ndarray[Any, Any]]:
    """All arrays of a compiled and built model. Within `fit` on JAX the variables are brought up to date first.

    They are the variables' own memory where the backend has them there: write them down before the next step.
    """
    if keras.backend.backend() == "jax":
        model.jax_state_sync()
    values = {name: ops.convert_to_numpy(variable.value) for name, variable in _variables(model).items()}
    return values | generator.arrays()


def restore(model: keras.Model, checkpoint: Checkpoint) -> None:
    """Give a prepared model the arrays that `capture` gave, but for torch's generator.

    Raises:
        ToolkitError: an array is missing, left over or of another shape or type; the model is unchanged then.
    """
    variables = _variables(model)
    given = {name: value for name, value in checkpoint.arrays.items() if name != TORCH_GENERATOR}
    faults = [f"lacks {name}" for name in variables if name not in given]
    faults += [f"has {name} too much" for name in given if name not in variables]
    for name, variable in variables.items():
        if name in given:
            value = given[name]
            wanted = tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype)
            if (value.shape, value.dtype.name) != wanted:
                faults.append(f"has {name} as {value.dtype.name} {value.shape}, not {wanted[1]} {wanted[0]}")
    if faults:
        more = f" and {len(faults) - 5} faults more" if len(faults) > 5 else ""
        raise ToolkitError(
            f"the checkpoint {checkpoint.path} does not fit: it {', '.join(faults[:5])}{more}; go on with the "
            "toolkit, the versions and the config that wrote it."
        )
    for name, variable in variables.items():
        variable.assign(given[name])


class Generator(keras.callbacks.Callback):
    """torch's global generator, from which its dropout draws: what training alone makes of it.

    `fit` and `evaluate` draw from it too before their first batch, and the first in a process more than the others. So
    it is kept after every batch and put back before the first of the next `fit`. On other backends this does nothing.
    """

    def __init__(self, values: Mapping[str, np.ndarray[Any, Any]]) -> None:
        super().__init__()
        self._torch: Any = None
        if keras.backend.backend() == "torch":
            import torch

            self._torch = torch
            kept = values.get(TORCH_GENERATOR)
            self._state = torch.get_rng_state()
            if kept is not None:
                if (kept.shape, kept.dtype.name) != (tuple(self._state.shape), "uint8"):
                    raise ToolkitError("the checkpoint's torch_generator is none of torch: go on from another one.")
                self._state = torch.from_numpy(kept.copy())

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """What a checkpoint keeps of it."""
        return {TORCH_GENERATOR: self._state.numpy()} if self._torch else {}

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._torch and batch == 0:
            self._torch.set_rng_state(self._state)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._torch:
            self._state = self._torch.get_rng_state()


class Restore(keras.callbacks.Callback):
    """Puts a checkpoint's arrays into place once `fit` has reset the metrics."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.checkpoint = checkpoint

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        restore(self.model, self.checkpoint)


def _variables(model: keras.Model) -> dict[str, Any]:
    weights = named_variables(model)
    found = {f"weights/{name}": variable for name, variable in weights.items()}
    metrics = {
        f"metrics/{i}/{metric.name}/{j}": variable
        for i, metric in enumerate(model.metrics)
        for j, variable in enumerate(metric.variables)
    }
    known = {id(variable) for variable in (*found.values(), *metrics.values())}
    seeds = [variable for variable in model.variables if id(variable) not in known]
    found.update((f"seeds/{i}", variable) for i, variable in enumerate(seeds))
    found.update(_optimizer_variables(model.optimizer, {id(variable): name for name, variable in weights.items()}))
    return found | metrics


def _optimizer_variables(optimizer: Any, weights: Mapping[int, str]) -> dict[str, Any]:
    """Its variables by attribute and, where it has one per weight, by weight."""
    left = {id(variable): variable for variable in optimizer.variables}
    found: dict[str, Any] = {}

    def add(name: str, variable: Any) -> None:
        if id(variable) in left:
            found[f"optimizer/{name}"] = left.pop(id(variable))

    trained = [weights.get(id(variable), str(i)) for i, variable in enumerate(optimizer._trainable_variables)]
    for attribute, value in sorted(vars(optimizer).items()):
        name = attribute.lstrip("_")
        if isinstance(value, keras.Variable):
            add(name, value)
        elif isinstance(value, list | tuple) and len(value) == len(trained):
            for weight, variable in zip(trained, value, strict=True):
                add(f"{name}/{weight}", variable)
    for i, variable in enumerate(list(left.values())):
        add(f"variable/{i}", variable)
    return found
