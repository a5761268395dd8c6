"""Robustness for the terminal, within 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from toolkit.evaluation.names import shorten
from toolkit.explain.robustness.document import Robustness


def tables(found: Robustness) -> list[RenderableType]:
    """The changes by severity, the attacks by ε, and what they come to together."""
    word = "accuracy" if found.task == "classification" else "word error rate"
    parts: list[RenderableType] = []
    for names, of in ((found.changes, "severity"), (_attacks(found), "ε of 255")):
        if names:
            parts += [
                Text(f"{word} in % by {of}; the other columns are means over the row", style="bold"),
                _table(found, names),
            ]
    return [*parts, _summary(found, word)]


def _table(found: Robustness, names: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("change", no_wrap=True)
    compared = found.comparison is not None and names[0] not in found.attacks
    strengths = sorted({strength for name in names for strength in found.of(name)})
    for head in (
        "clean",
        *map(str, strengths),
        "mean",
        "flips",
        *(["ECE"] if found.clean.reliability else []),
        *(["CE"] if compared else []),
    ):
        table.add_column(head, justify="right", no_wrap=True)
    for name in names:
        rows = found.of(name)
        figures = list(rows.values())
        cells = [_shown(found, found.clean.error)]
        cells += [_shown(found, rows[strength].error) if strength in rows else "" for strength in strengths]
        cells += [_shown(found, _mean([one.error for one in figures])), _percent(_mean([one.flips for one in figures]))]
        if found.clean.reliability:
            cells.append(_percent(_mean([one.calibration_error or 0.0 for one in figures])))
        if compared and found.comparison is not None:
            cells.append(_percent(found.comparison.corruption_errors[name]))
        table.add_row(name, *cells)
    return table


def _summary(found: Robustness, word: str) -> Table:
    table = Table(box=box.SIMPLE, show_header=False, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("split", f"test, {found.examples:,} examples" + (", a sample" if found.setting.limit else ""))
    table.add_row(f"{word}, clean", f"{_shown(found, found.clean.error)} %")
    mean = found.mean_error()
    if mean is not None:
        table.add_row(f"{word}, changed", f"{_shown(found, mean)} % (mean of all changes and severities)")
    if found.clean.calibration_error is not None:
        table.add_row("calibration error", f"{_percent(found.clean.calibration_error)} % clean")
    if found.comparison is not None:
        beside, relative = found.comparison.mean_corruption_error, found.comparison.relative_mean_corruption_error
        name = shorten(Path(found.comparison.baseline).name, 30)
        table.add_row("corruption error", Text(f"mCE {_percent(beside)} % of {name}, relative {_percent(relative)} %"))
    table.add_row("time", f"{found.seconds:.1f} s")
    return table


def _attacks(found: Robustness) -> list[str]:
    return [name for name in found.attacks if found.of(name)]


def _shown(found: Robustness, error: float) -> str:
    """The accuracy, or of transcription the error itself."""
    return _percent(1 - error if found.task == "classification" else error)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
