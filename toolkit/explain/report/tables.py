"""The worst answers in `predictions.csv`, and the first rows of other tables of a run."""

from __future__ import annotations

import csv
import dataclasses
import heapq
import io
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toolkit.errors import ToolkitError
from toolkit.runs import trust

WORST = 20
FIRST = 20


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A wrong answer.

    Attributes:
        label: the class of the example, or the text that was said.
        badness: the probability that was given to the wrong answer; of a transcript the words that are wrong.
        own: the probability that was given to the label, where the table has it.
    """

    id: str
    label: str
    answer: str
    badness: float
    own: float | None = None


def worst(path: Path, *, transcripts: bool, limit: int = WORST) -> list[Mistake]:
    """The worst mistakes in the predictions in `path`, the worst first, of equal ones the first.

    Raises:
        ToolkitError: the file is no such table.
    """
    with _rows(path) as (head, rows):
        found = _transcripts(head, rows) if transcripts else _answers(head, rows)
        try:
            return heapq.nlargest(limit, found, key=lambda mistake: mistake.badness)
        except (KeyError, ValueError, IndexError) as error:
            raise ToolkitError(
                f"{trust.shown(path)} is no table of predictions ({trust.shown(error, length=80)}): let `toolkit "
                "evaluate` write it anew."
            ) from error


def first_rows(path: Path) -> list[list[str]]:
    """The head of a table and its first rows.

    Raises:
        ToolkitError: it cannot be read.
    """
    with _rows(path) as (head, rows):
        if not head:
            raise ToolkitError(
                f"{trust.shown(path)} has no names of columns in its first line: use the run directory as train left "
                "it."
            )
        return [head, *itertools.islice(filter(None, rows), FIRST)]  # a blank line is a row without a cell


def _answers(head: list[str], rows: Iterator[list[str]]) -> Iterator[Mistake]:
    id, label, answer, probability = (head.index(name) for name in ("id", "label", "answer", "probability"))
    columns = {name: i for i, name in enumerate(head) if i > probability}
    for row in rows:
        if row[label] != row[answer]:
            own = columns.get(f"p({row[label]})")
            shares = float(row[probability]), None if own is None else float(row[own])
            yield Mistake(row[id], row[label], row[answer], *shares)


def _transcripts(head: list[str], rows: Iterator[list[str]]) -> Iterator[Mistake]:
    from rapidfuzz.distance import Levenshtein

    id, text, answer = (head.index(name) for name in ("id", "text", "answer"))
    for row in rows:
        if row[text] != row[answer]:
            yield Mistake(row[id], row[text], row[answer], Levenshtein.distance(row[text].split(), row[answer].split()))


@contextmanager
def _rows(path: Path) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
    """Head and rows of a CSV file, read as they are asked for."""
    with io.TextIOWrapper(trust.open_file(path), encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        try:
            yield next(rows, []), rows
        except (csv.Error, UnicodeDecodeError) as error:
            raise ToolkitError(
                f"{trust.shown(path)} cannot be read ({trust.shown(error, length=80)}): use the run "
                "directory as train left it."
            ) from error
