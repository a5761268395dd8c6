"""Encoded examples that need not fit into memory: LibriSpeech's hundred hours are 7 GB before anything is decoded."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Sequence
from typing import Any, overload

from toolkit.data.tables import cache_folder
from toolkit.errors import RunFailed

IN_MEMORY = 2**30
"""Bytes that stay in memory; with more, all are in a file of the cache folder that is gone with the process."""


class Spool:
    """Keeps what it is given, and gives it back by its place; for one thread at a time."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY, dir=str(cache_folder()))  # noqa: SIM115  # closed below
        weakref.finalize(self, self._file.close)
        self._size = 0

    def add(self, value: Any) -> Any:
        """The place of `value`, bytes or an int16 array `(n,)`; anything else comes back as it is.

        Raises:
            RunFailed: the file cannot be written.
        """
        import numpy as np

        if not isinstance(value, bytes | np.ndarray):
            return value
        content = value if isinstance(value, bytes) else np.ascontiguousarray(value, np.int16).tobytes()
        try:
            if self._size <= IN_MEMORY < self._size + len(content):
                cache_folder().mkdir(parents=True, exist_ok=True)
            self._file.seek(self._size)
            self._file.write(content)
        except OSError as error:
            raise self._failed(error) from error
        place = _Place(self._size, len(content), isinstance(value, bytes))
        self._size += len(content)
        return place

    def get(self, place: Any) -> Any:
        """What was added there."""
        import numpy as np

        if not isinstance(place, _Place):
            return place
        self._file.seek(place.start)
        content = self._file.read(place.length)
        return content if place.plain else np.frombuffer(content, np.int16)

    def _failed(self, error: OSError) -> RunFailed:
        return RunFailed(
            f"cannot keep encoded examples in {cache_folder()} ({error.strerror or error}): free some space, or let "
            "XDG_CACHE_HOME point to another disk."
        )


class _Place:
    """Where a value lies in the file, and whether it is bytes or samples."""

    __slots__ = ("length", "plain", "start")

    def __init__(self, start: int, length: int, plain: bool) -> None:
        self.start, self.length, self.plain = start, length, plain


class Spooled(Sequence[Any]):
    """Values that a spool holds, each read when it is asked for."""

    def __init__(self, spool: Spool, places: Sequence[Any]) -> None:
        self._spool, self._places = spool, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Spooled(self._spool, self._places[index])
        return self._spool.get(self._places[index])
