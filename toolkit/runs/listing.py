"""A folder of runs: what is there, what differs between two, and how one is removed."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from toolkit.errors import RunFailed, ToolkitError
from toolkit.runs import resume, run, trust
from toolkit.runs.trust import shown

Config = Callable[[Path], Mapping[str, Any]]
"""From a run directory to its config in plain values; raises ToolkitError where that is damaged."""

RUNNING = "running"
INTERRUPTED = "interrupted"

_EVALUATION = "evaluation.json"
_CELL = 60  # characters


@dataclasses.dataclass(frozen=True)
class Summary:
    """A run at a glance.

    Attributes:
        config: its name.
        state: `running`, or what the record says; `interrupted` where it says `training` and no process does.
        started: date and time, UTC.
        figures: of the best epoch and of the test part, by name.
        size: bytes on disk.
        fault: why the rest could not be read; empty where it could.
    """

    directory: Path
    config: str = ""
    state: str = "damaged"
    started: str = ""
    figures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    size: int = 0
    fault: str = ""


def summaries(folder: Path, config: Config) -> list[Summary]:
    """Of the runs in `folder`, the one that began last at the end.

    Raises:
        ToolkitError: there is no such folder.
    """
    if not folder.is_dir():
        raise ToolkitError(f"there is no folder {shown(folder)}: name the folder that holds your runs.")
    directories = [path for path in folder.iterdir() if not path.is_symlink() and (path / run.RECORD).is_file()]
    found = [summarize(path, config) for path in directories]
    return sorted(found, key=lambda one: (one.started, one.directory))


def summarize(directory: Path, config: Config) -> Summary:
    """One run; what is damaged is told in its `fault`."""
    size = sum(length for _, length in contents(directory))
    try:
        run.check_begun(directory, "give another folder")
        record = trust.read_record(directory / run.RECORD)
        return Summary(
            directory,
            config=str(config(directory)["name"]),
            state=_state(directory, record),
            started=str(record.get("started", ""))[:16].replace("T", " "),
            figures=_figures(directory, record),
            size=size,
        )
    except ToolkitError as error:
        return Summary(directory, size=size, fault=str(error))


def summary_table(found: Sequence[Summary]) -> Table:
    """Some lines per run."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for column in ("run", "state", "figures"):
        table.add_column(column, overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    for one in found:
        about = f"{one.config}, {one.started}" if one.config else ""
        figures = [f"{name} {_figure(name, value)}" for name, value in one.figures.items()]
        cells = ([one.directory.name, about], [one.state], [one.fault] if one.fault else figures)
        texts = (Text("\n".join(shown(line, length=200) for line in lines)) for lines in cells)
        table.add_row(*texts, size_text(one.size))
    return table


def differences(first: Path, second: Path, config: Config) -> list[tuple[str, str, str]]:
    """(key, value in the first, value in the second) of what two runs were given and what came out.

    Raises:
        ToolkitError: one of them is no run, or damaged.
    """
    one, other = (resume.flat(_described(directory, config)) for directory in (first, second))
    keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    return [(key, _cell(one.get(key)), _cell(other.get(key))) for key in keys]


def difference_table(rows: Sequence[tuple[str, str, str]], first: Path, second: Path) -> Table:
    """A line per key."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for column in ("", first.name, second.name):
        table.add_column(Text(shown(column)), overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    return table


def remove(
    directories: Sequence[Path], config: Config, *, confirm: Callable[[str], bool], say: Callable[[str], None]
) -> list[Path]:
    """Remove run directories, once it has been said what is in them and `confirm` has agreed; those that are gone.

    Nothing is removed where one of them is no run, belongs to a running process, or holds a link.

    Raises:
        ToolkitError: one of them cannot be removed; all are still there.
        RunFailed: the operating system stopped it on the way.
    """
    wanted = list(dict.fromkeys(path.absolute() for path in directories))
    for directory in wanted:
        if directory.is_symlink():
            raise ToolkitError(f"{shown(directory)} is a link: give the run directory that it leads to.")
        run.check_begun(directory, "only runs are removed")
        if is_running(directory):
            raise ToolkitError(f"the run in {shown(directory)} is running: stop it first.")
    for directory in wanted:
        for line in _inventory(summarize(directory, config)):
            say(line)
    if not confirm(f"Remove {'this run' if len(wanted) == 1 else f'these {len(wanted)} runs'} for good?"):
        return []
    for directory in wanted:
        _remove(directory)
        say(f"removed {shown(directory)}")
    return wanted


def is_running(directory: Path) -> bool:
    """Whether a process owns the run; its lock is looked at, and left as it is."""
    try:
        with trust.open_file(directory / run.LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except ToolkitError:
        return False  # there is none
    return False


def contents(directory: Path) -> list[tuple[Path, int]]:
    """Every file below `directory`, and its bytes; links are not followed, and count as files."""
    found = []
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # a running training replaces its files
                path = Path(folder, name)
                found.append((path, path.lstat().st_size))
    return found


def size_text(size: int) -> str:
    """Bytes as a person reads them."""
    units = ["B", "kB", "MB", "GB", "TB"]
    number = float(size)
    while number >= 1000 and len(units) > 1:
        number, units = number / 1000, units[1:]
    return f"{number:.0f} {units[0]}" if units[0] == "B" or number >= 100 else f"{number:.1f} {units[0]}"


def _state(directory: Path, record: Mapping[str, Any]) -> str:
    if is_running(directory):
        return RUNNING
    state = str(record.get("state", "training"))
    return INTERRUPTED if state == "training" else state


def _figures(directory: Path, record: Mapping[str, Any]) -> dict[str, float]:
    """What can be read of the best epoch and of the evaluation of the test part."""
    figures: dict[str, Any] = {}
    best = record.get("best")
    if isinstance(best, dict) and isinstance(best.get("metric"), str):
        figures[best["metric"]] = best.get("value")
    if (directory / _EVALUATION).exists():
        test = trust.read_json(directory / _EVALUATION, limit=trust.MAX_EVALUATION)
        if isinstance(test, dict):
            words = test.get("words")
            figures["test accuracy"] = test.get("accuracy")
            figures["test word error rate"] = words.get("rate") if isinstance(words, dict) else None
            figures["test loss"] = test.get("loss")
    return {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}


def _figure(name: str, value: float) -> str:
    return f"{100 * value:.2f} %" if name.endswith(("accuracy", "rate")) else f"{value:.4f}"


def _described(directory: Path, config: Config) -> dict[str, Any]:
    """Config, what it ran on, data, and figures of a run."""
    directory = run.check_begun(directory, "give two run directories")
    record = trust.read_record(directory / run.RECORD)
    kept = ("commit", "python", "versions", "machine", "parameters", "fingerprints", "limit", "epochs", "seconds")
    figures = {name: _figure(name, value) for name, value in _figures(directory, record).items()}
    return {
        **config(directory),
        **{name: record.get(name) for name in kept},
        "state": _state(directory, record),
        **figures,
    }


def _cell(value: Any) -> str:
    return "–" if value is None else shown(value, length=_CELL)


def _inventory(summary: Summary) -> list[str]:
    """The run in a line, and a line for each thing in its folder."""
    directory = summary.directory
    about = summary.fault or f"config {summary.config}, {summary.state}, started {summary.started}"
    lines = [f"{shown(directory)} ({size_text(summary.size)}): {shown(about)}"]
    for path in sorted(directory.iterdir()):
        inside = contents(path)
        size = sum(length for _, length in inside) if path.is_dir() else path.lstat().st_size
        files = f", {len(inside):,} file{'' if len(inside) == 1 else 's'}" if path.is_dir() else ""
        lines.append(f"  {shown(path.name)} ({size_text(size)}{files})")
    return lines


def _remove(directory: Path) -> None:
    lock = run.take_lock(directory)  # a training may have begun to resume it
    try:
        shutil.rmtree(directory)
    except OSError as error:
        raise RunFailed(
            f"{shown(directory)} could not be removed whole ({error.strerror or error}): allow it, and remove the rest."
        ) from error
    finally:
        lock.release()
