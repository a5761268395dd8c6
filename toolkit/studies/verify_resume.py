"""Proves that a config's training is resumed exactly: with real SIGKILLs at random moments, against a run without."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.config import load
from toolkit.config.shipped import find_config
from toolkit.errors import RunFailed, ToolkitError
from toolkit.runs import arrays, checkpoints
from toolkit.runs import run as runs
from toolkit.studies import COMMAND
from toolkit.studies.processes import sets

# What differs from run to run although the training is the same.
TIMES = ("seconds", "examples_per_second", "data_wait_share")
_POLL = 0.002  # seconds; less than a step of the smallest model
_TRIES = 5
_END = ("trained", "finished")  # states of a record


def verify_resume(
    config: str,
    *,
    kills: int = 3,
    steps: int = 60,
    seed: int = 0,
    overrides: Sequence[str] = (),
    keep: Path | None = None,
    say: Callable[[str], object] = print,
) -> None:
    """Train `config` for a stretch, train it again with kills and resumes, and compare the two.

    Args:
        config: a YAML file or the name of a shipped config.
        kills: in the second run.
        steps: batches of each run.
        seed: of the moments of the kills.
        overrides: as `--set` takes them.
        keep: a new folder for both runs, which stay there; None: a temporary one, which stays unless they are equal.
        say: takes a line for people.

    Raises:
        ToolkitError: the config is wrong, or `keep` exists.
        RunFailed: the runs differ, and where; or one could not be carried out.
    """
    path = find_config(config)
    load(path, overrides)
    if keep is not None and keep.exists():
        raise ToolkitError(f"--keep {keep} exists already: name a new folder.")
    # Odd, so that checkpoints fall within windows of micro-batches, too.
    often = [f"training.checkpoint.every_steps={max(1, steps // 12) | 1}", "training.log_every=1"]
    with _folder(keep, say) as folder:
        trial = Trial(path.absolute(), folder, (*overrides, *often), steps, say)
        whole = trial.whole()
        run, _ = trial.killed(whole, kills, random.Random(seed))
        comparison = compare(whole.directory, run)
        if comparison.differences:
            raise RunFailed(f"not exact: {'; '.join(comparison.differences)}. Both runs are in {folder}.")
    say(f"exact: {kills} kills, {comparison.tensors} tensors, {comparison.rows} rows equal to the bit")


@contextlib.contextmanager
def _folder(keep: Path | None, say: Callable[[str], object]) -> Iterator[Path]:
    """`keep`, or a temporary folder that stays where a run failed or differs."""
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.absolute()
        say(f"both runs are in {keep.absolute()}")
        return
    folder = Path(tempfile.mkdtemp(prefix="verify-resume-"))
    try:
        yield folder
    except RunFailed:
        raise  # it names the folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder)


@dataclasses.dataclass(frozen=True)
class Moment:
    """When to kill: so many seconds after row number `row` of `metrics.jsonl`; row 0 is the training's beginning."""

    row: int
    delay: float


@dataclasses.dataclass(frozen=True)
class Sitting:
    """What one process did of a run.

    Attributes:
        start: the step that it began or went on from.
        end: the step of the last row it left.
        moment: of its kill; None where it finished.
        within: what it was killed in.
    """

    start: int
    end: int
    moment: Moment | None = None
    within: str = ""

    def __str__(self) -> str:
        start = f"went on from step {self.start}" if self.start else "began at step 0"
        return f"{start}, " + (f"killed after step {self.end} ({self.within})" if self.moment else "finished")


@dataclasses.dataclass(frozen=True)
class Whole:
    """A run without interruption.

    Attributes:
        marks: seconds at which its training began, each row was seen, and it was over.
    """

    directory: Path
    marks: tuple[float, ...]

    @property
    def step(self) -> int:
        """The last."""
        return _last_step(_lines(self.directory))

    def moments(self, count: int, generator: random.Random) -> list[Moment]:
        """Random moments of the training, in order.

        Each stretch from mark to mark is as likely as another, or else most kills of a short run would hit the
        compiling before the first step. Saves and validations are parts of stretches.
        """
        drawn = []
        for _ in range(count):
            row = generator.randrange(len(self.marks) - 1)
            drawn.append(Moment(row, generator.uniform(0, self.marks[row + 1] - self.marks[row])))
        return sorted(drawn, key=lambda moment: (moment.row, moment.delay))


@dataclasses.dataclass(frozen=True)
class Trial:
    """A config to be trained whole and with kills, each sitting in a process of its own.

    Attributes:
        folder: of the runs.
        steps: batches of each run; None: all of them.
        say: takes a line for people.
    """

    config: Path
    folder: Path
    overrides: tuple[str, ...] = ()
    steps: int | None = None
    say: Callable[[str], object] = print

    def whole(self) -> Whole:
        """Train without interruption."""
        run = self.folder / "whole"
        marks: list[float] = []
        watch = _Watch(run)
        with self._process(self._first(run), "whole") as process:
            over = False
            while not over:
                over = process.poll() is not None or watch.is_over()  # before the rows, so that none is left out
                while len(marks) <= watch.rows() and watch.has_begun():
                    marks.append(time.perf_counter())
                time.sleep(_POLL)
            marks.append(time.perf_counter())
            process.wait()
        self._check(process, "whole")
        whole = Whole(run, tuple(marks))
        self.say(f"whole: {whole.step} steps")
        return whole

    def killed(self, whole: Whole, kills: int, generator: random.Random) -> tuple[Path, list[Sitting]]:
        """Train with kills at random moments and resumes; the run directory and its sittings.

        Raises:
            RunFailed: a sitting failed, or always ended before it could be killed.
        """
        for number in range(1, _TRIES + 1):
            run = self.folder / (f"killed-{number}" if number > 1 else "killed")
            sittings = self._sittings(run, whole, whole.moments(kills, generator))
            if sittings:
                return run, sittings
        raise RunFailed(
            f"{_TRIES} runs in {self.folder} ended before the moment of their last kill: train more steps, or on a "
            "machine that is less busy."
        )

    def _sittings(self, run: Path, whole: Whole, moments: Sequence[Moment]) -> list[Sitting] | None:
        """None where a sitting ended before it was killed."""
        sittings = []
        for number, moment in enumerate((*moments, None), start=1):
            name = f"{run.name}-sitting-{number}"
            watch = _Watch(run)
            arguments = self._first(run) if number == 1 else ("--resume", str(run))
            with self._process(arguments, name) as process:
                if moment:
                    while process.poll() is None and not watch.has_reached(moment.row):
                        time.sleep(_POLL)
                    time.sleep(0 if watch.is_over() else moment.delay)
                    process.kill()
                process.wait()
            if not moment or process.returncode != -signal.SIGKILL:
                self._check(process, name)
            if moment and (process.returncode == 0 or _record(run)["state"] == "finished"):
                self.say(f"sitting {number}: finished before it was killed; another run with other moments")
                return None
            within = _within(run, whole) if moment else ""
            sittings.append(Sitting(watch.start(), _last_step(_lines(run)), moment, within))
            self.say(f"sitting {number}: {sittings[-1]}")
        return sittings

    def _first(self, run: Path) -> tuple[str, ...]:
        """Arguments of a run's first sitting."""
        steps = ("--steps", str(self.steps)) if self.steps else ()
        return str(self.config), "--run-dir", str(run), *steps, *sets(self.overrides)

    @contextlib.contextmanager
    def _process(self, arguments: Sequence[str], name: str) -> Iterator[subprocess.Popen[bytes]]:
        """`toolkit train` with `arguments`; it does not outlive the block."""
        with (self.folder / f"{name}.txt").open("wb") as log:
            process = subprocess.Popen(
                [*COMMAND, "train", *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
            try:
                yield process
            finally:
                process.kill()
                process.wait()

    def _check(self, process: subprocess.Popen[bytes], name: str) -> None:
        if process.returncode:
            log = self.folder / f"{name}.txt"
            said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise RunFailed(
                f"a training ended with exit code {process.returncode} ({said[-1] if said else 'it said nothing'}): "
                f"see {log}."
            )


class _Watch:
    """What a sitting does of a run, seen from outside."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self._before = _lines(run)
        self._sittings = len(_resumed(run)) if self._before or checkpoints.names(self._folder) else None

    @property
    def _folder(self) -> Path:
        return self.run / checkpoints.FOLDER

    def has_begun(self) -> bool:
        """Whether the training of this sitting has begun."""
        if self._sittings is None:
            return bool(checkpoints.names(self._folder))
        return len(_resumed(self.run)) > self._sittings

    def rows(self) -> int:
        """Rows of the run, once this sitting has written one; 0 before. A row's times tell it from an earlier one."""
        lines = _lines(self.run)
        pairs = zip(lines, self._before, strict=False)
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        return len(lines) if len(lines) > same else 0

    def is_over(self) -> bool:
        """Whether the training, with all its sittings, is over."""
        return self.has_begun() and _record(self.run)["state"] in _END

    def has_reached(self, row: int) -> bool:
        """Whether this sitting has come to a row, or as near as it can."""
        return (self.rows() >= row if row else self.has_begun()) or self.is_over()

    def start(self) -> int:
        """The step that the sitting began or went on from."""
        return int(_resumed(self.run)[-1]["step"]) if self._sittings is not None and self.has_begun() else 0


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Of two runs that should be the same.

    Attributes:
        tensors: that were compared.
        rows: likewise.
        differences: in words; none where the runs are equal to the bit.
    """

    tensors: int
    rows: int
    differences: tuple[str, ...]


def compare(whole: Path, other: Path) -> Comparison:
    """Compare two finished runs: rows without times, the last checkpoint's state and tensors, the kept weights.

    Raises:
        RunFailed: one has no checkpoint that can be read.
    """
    rows = [[_without(json.loads(line), TIMES) for line in _lines(run)] for run in (whole, other)]
    first, second = _last_checkpoint(whole), _last_checkpoint(other)
    kept = [arrays.load(run / runs.WEIGHTS)[0] for run in (whole, other)]
    found = [
        _first_row(*rows),
        _first_key(_state(first), _state(second)),
        _first_tensor("the last checkpoint", first.arrays, second.arrays),
        _first_tensor(runs.WEIGHTS, *kept),
    ]
    if first.path.name != second.path.name:
        found.insert(1, f"the last checkpoint is {first.path.name}, then {second.path.name}")
    tensors = len(first.arrays) + len(kept[0])
    return Comparison(tensors, len(rows[0]), tuple(difference for difference in found if difference))


def _last_checkpoint(run: Path) -> checkpoints.Checkpoint:
    names = checkpoints.names(run / checkpoints.FOLDER)
    if not names:
        raise RunFailed(f"{run / checkpoints.FOLDER} holds no checkpoint.")
    try:
        return checkpoints.load(run / checkpoints.FOLDER / names[-1])
    except checkpoints.DamagedError as error:
        raise RunFailed(f"the checkpoint {names[-1]} of {run} is damaged ({error}).") from error


def _state(checkpoint: checkpoints.Checkpoint) -> dict[str, Any]:
    return {**checkpoint.state, "position": _without(checkpoint.state["position"], TIMES)}


def _first_row(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> str | None:
    """Where rows of metrics begin to differ."""
    for number, (was, now) in enumerate(zip(first, second, strict=False), start=1):
        if difference := _first_key(was, now):
            return f"{runs.METRICS} differs from row {number}, step {was.get('step')}, on: {difference}"
    if len(first) != len(second):
        return f"{runs.METRICS} has {len(first)} rows, then {len(second)}"
    return None


def _first_key(first: Mapping[str, Any], second: Mapping[str, Any], within: str = "") -> str | None:
    """The first key, at any depth, with another value. JSON's text of a float has all its bits, and knows NaN."""
    for key in {**first, **second}:
        was, now = first.get(key), second.get(key)
        if json.dumps(was, sort_keys=True) != json.dumps(now, sort_keys=True):
            if isinstance(was, Mapping) and isinstance(now, Mapping):
                return _first_key(was, now, f"{within}{key}.")
            return f"{within}{key} is {was!r}, then {now!r}"
    return None


def _first_tensor(
    where: str, first: Mapping[str, np.ndarray[Any, Any]], second: Mapping[str, np.ndarray[Any, Any]]
) -> str | None:
    """The first tensor that is not the same to the bit, and how many there are."""
    found = [name for name in sorted({**first, **second}) if _bits(first.get(name)) != _bits(second.get(name))]
    if not found:
        return None
    was, now = first.get(found[0]), second.get(found[0])
    if was is None or now is None:
        how = "is missing in one run"
    elif (was.shape, was.dtype) != (now.shape, now.dtype):
        how = f"is {was.dtype.name} {was.shape}, then {now.dtype.name} {now.shape}"
    else:
        parts = [value.reshape(-1, 1).view(np.uint8) for value in (was, now)]
        how = f"differs in {np.count_nonzero((parts[0] != parts[1]).any(axis=1))} of {was.size} values"
    return f"{len(found)} tensors of {where} differ, of which {found[0]} {how}"


def _bits(value: np.ndarray[Any, Any] | None) -> tuple[Any, ...] | None:
    return None if value is None else (value.shape, value.dtype, value.tobytes())


def _within(run: Path, whole: Whole) -> str:
    """What a run was in when it was killed, from what it left."""
    folder = run / checkpoints.FOLDER
    if any(entry.name.startswith(".") for entry in folder.iterdir()):
        return "save"
    lines, all_lines = _lines(run), _lines(whole.directory)
    if len(lines) >= len(all_lines):
        return "end"
    return "validation" if json.loads(all_lines[len(lines)])["kind"] == "epoch" else "step"


def _lines(run: Path) -> list[str]:
    path = run / runs.METRICS
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _last_step(lines: Sequence[str]) -> int:
    return int(json.loads(lines[-1])["step"]) if lines else 0


def _record(run: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((run / runs.RECORD).read_text(encoding="utf-8"))
    return values


def _resumed(run: Path) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = _record(run).get("resumed", [])
    return found


def _without(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in names}
