"""Files that others made: found without leaving their folder, opened without waiting, read up to a limit."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from toolkit.data.image import Unreadable


def read_regular(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes, at least one.

    A pipe or a device that stands (or is put) in its place is refused, not waited for.

    Raises:
        Unreadable: it is none, or empty, or larger.
        OSError: it cannot be opened or read.
    """
    _check(path.stat(), limit)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        _check(os.fstat(descriptor), limit)  # what was opened may not be what was looked at
        content = file.read(limit + 1)  # and it may still grow, or be one of /proc, which has no size
    if len(content) > limit:
        raise Unreadable(f"more than {limit:,} bytes, at most so many are read")
    return content


def _check(found: os.stat_result, limit: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise Unreadable("no regular file")
    if found.st_size > limit:
        raise Unreadable(f"{found.st_size:,} bytes, at most {limit:,} are read")
    if not found.st_size:
        raise Unreadable("the file is empty")


def walk(root: Path, onerror: Callable[[OSError], None]) -> Iterator[Path]:
    """What lies below `root` at any depth and is not hidden: no folders, but links to folders, not followed.

    (`os.walk` of Python 3.11 calls itself at each level, so that a deep tree ends it.)
    """
    open_folders = [root]
    while open_folders:
        folder = open_folders.pop()
        found: list[Path] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        open_folders.append(folder / entry.name)
                    else:
                        found.append(folder / entry.name)
        except OSError as error:
            onerror(error)
        yield from sorted(found)


def unusable(root: Path, file: Path) -> str | None:
    """Why a file below the folder `root` (resolved) is left out unread; None for an ordinary one.

    A link is ordinary if it leads to a file within `root`: what one folder is said to hold must not read another.
    """
    try:
        if file.is_symlink():
            if not file.exists():
                return "a symbolic link to nothing"
            if not file.resolve().is_relative_to(root):
                return f"a symbolic link out of {root}"
            if file.is_dir():
                return "a symbolic link to a folder, which is not followed"
        if not file.is_file():
            return "no regular file"
    except OSError as error:
        return error.strerror or str(error)
    return None
