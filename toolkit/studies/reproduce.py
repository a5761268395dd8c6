"""Trains the recipes from their configs, several seeds each, and writes down what came out.

Each training is a process of its own, in a run directory of its own: an interrupted one goes on where it was, and a
row that stands in the results already (same config, data and seed) is not trained again.
"""

from __future__ import annotations

import csv
import dataclasses
import glob
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from toolkit import stages
from toolkit.config import RunConfig, load
from toolkit.config.shipped import find_config
from toolkit.errors import RunFailed, ToolkitError
from toolkit.runs import metrics, trust
from toolkit.runs import run as runs
from toolkit.runs.files import write_text
from toolkit.studies import results
from toolkit.studies.document import document, short
from toolkit.studies.processes import running, sets, until_over
from toolkit.studies.results import BEAM_WIDTH, Count, Errors, Heard, Row
from toolkit.training.stop import stop_signals

if TYPE_CHECKING:
    from toolkit.data.load import Data
    from toolkit.studies.baselines import Baseline, TranscriptBaseline

RECIPES = tuple(results.PUBLISHED)
BEGIN, END = "<!-- results: written by scripts/reproduce.py -->", "<!-- end of results -->"
BY_HAND = "<!-- what follows is written by hand -->"
LOCK = "results.lock"
# Of a run directory, in the order in which they are measured.
_BEAM, _LAST = f"evaluation-beam{BEAM_WIDTH}.json", "evaluation-last.json"
# Keys of a config that do not change what comes out.
_FREE = ("name", "seed", "data.cache", "training.checkpoint", "training.log_every")


@dataclasses.dataclass(frozen=True)
class Quick:
    """A short training that must reach a loose floor, of examples or words, to see that a recipe has not broken."""

    overrides: tuple[str, ...]
    floor: float


SPEAKERS = ("george", "jackson", "nicolas", "theo", "yweweler")
VARIANTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    recipe: {speaker: (f"data.test={{speaker: {speaker}}}",) for speaker in SPEAKERS}
    for recipe in ("spoken_digit_lstm", "spoken_digit_gru")
}
"""Other ways to measure a recipe, by name: what is set. Each is trained with the first of the seeds."""

_SMALL = (
    "training.epochs=5",
    "data.test=train[96%:]",
    "data.image_size=[64, 64]",
    "optimizer.schedule.warmup_steps=20",
)
QUICK: Mapping[str, Quick] = {
    "mnist_dense": Quick(("training.epochs=2",), 0.93),
    "mnist_cnn": Quick(
        (
            "training.epochs=2",
            "data.train=train[:12000]",
            "data.test=test[:2000]",
            "optimizer.schedule.warmup_steps=20",
            "optimizer.ema_momentum=0.9",  # an average over 500 steps would still hold the start
        ),
        0.95,
    ),
    "cats_vs_dogs_cnn": Quick(
        (
            "training.epochs=3",
            "data.train=train[:12%]",
            "data.validation=train[80%:82%]",
            "data.test=train[96%:]",
            "data.image_size=[64, 64]",
            "data.augmentation.crop=[48, 48]",
            "optimizer.schedule.warmup_steps=50",
        ),
        0.60,
    ),
    "cats_vs_dogs_small": Quick((*_SMALL, "data.augmentation.crop=[48, 48]"), 0.55),
    "cats_vs_dogs_small_plain": Quick(_SMALL, 0.55),
    "spoken_digit_lstm": Quick(("training.epochs=6",), 0.85),
    "spoken_digit_gru": Quick(("training.epochs=6",), 0.85),
    "imdb_transformer": Quick(
        (
            "training.epochs=2",
            "data.max_tokens=100",
            "data.test=test[40%:60%]",
            "model.embedding_dropout=0.1",
            "model.token_dropout=0.0",
            "model.pairs=16384",
            "optimizer.schedule.warmup_steps=50",
            "optimizer.ema_momentum=0.98",
        ),
        0.75,
    ),
    "spoken_digits_ctc": Quick(
        (
            "training.epochs=4",
            "data.train_strings=1600",
            "data.validation_strings=60",
            "data.test_strings=100",
            "data.longest=4",
            "optimizer.schedule.warmup_steps=30",
            "optimizer.ema_momentum=0.95",
        ),
        0.70,
    ),
}


PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
WHOLE = ("mnist_cnn", "spoken_digit_lstm")
"""Recipes whose precisions are compared on the whole training and with every seed, not on the quick form with one."""


def precisions(recipe: str) -> dict[str, tuple[str, ...]]:
    """The variants of a recipe that differ in precision alone."""
    if recipe not in QUICK:
        raise ToolkitError(f"precisions of {recipe} are not compared: use one of {', '.join(QUICK)}.")
    shortened = () if recipe in WHOLE else QUICK[recipe].overrides
    suffix = results.SHORTENED if shortened else ""
    return {name + suffix: (*shortened, f"training.precision={value}") for name, value in PRECISIONS.items()}


def reproduce(
    recipes: Sequence[str] = RECIPES,
    *,
    seeds: Sequence[int] = (0,),
    again: bool = False,
    precision: bool = False,
    root: Path = Path(),
    say: Callable[[str], object] = print,
) -> list[Row | Heard]:
    """Train what is missing, and write `results/results.json`, `docs/results.md` and README's table below `root`.

    Args:
        recipes: names of shipped configs, or YAML files.
        seeds: of each; the variants of a recipe are trained with the first alone.
        again: train what is there anew, or go on with such a training that was interrupted, and say whether it is the
            same; the results stay as they are.
        precision: train each recipe in float32 and in bfloat16, in place of the recipe and its variants.
        say: takes a line for people.

    Returns:
        The rows of `recipes` and `seeds`, and of the recipes' variants.

    Raises:
        ToolkitError: no such recipe, and nothing was trained then; or its data is not at hand.
        Stopped: a signal came; the same call goes on.
        RunFailed: a training or an evaluation broke off; or a result was not reproduced.
    """
    file = root / "results" / "results.json"
    found: list[Row | Heard] = []
    failed: list[str] = []
    for case, seed in _cases(recipes, seeds, say, precision=precision):
        told = f"{case.title}, seed {seed}"
        rows = results.read(file)
        known = [row for row in rows if case.is_of(row)]
        same = [row for row in known if row.seed == seed]
        if not same and (alike := [row for row in rows if case.is_like(row) and row.seed == seed]):
            # The same training by another name.
            same = [dataclasses.replace(alike[0], recipe=case.recipe, variant=case.variant)]
            known += same
            keep(root, same[0], case.compared)
        if same and not again:
            say(f"{told}: {same[0]} stands in {file} already")
            found += [case.beside(same[0])]
            if found[-1] != same[0]:  # it is of before there was a baseline
                keep(root, found[-1], case.compared)
            continue
        row = case.row(root / "runs", seed, anew=again)
        found.append(row)
        if again and known:
            verdict = results.judge(known, row)
            say(f"{told}: {row}, {verdict}")
            failed += [told] if verdict == results.NOT_REPRODUCED else []
            continue
        keep(root, row, case.compared)
        say(f"{told}: {row}; the row is in {file}")
    if failed:
        raise RunFailed(f"not reproduced: {'; '.join(failed)}. Their runs are in {root / 'runs'}.")
    return found


def _cases(
    recipes: Sequence[str], seeds: Sequence[int], say: Callable[[str], object], *, precision: bool
) -> Iterator[tuple[Case, int]]:
    """What is trained: each recipe with every seed, then its variants with the first; or both precisions of each.

    All of the request is checked before the first is given; the data of each is read when its turn comes.
    """
    asked: list[tuple[Path, str, tuple[str, ...], Sequence[int]]] = []
    for recipe in recipes:
        if precision:
            of = seeds if recipe in WHOLE else seeds[:1]
            asked += [(find_config(recipe), variant, sets, of) for variant, sets in precisions(recipe).items()]
        else:
            path = find_config(recipe)
            variants = VARIANTS.get(load(path).name, {})
            asked += [(path, "", (), seeds), *((path, variant, sets, seeds[:1]) for variant, sets in variants.items())]
    for path, _, overrides, of in asked:
        for seed in of:
            load(path, (*overrides, f"seed={seed}"))
    for path, variant, overrides, of in asked:
        case = Case(path, say, variant, overrides)
        yield from ((case, seed) for seed in of)


def reproduce_quickly(
    recipes: Sequence[str] = RECIPES, *, root: Path = Path(), say: Callable[[str], object] = print
) -> None:
    """Train each recipe for a minute or two, and see that it reaches its floor; nothing is written down.

    Raises:
        ToolkitError: there is no quick form of a recipe.
        Stopped: a signal came.
        RunFailed: a training broke off, or stayed below its floor.
    """
    unknown = [recipe for recipe in recipes if recipe not in QUICK]
    if unknown:
        raise ToolkitError(f"there is no quick form of {', '.join(unknown)}: use one of {', '.join(QUICK)}.")
    below = []
    for recipe in recipes:
        quick = QUICK[recipe]
        directory = _new(root / "runs", f"quick-{recipe}")
        overrides = sets(quick.overrides)
        _toolkit("train", find_config(recipe), "--run-dir", directory, *overrides, then="trains it anew")
        figures = trust.read_json(directory / "evaluation.json", limit=trust.MAX_EVALUATION)
        right = float(figures["accuracy"] if "accuracy" in figures else 1 - figures["words"]["rate"])
        say(f"{recipe}: {right:.2%} (floor {quick.floor:.0%})")
        below += [f"{recipe} {right:.2%}"] if right < quick.floor else []
    if below:
        raise RunFailed(f"below the floor: {'; '.join(below)}.")


def keep(root: Path, row: Row | Heard, compared: Mapping[str, str]) -> None:
    """Put `row` into the results and the documents below `root`, beside what other processes wrote meanwhile.

    It takes the place of the one with its seed; what another config or other data gave is no row of its recipe and
    variant any more, nor of a variant that it is compared with.

    Args:
        compared: `Case.compared` of the row's.
    """
    configs = {**compared, row.variant: row.config}

    def stays(other: Row | Heard) -> bool:
        if other.recipe != row.recipe or other.variant not in configs:
            return True
        alike = (other.config, other.fingerprints) == (configs[other.variant], row.fingerprints)
        return alike and (other.variant, other.seed) != (row.variant, row.seed)

    file, folder = root / "results" / "results.json", root / "runs"  # the lock lies where git looks at nothing
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / LOCK):
        results.write(file, [*filter(stays, results.read(file)), row])
        write_documents(root, results.read(file))


def write_documents(root: Path, rows: Sequence[Row | Heard]) -> None:
    """`docs/results.md`, and the table between the marks in `README.md`, where there is such a file.

    What stands in `docs/results.md` from the mark `BY_HAND` on is kept.
    """
    (root / "docs").mkdir(exist_ok=True)
    page = root / "docs" / "results.md"
    _, mark, by_hand = (page.read_text(encoding="utf-8") if page.exists() else "").partition(BY_HAND)
    write_text(page, document(rows) + (f"\n{mark}{by_hand}" if mark else ""))
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    if BEGIN in text and END in text:
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        write_text(readme, f"{before}{BEGIN}\n{short(rows)}\n{END}{after}")


class Case:
    """A recipe with its data, read once, and its baseline, fitted once where it is needed."""

    def __init__(
        self, path: Path, say: Callable[[str], object], variant: str = "", overrides: Sequence[str] = ()
    ) -> None:
        config = load(path, overrides)
        self.path, self.recipe, self.say = path, config.name, say
        self.variant, self.overrides = variant, overrides
        self.title = f"{self.recipe}, {variant}" if variant else self.recipe
        stages.set_up(config)
        self.data: Data = stages.read_data(config, lambda line: None)
        self.fingerprints = stages.fingerprints(self.data)
        self.hash = config_hash(config)
        variants = precisions(self.recipe) if self.recipe in QUICK else {}
        self.compared = {name: config_hash(load(path, sets)) for name, sets in variants.items() if variant in variants}
        """Of the variants that this one is compared with, and of itself: what the hashes of their configs are now."""
        self._baseline: Baseline | None = None
        self._written: TranscriptBaseline | None = None

    def is_of(self, row: Row | Heard) -> bool:
        """Whether `row` is of this recipe and variant as they are now, on this data."""
        return self.names(row) and self.is_like(row)

    def is_like(self, row: Row | Heard) -> bool:
        """Whether `row` is of this config and data, whatever it is called."""
        return (row.config, row.fingerprints) == (self.hash, self.fingerprints)

    def names(self, row: Row | Heard) -> bool:
        """Whether `row` is of this recipe and variant, as they are now or were once."""
        return (row.recipe, row.variant) == (self.recipe, self.variant)

    def row(self, folder: Path, seed: int, *, anew: bool) -> Row | Heard:
        """Train with `seed`, or go on with a training that was interrupted, and measure."""
        variant = self.variant.replace(results.SHORTENED, "-shortened")
        name = "-".join(filter(None, (self.recipe, variant, f"seed{seed}", self.hash[:8])))
        directory = folder / name
        if anew:
            directory = _unfinished(folder, f"{name}-again") or _new(folder, f"{name}-again")
        record = directory / runs.RECORD
        if not record.exists():
            _toolkit("train", self.path, "--run-dir", directory, *sets([*self.overrides, f"seed={seed}"]))
        elif trust.read_record(record)["state"] != "finished":
            _toolkit("train", "--resume", directory)
        if self.data.spec.task == "transcription" and not (directory / _BEAM).exists():
            _toolkit("evaluate", directory, "--beam-width", str(BEAM_WIDTH))
        if not (directory / _LAST).exists():
            _toolkit("evaluate", directory, "--weights", "last")
        known = trust.read_record(record)
        if known["fingerprints"] != self.fingerprints:
            raise ToolkitError(f"the run in {directory} was trained on other data: move it elsewhere.")
        epochs = [row for row in metrics.read(directory / runs.METRICS) if row["kind"] == "epoch"]
        best = known["best"]["epoch"]
        common = {
            "recipe": self.recipe,
            "variant": self.variant,
            "seed": seed,
            "config": self.hash,
            "fingerprints": self.fingerprints,
            "epochs": (best, len(epochs)),
            "parameters": known["parameters"],
            "seconds": known["seconds"],
            "machine": f"{known['machine']['cores']} cores, {known['machine']['processor']}",
            "commit": ", ".join(
                dict.fromkeys(str(sitting["commit"]) for sitting in (known, *known.get("resumed", [])))
            ),
        }
        ends = epochs[best - 1], epochs[-1]
        if self.data.spec.task == "transcription":
            return self.beside(_heard(directory, validation=tuple(row["val_loss"] for row in ends), **common))
        return self._told(directory, validation=tuple(row["val_accuracy"] for row in ends), **common)

    def beside(self, row: Row | Heard) -> Row | Heard:
        """The row with the baseline of speech to text, where there is one, the row has it not, and is no variant's."""
        if not isinstance(row, Heard) or row.baseline or self.variant or self.data.spec.units != "words":
            return row
        from toolkit.evaluation.transcripts import measure_words
        from toolkit.studies.baselines import transcript_baseline

        if self._written is None:
            self.say(f"{self.title}: fitting a baseline")
            self._written = transcript_baseline(self.data)
        if self._written is None:
            return row
        rate = measure_words(self._written.texts, self.data.splits["test"].texts or ())
        return dataclasses.replace(
            row,
            baseline=self._written.name,
            baseline_words=Errors(rate.substitutions + rate.deletions + rate.insertions, rate.reference),
            baseline_interval=rate.interval,
        )

    def _told(self, directory: Path, **common: Any) -> Row:
        shared = set(_column(directory / runs.DUPLICATES, "id", where={"split": "test"}))
        right = _right(directory / "predictions.csv")
        apart = [hit for id, hit in right if id not in shared]
        self._baseline = self._baseline or self._fit()
        theirs = (self._baseline.answers == self.data.splits["test"].labels).tolist()
        ours = [hit for _, hit in right]
        last = trust.read_json(directory / _LAST, limit=trust.MAX_EVALUATION)
        return Row(
            **common,
            best=Count(sum(ours), len(ours)),
            last=Count(round(last["accuracy"] * last["examples"]), last["examples"]),
            apart=Count(sum(apart), len(apart)),
            baseline=self._baseline.name,
            baseline_right=sum(theirs),
            only_ours=sum(a and not b for a, b in zip(ours, theirs, strict=True)),
            only_baseline=sum(b and not a for a, b in zip(ours, theirs, strict=True)),
        )

    def _fit(self) -> Baseline:
        from toolkit.studies.baselines import baseline

        self.say(f"{self.title}: fitting a baseline")
        return baseline(self.data)


def _heard(directory: Path, **common: Any) -> Heard:
    greedy, beam, last = (trust.read_json(directory / name) for name in ("evaluation.json", _BEAM, _LAST))

    def errors(figures: Mapping[str, Any]) -> Errors:
        return Errors(sum(figures[kind] for kind in ("substitutions", "deletions", "insertions")), figures["reference"])

    return Heard(
        **common,
        words=errors(greedy["words"]),
        interval=tuple(greedy["words"]["interval"]),
        characters=errors(greedy["characters"]),
        beam=errors(beam["words"]),
        last=errors(last["words"]),
        recordings=greedy["examples"],
        right=round(greedy["right"] * greedy["examples"]),
    )


def config_hash(config: RunConfig) -> str:
    """Of everything that is set; what is as by default is left out, so that a new option changes no hash."""
    fixed = config.to_dict(defaults=False)
    for key in _FREE:
        *path, name = key.split(".")
        inner: Any = fixed
        for part in path:
            inner = inner[part]
        inner.pop(name, None)
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def _new(folder: Path, name: str) -> Path:
    return folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _unfinished(folder: Path, name: str) -> Path | None:
    """The newest that `_new` named and whose training or measuring was interrupted."""
    named = folder.glob(f"{glob.escape(name)}-*")
    return max((directory for directory in named if not (directory / _LAST).exists()), default=None)


def _toolkit(*arguments: str | Path, then: str = "goes on with it") -> None:
    """A verb in a process of its own, which a signal to this one ends cleanly; `then` is what the same call does."""
    shown = f"`toolkit {' '.join(map(str, arguments))}`"
    left = f"in {shown}; the same call of reproduce {then}."
    with stop_signals() as stop:
        with running(*arguments) as process:
            for _ in until_over(process, stop, left):
                pass
        stop.leave_if_received(left)  # in the last moment
    if process.returncode:
        raise RunFailed(f"{shown} ended with exit code {process.returncode}; the same call of reproduce {then}.")


def _right(predictions: Path) -> list[tuple[str, bool]]:
    with predictions.open(newline="", encoding="utf-8") as file:
        return [(trust.shown(row["id"]), row["label"] == row["answer"]) for row in csv.DictReader(file)]


def _column(path: Path, name: str, *, where: Mapping[str, str]) -> Iterator[str]:
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if all(row[key] == value for key, value in where.items()):
                    yield row[name]
