"""On TensorFlow: moments of small weights side by side in flat variables, where one operation serves many of them.

To start an operation costs some microseconds, more than the arithmetic of a small weight. So the moments of up to
`_LONGEST` elements share a variable, in the order of their weights, and a step goes over it once. From outside each
weight still has an m and a v of its own: a `Stretch`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from toolkit.optimizers.kernels import Slot

# Elements from which on a weight has moments of its own: TensorFlow's fused kernel is the faster one for it.
LARGE = 2**16
# Elements of a flat variable: what a step makes of them on its way stays in the cache of a core.
_LONGEST = 2**19


class Stretch(keras.Variable):
    """A stretch of a flat variable, as a variable of its own: zeros at first."""

    def __init__(self, flat: tf.Variable, start: int, shape: Sequence[int], name: str) -> None:
        self.flat, self.start, self.stop = flat, start, start + math.prod(shape)
        super().__init__("zeros", shape=shape, dtype=flat.dtype.name, trainable=False, name=name)

    def _initialize_with_initializer(self, initializer: Any) -> None:
        """Nothing: the flat variable has its zeros."""

    @property
    def _value(self) -> Any:  # what Keras's class reads
        return tf.reshape(self.flat[self.start : self.stop], self._shape)

    def _direct_assign(self, value: Any) -> None:
        self.flat[self.start : self.stop].assign(tf.reshape(tf.cast(value, self.flat.dtype), [-1]))

    # TensorFlow's own checkpoints ask a variable for these.
    @property
    def _shared_name(self) -> str:
        return str(self.path)

    def _serialize_to_tensors(self) -> dict[str, Any]:
        return {"VARIABLE_VALUE": self.value}

    def _restore_from_tensors(self, restored_tensors: Any) -> None:
        self.assign(restored_tensors["VARIABLE_VALUE"])


class _Place(NamedTuple):
    """Where the moments of a weight stand: in which flat variable, and from which element on."""

    flat: int
    start: int


def add_moments(optimizer: Any, variables: Sequence[Any], names: Sequence[str]) -> list[list[Any]]:
    """Moments of `variables`, zeros, for each of `names`; added to the optimizer in Keras's order."""
    places, sizes = _places(variables, optimizer.state_dtype)
    with tf.init_scope():  # a first step may be traced
        flats = [[_zeros(size, device) for size, device in sizes] for _ in names]
    columns: list[list[Any]] = [[] for _ in names]
    for variable, place in zip(variables, places, strict=True):
        if place is None:
            made = [column[0] for column in optimizer.add_optimizer_variables([variable], names)]
        else:
            stem = variable.path.replace("/", "_")  # as Keras names what it adds
            with keras.name_scope(optimizer.name):
                made = [
                    Stretch(flat[place.flat], place.start, variable.shape, f"{stem}_{name}")
                    for name, flat in zip(names, flats, strict=True)
                ]
            for moment in made:
                optimizer._track_variable(moment)
        for column, moment in zip(columns, made, strict=True):
            column.append(moment)
    return columns


def _zeros(size: int, device: str) -> tf.Variable:
    with tf.device(device):
        return tf.Variable(tf.zeros([size]), trainable=False)


def _places(variables: Sequence[Any], state_dtype: str) -> tuple[list[_Place | None], list[tuple[int, str]]]:
    """The place of each variable's moments, None where they have none; size and device of each flat variable."""
    places: list[_Place | None] = []
    sizes: list[tuple[int, str]] = []
    for variable in variables:
        count = math.prod(variable.shape)
        if state_dtype != "float32" or not _is_small(variable):
            places.append(None)
            continue
        device = variable.value.device
        if not sizes or sizes[-1][1] != device or sizes[-1][0] + count > _LONGEST:
            sizes.append((0, device))
        places.append(_Place(len(sizes) - 1, sizes[-1][0]))
        sizes[-1] = (sizes[-1][0] + count, device)
    return places, sizes


def _is_small(variable: Any) -> bool:
    return (
        isinstance(variable, keras.Variable)
        and keras.backend.standardize_dtype(variable.dtype) == "float32"
        and not variable.overwrite_with_gradient
        and 0 < math.prod(variable.shape) < LARGE
    )


def runs(slots: Sequence[Slot]) -> Iterator[list[Slot]]:
    """Slots whose moments stand side by side, in their order; all have a `Stretch`."""
    # By place, not by name: flat variables have no order of their own.
    number = {id(slot.m.flat): i for i, slot in enumerate(slots)}
    ordered = sorted(slots, key=lambda slot: (number[id(slot.m.flat)], slot.m.start))
    run: list[Slot] = []
    for slot in ordered:
        if run and (run[-1].m.flat is not slot.m.flat or run[-1].m.stop != slot.m.start):
            yield run
            run = []
        run.append(slot)
    if run:
        yield run
