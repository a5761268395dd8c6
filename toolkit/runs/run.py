"""The run directory: where everything that happened in a run can be looked up."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import filelock
from rich.console import Console, RenderableType

from toolkit.errors import RunFailed, ToolkitError
from toolkit.runs import files, terminal, trust
from toolkit.runs.checkpoints import FOLDER

CONFIG = "config.yaml"
SPEC = "data_spec.json"
RECORD = "record.json"
WEIGHTS = "weights.safetensors"
LAST = "last.safetensors"
BEFORE = "weights-before.safetensors"  # see `toolkit.runs.kept`
METRICS = "metrics.jsonl"
CURVES = "curves.png"
TENSORBOARD = "tensorboard"
LOG = "log.txt"
BAD_EXAMPLES = "bad_examples.csv"
DUPLICATES = "duplicates.csv"
LOOK = "look"
LOCK = "lock"
KEPT = {"best": WEIGHTS, "last": LAST}
_OWN = (CONFIG, SPEC, RECORD, WEIGHTS, BEFORE, LAST, METRICS, LOG, DUPLICATES)
# Written in this order at the start, the record last: without it they were left by a process that was killed there.
_START = (SPEC, DUPLICATES, BAD_EXAMPLES, CONFIG)
# Beside these a new run does not begin either: it would write over them.
_RESULTS = ("evaluation.json", "predictions.csv", "confusion.png", CURVES, TENSORBOARD, FOLDER)


class Run:
    """A run directory, owned by this process until `close` (or the end of the `with` block).

    Attributes:
        directory: the folder, absolute.
        console: where people read; everything that `say` prints also goes to `log.txt`.
    """

    def __init__(self, directory: Path, lock: filelock.BaseFileLock, *, new: bool, created: bool) -> None:
        self.directory = directory
        self.console = terminal.console()
        self._lock = lock
        self._new = new  # only what this process began may it discard
        self._created = created
        try:
            self._log = (directory / LOG).open("a", encoding="utf-8")
        except OSError:
            _give_up(directory, lock)
            raise
        self._log_console = Console(file=self._log, width=100)

    @classmethod
    def create(cls, name: str, directory: Path | None = None) -> Self:
        """Take `directory`, or make `runs/<name>-<date>-<time>-<4 random>/` in the current folder.

        Raises:
            ToolkitError: the directory holds a run already, another process owns it, or it cannot be written.
        """
        if directory is None:
            directory = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        directory = directory.absolute()
        created = not directory.exists()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock = _take_lock(directory)
            _remove_start(directory)
            held = [name for name in (*_OWN, *_RESULTS) if name != LOG and (directory / name).exists()]
            if held:
                _give_up(directory, lock)
                raise ToolkitError(
                    f"--run-dir {directory} holds a run already ({', '.join(held)}): name another folder, or leave "
                    "--run-dir out and a new one is made under runs/."
                )
            return cls(directory, lock, new=True, created=created)
        except OSError as error:
            raise ToolkitError(
                f"the run directory {directory} cannot be written ({error.strerror or error}): name another with "
                "--run-dir."
            ) from error

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Take the directory of a run that was trained before.

        Raises:
            ToolkitError: it is none, another process owns it, or it cannot be written.
        """
        return cls._taken(check(directory))

    @classmethod
    def resume(cls, directory: Path) -> Self:
        """Take the directory of a run whose training began.

        Raises:
            ToolkitError: it is none, another process owns it, or it cannot be written.
        """
        directory = _checked(
            directory,
            (CONFIG, SPEC, RECORD),
            "holds no run that began to train",
            "give another folder, or start a run without --resume",
        )
        trust.read_record(directory / RECORD, needed=("total_steps", "order_version"))
        return cls._taken(directory)

    @classmethod
    def _taken(cls, directory: Path) -> Self:
        try:
            return cls(directory, _take_lock(directory), new=False, created=False)
        except OSError as error:
            raise ToolkitError(
                f"the run directory {directory} cannot be written ({error.strerror or error}): copy it to a place of "
                "your own and give that."
            ) from error

    def path(self, name: str) -> Path:
        """The place of one of the run's files."""
        return self.directory / name

    def write(self, name: str, text: str) -> None:
        """Replace a text file of the run, whole or not at all.

        Raises:
            RunFailed: it cannot be written (a full disk).
        """
        try:
            files.write_text(self.path(name), text)
        except OSError as error:
            raise files.not_written(self.path(name), error, len(text.encode())) from error

    def write_bad_examples(self, bad: Iterable[tuple[str, Any]]) -> None:
        """Write `bad_examples.csv` from pairs of a split and what has an `id` and a `reason`."""
        rows = [(split, example.id, example.reason) for split, example in bad]
        self._write_table(BAD_EXAMPLES, ("split", "id", "reason"), rows)

    def write_duplicates(self, duplicates: Mapping[tuple[str, str], Sequence[str]]) -> None:
        """Write `duplicates.csv`: which examples of a split have the content of one in another, earlier split."""
        rows = [(second, trust.shown(id), first) for (first, second), ids in duplicates.items() for id in ids]
        self._write_table(DUPLICATES, ("split", "id", "also_in"), rows)

    def _write_table(self, name: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Without rows there is no file."""
        if not rows:
            self.path(name).unlink(missing_ok=True)  # an attempt before this run may have left one
            return
        text = io.StringIO(newline="")
        csv.writer(text).writerows([head, *rows])
        self.write(name, text.getvalue())

    def say(self, *what: RenderableType) -> None:
        """Tell the person at the terminal and `log.txt`; in text, brackets and control characters are only text."""
        shown = [trust.shown(item, lines=True) if isinstance(item, str) else item for item in what]
        with contextlib.suppress(OSError):  # of a full disk: what must be written says so by itself
            for console in (self.console, self._log_console):
                for item in shown:
                    console.print(item, markup=False, highlight=False, soft_wrap=isinstance(item, str))
            self._log.flush()

    def _close_log(self) -> None:
        with contextlib.suppress(OSError):
            self._log.close()

    def close(self) -> None:
        """Give the directory up."""
        self._close_log()
        _give_up(self.directory, self._lock)

    def discard(self, *, keep_bad_examples: bool = False) -> None:
        """Give the directory up and remove what this run put there: it ended before there was anything to keep."""
        self._close_log()
        for name in _OWN if keep_bad_examples else (*_OWN, BAD_EXAMPLES):
            self.path(name).unlink(missing_ok=True)
        _give_up(self.directory, self._lock)
        if self._created and not any(self.directory.iterdir()):
            self.directory.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._new and not self.path(RECORD).exists():
            self.discard(keep_bad_examples=isinstance(error, RunFailed))  # the list may be what stopped it
        else:
            self.close()


def check(directory: Path) -> Path:
    """The absolute path of a trained run's directory, checked to be one.

    Raises:
        ToolkitError: there is no such folder, or it holds no run, or one without weights.
    """
    return _checked(
        directory,
        (CONFIG, SPEC, WEIGHTS),
        "is not the directory of a trained run",
        "give the folder that train printed at its end",
    )


def _checked(directory: Path, needed: Sequence[str], fault: str, what: str) -> Path:
    """The absolute path of a folder that holds the files `needed`, only its own files, and a complete config."""
    directory = directory.absolute()
    if not directory.is_dir():
        raise ToolkitError(f"there is no run directory {directory}: give the folder that train printed.")
    trust.check_folder(
        directory, files=(*_OWN, LOCK), folders=(FOLDER, TENSORBOARD, LOOK), in_place=(LOG, METRICS, LOCK)
    )
    missing = [name for name in needed if not (directory / name).is_file()]
    if missing:
        raise ToolkitError(f"{directory} {fault} ({', '.join(missing)} is missing): {what}.")
    trust.check_complete(directory / CONFIG)
    return directory


def _remove_start(directory: Path) -> None:
    """Remove what a process left that was killed while it wrote a run's first files.

    The description of the data comes first, and nobody but a run writes it: a config alone may be a person's.
    """
    if (directory / SPEC).exists() and not any(
        (directory / name).exists() for name in (*_OWN, *_RESULTS) if name not in (*_START, LOG)
    ):
        for name in reversed(_START):
            (directory / name).unlink(missing_ok=True)


def _give_up(directory: Path, lock: filelock.BaseFileLock) -> None:
    (directory / LOCK).unlink(missing_ok=True)  # while it is held: afterwards it may be another's
    lock.release()


def _take_lock(directory: Path) -> filelock.BaseFileLock:
    path = directory / LOCK
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        owner = path.read_text(encoding="utf-8").strip() or "another process"
        raise ToolkitError(
            f"the run directory {directory} is in use by {owner}: wait until it ends, or name another with --run-dir."
        ) from None
    path.write_text(f"process {os.getpid()} on {socket.gethostname()}: {' '.join(sys.argv)}\n", encoding="utf-8")
    return lock
