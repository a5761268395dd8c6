"""The rows of `metrics.jsonl`: what a training measured, a JSON object per line.

Read as a file of somebody else, line by line: whoever reads decides how much of it memory has to hold.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from toolkit.errors import ToolkitError
from toolkit.runs import files, trust

MAX_ROW = 64 * 1024  # bytes
MAX_WHOLE = 2**53

Row = dict[str, Any]


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row to `path`.

    Raises:
        RunFailed: the disk is full, or the file cannot be written.
    """
    line = json.dumps(row) + "\n"
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise files.not_written(path, error, len(line)) from error


def sync(path: Path) -> int:
    """Wait until the disk has all rows of `path`; their number, 0 without a file."""
    if not path.exists():
        return 0
    files.sync_file(path)
    with path.open("rb") as file:
        return sum(1 for _ in file)


def cut(path: Path, count: int) -> None:
    """Keep the first `count` rows of `path`.

    Raises:
        ToolkitError: there are fewer.
    """
    found = end = 0
    if path.exists():
        with trust.open_file(path) as file:
            for line in itertools.islice(_lines(path, file), count):
                found += 1
                end += len(line)
    if found < count:
        raise ToolkitError(
            f"{trust.shown(path)} has {found} rows, but the checkpoint was written after {count}: bring back the file "
            "as train left it."
        )
    if path.exists():
        os.truncate(path, end)


def read(path: Path) -> Iterator[Row]:
    """The rows of `path`, each with a `kind` and a `step`; a last line that was cut off is left out.

    Raises:
        ToolkitError: there is no such file, or a line is no row.
    """
    with trust.open_file(path, what="use the metrics.jsonl of a run") as file:
        for number, line in enumerate(_lines(path, file), start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                if not line.endswith(b"\n"):
                    return  # by a kill
                raise ToolkitError(
                    f"{trust.shown(path)}:{number} is not JSON ({error}): mend or remove the line."
                ) from error
            if not _is_row(row):
                raise ToolkitError(
                    f"{trust.shown(path)}:{number} is no row of metrics with a kind and a step: mend or remove the "
                    "line."
                )
            yield row


def _lines(path: Path, file: BinaryIO) -> Iterator[bytes]:
    for number in itertools.count(1):
        line = file.readline(MAX_ROW + 1)
        if not line:
            return
        if len(line) > MAX_ROW:
            raise ToolkitError(
                f"{trust.shown(path)}:{number} has more than {MAX_ROW:,} bytes, which no row of metrics has: mend or "
                "remove the line."
            )
        yield line


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or type(row.get("kind")) is not str or type(row.get("step")) is not int:
        return False
    return all(0 <= value <= MAX_WHOLE for value in row.values() if isinstance(value, int))
