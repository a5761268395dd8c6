"""What `reproduce` measured: rows that are kept as JSON, and the judgements that follow from them."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
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
class _Training:
    """What is known of every training of a recipe.

    Attributes:
        recipe, variant, seed, config, fingerprints: what was trained; `variant` names another way to measure the
            recipe, "" its own; `config` is a hash, without the seed.
        validation: the accuracy that the best epoch had there, and the last; of speech to text the losses.
        epochs: (best, all).
        seconds: of the training, with validation.
        commit: of every sitting.
    """

    recipe: str
    variant: str = ""
    seed: int
    config: str
    fingerprints: dict[str, str]
    validation: tuple[float, float]
    epochs: tuple[int, int]
    parameters: int
    seconds: float
    machine: str
    commit: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row(_Training):
    """One training of a recipe that tells classes apart.

    Attributes:
        best, last: of the test part, by the weights of the best epoch and of the last.
        apart: as `best`, without the test examples whose content stands in train or validation, too.
        only_ours, only_baseline: test examples that one of the two answers right and the other does not.
    """

    best: Count
    last: Count
    apart: Count
    baseline: str
    baseline_right: int
    only_ours: int
    only_baseline: int

    @property
    def score(self) -> float:
        """What a training is judged by."""
        return self.best.accuracy

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, of the score."""
        return wilson(self.best.right, self.best.examples)

    @property
    def figures(self) -> tuple[Count, ...]:
        """What is equal in two trainings that are the same to the digit."""
        return self.best, self.last

    def __str__(self) -> str:
        return percent(self.score)


@dataclasses.dataclass(frozen=True)
class Errors:
    """Errors of a transcription: so many in so many words or characters."""

    wrong: int
    of: int

    @property
    def rate(self) -> float:
        return self.wrong / self.of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heard(_Training):
    """One training of a recipe for speech to text.

    Attributes:
        words, characters: errors in the test part, by the weights of the best epoch, decoded greedily.
        interval: 95 %, of the word error rate, over recordings.
        beam: errors in words, by a beam search of `BEAM_WIDTH`.
        last: errors in words by the weights of the last epoch.
        recordings: of the test part; `right` of them are without any error.
        baseline: what the classical one is, and its errors in words with their interval; "" where there is none.
    """

    words: Errors
    interval: tuple[float, float]
    characters: Errors
    beam: Errors
    last: Errors
    recordings: int
    right: int
    baseline: str = ""
    baseline_words: Errors | None = None
    baseline_interval: tuple[float, float] | None = None

    @property
    def score(self) -> float:
        """What a training is judged by."""
        return self.words.rate

    @property
    def figures(self) -> tuple[Errors, ...]:
        """What is equal in two trainings that are the same to the digit."""
        return self.words, self.last

    def __str__(self) -> str:
        return f"word error rate {percent(self.score)}"


BEAM_WIDTH = 16
SHORTENED = ", shortened"
"""What the names of variants end with that train the quick form of a recipe."""


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
    "cats_vs_dogs_small": (
        Published(
            "about 82 %, augmented, at 180 px from other 2,000 photos", "Chollet, Deep Learning with Python, chapter 8"
        ),
    ),
    "cats_vs_dogs_small_plain": (
        Published("about 71 %, at 180 px from other 2,000 photos", "Chollet, Deep Learning with Python, chapter 8"),
    ),
    "spoken_digit_lstm": (Published("96 to 97 %, mostly on random splits", "various"),),
    "spoken_digit_gru": (Published("96 to 97 %, mostly on random splits", "various"),),
    "spoken_digits_ctc": (),
    "imdb_transformer": (
        Published("87.45 %, chosen on the test set", "keras.io, Text classification with Transformer"),
        Published("88 to 89 %", "logistic regression on TF-IDF, various"),
    ),
}


def read(path: Path) -> list[Row | Heard]:
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
        return [*map(_row, values["rows"]), *map(_heard, values.get("transcription", []))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ToolkitError(f"{path} is no table of results ({error}): restore it, or move it elsewhere.") from error


def write(path: Path, rows: Iterable[Row | Heard]) -> None:
    """Replace `path`, whole or not at all; rows by recipe, in the order of the published figures, variant and seed."""
    known = list(PUBLISHED)
    place = {name: i for i, name in enumerate(known)}
    ordered = sorted(rows, key=lambda row: (place.get(row.recipe, len(known)), row.recipe, row.variant, row.seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    lists: dict[str, list[Any]] = {"rows": [], "transcription": []}
    for row in ordered:
        lists["transcription" if isinstance(row, Heard) else "rows"].append(dataclasses.asdict(row))
    write_text(path, json.dumps({"format": FORMAT, **lists}, indent=1) + "\n")


def percent(share: float) -> str:
    """A share as tables write it."""
    return f"{100 * share:.2f} %"


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


def against_baseline_heard(row: Heard) -> str:
    """What the comparison of the two intervals supports, which is less than a test on pairs would."""
    assert row.baseline_interval is not None
    if row.interval[1] < row.baseline_interval[0]:
        return "better (the intervals are apart)"
    return "worse (the intervals are apart)" if row.interval[0] > row.baseline_interval[1] else "no difference shown"


def judge(known: Sequence[Row | Heard], again: Row | Heard) -> str:
    """Whether a row trained anew agrees with those of the same recipe, config and data.

    The spread is the interval of their figure, and of several rows at least their 95 % prediction interval (Hahn &
    Meeker 1991, Statistical Intervals): for one more draw from the same normal distribution, known from so few alone.
    """
    same = [row for row in known if row.seed == again.seed]
    if same and same[0].figures == again.figures:
        return "same to the digit"
    low, high = (statistics.fmean(bounds) for bounds in zip(*(row.interval for row in known), strict=True))
    if (n := len(known)) > 1:
        from scipy.stats import t

        scores = [row.score for row in known]
        half = float(t.ppf(1 - SIGNIFICANCE / 2, n - 1)) * statistics.stdev(scores) * math.sqrt(1 + 1 / n)
        low, high = min(low, statistics.fmean(scores) - half), max(high, statistics.fmean(scores) + half)
    return "within the spread" if low <= again.score <= high else NOT_REPRODUCED


def _row(values: Mapping[str, Any]) -> Row:
    counts = {name: Count(**values[name]) for name in ("best", "last", "apart")}
    pairs = {name: tuple(values[name]) for name in ("validation", "epochs")}
    return Row(**{**values, **counts, **pairs})


def _heard(values: Mapping[str, Any]) -> Heard:
    errors = {name: Errors(**values[name]) for name in ("words", "characters", "beam", "last")}
    if values.get("baseline_words"):
        errors["baseline_words"] = Errors(**values["baseline_words"])
    named = ("interval", "validation", "epochs", "baseline_interval")
    pairs = {name: tuple(values[name]) for name in named if values.get(name)}
    return Heard(**{**values, **errors, **pairs})
