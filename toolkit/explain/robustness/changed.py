"""Batches of changed examples, made while they are asked for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.data import text
from toolkit.data.batches import one_batch
from toolkit.data.load import Split
from toolkit.data.spec import DataSpec
from toolkit.data.tables import ImageTable, RaggedTable, RaggedWriter
from toolkit.explain.robustness import attack, pictures, sounds, texts
from toolkit.explain.robustness.attack import Gradient
from toolkit.explain.robustness.change import Array, Change, random_of


def names(spec: DataSpec) -> tuple[str, ...]:
    """The changes that examples of this kind can have; attacks are not among them."""
    return {"image": tuple(pictures.CHANGES), "audio": sounds.NAMES, "text": texts.NAMES}[spec.kind]


def attacks(spec: DataSpec) -> tuple[str, ...]:
    """The attacks that there are on examples of this kind."""
    return attack.NAMES if spec.kind == "image" else ()


def sample(split: Split, limit: int | None, seed: int) -> Array:
    """Positions of `limit` examples of the split, rising; each class has the share that it has in the whole, to one.

    All of them where `limit` is None or no smaller.
    """
    if limit is None or limit >= len(split):
        return np.arange(len(split))
    random = np.random.default_rng(seed)
    classes = split.labels if split.texts is None else np.zeros(len(split), np.int32)
    places = np.empty(len(split))
    for label in np.unique(classes):
        members = np.flatnonzero(classes == label)
        places[members] = (random.permutation(len(members)) + random.random()) / len(members)  # evenly over [0, 1)
    return np.sort(np.argsort(places, kind="stable")[:limit])


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """The examples that are measured.

    Attributes:
        positions: of these, in the split.
        strings: all texts of a split of texts, since its table holds only the numbers of known words; else empty.
        gradient: for attacks; None where there are none.
    """

    split: Split
    spec: DataSpec
    positions: Array
    batch_size: int
    seed: int
    strings: Sequence[str]
    gradient: Gradient | None

    @property
    def ids(self) -> list[str]:
        """Stable names."""
        return [self.split.ids[i] for i in self.positions]

    @property
    def transcripts(self) -> list[str] | None:
        """None but for transcription."""
        return None if self.split.texts is None else [self.split.texts[i] for i in self.positions]

    def batches(self, change: str, strength: int) -> Iterator[dict[str, Any]]:
        """Inputs for the model; with strength 0, whatever the change, those of an evaluation.

        Args:
            change: the name of a change, or of an attack.
            strength: the severity, 0 to 5; of an attack ε in grey levels.
        """
        for start in range(0, len(self.positions), self.batch_size):
            chosen = self.positions[start : start + self.batch_size]
            yield one_batch(self._table(chosen, change, strength), self.spec)

    def _table(self, chosen: Array, change: str, strength: int) -> ImageTable | RaggedTable:
        table = self.split.table
        randoms = [random_of(self.seed, change, strength, self.split.ids[i]) for i in chosen]
        if isinstance(table, ImageTable) and strength and change in attack.NAMES:
            return ImageTable(self._attacked(table.rows[chosen], chosen, change, strength, randoms))
        rows = [self._row(i, change, strength, random) for i, random in zip(chosen, randoms, strict=True)]
        if isinstance(table, ImageTable):
            return ImageTable(np.stack(rows))
        writer = RaggedWriter(table.flat.dtype)
        for row in rows:
            writer.add(row)
        return writer.finish()

    def _row(self, position: int, change: str, severity: int, random: np.random.Generator) -> Array:
        example = self._example(position)
        if severity:
            example = self._changes[change](example, severity, random)
        if self.spec.kind == "text":
            return text.encode([" ".join(example)], self.spec.vocabulary, self.spec.lengths[-1])[0]
        return example  # type: ignore[no-any-return]

    def _example(self, position: int) -> Any:
        """What changes act on: pixels, samples, or words."""
        if self.spec.kind == "text":
            return text.tokenize(self.strings[position])
        table = self.split.table
        return table.rows[position] if isinstance(table, ImageTable) else table.row(position)

    def _attacked(
        self, images: Array, chosen: Array, change: str, epsilon: int, randoms: Sequence[np.random.Generator]
    ) -> Array:
        assert self.gradient is not None
        labels = self.split.labels[chosen]
        if change == "fgsm":
            return attack.fgsm(self.gradient, images, labels, epsilon)
        return attack.pgd(self.gradient, images, labels, epsilon, randoms)

    @functools.cached_property
    def _changes(self) -> Mapping[str, Change]:
        if self.spec.kind == "image":
            return pictures.CHANGES
        if self.spec.kind == "audio":
            assert self.spec.sample_rate is not None  # of every spec of sounds
            return sounds.changes(self.spec.sample_rate)
        return texts.changes(self.spec.vocabulary)
