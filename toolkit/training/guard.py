"""A training step whose loss or gradient is NaN or infinite changes nothing.

Keras's optimizers cannot see to that alone: when they get the gradient, batch normalisation has moved its statistics,
random layers their seeds and the metrics their sums. So the whole step is guarded: parameters, optimizer, statistics,
seeds and metrics are afterwards as they were before, and the logs say what was wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from toolkit.training.sums import sums_in_order

KEY = "non_finite"
"""In the logs of a step: 0 if all was finite, -1 if the loss was not, k if the gradient of trainable weight k - 1 was
the first that was not."""


class NonFiniteStep(Exception):
    """The step that comes next in the position is not finite, and may not be skipped; `code` is what the guard said."""

    def __init__(self, code: int) -> None:
        super().__init__(f"a step that is not finite ({code})")
        self.code = code


class Watch(keras.callbacks.Callback):
    """Ends `fit` by `NonFiniteStep` after a step that was skipped, unless `skip` takes it."""

    def __init__(self, skip: Callable[[int], bool]) -> None:
        super().__init__()
        self.skip = skip

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if was_skipped(logs) and not self.skip(int((logs or {})[KEY])):
            raise NonFiniteStep(int((logs or {})[KEY]))


def was_skipped(logs: Mapping[str, Any] | None) -> bool:
    """Whether the guard undid the step that these logs are of."""
    return bool(int((logs or {}).get(KEY, 0)))


@contextlib.contextmanager
def guarded_steps(model: keras.Model) -> Iterator[None]:
    """Within the block, the training steps of a compiled and built model are guarded."""
    guard: Any = {"tensorflow": _TensorFlow, "jax": _Jax, "torch": _Torch}[keras.backend.backend()](model)
    model.train_step, model.optimizer.apply = guard.train_step, guard.apply
    try:
        yield
    finally:
        del model.train_step, model.optimizer.apply  # the classes' own methods are seen again


class _Guard:
    """What stands in the place of `model.train_step` and `model.optimizer.apply`."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._step, self._apply = model.train_step, model.optimizer.apply
        frozen = {id(weight) for layer in model.layers if not layer.trainable for weight in layer.weights}
        states = [*model.non_trainable_variables, *model.metrics_variables]
        self.states = [variable for variable in states if id(variable) not in frozen]
        self.code: Any = None  # of the step that is traced or run; see KEY


class _TensorFlow(_Guard):
    def train_step(self, data: Any) -> dict[str, Any]:
        import tensorflow as tf

        kept = [tf.identity(variable.value) for variable in self.states]
        with sums_in_order():
            logs = self._step(data)

        def undo() -> None:
            for variable, value in zip(self.states, kept, strict=True):
                variable.assign(value)

        tf.cond(tf.equal(self.code, 0), lambda: None, undo)
        return {**logs, KEY: self.code}

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        import tensorflow as tf

        loss = self.model.metrics[0].result()  # the mean so far is finite until the first loss that is not
        self.code = ops.where(ops.isfinite(loss), _first_bad(grads), -1)
        tf.cond(tf.equal(self.code, 0), lambda: self._apply(grads, trainable_variables), lambda: None)


class _Torch(_Guard):
    def train_step(self, data: Any) -> dict[str, Any]:
        kept = [variable.value.detach().clone() for variable in self.states]
        logs = self._step(data)
        if self.code:
            for variable, value in zip(self.states, kept, strict=True):
                variable.assign(value)
        return {**logs, KEY: self.code}

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        finite = bool(ops.isfinite(self.model.metrics[0].result()))
        self.code = int(_first_bad(grads)) if finite else -1
        if not self.code:
            self._apply(grads, trainable_variables)


class _Jax(_Guard):
    def train_step(self, state: Any, data: Any) -> tuple[dict[str, Any], Any]:
        import jax

        logs, new = self._step(state, data)
        code = ops.where(ops.isfinite(logs["loss"]), self.code, -1)
        self.code = None  # no traced value outlives its trace
        new = jax.tree.map(lambda after, before: ops.where(code == 0, after, before), new, tuple(state))
        return {**logs, KEY: code}, new

    def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        self.code = _first_bad(grads)
        self._apply(grads, trainable_variables)


def _first_bad(grads: Sequence[Any]) -> Any:
    """0, or the number (from 1) of the first gradient that is not finite: its sum is not."""
    finite = [True if gradient is None else ops.isfinite(_total(gradient)) for gradient in grads]
    bad = ops.logical_not(ops.stack([ops.convert_to_tensor(value) for value in finite]))
    return ops.where(ops.any(bad), ops.cast(ops.argmax(ops.cast(bad, "int32")), "int32") + 1, 0)


def _total(gradient: Any) -> Any:
    if getattr(gradient, "is_sparse", False):  # torch
        gradient = gradient.coalesce().values()
    elif keras.backend.backend() == "tensorflow" and hasattr(gradient, "indices"):
        gradient = gradient.values
    # In half precision the sum of large finite numbers would be infinite.
    return ops.sum(ops.cast(gradient, "float32"))
