"""One training of a sweep: a process and a run directory of its own, watched epoch by epoch."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import filelock

from toolkit import stages
from toolkit.config import RunConfig, load, load_run
from toolkit.errors import Diverged, RunFailed, ToolkitError
from toolkit.runs import metrics, trust
from toolkit.runs import resume as resuming
from toolkit.runs import run as runs
from toolkit.runs.metrics import Row
from toolkit.studies import COMMAND, processes
from toolkit.studies.processes import running, sets, until_over
from toolkit.training.stop import StopSignal

_WRONG_REQUEST = 2  # exit code
# Keys of a config that change nothing of what a training gives.
_FREE = ("name", "data.cache", "training.checkpoint", "training.watch")
_BEGIN = (*COMMAND[:-1], "import sys; from toolkit.studies.trial import begin; sys.exit(begin(*sys.argv[1:]))")


class Unfit(ToolkitError):
    """What was drawn cannot be trained: a wrong request."""


class OtherConfig(ToolkitError):
    """The directory of a trial holds a run of another config."""


def refuse_untrainable(config: Path, overrides: Sequence[str]) -> None:
    """Let a process read the data and build the model, as a training does before its first step.

    In this one the backend would keep memory of the GPU, and the environment, from the trainings that follow.

    Raises:
        ToolkitError: what the training would refuse.
        RunFailed: how it would break off.
    """
    ended = subprocess.run(
        [*_BEGIN, str(config), *overrides],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if ended.returncode == _WRONG_REQUEST:
        raise ToolkitError(ended.stdout.strip())
    if ended.returncode:
        last = _last_line(ended.stdout.strip() or ended.stderr)
        raise RunFailed(
            f"{config} cannot be trained, so the sweep does not begin (exit code {ended.returncode}): {last}"
        )


def begin(config: str, *overrides: str) -> int:
    """What that process does: its exit code, with an error on standard output, where nothing else is written."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            _begin(load(Path(config), overrides))
    except ToolkitError as error:
        sys.stdout.write(f"{error}\n")
        return error.exit_code
    return 0


def _begin(config: RunConfig) -> None:
    """The stages of a training up to its first step."""
    if config.training.precision == "auto":  # what it stands for is measured, and always possible
        training = config.training.model_copy(update={"precision": "float32"})
        config = dataclasses.replace(config, training=training)
    stages.set_up(config)
    data = stages.read_data(config, lambda line: None)
    stages.check_task(config, data.spec)
    model = stages.build_model(config, data.spec)
    stages.start_from(model, config, data.spec, lambda line: None, resumed=False)
    feed = stages.feed(config, data)
    stages.class_weights(config, data)
    stages.compile_model(model, stages.objective(config, data.spec), config, stages.total_steps(config, feed))


@dataclasses.dataclass(frozen=True)
class Training:
    """What is trained, and where.

    Attributes:
        directory: of the run; what the process says is beside it, in `<name>.txt`.
        overrides: of the config, as `--set` takes them.
    """

    directory: Path
    config: Path
    overrides: tuple[str, ...]

    @property
    def output(self) -> Path:
        """What the process has said."""
        return self.directory.with_name(f"{self.directory.name}.txt")

    def record(self) -> dict[str, Any]:
        """The run's record; empty where the run has not begun."""
        path = self.directory / runs.RECORD
        return trust.read_record(path) if path.exists() else {}

    def epochs(self, stop: StopSignal) -> Generator[Row, None, None]:
        """Begin the training, or go on with it, and give the row of each epoch as it comes.

        Whoever closes the iterator ends the process, which saves the run first.

        Raises:
            Unfit: the config with these overrides cannot be trained.
            Diverged: it was trained, and the loss or a gradient was not finite.
            Stopped: a signal came.
            RunFailed: the process ended otherwise; the same training can go on.
            OtherConfig: the directory holds another run.
        """
        self._wait_until_free(stop)
        before = self.record()
        if before:
            self._refuse_other_config()
        if before.get("state") == "finished":
            yield from self._rows()
            return
        place = "--resume" if before else "--run-dir"
        # The test part is left alone: it would be looked at once per trial.
        values = ("--evaluate", "validation", *sets(self.overrides))
        with (
            self.output.open("ab") as output,
            running("train", self.config, place, self.directory, *values, output=output) as process,
        ):
            known = 0
            for over in until_over(process, stop, self._left()):
                rows = self._rows()
                yield from rows[known:]  # those after a checkpoint are written anew, and the same
                known = max(known, len(rows))
                if over:
                    break
        self._judge(process.returncode)

    def _refuse_other_config(self) -> None:
        """A resume refuses less, as a run may go on for more epochs: a trial is compared with those of as many."""
        was, now = (
            resuming.flat(one.to_dict()) for one in (load_run(self.directory), load(self.config, self.overrides))
        )
        now |= {key: was.get(key) for key in resuming.SETTLED if now.get(key) == "auto"}
        keys = [key for key in {**was, **now} if was.get(key) != now.get(key) and not key.startswith(_FREE)]
        if keys:
            told = "; ".join(f"{key} was {was.get(key)!r}, is {now.get(key)!r}" for key in keys)
            raise OtherConfig(
                f"the run in {self.directory} was begun with another config ({told}), so it is no trial of this sweep: "
                "name another --folder."
            )

    def _rows(self) -> list[Row]:
        path = self.directory / runs.METRICS
        return [row for row in metrics.read(path) if row["kind"] == "epoch"] if path.exists() else []

    def _wait_until_free(self, stop: StopSignal) -> None:
        """A training whose sweep was killed goes on by itself: wait for its end."""
        if not self.directory.is_dir():
            return
        lock = filelock.FileLock(self.directory / runs.LOCK)
        while True:
            try:
                with lock.acquire(timeout=processes.POLL):
                    return
            except filelock.Timeout:
                stop.leave_if_received(self._left())

    def _left(self) -> str:
        return f"in {self.directory.name}; the same sweep goes on with it."

    def _judge(self, code: int) -> None:
        """Raise what the process ended with."""
        if code == 0:
            return
        last = _last_line(self.output.read_text(encoding="utf-8", errors="replace"))
        if code == _WRONG_REQUEST:
            raise Unfit(last)
        record = self.record()
        if record.get("state") == "failed" and record.get("diverged"):
            raise Diverged(last)
        raise RunFailed(
            f"the training in {self.directory} ended with exit code {code} ({last}), all it said is in {self.output}: "
            "mend that, and the same sweep goes on with it."
        )


def _last_line(text: str) -> str:
    return trust.shown(text.strip().rpartition("\n")[2], length=500) or "it said nothing"
