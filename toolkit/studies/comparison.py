"""What a comparison of optimizers has measured, read from its run directories."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
class Final:
    """A training at the best rate that did not diverge, measured."""

    tried: Tried
    curve: Curve
    train: Figures
    test: Figures


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
    train, test = (trust.read_json(directory / name) for name in (TRAIN, TEST))
    return Final(tried, curve, *(Figures(float(part["accuracy"]), float(part["loss"])) for part in (train, test)))


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
