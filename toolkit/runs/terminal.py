"""A console for people who may leave: a training goes on when nobody reads what it says."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import IO, Any, cast

from rich.console import Console


def console() -> Console:
    """A console on standard output that falls silent where nobody reads any more."""
    return Console(file=cast("IO[str]", _Output()))


class _Output(io.TextIOBase):
    """`sys.stdout` as it is at each call; silent where there is none, and once writing to it has failed."""

    def __init__(self) -> None:
        self._is_gone = False

    def write(self, text: str) -> int:
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        self._try("flush")

    def isatty(self) -> bool:
        return not self._is_gone and _stdout() is not None and bool(_stdout().isatty())

    def fileno(self) -> int:
        if _stdout() is None:
            raise OSError("there is no standard output")
        return int(_stdout().fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(_stdout(), "encoding", None) or "utf-8"

    def _try(self, method: str, *arguments: str) -> None:
        if self._is_gone or _stdout() is None:
            return
        try:
            getattr(_stdout(), method)(*arguments)
        except OSError:
            self._is_gone = True
            # Else Python fails at its end, when it writes what it still holds.
            with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - it is no path
                os.dup2(nowhere.fileno(), _stdout().fileno())


def _stdout() -> Any:
    """While a progress bar is drawn, `sys.stdout` leads to the bar's console, and so back to here."""
    return getattr(sys.stdout, "rich_proxied_file", sys.stdout)
