"""Files that are replaced whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from toolkit.errors import RunFailed


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`: on success it is synced and takes its place, on failure it is removed."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        sync_file(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sync_file(path: Path) -> None:
    """Wait until the disk has what was written to `path`."""
    with path.open("rb") as written:
        os.fsync(written.fileno())


def sync_directory(path: Path) -> None:
    """Wait until the disk has the names in `path`."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    # The only way to read it is to set it; mkstemp makes files that nobody else can read.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def not_written(path: Path, error: Exception, needed: int) -> RunFailed:
    """What to raise where `path`, of `needed` bytes, could not be written."""
    reason = getattr(error, "strerror", None) or error
    return RunFailed(
        f"{path} could not be written ({reason}): it needs {needed:,} bytes, and {_free(path.parent)} are free; make "
        "room. What was kept before is whole."
    )


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder if folder.is_dir() else folder.parent).free:,}"
    except OSError:
        return "an unknown number"
