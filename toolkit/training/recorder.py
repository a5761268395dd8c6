"""Measures the steps of an epoch and writes them to `metrics.jsonl`, TensorBoard and the progress bar."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras

from toolkit.runs.files import not_written
from toolkit.training.calls import figures_in, steps_in
from toolkit.training.guard import was_skipped
from toolkit.training.progress import EpochBar, figures, speed_figures

_REDRAW = 0.2  # seconds; making the text costs as much as a small model's step


class StepRecorder(keras.callbacks.Callback):
    """One epoch's batches: a row every `log_every` of them, the bar at most five times a second.

    Keras hands on the mean over the epoch so far; a row holds the mean over the steps since the row before, which is
    what a curve should show.

    Args:
        first_step: micro-batches of the epochs before.
        append: takes a row.
        bar: takes the steps done and a text.
        waited: seconds that this process's steps have spent waiting for data so far; None: not measured.
        state: what `state` gave, where the epoch was begun by another process.
    """

    def __init__(
        self,
        *,
        epoch: int,
        first_step: int,
        batch_size: int,
        log_every: int,
        append: Callable[[Mapping[str, Any]], None],
        bar: EpochBar,
        waited: Callable[[], float] | None,
        learning_rate: Callable[[int], float],
        state: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.epoch, self.first_step, self.batch_size, self.log_every = epoch, first_step, batch_size, log_every
        self.append, self.bar, self.waited, self.learning_rate = append, bar, waited, learning_rate
        state = state or {}
        self._before = int(state.get("steps", 0)), float(state.get("seconds", 0.0)), float(state.get("waited", 0.0))
        self.steps, self.seconds, _ = self._before
        self._waited_for_others = waited() if waited else 0.0  # the steps of earlier epochs
        self._shown = 0.0
        self._skipped = int(state.get("skipped", 0))  # steps that are in no mean
        self._means: dict[str, float] = dict(state.get("means", {}))
        self._row_steps = int(state.get("row_steps", 0))
        self._row_seconds = float(state.get("row_seconds", 0.0))
        self._row_sums: dict[str, float] = dict(state.get("row_sums", {}))

    def state(self) -> dict[str, Any]:
        """What another process needs to go on with the epoch."""
        return {
            "steps": self.steps,
            "seconds": self.seconds,
            "waited": self._waited(),
            "skipped": self._skipped,
            "means": self._means,
            "row_steps": self._row_steps,
            "row_seconds": self._row_seconds,
            "row_sums": self._row_sums,
        }

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.steps += steps_in(logs)
        self.seconds = self._before[1] + time.perf_counter() - self._start
        if was_skipped(logs):
            self._skipped += 1
        else:
            self._means = figures_in(logs)
        if self.seconds - self._shown > _REDRAW:
            self._shown = self.seconds
            self.bar.update(self.steps, f"{figures(self._means)}  {speed_figures(self.speed())}")
        if (self.first_step + self.steps) % self.log_every == 0:
            self._write_row()

    def _write_row(self) -> None:
        steps = self.steps - self._skipped
        count = steps - self._row_steps
        if not count:
            return
        sums = {name: mean * steps for name, mean in self._means.items()}
        row = {name: (total - self._row_sums.get(name, 0.0)) / count for name, total in sums.items()}
        self.append(
            {
                "kind": "step",
                "epoch": self.epoch,
                "step": self.first_step + self.steps,
                **row,
                "learning_rate": self.learning_rate(self.first_step + self.steps),
                "examples_per_second": count * self.batch_size / max(self.seconds - self._row_seconds, 1e-9),
            }
        )
        self._row_steps, self._row_seconds, self._row_sums = steps, self.seconds, sums

    def speed(self) -> dict[str, float]:
        """Seconds, examples per second and share of waiting of the epoch's steps."""
        seconds = max(self.seconds, 1e-9)
        speed = {"seconds": self.seconds, "examples_per_second": self.steps * self.batch_size / seconds}
        return speed if self.waited is None else {**speed, "data_wait_share": min(1.0, self._waited() / seconds)}

    def _waited(self) -> float:
        return self._before[2] + (self.waited() - self._waited_for_others if self.waited else 0.0)


class TensorBoard:
    """Scalars of every row in `directory`, for `tensorboard --logdir`.

    An event a row, in a file of TFRecords: `tf.summary` writes one a scalar, each by an operation, and takes as long
    for a row as a small model for a step.

    Raises:
        RunFailed: the file cannot be written; so it does in `write`.
    """

    def __init__(self, directory: Path) -> None:
        import tensorflow as tf

        self._path = directory / f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._failures = (OSError, tf.errors.OpError)
        first = _event(file_version="brain.Event:2")
        with self._told(first):
            directory.mkdir(parents=True, exist_ok=True)
            self._writer = tf.io.TFRecordWriter(str(self._path))
        self._add(first)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add the numbers of a row of `metrics.jsonl` at its step, under `step/` or `epoch/`."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        summary = Summary()
        for name, value in row.items():
            if isinstance(value, float):
                summary.MergeFrom(scalar_pb(f"{row['kind']}/{name}", value))
        self._add(_event(step=row["step"], summary=summary))

    def _add(self, event: bytes) -> None:
        with self._told(event):
            self._writer.write(event)
            self._writer.flush()

    @contextlib.contextmanager
    def _told(self, event: bytes) -> Iterator[None]:
        """What keeps `event` from being written is told in a sentence."""
        try:
            yield
        except self._failures as error:
            raise not_written(self._path, error, len(event)) from error

    def close(self) -> None:
        """Close the file. What could not be written was told before."""
        with contextlib.suppress(*self._failures):
            self._writer.close()


def _event(**fields: Any) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event

    event: bytes = Event(wall_time=time.time(), **fields).SerializeToString()
    return event
