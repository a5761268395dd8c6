"""What a change of an example is."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
SEVERITIES = (1, 2, 3, 4, 5)
DEFINITIONS = 1
"""Of all changes and attacks, to be raised with every new level or definition: figures of two do not go together."""


@dataclasses.dataclass(frozen=True)
class Change:
    """One way in which examples may be worse than those that were trained with, in five grades.

    Attributes:
        apply: (example, level, random numbers) to the changed example.
        levels: the `level` of severity 1 to 5, from mild to harsh.
    """

    apply: Callable[[Any, float, np.random.Generator], Any]
    levels: tuple[float, float, float, float, float]

    def __call__(self, example: Any, severity: int, random: np.random.Generator) -> Any:
        """The example under severity 1 to 5."""
        return self.apply(example, self.levels[severity - 1], random)


def random_of(seed: int, change: str, strength: int, id: str) -> np.random.Generator:
    """Random numbers that depend on these four alone: whatever batch an example stands in, it is changed alike."""
    key = hashlib.sha256(f"{seed}\0{change}\0{strength}\0{id}".encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng(int.from_bytes(key))


def either_way(random: np.random.Generator) -> float:
    """1 or −1."""
    return 1.0 if random.random() < 0.5 else -1.0
