"""Learning rates that are tried, and what their results say: the next rate, the best one, the width around it."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from collections.abc import Mapping

from toolkit.errors import ToolkitError

LEAST = 3
"""Rates in a grid: with fewer none could have a neighbour on both sides."""
MOST = 100
CLOSEST = 2.0
"""Factor between neighbours: what lies between the best ones is tried afterwards, and two digits tell it apart."""
HIGHEST = 1e6
POINT = 0.01
"""What the accuracy may be below the best within the interval."""

_USE = "write --rates LOW:HIGH:COUNT, as in 1e-4:1e-1:7"

Accuracies = Mapping[float, float | None]
"""Rate → accuracy in [0, 1]; None: the training diverged."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """Rates around the best whose accuracy stays within `POINT` of its accuracy.

    Attributes:
        low, high: where it ends, or the last rate that was tried on that side.
        low_is_open, high_is_open: whether it may reach further, as nothing beyond was tried.
    """

    low: float
    high: float
    low_is_open: bool
    high_is_open: bool

    @property
    def factor(self) -> float:
        """Its width: highest rate ÷ lowest."""
        return self.high / self.low


def read_rates(text: str) -> tuple[float, ...]:
    """The rates of `LOW:HIGH:COUNT`, in equal factors, to two digits.

    Raises:
        ToolkitError: it has another form, a rate is not above 0, or the grid is too coarse or too fine.
    """
    parts = text.split(":")
    try:
        low, high, count = float(parts[0]), float(parts[1]), int(parts[2])
    except (ValueError, IndexError):
        count = 0
    if not count or len(parts) != 3:
        raise ToolkitError(f"--rates {text!r} is no range of rates: {_USE}.")
    if not (math.isfinite(low) and math.isfinite(high)) or low <= 0:
        raise ToolkitError(
            f"--rates {text!r}: a learning rate must be a number above 0, for with 0 nothing is learnt: {_USE}."
        )
    if not low < high <= HIGHEST:
        raise ToolkitError(f"--rates {text!r}: {high:g} must be above {low:g}, and at most {HIGHEST:g}: {_USE}.")
    if not LEAST <= count <= MOST:
        raise ToolkitError(
            f"--rates {text!r}: {count} rates for each optimizer, but from {LEAST} to {MOST} can show which is best: "
            f"{_USE}."
        )
    factor = (high / low) ** (1 / (count - 1))
    if factor < CLOSEST:
        raise ToolkitError(
            f"--rates {text!r}: neighbours differ by a factor of {factor:.3g}, but what lies between the best ones is "
            f"tried afterwards: take fewer rates or a wider range, so that it is {CLOSEST:g} or more."
        )
    return tuple(_rounded(low * factor**i) for i in range(count))


def best_rate(accuracies: Accuracies) -> float | None:
    """The rate with the highest accuracy, of equal ones the one in the middle; None where all diverged."""
    converged = {rate: accuracy for rate, accuracy in accuracies.items() if accuracy is not None}
    if not converged:
        return None
    highest = max(converged.values())
    equal = sorted(rate for rate, accuracy in converged.items() if accuracy == highest)
    return equal[(len(equal) - 1) // 2]


def next_rate(accuracies: Accuracies, factor: float) -> float:
    """Where to look further: beyond an end that is best, else in the middle between the best and its better neighbour.

    Args:
        factor: between neighbours of the grid; so far beyond an end goes one step. Where all have diverged, it goes
            below the lowest.
    """
    rates = sorted(accuracies)
    best = best_rate(accuracies)
    place = 0 if best is None else rates.index(best)
    if place == 0:
        return _rounded(rates[0] / factor)
    if place == len(rates) - 1:
        return _rounded(rates[-1] * factor)

    def worth(rate: float) -> float:
        accuracy = accuracies[rate]
        return -1.0 if accuracy is None else accuracy

    neighbour = max(rates[place - 1], rates[place + 1], key=worth)
    return _rounded(math.sqrt(rates[place] * neighbour))


def is_at_end(accuracies: Accuracies) -> bool:
    """Whether the best rate is the lowest or the highest that was tried, so that a better one may lie beyond."""
    return best_rate(accuracies) in (min(accuracies), max(accuracies))


def interval(accuracies: Accuracies) -> Interval | None:
    """The rates around the best that do about as well; None where all diverged.

    Between two rates the accuracy is taken for a straight line over the logarithm of the rate; towards a rate that
    diverged there is none, and the interval ends at the last that did not.
    """
    best = best_rate(accuracies)
    if best is None:
        return None
    rates = sorted(accuracies)
    place = bisect.bisect_left(rates, best)
    low, low_is_open = _reach(accuracies, rates[place::-1])
    high, high_is_open = _reach(accuracies, rates[place:])
    return Interval(low, high, low_is_open, high_is_open)


def _reach(accuracies: Accuracies, rates: list[float]) -> tuple[float, bool]:
    """How far along `rates`, of which the first is the best, and whether that is their end."""
    floor = (accuracies[rates[0]] or 0.0) - POINT
    for rate, further in itertools.pairwise(rates):
        inside, outside = accuracies[rate] or 0.0, accuracies[further]
        if outside is None:
            return rate, False
        if outside < floor:
            share = (inside - floor) / (inside - outside)
            return rate * (further / rate) ** share, False
    return rates[-1], True


def _rounded(rate: float) -> float:
    return float(f"{rate:.2g}")
