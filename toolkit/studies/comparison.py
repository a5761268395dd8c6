"""What a comparison of optimizers has measured, read from its run directories."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit import stages
from toolkit.errors import ToolkitError
from toolkit.explain.robustness import document
from toolkit.explain.robustness.walk import all_passes
from toolkit.runs import metrics, trust
from toolkit.runs import run as runs
from toolkit.studies.comparison_rates import Interval, best_rate, interval, is_at_end

FORMAT = 1
SMOOTHED = 5
"""Rows of `metrics.jsonl` that a point of a curve is the mean of: itself and those before it."""
TRAIN = "evaluation-train.json"
TEST = "evaluation.json"


@dataclasses.dataclass(frozen=True)
class Curve:
    """The loss in training, by step.

    Attributes:
        steps: batches trained.
        losses: trailing means over `SMOOTHED` rows, as long as `steps`.
    """

    steps: tuple[int, ...]
    losses: tuple[float, ...]

    def reaches(self, target: float) -> int | None:
        """The first step whose loss is not above `target`; None where there is none."""
        return next((step for step, loss in zip(self.steps, self.losses, strict=True) if loss <= target), None)


@dataclasses.dataclass(frozen=True)
class Tried:
    """A training at one rate with one seed.

    Attributes:
        run: name of its directory.
        accuracy, loss: on the validation part, of the epoch whose weights were kept; None: it diverged.
        curve: None: it diverged.
    """

    rate: float
    seed: int
    run: str
    accuracy: float | None
    loss: float | None
    curve: Curve | None


@dataclasses.dataclass(frozen=True)
class Figures:
    """Of the kept weights on one split; the accuracy is in [0, 1]."""

    accuracy: float
    loss: float


@dataclasses.dataclass(frozen=True)
class Robust:
    """Of the kept weights on the test part under graded changes; all in [0, 1].

    Attributes:
        errors: change → share of wrong answers, the mean over its severities.
        flips: share of answers that a change turns, the mean over changes and severities.
        attacked: accuracy under attacks, the mean over all of their strengths; None where the data has none.
        calibration_error: of the unchanged examples.
    """

    errors: dict[str, float]
    flips: float
    attacked: float | None
    calibration_error: float

    @property
    def accuracy(self) -> float:
        """The mean over changes and severities."""
        return 1 - statistics.fmean(self.errors.values())


@dataclasses.dataclass(frozen=True)
class Final:
    """A training at the best rate that did not diverge, measured; `robust` where that was asked for."""

    tried: Tried
    curve: Curve
    train: Figures
    test: Figures
    robust: Robust | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """An optimizer.

    Attributes:
        tried: all rates with the first seed, from the lowest to the highest.
        finals: the trainings at the best rate that did not diverge, one for each seed.
        diverged: how many trainings at the best rate did.
        state_bytes: that the optimizer keeps for a trainable parameter, its scalars left out.
        step_seconds: of a step that is computed already compiled, without its data.
    """

    optimizer: str
    tried: tuple[Tried, ...]
    finals: tuple[Final, ...]
    diverged: int
    state_bytes: float
    step_seconds: float

    @functools.cached_property
    def accuracies(self) -> dict[float, float | None]:
        """Rate → validation accuracy."""
        return {one.rate: one.accuracy for one in self.tried}

    @property
    def best(self) -> float | None:
        """The best rate; None where all diverged."""
        return best_rate(self.accuracies)

    @property
    def interval(self) -> Interval | None:
        """The rates that do about as well as the best."""
        return interval(self.accuracies)

    def reached(self, target: float) -> list[int]:
        """The step at which each training at the best rate reached a loss, of those that did."""
        steps = [final.curve.reaches(target) for final in self.finals]
        return [step for step in steps if step is not None]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All optimizers of a comparison.

    Attributes:
        config: name of the config.
        target: training loss whose reaching is timed.
        target_is_given: else it is the lowest that every training at a best rate reached.
    """

    config: str
    target: float | None
    target_is_given: bool
    results: tuple[Result, ...]

    def corruption_error(self, final: Final) -> float | None:
        """Mean corruption error of a training beside the first optimizer's seeds (arXiv:1903.12261); theirs is 1.

        For each change the errors over those of the first optimizer, then the mean over the changes. None where that
        optimizer has no trainings to compare with, or makes no errors under some change.
        """
        base = [one.robust for one in self.results[0].finals if one.robust]
        if final.robust is None or not base:
            return None
        ratios = []
        for change, error in final.robust.errors.items():
            beside = statistics.fmean(one.errors[change] for one in base)
            if not beside:
                return None
            ratios.append(error / beside)
        return statistics.fmean(ratios)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `comparison.json`."""
        return {
            "format": FORMAT,
            "config": self.config,
            "target_loss": self.target,
            "target_is_given": self.target_is_given,
            "results": [_result(result, self.target) for result in self.results],
        }


def common_target(results: Sequence[Result]) -> float | None:
    """The lowest loss that every training at a best rate has reached; None where there is no training."""
    return max((min(final.curve.losses) for result in results for final in result.finals), default=None)


def has_diverged(record: Mapping[str, Any]) -> bool:
    """Whether a run of this record broke off as its numbers were no longer finite."""
    return record.get("state") == "failed" and bool(record.get("diverged"))


def read_tried(directory: Path, rate: float, seed: int) -> Tried:
    """What a finished run says of itself, or that it diverged.

    Raises:
        ToolkitError: its files are not what train left.
    """
    record = trust.read_record(directory / runs.RECORD)
    if has_diverged(record):
        return Tried(rate, seed, directory.name, None, None, None)
    rows = list(metrics.read(directory / runs.METRICS))
    epochs = {row["epoch"]: row for row in rows if row["kind"] == "epoch"}
    best = epochs[record["best"]["epoch"]]
    curve = _curve([row for row in rows if row["kind"] == "step"])
    return Tried(rate, seed, directory.name, float(best["val_accuracy"]), float(best["val_loss"]), curve)


def read_final(directory: Path, tried: Tried, curve: Curve) -> Final:
    """The figures of a run whose training and test part were evaluated."""
    parts = [trust.read_json(directory / name, limit=trust.MAX_EVALUATION) for name in (TRAIN, TEST)]
    train, test = (Figures(float(part["accuracy"]), float(part["loss"])) for part in parts)
    return Final(tried, curve, train, test)


def read_robust(directory: Path) -> Robust:
    """What `toolkit robustness` has left in a run's directory.

    Raises:
        ToolkitError: it measured a sample, or not every change at every severity.
    """
    path = directory / document.FILE
    found = document.read(path)
    wanted = all_passes(stages.read_spec(directory))
    found_all = {(one.change, one.strength) for one in found.passes} == set(wanted)
    if not found_all or found.setting.limit is not None or found.setting.seed:
        raise ToolkitError(
            f"{trust.shown(path)} was measured on a sample or under some of the changes only: remove it, and the same "
            "command measures all."
        )
    changed = [figures for change in found.changes for figures in found.of(change).values()]
    attacked = [1 - error for attack in found.attacks for error in found.errors(attack)]
    return Robust(
        errors={change: statistics.fmean(found.errors(change)) for change in found.changes},
        flips=statistics.fmean(figures.flips for figures in changed),
        attacked=statistics.fmean(attacked) if attacked else None,
        calibration_error=float(found.clean.calibration_error or 0.0),
    )


def _curve(steps: Sequence[metrics.Row]) -> Curve:
    losses = [float(row["loss"]) for row in steps]
    means = [statistics.fmean(losses[max(0, end - SMOOTHED) : end]) for end in range(1, len(losses) + 1)]
    return Curve(tuple(row["step"] for row in steps), tuple(means))


def _result(result: Result, target: float | None) -> dict[str, Any]:
    width = result.interval
    return {
        "optimizer": result.optimizer,
        "state_bytes_per_parameter": result.state_bytes,
        "seconds_per_step": result.step_seconds,
        "tried": [_tried(one) for one in result.tried],
        "best_rate": result.best,
        "best_is_at_an_end": result.best is not None and is_at_end(result.accuracies),
        "within_a_point": width and {**dataclasses.asdict(width), "factor": width.factor},
        "diverged_at_best": result.diverged,
        "finals": [
            {
                **_tried(final.tried),
                "train": dataclasses.asdict(final.train),
                "test": dataclasses.asdict(final.test),
                "robustness": final.robust and dataclasses.asdict(final.robust),
                "steps_to_target": None if target is None else final.curve.reaches(target),
            }
            for final in result.finals
        ],
    }


def _tried(tried: Tried) -> dict[str, Any]:
    return {
        "rate": tried.rate,
        "seed": tried.seed,
        "run": tried.run,
        "val_accuracy": tried.accuracy,
        "val_loss": tried.loss,
    }
