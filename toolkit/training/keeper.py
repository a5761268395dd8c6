"""Writes checkpoints when they are due, and stops the training when a signal asks for it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from toolkit.runs import checkpoints, kept, metrics
from toolkit.runs.run import GRADIENTS, METRICS, Run
from toolkit.training.calls import figures_in, steps_in
from toolkit.training.guard import was_skipped
from toolkit.training.position import Position
from toolkit.training.state import Generator, capture
from toolkit.training.stop import StopSignal

# At the end of an epoch nothing is saved while the last save was less than this many times its own duration ago: epochs
# of a second would spend more time on saving than on training.
_WORTH = 50


@dataclasses.dataclass
class Keeper:
    """Knows when a checkpoint is due.

    Attributes:
        identity: of the run, as `record.identity` makes it; a checkpoint of another run is not taken for one of this.
        every_steps: micro-batches from checkpoint to checkpoint; None leaves it to the minutes and epochs.
        every_minutes: likewise; None never.
        keep: checkpoints that stay.
    """

    run: Run
    model: Any
    position: Position
    stop: StopSignal
    identity: str
    generator: Generator
    every_steps: int | None = None
    every_minutes: float | None = 10
    keep: int = 2

    def __post_init__(self) -> None:
        self._clock = self._last = time.perf_counter()
        self._cost = 0.0
        self.saving = 0.0  # seconds of this process

    @property
    def folder(self) -> Path:
        """Of the checkpoints."""
        return self.run.path(checkpoints.FOLDER)

    def after_batch(self) -> None:
        """Save if it is due; raises `Stopped` after a save that a signal asked for."""
        every = self.every_steps and self.position.trained % self.every_steps == 0
        if every or self._minutes_are_over() or self.stop.received:
            self.save()
        self.leave_if_asked()

    def after_epoch(self, *, last: bool) -> None:
        """The same after an epoch and its validation."""
        if last or self.stop.received or time.perf_counter() - self._last >= _WORTH * self._cost:
            self.save()
        self.leave_if_asked()

    def leave_if_asked(self) -> None:
        """Raises `Stopped` where a signal came; whoever calls has saved."""
        self.stop.leave_if_received(
            f"after step {self.position.trained:,}; `toolkit train --resume {self.run.directory}` goes on."
        )

    def save(self) -> None:
        """Write a checkpoint of the model and the position."""
        start = time.perf_counter()
        self.position.seconds += start - self._clock
        self._clock = start
        self.position.rows = metrics.sync(self.run.path(METRICS))
        self.position.gradient_rows = metrics.sync(self.run.path(GRADIENTS))
        state = {"run": self.identity, "position": self.position.to_dict()}
        checkpoints.save(self.folder, self.position.name, capture(self.model, self.generator), state, keep=self.keep)
        kept.settle(self.run.directory)
        self._last = time.perf_counter()
        self._cost = self._last - start
        self.saving += self._cost

    def _minutes_are_over(self) -> bool:
        return self.every_minutes is not None and time.perf_counter() - self._last >= 60 * self.every_minutes


class Keep(keras.callbacks.Callback):
    """Moves the position on after each call of an epoch, then lets the keeper save."""

    def __init__(self, keeper: Keeper, recorder_state: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        self.keeper, self.recorder_state = keeper, recorder_state

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        position = self.keeper.position
        position.batch += steps_in(logs)
        position.trained += steps_in(logs)
        if not was_skipped(logs):
            position.logs = figures_in(logs)
        position.recorder = self.recorder_state()
        self.keeper.after_batch()


class LeaveValidation(keras.callbacks.Callback):
    """Ends a validation when a signal came; it is repeated when the run goes on."""

    def __init__(self, stop: StopSignal) -> None:
        super().__init__()
        self.stop = stop

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.stop.received:
            raise ValidationLeft


class ValidationLeft(Exception):
    """A signal came while the model was validated."""
