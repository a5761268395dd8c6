"""What `reproduce` measured: rows that are kept as JSON, and the tables and judgements that follow from them."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import ToolkitError
from toolkit.runs.files import write_text

FORMAT = 1
SIGNIFICANCE = 0.05
NOT_REPRODUCED = "not reproduced"


@dataclasses.dataclass(frozen=True)
class Count:
    """How many of so many examples are answered right."""

    right: int
    examples: int

    @property
    def accuracy(self) -> float:
        return self.right / self.examples


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One training of a recipe.

    Attributes:
        recipe, variant, seed, config, fingerprints: what was trained; `variant` names another way to measure the
            recipe, "" its own; `config` is a hash, without the seed.
        best, last: of the test part, by the weights of the best epoch and of the last.
        apart: as `best`, without the test examples whose content stands in train or validation, too.
        validation: the accuracy that the best epoch had there, and the last.
        epochs: (best, all).
        only_ours, only_baseline: test examples that one of the two answers right and the other does not.
        seconds: of the training, with validation.
        commit: of every sitting.
    """

    recipe: str
    seed: int
    config: str
    fingerprints: dict[str, str]
    best: Count
    last: Count
    apart: Count
    validation: tuple[float, float]
    epochs: tuple[int, int]
    baseline: str
    baseline_right: int
    only_ours: int
    only_baseline: int
    parameters: int
    seconds: float
    machine: str
    commit: str
    variant: str = ""


@dataclasses.dataclass(frozen=True)
class Published:
    """A figure by others that stands beside a recipe's."""

    figure: str
    source: str


PUBLISHED: Mapping[str, tuple[Published, ...]] = {
    "mnist_dense": (),
    "mnist_cnn": (
        Published("99.2 %", "keras.io, Simple MNIST convnet"),
        Published("99.91 %, an ensemble of CNNs trained far longer", "An et al. 2020, arXiv:2008.10400"),
    ),
    "cats_vs_dogs_cnn": (
        Published(
            "best validation 95.75 %, last epoch 87.1 %, at 180 px", "keras.io, Image classification from scratch"
        ),
    ),
    "spoken_digit_lstm": (Published("96 to 97 %, mostly on random splits", "various"),),
    "spoken_digit_gru": (Published("96 to 97 %, mostly on random splits", "various"),),
    "imdb_transformer": (
        Published("87.45 %, chosen on the test set", "keras.io, Text classification with Transformer"),
        Published("88 to 89 %", "logistic regression on TF-IDF, various"),
    ),
}


def read(path: Path) -> list[Row]:
    """The rows of a file that `write` wrote; none where there is no file.

    Raises:
        ToolkitError: it is another file, or damaged.
    """
    if not path.exists():
        return []
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}, not {FORMAT}")
        return [_row(row) for row in values["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ToolkitError(f"{path} is no table of results ({error}): restore it, or move it elsewhere.") from error


def write(path: Path, rows: Iterable[Row]) -> None:
    """Replace `path`, whole or not at all; rows by recipe, in the order of the published figures, variant and seed."""
    known = list(PUBLISHED)
    place = {name: i for i, name in enumerate(known)}
    ordered = sorted(rows, key=lambda row: (place.get(row.recipe, len(known)), row.recipe, row.variant, row.seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(
        path, json.dumps({"format": FORMAT, "rows": [dataclasses.asdict(row) for row in ordered]}, indent=1) + "\n"
    )


def wilson(right: float, examples: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy."""
    z, p = 1.959963984540054, right / examples
    centre, spread = p + z * z / (2 * examples), z * math.sqrt(p * (1 - p) / examples + z * z / (4 * examples**2))
    return (centre - spread) / (1 + z * z / examples), (centre + spread) / (1 + z * z / examples)


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of McNemar's test: that both are right equally often.

    Source: McNemar 1947, Psychometrika 12; the exact form is a binomial test of the examples on which the two differ.
    """
    from scipy.stats import binomtest

    differing = only_first + only_second
    return float(binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0


def middle(rows: Sequence[Row]) -> Row:
    """The row with the median accuracy, of an even number the lower."""
    return sorted(rows, key=lambda row: (row.best.right, row.seed))[(len(rows) - 1) // 2]


def against_baseline(row: Row) -> str:
    """What the comparison with the baseline supports."""
    p = mcnemar(row.only_ours, row.only_baseline)
    shown = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    if p >= SIGNIFICANCE:
        return f"no difference shown ({shown})"
    return f"{'better' if row.only_ours > row.only_baseline else 'worse'} ({shown})"


def judge(known: Sequence[Row], again: Row) -> str:
    """Whether a row trained anew agrees with those of the same recipe, config and data."""
    same = [row for row in known if row.seed == again.seed]
    if same and (same[0].best, same[0].last) == (again.best, again.last):
        return "same to the digit"
    accuracies = [row.best.accuracy for row in known]
    if len(accuracies) > 1:
        mean, sd = statistics.fmean(accuracies), statistics.stdev(accuracies)
        low, high = mean - 2 * sd, mean + 2 * sd
    else:
        low, high = wilson(known[0].best.right, known[0].best.examples)
    return "within the spread" if low <= again.best.accuracy <= high else NOT_REPRODUCED


def document(rows: Sequence[Row]) -> str:
    """`docs/results.md`."""
    own, variants = [row for row in rows if not row.variant], [row for row in rows if row.variant]
    parts = [_HEAD, _table(_COLUMNS, own), _BESIDE, _table(_BESIDE_COLUMNS, own)]
    if variants:
        parts += [_SPEAKERS, _speakers(variants)]
    parts += [_WHERE, _lines(_EVERY_COLUMNS, rows)]
    return "\n\n".join(parts) + "\n"


def short(rows: Sequence[Row]) -> str:
    """README's table."""
    return _table({name: _COLUMNS[name] for name in _SHORT}, [row for row in rows if not row.variant])


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.recipe, []).append(row)
    return list(groups.values())


def _table(columns: Mapping[str, Callable[[Sequence[Row]], str]], rows: Sequence[Row]) -> str:
    return _lines(columns, _groups(rows))


def _speakers(variants: Sequence[Row]) -> str:
    """A line per recipe and speaker, and after those of a recipe their mean."""
    lines = []
    for group in _groups(variants):
        mean = statistics.fmean(row.best.accuracy for row in group)
        baseline = statistics.fmean(row.baseline_right / row.best.examples for row in group)
        lines.append(_lines(_SPEAKER_COLUMNS, group).splitlines())
        examples = f"{sum(row.best.examples for row in group):,}"
        cells = [f"`{group[0].recipe}`", "mean", examples, f"**{_percent(mean)}**", _percent(baseline), "", "", ""]
        lines[-1].append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines[0][:2], *(line for part in lines for line in part[2:])])


def _lines(columns: Mapping[str, Callable[[Any], str]], of: Sequence[Any]) -> str:
    head = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    return "\n".join(head + [f"| {' | '.join(cell(one) for cell in columns.values())} |" for one in of])


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _mean(counts: Sequence[Count]) -> str:
    mean = statistics.fmean(count.accuracy for count in counts)
    if len(counts) == 1:
        return _percent(mean)
    return f"{100 * mean:.2f} ± {100 * statistics.stdev(count.accuracy for count in counts):.2f} %"


def _with_interval(rows: Sequence[Row]) -> str:
    counts = [row.best for row in rows]
    low, high = wilson(statistics.fmean(count.right for count in counts), counts[0].examples)
    return f"**{_mean(counts)}** ({100 * low:.2f} to {100 * high:.2f})"


def _apart(rows: Sequence[Row]) -> str:
    left_out = rows[0].best.examples - rows[0].apart.examples
    return f"{_mean([row.apart for row in rows])} ({left_out} left out)" if left_out else "none shared"


def _published(rows: Sequence[Row]) -> str:
    return "; ".join(f"{one.figure} ({one.source})" for one in PUBLISHED.get(rows[0].recipe, ())) or "–"


def _commits(rows: Sequence[Row]) -> str:
    return ", ".join(dict.fromkeys(row.commit for row in rows))


_COLUMNS: dict[str, Callable[[Sequence[Row]], str]] = {
    "recipe": lambda rows: f"`{rows[0].recipe}`",
    "command": lambda rows: (
        f"`python scripts/reproduce.py {rows[0].recipe} --seeds {','.join(str(row.seed) for row in rows)}`"
    ),
    "test examples": lambda rows: f"{rows[0].best.examples:,}",
    "accuracy (95 % interval)": _with_interval,
    "last epoch": lambda rows: _mean([row.last for row in rows]),
    "without shared examples": _apart,
    "minutes of training": lambda rows: f"{statistics.fmean(row.seconds for row in rows) / 60:.1f}",
    "commit": _commits,
}
_SHORT = ("recipe", "command", "test examples", "accuracy (95 % interval)", "minutes of training", "commit")
_BESIDE_COLUMNS: dict[str, Callable[[Sequence[Row]], str]] = {
    "recipe": lambda rows: f"`{rows[0].recipe}`",
    "parameters": lambda rows: f"{rows[0].parameters:,}",
    "accuracy": lambda rows: _mean([row.best for row in rows]),
    "baseline": lambda rows: rows[0].baseline,
    "its accuracy": lambda rows: _percent(rows[0].baseline_right / rows[0].best.examples),
    "the recipe is": lambda rows: against_baseline(middle(rows)),
    "published": _published,
}
_SPEAKER_COLUMNS: dict[str, Callable[[Row], str]] = {
    "recipe": lambda row: f"`{row.recipe}`",
    "unseen speaker": lambda row: row.variant,
    "test examples": lambda row: f"{row.best.examples:,}",
    "accuracy (95 % interval)": lambda row: _with_interval([row]),
    "baseline": lambda row: _percent(row.baseline_right / row.best.examples),
    "the recipe is": against_baseline,
    "validation, speakers it knows": lambda row: _percent(row.validation[0]),
    "commit": lambda row: row.commit,
}
_EVERY_COLUMNS: dict[str, Callable[[Row], str]] = {
    "recipe": lambda row: f"`{row.recipe}`" + (f", without {row.variant}" if row.variant else ""),
    "seed": lambda row: str(row.seed),
    "best epoch": lambda row: f"{row.epochs[0]} of {row.epochs[1]}",
    "validation": lambda row: _percent(row.validation[0]),
    "test": lambda row: _percent(row.best.accuracy),
    "last epoch: validation, test": lambda row: f"{_percent(row.validation[1])}, {_percent(row.last.accuracy)}",
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
_WHERE = "## Every training"


def _row(values: Mapping[str, Any]) -> Row:
    counts = {name: Count(**values[name]) for name in ("best", "last", "apart")}
    pairs = {name: tuple(values[name]) for name in ("validation", "epochs")}
    return Row(**{**values, **counts, **pairs})
