"""The update of Adam, a module per backend, each with the same functions.

- `has_float64()`: whether a scalar can be float64.
- `is_distributed(optimizer)`: whether its variables have a copy per replica.
- `add_moments(optimizer, variables, names)`: variables for each of `names`, zeros, one per weight.
- `turned(rule, t, rate)`: the numbers of a step for its fused kernel, see `Turns`; None where that cannot be used.
- `prepare(gradient, lazy)`: the gradient, in float32 where it came in half precision; dense, or, with `lazy`, as `Rows`
  where it names rows (repeated ones summed).
- `update(slots, rule, scalars, plans)`: one step of every slot, in place.
- `call(function, arguments, key, plans)`: `function(*arguments)`; eagerly the backend may keep it compiled, by `key`.
- `when(condition, action, variables)`: run `action`, which changes nothing but `variables`, if `condition` holds.
- `known(variable)`: the values of one axis as numbers of Python, or None where a graph is being made.
- `overwrite(variables, values)`: θ ← value, never sharing memory with it.

All compute in the type of the moments, which is at least float32. `scalars` maps that type to the numbers of a step,
in the paper's letters

    α_t = α·√(1−β₂ᵗ)/(1−β₁ᵗ),  ε_t = ε·√(1−β₂ᵗ)

With these Algorithm 1 ends in  θ ← θ − α_t·m/(√v + ε_t):  the rearrangement of the paper's section 2, and the same
number, since ε is carried through it. It needs no copies m̂ and v̂ of the moments.

A moment is not formed as βm + (1−β)g: β₂ = 0.999 is no float32, and its neighbour puts v, in the long run, 1.3e-5 off.
Where β ≥ 1/2 it is m + (1−β)(g − m), whose 1−β is rounded by itself; and where β < 1/2 it is g + β(m − g), since in
the first form a large m would wipe out the digits of a small g.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras


class Slot(NamedTuple):
    """A weight and what belongs to it."""

    theta: Any
    m: Any
    v: Any
    largest: Any  # the largest v so far, or None without AMSGrad
    gradient: Any
    decays: bool


class Rule(NamedTuple):
    """What is the same in every step."""

    beta_1: float
    beta_2: float
    epsilon: float
    hat: bool  # ε is used as it is, not times √(1−β₂ᵗ)
    coupled: bool  # the decay is part of the gradient


class Scalars(NamedTuple):
    """The numbers of one step, of one type."""

    step_size: Any  # α_t
    epsilon: Any  # ε_t
    decay: Any  # α·λ; λ where it is coupled
    turned: Any  # the same for a fused kernel, as the backend's module likes it, or None


class Turns(NamedTuple):
    """1−β as a whole number of units of float32, in turns: `low` of them in most steps, one more in every so many.

    TensorFlow's fused kernel knows β as a float32 and forms 1−β from it. 0.999 is no float32, and its nearest neighbour
    puts 1−β, and with it v, 1.3e-5 off, in every step to the same side. The neighbours below and above in turns are
    right on average, so that what one step is off does not add up over hundreds, and the bias correction divides by the
    product of those that were used.
    """

    low: int
    often: float

    @classmethod
    def of(cls, beta: float) -> Turns | None:
        """None where turns are no good: below 1/2 float32 is finer, and near 1 its neighbours are too far apart."""
        share = (1 - beta) / _UNIT
        if beta < 0.5 or share < _FEWEST_UNITS:
            return None
        return cls(math.floor(share), share - math.floor(share))

    def beta(self, t: Any, floor: Callable[[Any], Any]) -> Any:
        """β of step t (from 1), which a float32 holds exactly."""
        return 1 - _UNIT * (self.low + self._highs(t, floor) - self._highs(t - 1, floor))

    def one_minus_product(self, t: Any, floor: Callable[[Any], Any], expm1: Callable[[Any], Any]) -> Any:
        """1 − the product of the β of all steps up to t."""
        highs = self._highs(t, floor)
        low, high = math.log1p(-_UNIT * self.low), math.log1p(-_UNIT * (self.low + 1))
        return -expm1((t - highs) * low + highs * high)

    def _highs(self, t: Any, floor: Callable[[Any], Any]) -> Any:
        return floor(t * self.often + 0.5)


_UNIT = 2.0**-24  # what float32 counts in between 1/2 and 1
_FEWEST_UNITS = 16_000  # β = 0.999 has 16,777


class Rows:
    """A gradient of some rows of a weight: `values[i]` belongs to row `indices[i]`; no row stands there twice."""

    def __init__(self, indices: Any, values: Any) -> None:
        self.indices, self.values = indices, values

    def __truediv__(self, scale: Any) -> Rows:  # what the base class does to undo loss scaling
        return Rows(self.indices, self.values / scale)


class Plans:
    """What a kernel keeps for one optimizer from step to step. No plain dict: Keras would take it for state."""

    def __init__(self) -> None:
        self.made: dict[Any, Any] = {}


@functools.cache
def kernel() -> Any:
    """The module of Keras's backend."""
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax", "torch"):
        raise ValueError(f"Adam has no update for Keras's backend {backend!r}: use tensorflow, jax or torch.")
    return importlib.import_module(f"toolkit.optimizers.kernels.{backend}")
