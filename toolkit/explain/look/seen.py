"""What is looked at: a trained model, and examples of one of its splits."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from toolkit.data.batches import Table, evaluation_batches
from toolkit.data.load import Split
from toolkit.data.spec import DataSpec
from toolkit.data.tables import ImageTable, RaggedWriter
from toolkit.errors import ToolkitError
from toolkit.evaluation.names import shorten
from toolkit.evaluation.picture import drawable
from toolkit.explain.look import graph
from toolkit.runs.trust import shown
from toolkit.tasks.objective import Objective

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Seen:
    """A trained model and the split that it is shown; `weights` are best or last."""

    model: Any
    spec: DataSpec
    objective: Objective
    split: Split
    weights: str
    batch_size: int

    @property
    def where(self) -> str:
        """The split and the weights, for titles."""
        return f"{self.split.name} part, weights of the {self.weights} epoch"

    def name(self, label: int, *, cells: int = 24) -> str:
        """A class for a picture; one that cannot be drawn is its number."""
        return drawable(self.spec.class_names[label], cells=cells, otherwise=f"#{label}")

    def told(self, example: Example) -> str:
        """Label and answer of an example that has a class."""
        share = float(self.objective.decode(example.logits[None])[0].max())
        label = "" if example.label is None else f"label {self.name(example.label)}, "
        return f"{label}answer {self.name(example.answer)} ({100 * share:.1f} %)"

    def words(self, tokens: Sequence[int], *, cells: int = 24) -> list[str]:
        """Tokens for a picture; one that cannot be drawn is its number."""
        return [drawable(self.spec.vocabulary[token], cells=cells, otherwise=f"#{token}") for token in tokens]


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """One example as the model gets it, and what it answers.

    Attributes:
        inputs: a batch of this one.
        label: position of its class; None where it has a transcript.
        text: its transcript; None where it has a class.
        logits: `(classes,)`, of transcription `(frames, labels)`.
    """

    id: str
    inputs: graph.Inputs
    label: int | None
    text: str | None
    logits: Array

    @property
    def title(self) -> str:
        """Its id, for pictures."""
        return drawable(shorten(self.id, 60, keep="end"), cells=60, otherwise="(an id that no font here can show)")

    @property
    def answer(self) -> int:
        """The likeliest class."""
        return int(self.logits.argmax())

    @property
    def tokens(self) -> list[int]:
        """Of a text, without padding at its end."""
        row = self.inputs["tokens"][0]
        kept: list[int] = row[: int(np.flatnonzero(row)[-1]) + 1 if row.any() else 0].tolist()
        return kept


def find(split: Split, ids: Sequence[str]) -> list[int]:
    """Positions of examples in the split.

    Raises:
        ToolkitError: there is no example of such an id.
    """
    known = {id: position for position, id in enumerate(split.ids)}
    for id in ids:
        if id not in known:
            near = difflib.get_close_matches(id, known, n=3, cutoff=0.5)
            told = f"did you mean {' or '.join(repr(shown(name, length=80)) for name in near)}?" if near else ""
            raise ToolkitError(
                f"--example {shown(id, length=80)!r} is no example of the {split.name} part, which holds "
                f"{len(split):,}{f' ({told})' if told else ''}: take an id from predictions.csv, or another --split."
            )
    return [known[id] for id in dict.fromkeys(ids)]


def read(seen: Seen, positions: Sequence[int]) -> list[Example]:
    """The examples at `positions` of the split, each answered by the model."""
    if not len(positions):
        return []
    split, logits_of = seen.split, graph.reader(seen.model, seen.model.outputs)
    part = dataclasses.replace(
        split,
        table=_rows(split.table, positions),
        labels=split.labels[np.asarray(positions)],
        ids=[split.ids[i] for i in positions],
        texts=None if split.texts is None else [split.texts[i] for i in positions],
    )
    examples = []
    batches = evaluation_batches(part, seen.spec, batch_size=1).as_numpy_iterator()
    for i, (inputs, labels) in enumerate(batches):
        spoken = part.texts is not None
        examples.append(
            Example(
                id=part.ids[i],
                inputs=inputs,
                label=None if spoken else int(labels[0]),
                text=part.texts[i] if part.texts is not None else None,
                logits=logits_of(inputs)[0][0],
            )
        )
    return examples


def _rows(table: Table, positions: Sequence[int]) -> Table:
    if isinstance(table, ImageTable):
        return ImageTable(table.rows[np.asarray(positions)])
    writer = RaggedWriter(table.flat.dtype)
    for i in positions:
        writer.add(table.row(i))
    return writer.finish()


def file_names(kind: str, examples: Sequence[Example]) -> list[str]:
    """A file name for each example's picture: its id with nothing in it that a file system acts on."""
    names: list[str] = []
    for example in examples:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", example.id).strip("._")[-60:] or "example"
        name, number = f"{kind}-{plain}", 2
        while name in names:
            name, number = f"{kind}-{plain}-{number}", number + 1
        names.append(name)
    return names
