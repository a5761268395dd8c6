"""Decoded examples as indexable tables, in memory or in a file of the cache folder.

TensorFlow reads both in place: a table is handed over as a resource whose buffer is the array's own. (A tensor that a
tf.data function captures is copied into the dataset's graph, a second gigabyte for cats_vs_dogs and an error beyond
two; `tf.convert_to_tensor` copies, too.)
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.errors import RunFailed

if TYPE_CHECKING:
    import tensorflow as tf

Array = np.ndarray[Any, Any]
MEMORY_SHARE = 0.25
"""Of the memory that is free at the start, the part that decoded tables may take before they go to disk."""


@dataclasses.dataclass(frozen=True, eq=False)
class ImageTable:
    """Pictures of one size: `rows` is uint8 `(examples, height, width, channels)`."""

    rows: Array

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def nbytes(self) -> int:
        """In memory; a table on disk takes none that the system cannot have back."""
        return 0 if isinstance(self.rows, np.memmap) else self.rows.nbytes

    def gather(self, indices: tf.Tensor) -> tf.Tensor:
        """uint8 `(len(indices), height, width, channels)`; may be called inside a tf.data function."""
        import tensorflow as tf

        return tf.gather(self._resource.read_value(), indices)

    @functools.cached_property
    def _resource(self) -> tf.Variable:
        return _share(self.rows)


@dataclasses.dataclass(frozen=True, eq=False)
class RaggedTable:
    """Rows of different lengths: row i is `flat[offsets[i]:offsets[i + 1]]` (int16 samples or int32 tokens)."""

    flat: Array
    offsets: Array

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def nbytes(self) -> int:
        """In memory; a table on disk takes none that the system cannot have back."""
        return 0 if isinstance(self.flat, np.memmap) else self.flat.nbytes

    @property
    def lengths(self) -> Array:
        """int64 `(examples,)`."""
        return np.diff(self.offsets)

    def row(self, i: int) -> Array:
        """One row, not padded."""
        return self.flat[self.offsets[i] : self.offsets[i + 1]]

    def gather(self, indices: tf.Tensor, edges: Sequence[int]) -> tuple[tf.Tensor, tf.Tensor]:
        """Rows padded with zeros to the first of `edges` that holds the longest, and their lengths (int32).

        Where none of `edges` does, to the next multiple of the last.
        """
        import tensorflow as tf

        flat, offsets = self._resources
        rows = tf.RaggedTensor.from_row_splits(flat.read_value(), offsets.read_value(), validate=False)
        rows = tf.gather(rows, indices)
        lengths = rows.row_lengths()
        longest = tf.reduce_max(lengths)
        known = tf.constant(edges, tf.int64)
        beyond = known[-1] * tf.maximum(-(-longest // known[-1]), 1)
        fitting = known[tf.minimum(tf.searchsorted(known, longest[None])[0], len(edges) - 1)]
        width = tf.where(longest <= known[-1], fitting, beyond)
        padded = rows.to_tensor(shape=tf.stack([tf.size(indices, tf.int64), width]))
        padded = tf.ensure_shape(padded, [indices.shape[0], None])
        return padded, tf.ensure_shape(tf.cast(lengths, tf.int32), [indices.shape[0]])

    @functools.cached_property
    def _resources(self) -> tuple[tf.Variable, tf.Variable]:
        return _share(self.flat), _share(self.offsets)


def _share(array: Array) -> tf.Variable:
    """A variable on the CPU that reads `array` in place. It must not be written to.

    Read it with `read_value()` and gather from that: a gather on the variable itself makes a copy first.
    """
    import tensorflow as tf

    if array.ctypes.data % 64 or not array.flags.c_contiguous:
        array = _aligned_copy(array)
    with tf.init_scope(), tf.device("CPU:0"):
        return tf.Variable(tf.experimental.dlpack.from_dlpack(array.__dlpack__()), trainable=False)


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """Like `np.empty`, at an address that TensorFlow can use in place (a multiple of 64)."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    array: Array = raw[start : start + size].view(dtype).reshape(shape)
    return array


def _aligned_copy(array: Array) -> Array:
    copy = empty(array.shape, array.dtype)
    copy[...] = array
    return copy


class ImageWriter:
    """Takes pictures one by one into a table that was laid out for `count`; fewer may come."""

    def __init__(self, count: int, shape: tuple[int, int, int]) -> None:
        self._rows = empty((count, *shape), np.uint8)
        self._filled = 0

    def add(self, row: Array) -> None:
        """Append one picture."""
        self._rows[self._filled] = row
        self._filled += 1

    def finish(self) -> ImageTable:
        """The table: a view, nothing is copied."""
        return ImageTable(self._rows[: self._filled])


class RaggedWriter:
    """Takes rows of any length one by one."""

    def __init__(self, dtype: Any) -> None:
        self._rows: list[Array] = []
        self._dtype = dtype

    def add(self, row: Array) -> None:
        """Append one row."""
        self._rows.append(row)

    def finish(self) -> RaggedTable:
        """The table; the rows are copied together, each gone when it is, so that memory is not taken twice."""
        offsets = np.cumsum([0, *map(len, self._rows)], dtype=np.int64)
        flat = empty((int(offsets[-1]),), self._dtype)
        for start in offsets[-2::-1]:  # from the last
            row = self._rows.pop()
            flat[start : start + len(row)] = row
        return RaggedTable(flat, offsets)


class CacheEntry:
    """One table of the cache folder: `rows.bin` and what belongs to it, complete or absent.

    It is written under another name and renamed when it is complete, so that neither a killed process nor two at once
    leave half a table that is later read.
    """

    def __init__(self, key: str) -> None:
        self.folder = cache_folder() / "tables" / key

    def read(self) -> tuple[ImageTable | RaggedTable, dict[str, Any]] | None:
        """The table and the notes given to `finish`, or None where there is none (or one that was cut short)."""
        try:
            about = json.loads((self.folder / "about.json").read_text())
            shape, dtype = tuple(about["shape"]), np.dtype(about["dtype"])
            rows = empty(shape, dtype)
            if rows.size:  # copy-on-write, since TensorFlow takes no read-only buffer; nobody writes
                rows = np.memmap(self.folder / "rows.bin", dtype, "c", shape=shape)
            if not about["ragged"]:
                return ImageTable(rows), about["notes"]
            offsets = np.load(self.folder / "offsets.npy", allow_pickle=False)
            return RaggedTable(rows, offsets), about["notes"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def writer(self, row_shape: tuple[int, ...] | None, dtype: Any) -> CacheWriter:
        """Starts a new table: of rows of `row_shape`, or of any length where that is None."""
        return CacheWriter(self, row_shape, np.dtype(dtype))


class CacheWriter:
    """Writes the rows of one `CacheEntry` as they come."""

    def __init__(self, entry: CacheEntry, row_shape: tuple[int, ...] | None, dtype: np.dtype[Any]) -> None:
        folder = entry.folder
        self._entry, self._folder, self._row_shape, self._dtype = entry, folder, row_shape, dtype
        self._draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
        self._lengths: list[int] = []
        try:
            self._draft.mkdir(parents=True)
            self._file = (self._draft / "rows.bin").open("wb")
        except OSError as error:
            raise self._failed(error) from error

    def add(self, row: Array) -> None:
        """Append one row."""
        try:
            self._file.write(np.ascontiguousarray(row, self._dtype).data)
        except OSError as error:
            self.abandon()
            raise self._failed(error) from error
        self._lengths.append(len(row))

    def finish(self, notes: dict[str, Any]) -> None:
        """Put the table where `CacheEntry.read` finds it."""
        ragged = self._row_shape is None
        shape = [sum(self._lengths)] if ragged else [len(self._lengths), *(self._row_shape or ())]
        about = {"ragged": ragged, "shape": shape, "dtype": self._dtype.name, "notes": notes}
        try:
            self._file.close()
            if ragged:
                np.save(self._draft / "offsets.npy", np.cumsum([0, *self._lengths], dtype=np.int64))
            (self._draft / "about.json").write_text(json.dumps(about))
            if self._entry.read() is not None:  # another process was faster, and may be reading it
                self.abandon()
                return
            shutil.rmtree(self._folder, ignore_errors=True)  # what stood there could not be read
            self._draft.rename(self._folder)
        except OSError as error:
            self.abandon()
            if not self._folder.exists():
                raise self._failed(error) from error

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        shutil.rmtree(self._draft, ignore_errors=True)

    def _failed(self, error: OSError) -> RunFailed:
        return RunFailed(
            f"cannot write the decoded table to {self._folder.parent} ({error.strerror or error}): free some space, "
            "let XDG_CACHE_HOME point to another disk, or set data.cache: memory."
        )


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/toolkit`, or `~/.cache/toolkit`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return Path(home) / "toolkit" if home and Path(home).is_absolute() else Path.home() / ".cache" / "toolkit"


def available_memory() -> int:
    """Bytes that can be taken now: what the kernel says, or the limit of the container where that is lower."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
                break
        else:
            raise OSError("no MemAvailable")
    except OSError:  # not Linux: the whole memory is the best that the standard library knows
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        control = Path("/sys/fs/cgroup")
        limit = int((control / "memory.max").read_text())
        free = min(free, limit - int((control / "memory.current").read_text()))
    except (OSError, ValueError):  # no such limit ("max")
        pass
    return free
