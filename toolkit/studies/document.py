"""The tables of what `reproduce` measured, as `docs/results.md` and README have them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

from toolkit.studies.results import (
    BEAM_WIDTH,
    PUBLISHED,
    SHORTENED,
    Heard,
    Row,
    against_baseline,
    against_baseline_heard,
    middle,
    percent,
    wilson,
)

_Any = TypeVar("_Any", bound=Row | Heard)


def document(rows: Sequence[Row | Heard]) -> str:
    """`docs/results.md`."""
    precisions = [row for row in rows if _precision(row)]
    told, heard = _by_task([row for row in rows if not _precision(row)])
    own, variants = [row for row in told if not row.variant], [row for row in told if row.variant]
    parts = [_HEAD, _table(_COLUMNS, own), _BESIDE, _table(_BESIDE_COLUMNS, own)]
    if variants:
        parts += [_SPEAKERS, _speakers(variants)]
    if heard:
        parts += [_HEARD, _table(_HEARD_COLUMNS, heard)]
    if precisions:
        parts += [_PRECISION, _lines(_PRECISION_COLUMNS, [_paired(rows) for rows in _groups(precisions, _form)])]
    parts += [_WHERE, _lines(_EVERY_COLUMNS, told)]
    if heard:
        parts += [_lines(_EVERY_HEARD_COLUMNS, heard)]
    return "\n\n".join(parts) + "\n"


def short(rows: Sequence[Row | Heard]) -> str:
    """README's tables."""
    told, heard = _by_task([row for row in rows if not _precision(row)])
    table = _table({name: _COLUMNS[name] for name in _SHORT}, [row for row in told if not row.variant])
    if not heard:
        return table
    return table + "\n\n" + _table({name: _HEARD_COLUMNS[name] for name in _SHORT_HEARD}, heard)


def _precision(row: Row | Heard) -> str:
    """The precision that a variant is there to compare; "" for any other row."""
    name = row.variant.removesuffix(SHORTENED)
    return name if name in ("float32", "bfloat16") else ""


def _by_task(rows: Sequence[Row | Heard]) -> tuple[list[Row], list[Heard]]:
    return [row for row in rows if isinstance(row, Row)], [row for row in rows if isinstance(row, Heard)]


def _groups(rows: Sequence[_Any], by: Callable[[_Any], Hashable] = lambda row: row.recipe) -> list[list[_Any]]:
    groups: dict[Hashable, list[_Any]] = {}
    for row in rows:
        groups.setdefault(by(row), []).append(row)
    return list(groups.values())


def _form(row: Row | Heard) -> Hashable:
    """What is trained in both precisions: a recipe, whole or shortened."""
    return row.recipe, row.variant.endswith(SHORTENED)


def _paired(rows: Sequence[_Any]) -> Sequence[_Any]:
    """The rows whose seeds were trained in both precisions; all of them where there is no such seed yet."""
    seeds = set.intersection(*({row.seed for row in _in(rows, name)} for name in ("float32", "bfloat16")))
    return [row for row in rows if row.seed in seeds] or rows


def _table(columns: Mapping[str, Callable[[Sequence[_Any]], str]], rows: Sequence[_Any]) -> str:
    return _lines(columns, _groups(rows))


def _speakers(variants: Sequence[Row]) -> str:
    """A line per recipe and speaker, and after those of a recipe their mean."""
    lines = []
    for group in _groups(variants):
        speakers = _groups(group, lambda row: row.variant)
        mean = statistics.fmean(statistics.fmean(row.best.accuracy for row in rows) for rows in speakers)
        baseline = statistics.fmean(rows[0].baseline_right / rows[0].best.examples for rows in speakers)
        lines.append(_lines(_SPEAKER_COLUMNS, speakers).splitlines())
        examples = f"{sum(rows[0].best.examples for rows in speakers):,}"
        cells = [f"`{group[0].recipe}`", "mean", examples, f"**{percent(mean)}**", percent(baseline), "", "", ""]
        lines[-1].append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines[0][:2], *(line for part in lines for line in part[2:])])


def _lines(columns: Mapping[str, Callable[[Any], str]], of: Sequence[Any]) -> str:
    head = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    return "\n".join(head + [f"| {' | '.join(cell(one) for cell in columns.values())} |" for one in of])


def _mean(shares: Sequence[float]) -> str:
    mean = statistics.fmean(shares)
    return percent(mean) if len(shares) == 1 else f"{100 * mean:.2f} ± {100 * statistics.stdev(shares):.2f} %"


def _with_interval(rows: Sequence[Row]) -> str:
    counts = [row.best for row in rows]
    low, high = wilson(statistics.fmean(count.right for count in counts), counts[0].examples)
    return f"**{_mean([count.accuracy for count in counts])}** ({100 * low:.2f} to {100 * high:.2f})"


def _apart(rows: Sequence[Row]) -> str:
    left_out = rows[0].best.examples - rows[0].apart.examples
    if not rows[0].apart.examples:
        return "all shared"
    return f"{_mean([row.apart.accuracy for row in rows])} ({left_out} left out)" if left_out else "none shared"


def _published(rows: Sequence[Row]) -> str:
    return "; ".join(f"{one.figure} ({one.source})" for one in PUBLISHED.get(rows[0].recipe, ())) or "–"


def _commits(rows: Sequence[Row | Heard]) -> str:
    return ", ".join(dict.fromkeys(row.commit for row in rows))


def _command(rows: Sequence[Row | Heard]) -> str:
    return f"`python scripts/reproduce.py {rows[0].recipe} --seeds {','.join(str(row.seed) for row in rows)}`"


def _minutes(rows: Sequence[Row | Heard]) -> str:
    return f"{statistics.fmean(row.seconds for row in rows) / 60:.1f}"


def _word_error_rate(rows: Sequence[Heard]) -> str:
    low, high = (statistics.fmean(bounds) for bounds in zip(*(row.interval for row in rows), strict=True))
    return f"**{_mean([row.score for row in rows])}** ({100 * low:.2f} to {100 * high:.2f})"


def _in(rows: Sequence[_Any], precision: str) -> list[_Any]:
    return [row for row in rows if _precision(row) == precision]


def _reached(rows: Sequence[Row | Heard]) -> str:
    return _mean([row.score for row in rows]) if rows else "–"  # not trained yet


def _difference(rows: Sequence[Row | Heard]) -> str:
    """Of the means, in points, and whether the 95 % interval of a difference of two test figures holds 0."""
    scores = {name: [row.score for row in _in(rows, name)] for name in ("float32", "bfloat16")}
    if not all(scores.values()):
        return "–"
    difference = statistics.fmean(scores["bfloat16"]) - statistics.fmean(scores["float32"])
    halves = (statistics.fmean(row.interval[1] - row.interval[0] for row in _in(rows, name)) / 2 for name in scores)
    noise = math.hypot(*halves)
    verdict = "within noise" if abs(difference) <= noise else "beyond noise"
    return f"{100 * difference:+.2f}, {verdict} (± {100 * noise:.2f})"


def _beside_heard(rows: Sequence[Heard]) -> str:
    row = sorted(rows, key=lambda row: (row.score, row.seed))[(len(rows) - 1) // 2]
    if row.baseline_words is None or row.baseline_interval is None:
        return "–"
    low, high = row.baseline_interval
    rate = f"{percent(row.baseline_words.rate)} ({100 * low:.2f} to {100 * high:.2f})"
    return f"{rate}: the recipe is {against_baseline_heard(row)}"


_COLUMNS: dict[str, Callable[[Sequence[Row]], str]] = {
    "recipe": lambda rows: f"`{rows[0].recipe}`",
    "command": _command,
    "test examples": lambda rows: f"{rows[0].best.examples:,}",
    "accuracy (95 % interval)": _with_interval,
    "last epoch": lambda rows: _mean([row.last.accuracy for row in rows]),
    "without shared examples": _apart,
    "minutes of training": _minutes,
    "commit": _commits,
}
_PRECISION_COLUMNS: dict[str, Callable[[Sequence[Row | Heard]], str]] = {
    "recipe": lambda rows: f"`{rows[0].recipe}`",
    "training": lambda rows: "the quick form" if rows[0].variant.endswith(SHORTENED) else "the recipe",
    "seeds": lambda rows: ", ".join(map(str, sorted({row.seed for row in rows}))),
    "float32": lambda rows: _reached(_in(rows, "float32")),
    "bfloat16": lambda rows: _reached(_in(rows, "bfloat16")),
    "bfloat16 − float32": _difference,
    "commit": _commits,
}
_SHORT = ("recipe", "command", "test examples", "accuracy (95 % interval)", "minutes of training", "commit")
_BESIDE_COLUMNS: dict[str, Callable[[Sequence[Row]], str]] = {
    "recipe": lambda rows: f"`{rows[0].recipe}`",
    "parameters": lambda rows: f"{rows[0].parameters:,}",
    "accuracy": lambda rows: _mean([row.score for row in rows]),
    "baseline": lambda rows: rows[0].baseline,
    "its accuracy": lambda rows: percent(rows[0].baseline_right / rows[0].best.examples),
    "the recipe is": lambda rows: against_baseline(middle(rows)),
    "published": _published,
}
_SPEAKER_COLUMNS: dict[str, Callable[[Sequence[Row]], str]] = {
    "recipe": lambda rows: f"`{rows[0].recipe}`",
    "unseen speaker": lambda rows: rows[0].variant,
    "test examples": lambda rows: f"{rows[0].best.examples:,}",
    "accuracy (95 % interval)": _with_interval,
    "baseline": lambda rows: percent(rows[0].baseline_right / rows[0].best.examples),
    "the recipe is": lambda rows: against_baseline(middle(rows)),
    "validation, speakers it knows": lambda rows: _mean([row.validation[0] for row in rows]),
    "commit": _commits,
}
_EVERY_COLUMNS: dict[str, Callable[[Row], str]] = {
    "recipe": lambda row: f"`{row.recipe}`" + (f", without {row.variant}" if row.variant else ""),
    "seed": lambda row: str(row.seed),
    "best epoch": lambda row: f"{row.epochs[0]} of {row.epochs[1]}",
    "validation": lambda row: percent(row.validation[0]),
    "test": lambda row: percent(row.best.accuracy),
    "last epoch: validation, test": lambda row: f"{percent(row.validation[1])}, {percent(row.last.accuracy)}",
    "minutes": lambda row: f"{row.seconds / 60:.1f}",
    "machine": lambda row: row.machine,
    "commit": lambda row: row.commit,
}
_HEARD_COLUMNS: dict[str, Callable[[Sequence[Heard]], str]] = {
    "recipe": lambda rows: f"`{rows[0].recipe}`",
    "command": _command,
    "test recordings, words": lambda rows: f"{rows[0].recordings:,}, {rows[0].words.of:,}",
    "word error rate (95 % interval)": _word_error_rate,
    "by beam search": lambda rows: _mean([row.beam.rate for row in rows]),
    "last epoch": lambda rows: _mean([row.last.rate for row in rows]),
    "character error rate": lambda rows: _mean([row.characters.rate for row in rows]),
    "without any error": lambda rows: _mean([row.right / row.recordings for row in rows]),
    "baseline": _beside_heard,
    "parameters": lambda rows: f"{rows[0].parameters:,}",
    "minutes of training": _minutes,
    "commit": _commits,
}
_SHORT_HEARD = (
    "recipe",
    "command",
    "test recordings, words",
    "word error rate (95 % interval)",
    "minutes of training",
    "commit",
)
_EVERY_HEARD_COLUMNS: dict[str, Callable[[Heard], str]] = {
    "recipe": lambda row: f"`{row.recipe}`",
    "seed": lambda row: str(row.seed),
    "best epoch": lambda row: f"{row.epochs[0]} of {row.epochs[1]}",
    "validation loss": lambda row: f"{row.validation[0]:.4f}",
    "word error rate": lambda row: percent(row.score),
    "last epoch: validation loss, word error rate": lambda row: f"{row.validation[1]:.4f}, {percent(row.last.rate)}",
    "minutes": lambda row: f"{row.seconds / 60:.1f}",
    "machine": lambda row: row.machine,
    "commit": lambda row: row.commit,
}
_HEAD = """# Results

Written by `python scripts/reproduce.py`, which trains the recipes from their configs; do not edit.

The validation part chose the epoch; the test part was only measured. Accuracy is the mean over the seeds ±
their standard deviation, for the weights of the best epoch by `training.best_metric`; beside it the 95 %
interval (Wilson) of an accuracy on so many test examples. *Last epoch* is what the weights had at the end.
*Without shared examples* leaves out test examples whose content stands in the training or validation part,
too."""
_BESIDE = """## Beside them

The baseline is fitted by scikit-learn to the same training part, and its strength of regularisation chosen by
the validation part (`toolkit/studies/baselines.py`). *Better* and *worse* are said where McNemar's exact test
on the same test examples, for the seed with the median accuracy, gives p < 0.05. Published figures are of
other splits, sizes or ways of choosing, as said."""
_SPEAKERS = """## Speakers never heard

The speaker named is left out of training and validation, and is the whole test part; the others are split as in
the recipe. The same commands measure this, with the first seed. The mean is over speakers, each counting alike."""
_HEARD = f"""## Speech to text

Errors per word that was said: substitutions, deletions and insertions, decoded greedily, and by a beam search of
width {BEAM_WIDTH}; the interval draws recordings with replacement ([evaluation.md](evaluation.md#transcripts)), of
several seeds the mean of their intervals. The baseline cuts a recording where it is quiet and tells each piece by
a logistic regression on averaged log-mel (`toolkit/studies/baselines.py`)."""
_PRECISION = """## Precision

What `training.precision: auto` may choose between: the same config, data and seeds in float32 and in bfloat16
(`mixed_bfloat16`); of the quick form where that is said. Accuracy on the test part, of speech to text the word error
rate. `python scripts/reproduce.py --precision --seeds 0,1,2`. The noise is that of two figures on test parts of this
size: a 95 % interval of their difference, if the examples were drawn anew."""
_WHERE = "## Every training"
