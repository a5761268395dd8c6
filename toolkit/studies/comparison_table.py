"""The tables of a comparison, for the terminal and as Markdown: how each optimizer was tuned, and what it reached."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from toolkit.studies.comparison import Comparison, Final, Result, Robust
from toolkit.studies.comparison_rates import is_at_end

NOTHING = "–"

Columns = Mapping[str, Callable[[Result], str]]


def tables(comparison: Comparison) -> Iterator[Table]:
    """For the terminal, each within 80 columns."""
    for title, columns in _parts(comparison):
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left", title_style="bold")
        for i, name in enumerate(columns):
            table.add_column(name, justify="right" if i else "left")
        for result in comparison.results:
            table.add_row(*(Text(cell(result)) for cell in columns.values()))
        yield table


def markdown(comparison: Comparison) -> str:
    """The same for a page."""
    parts = []
    for title, columns in _parts(comparison):
        lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
        lines += [f"| {' | '.join(cell(result) for cell in columns.values())} |" for result in comparison.results]
        parts.append("\n".join([f"{title}.", "", *lines]))
    return "\n\n".join(parts) + "\n"


def _parts(comparison: Comparison) -> Iterator[tuple[str, Columns]]:
    yield "Tuning, on the validation part", _TUNING
    target, at_best = comparison.target, "At the best rate, mean ± deviation of the seeds"
    timed: Columns = {}
    if target is not None:
        at_best += f"; target: training loss {target:.3g}"
        timed = {
            "steps": lambda result: _reached(result, result.reached(target), ",.0f"),
            "seconds": lambda result: _reached(
                result, [result.step_seconds * steps for steps in result.reached(target)], ".2f", spread=False
            ),
        }
    yield at_best, {**_SEEDS, **timed, **_REACHED}
    if any(final.robust for result in comparison.results for final in result.finals):
        yield (
            "The test part under graded changes, mean ± deviation of the seeds",
            {**_SEEDS, **_ROBUST, "CE %": _figure(lambda final: _percent(comparison.corruption_error(final)), ".1f")},
        )


def _rate(result: Result) -> str:
    if result.best is None:
        return NOTHING
    return f"{result.best:g}" + (" (end)" if is_at_end(result.accuracies) else "")


def _range(result: Result) -> str:
    width = result.interval
    return NOTHING if width is None else f"{width.low:.2g}–{width.high:.2g}"


def _factor(result: Result) -> str:
    width = result.interval
    if width is None:
        return NOTHING
    return ("≥ " if width.low_is_open or width.high_is_open else "") + f"{width.factor:,.3g}"


def _best_accuracy(result: Result) -> str:
    return NOTHING if result.best is None else f"{100 * (result.accuracies[result.best] or 0):.2f}"


def _count(trainings: int, diverged: int) -> str:
    return f"{trainings}" + (f" ({diverged} div.)" if diverged else "")


def _reached(result: Result, values: Sequence[float], form: str, *, spread: bool = True) -> str:
    """The mean where all reached it; else how many did."""
    if not result.finals:
        return NOTHING
    if len(values) < len(result.finals):
        return f"{len(values)} of {len(result.finals)} did"
    return _mean(values, form, spread=spread)


def _mean(values: Sequence[float], form: str, *, spread: bool) -> str:
    mean = f"{statistics.fmean(values):{form}}"
    return mean + (f" ± {statistics.stdev(values):{form}}" if spread and len(values) > 1 else "")


def _figure(value: Callable[[Final], float | None], form: str, *, spread: bool = True) -> Callable[[Result], str]:
    def cell(result: Result) -> str:
        values = [found for final in result.finals if (found := value(final)) is not None]
        return _mean(values, form, spread=spread) if values else NOTHING

    return cell


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _robust(value: Callable[[Robust], float | None]) -> Callable[[Result], str]:
    return _figure(lambda final: _percent(value(final.robust)) if final.robust else None, ".1f")


_TUNING: Columns = {
    "optimizer": lambda result: result.optimizer,
    "rates": lambda result: _count(len(result.tried), sum(one.accuracy is None for one in result.tried)),
    "best rate": _rate,
    "acc. %": _best_accuracy,
    "within 1 point": _range,
    "factor": _factor,
    "state B": lambda result: f"{result.state_bytes:.3g}",
}
_SEEDS: Columns = {
    "optimizer": lambda result: result.optimizer,
    "seeds": lambda result: _count(len(result.finals) + result.diverged, result.diverged),
}
_REACHED: Columns = {
    "train acc. %": _figure(lambda final: 100 * final.train.accuracy, ".2f"),
    "test acc. %": _figure(lambda final: 100 * final.test.accuracy, ".2f"),
    "test loss": _figure(lambda final: final.test.loss, ".3f", spread=False),
}
_ROBUST: Columns = {
    "clean acc. %": _figure(lambda final: 100 * final.test.accuracy, ".1f"),
    "changed acc. %": _robust(lambda robust: robust.accuracy),
    "flips %": _robust(lambda robust: robust.flips),
    "attacked acc. %": _robust(lambda robust: robust.attacked),
    "ECE %": _robust(lambda robust: robust.calibration_error),
}
