"""What single steps of a training do in each layer: gradient, update, activations, moments.

The training does not know that it is watched. Before a watched step its batch is fetched a second time, and
`toolkit.training.probe` computes the gradient; weights and moments are compared across the step. So a run is the same
to the bit with and without.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from toolkit.models.weights import named_layers, named_variables
from toolkit.runs import gradients
from toolkit.training.feed import Feed, weighed
from toolkit.training.guard import was_skipped
from toolkit.training.position import Position
from toolkit.training.probe import make_probe

Array = np.ndarray[Any, Any]
_BLOCK = 1 << 16  # numbers


class _Before(NamedTuple):
    """What was seen before a watched step."""

    norms: Array
    zeros: Mapping[str, float]
    values: Sequence[Array]
    seconds: float


class GradientWatch(keras.callbacks.Callback):
    """Measures every so many steps. To be called after the guard, and before the position moves on.

    Of a step that is the mean of several micro-batches the last one is watched, whose gradient alone is measured.

    Args:
        model: compiled and built.
        position: where the training stands.
        every: micro-batches from one watched step to the next.
        class_weights: class → weight of its examples in the loss.
        write: takes a row of `gradients.jsonl`.
    """

    def __init__(
        self,
        model: keras.Model,
        feed: Feed,
        position: Position,
        *,
        every: int,
        class_weights: Mapping[int, float] | None,
        write: Callable[[Mapping[str, Any]], None],
    ) -> None:
        super().__init__()
        self.feed, self.position, self.every, self.write = feed, position, every, write
        self.weights, self.optimizer = model.trainable_variables, model.optimizer
        names = {id(variable): name for name, variable in named_variables(model).items()}
        self.layers = [_layer_of(names[id(variable)]) for variable in self.weights]  # one per weight
        spec = weighed(feed.batches(0, 0, 1), class_weights).element_spec
        self.probe = make_probe(model, class_weights, spec)
        self._read_weights = _reader(self.weights)
        moments = [getattr(self.optimizer, f"_{name}_moments", ()) for name in ("first", "second")]
        self._read_moments = _reader(list(itertools.chain(*moments))) if all(moments) else None
        self._order = {name: place for place, name in enumerate(named_layers(model))}
        self._before: _Before | None = None

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._before = self._measure() if self._is_due() else None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        before, self._before = self._before, None
        if before is not None:
            self._write(before, applied=not was_skipped(logs))

    def write_undone(self) -> None:
        """Write what the step that comes next in the position gives, due or not: it ended the training, undone."""
        self._write(self._before or self._measure(), applied=False)

    def _measure(self) -> _Before:
        """What can be seen before the step that comes next in the position."""
        start = time.perf_counter()
        self._bring_up_to_date()
        norms, zeros = self.probe(*self.feed.batch(self.position.epoch - 1, self.position.batch))
        values = [np.array(value) for value in self._read_weights()]
        return _Before(norms, zeros, values, time.perf_counter() - start)

    def _write(self, before: _Before, *, applied: bool) -> None:
        """Write the row of a step; with what it has changed, if it was applied."""
        start = time.perf_counter()
        measured: dict[str, dict[str, float]] = {
            name: {"gradient_norm": norm} for name, norm in self._norms(before.norms).items()
        }
        if applied:
            self._bring_up_to_date()
            for name, ratio in self._update_ratios(before.values).items():
                measured[name]["update_ratio"] = ratio
            for name, ratio in zip(self.layers, self._moment_ratios(), strict=False):
                measured[name]["moment_ratio"] = max(ratio, measured[name].get("moment_ratio", 0.0))
        for name, share in before.zeros.items():
            measured.setdefault(name, {})["zero_share"] = share
        self.write(
            gradients.make_row(
                epoch=self.position.epoch,
                step=self.position.trained + 1,
                clipped=any((self.optimizer.clipnorm, self.optimizer.clipvalue, self.optimizer.global_clipnorm)),
                seconds=before.seconds + time.perf_counter() - start,
                layers={name: measured[name] for name in sorted(measured, key=self._place)},
            )
        )

    def _place(self, layer: str) -> int:
        return self._order.get(layer.partition("/")[0], 0)

    def until_due(self) -> int:
        """Micro-batches that may be made at once: those before the next that is watched, or that one alone."""
        return next(ahead for ahead in itertools.count() if self._is_due(ahead)) or 1

    def _is_due(self, ahead: int = 0) -> bool:
        """Whether the next micro-batch, or one ahead, is watched.

        After each multiple of `every` it is the one that ends its window. Where the epoch ends first, that window is
        applied after its last batch, and none is.
        """
        window, at = self.optimizer.gradient_accumulation_steps or 1, self.position
        return (at.trained + ahead) % self.every < window and (at.batch + ahead + 1) % window == 0

    def _bring_up_to_date(self) -> None:
        """While JAX trains, the values are not in the variables."""
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()

    def _norms(self, of_weights: Iterable[float]) -> dict[str, float]:
        """Norms of the weights' parts to norms of the layers."""
        squares = dict.fromkeys(self.layers, 0.0)
        for name, norm in zip(self.layers, of_weights, strict=True):
            squares[name] += float(norm) ** 2
        return {name: square**0.5 for name, square in squares.items()}

    def _update_ratios(self, before: Sequence[Array]) -> dict[str, float]:
        """‖w′ − w‖ / ‖w‖ of each layer; without layers that were all zero."""
        with np.errstate(all="ignore"):  # after a step that exploded; what is not finite is told as such
            sizes = self._norms(map(_norm, before))
            moves = self._norms(map(_distance, self._read_weights(), before))
            return {name: moves[name] / size for name, size in sizes.items() if size}

    def _moment_ratios(self) -> list[float]:
        """The largest |m̂|/√v̂ in each weight, after bias correction: the longest way of this step, in units of the rate.

        An optimizer without both moments gives none.
        """
        if not self._read_moments:
            return []
        steps, optimizer = int(ops.convert_to_numpy(self.optimizer.iterations)), self.optimizer
        correction = np.sqrt(1 - optimizer.beta_2**steps) / (1 - optimizer.beta_1**steps)
        moments = self._read_moments()
        half = len(moments) // 2
        return [correction * ratio for ratio in map(_largest_ratio, moments[:half], moments[half:])]


def _layer_of(weight: str) -> str:
    """`recurrent1/forward_layer/cell/kernel` is of `recurrent1/forward_layer`: a cell is not seen from outside."""
    return weight.rpartition("/")[0].removesuffix("/cell")


def _largest_ratio(first: Array, second: Array) -> float:
    """The largest |m|/√v where v is not 0."""
    largest, least = 0.0, np.finfo(second.dtype).smallest_subnormal
    for m, v in _blocks(first, second):
        largest = np.maximum(largest, np.max(m * m * (v > 0) / np.maximum(v, least)))
    return float(np.sqrt(largest))


def _reader(variables: Sequence[Any]) -> Callable[[], list[Array]]:
    """What reads their values, in float32 or wider: NumPy does not know bfloat16. Not to be kept beyond a step."""

    def read() -> list[Any]:
        values = [ops.convert_to_tensor(variable) for variable in variables]
        halves = [keras.backend.standardize_dtype(value.dtype) in ("float16", "bfloat16") for value in values]
        return [ops.cast(value, "float32") if half else value for value, half in zip(values, halves, strict=True)]

    if keras.backend.backend() != "tensorflow":
        return lambda: [ops.convert_to_numpy(value) for value in read()]
    import tensorflow as tf

    compiled = tf.function(read, autograph=False)  # one by one, small ones would take as long as a step
    return lambda: [value.numpy() for value in compiled()]


def _blocks(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Parts of arrays of one size, small enough that what is computed of them stays in the processor's cache."""
    flat = [values.reshape(-1) for values in arrays]
    for start in range(0, flat[0].size, _BLOCK):
        yield tuple(values[start : start + _BLOCK] for values in flat)


def _norm(values: Array) -> float:
    return float(np.linalg.norm(values.ravel()))


def _distance(values: Array, others: Array) -> float:
    """‖values − others‖."""
    return math.hypot(*(_norm(a - b) for a, b in _blocks(values, others)))
