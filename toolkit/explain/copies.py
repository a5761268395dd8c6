"""Which examples stand in the data more than once, within a split and between splits."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from toolkit.data.load import Data
from toolkit.explain.near_duplicates import near_pairs

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Copies:
    """What of one split stands in another, earlier one; or, where both are one, earlier in it.

    Attributes:
        exact: (id, id of the earlier) with the same content.
        near: those that are nearly the same.
        contradicting: how many of both have another label than the earlier one.
    """

    first: str
    second: str
    exact: tuple[tuple[str, str], ...]
    near: tuple[tuple[str, str], ...]
    contradicting: int

    def __len__(self) -> int:
        return len(self.exact) + len(self.near)


def find_copies(data: Data) -> list[Copies]:
    """Of every split and every pair of splits, in their order; also where there are none."""
    splits = list(data.splits.values())
    ids = [id for split in splits for id in split.ids]
    labels = _labels(data)
    digests = np.array([np.frombuffer(digest, np.uint8) for split in splits for digest in split.digests])
    _, exact = np.unique(digests, axis=0, return_inverse=True)
    exact = exact.ravel()
    near = _joined(exact, near_pairs(data))
    bounds = np.cumsum([0, *map(len, splits)])
    places = {split.name: np.arange(bounds[i], bounds[i + 1]) for i, split in enumerate(splits)}

    def between(first: str, second: str) -> Copies:
        same = _earlier(exact, places[first], places[second])
        alike = _earlier(near, places[first], places[second])
        pairs = {place: same.get(place, other) for place, other in alike.items()}
        return Copies(
            first,
            second,
            exact=tuple((ids[place], ids[pairs[place]]) for place in pairs if place in same),
            near=tuple((ids[place], ids[pairs[place]]) for place in pairs if place not in same),
            contradicting=sum(labels[place] != labels[other] for place, other in pairs.items()),
        )

    return [between(first, second) for first, second in itertools.combinations_with_replacement(places, 2)]


def _labels(data: Data) -> Sequence[Any]:
    """Of every example through all splits: its class, or its transcript."""
    parts = [split.labels.tolist() if split.texts is None else split.texts for split in data.splits.values()]
    return [label for part in parts for label in part]


def _joined(groups: Array, pairs: Array) -> Array:
    """`groups` (a number per example) with those united that a pair connects."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = int(groups.max()) + 1
    edges = coo_array((np.ones(len(pairs), bool), (groups[pairs[:, 0]], groups[pairs[:, 1]])), shape=(count, count))
    _, joined = connected_components(edges, directed=False)
    united: Array = joined[groups]
    return united


def _earlier(groups: Array, first: Array, second: Array) -> dict[int, int]:
    """For places of `second` those that stand in `first` and come before, the first of the same group."""
    known, at = np.unique(groups[first], return_index=True)
    found = np.minimum(np.searchsorted(known, groups[second]), len(known) - 1)
    others = first[at[found]]
    copies = (known[found] == groups[second]) & (others < second)
    return dict(zip(second[copies].tolist(), others[copies].tolist(), strict=True))
