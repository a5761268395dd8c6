"""Figures and predictions for the terminal, within 80 columns; file and class names are text, never markup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from toolkit.evaluation.names import shorten

if TYPE_CHECKING:
    import numpy as np

    from toolkit.evaluation.evaluate import ClassFigures, Evaluation
    from toolkit.evaluation.transcripts import ErrorRate, Transcription

WORST = 20
SHOWN = 50
LETTERS = 500


def summary_table(evaluation: Evaluation) -> RenderableType:
    """Split, examples, loss, accuracy with its interval, top-k, macro F1, seconds."""
    low, high = evaluation.accuracy_interval
    rows = [
        ("accuracy", f"{_share(evaluation.accuracy)} (95 % interval {_share(low)} to {_share(high)})"),
        *((f"top-{k} accuracy", _share(share)) for k, share in evaluation.top_k.items()),
        ("macro F1", _share(evaluation.macro.f1)),
    ]
    return _summary(evaluation, rows)


def transcription_table(evaluation: Transcription) -> RenderableType:
    """Split, examples, error rates with their intervals, share of recordings without error, loss, seconds."""

    def told(rate: ErrorRate) -> str:
        low, high = rate.interval
        return f"{_share(rate.rate)} (95 % interval {_share(low)} to {_share(high)})"

    words = evaluation.words
    edits = f"{words.substitutions:,} substituted, {words.deletions:,} left out, {words.insertions:,} put in"
    rows = [
        ("word error rate", told(words)),
        ("", f"{edits}, of {words.reference:,} words"),
        ("character error rate", told(evaluation.characters)),
        ("without any error", _share(evaluation.right)),
        ("decoding", evaluation.decoding),
    ]
    return _summary(evaluation, rows)


def _summary(evaluation: Evaluation | Transcription, rows: Sequence[tuple[str, str]]) -> Table:
    rate = evaluation.examples / max(evaluation.seconds, 1e-9)
    table = Table(box=box.SIMPLE, show_header=False, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("split", Text(f"{evaluation.split}, {evaluation.examples:,} examples"))
    for name, value in rows:
        table.add_row(Text(name), Text(value))
    table.add_row("loss", f"{evaluation.loss:.4f}")
    table.add_row("time", f"{evaluation.seconds:.1f} s ({rate:,.0f} examples/s)")
    return table


def confusions_table(evaluation: Transcription, *, limit: int = WORST) -> RenderableType:
    """The words that were most often written wrong."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("said", no_wrap=True)
    table.add_column("written", no_wrap=True)
    table.add_column("times", justify="right", no_wrap=True)
    for one in evaluation.confusions[:limit]:
        cells = [Text(shorten(word, 28)) if word else Text("–", style="dim") for word in (one.said, one.written)]
        table.add_row(*cells, f"{one.times:,}")
    if len(evaluation.confusions) <= limit:
        return table
    note = f" the {limit} most frequent of {len(evaluation.confusions):,} kinds of errors; the JSON file has all"
    return Group(table, Text(note, style="dim"))


def class_table(evaluation: Evaluation, *, limit: int = WORST) -> RenderableType:
    """Precision, recall, F1 and examples of each class; of more than `limit` classes, those with the lowest F1."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("class", no_wrap=True)
    for name in ("precision", "recall", "F1", "examples"):
        table.add_column(name, justify="right", no_wrap=True)
    shown: Sequence[ClassFigures] = evaluation.classes
    if len(shown) > limit:
        # A class without examples has no F1 and says least: it comes last.
        shown = sorted(shown, key=lambda one: 2.0 if one.f1 is None else one.f1)[:limit]
    for one in shown:
        figures = [_share(one.precision), _share(one.recall), _share(one.f1), f"{one.support:,}"]
        table.add_row(Text(shorten(one.name, 32)), *map(Text, figures))
    if len(shown) == len(evaluation.classes):
        return table
    note = f" the {len(shown)} of {len(evaluation.classes):,} classes with the lowest F1; the JSON file has all"
    return Group(table, Text(note, style="dim"))


def predictions_table(
    ids: Sequence[str], probabilities: np.ndarray, class_names: Sequence[str], *, limit: int = SHOWN
) -> RenderableType:
    """File, answer, its probability and the runner-up of the first `limit` examples."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("file", no_wrap=True)
    table.add_column("answer", no_wrap=True)
    table.add_column("probability", justify="right", no_wrap=True)
    table.add_column("runner-up", no_wrap=True)
    for i, row in zip(range(min(limit, len(ids))), probabilities, strict=False):
        order = (-row).argsort(kind="stable")
        second = f"{shorten(class_names[order[1]], 12)} {_share(row[order[1]])}" if len(order) > 1 else ""
        cells = [shorten(ids[i], 24, keep="end"), shorten(class_names[order[0]], 12), _share(row[order[0]]), second]
        table.add_row(*map(Text, cells))
    if len(ids) <= limit:
        return table
    return Group(table, Text(f" … and {len(ids) - limit:,} more; --output FILE.csv writes all", style="dim"))


def transcripts_table(ids: Sequence[str], texts: Sequence[str], *, limit: int = SHOWN) -> RenderableType:
    """File and text of the first `limit` recordings; a text goes over several lines, and is cut after `LETTERS`."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("file", no_wrap=True)
    table.add_column("text", overflow="fold")
    for id, text in zip(ids[:limit], texts, strict=False):
        table.add_row(Text(shorten(id, 24, keep="end")), Text(shorten(text, LETTERS)))
    cut = any(len(text) > LETTERS for text in texts[:limit])
    if len(ids) <= limit and not cut:
        return table
    more = f" … and {len(ids) - limit:,} more" if len(ids) > limit else " …"
    return Group(table, Text(f"{more}; --output FILE.csv writes all", style="dim"))


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"
