"""Every example read once: content hashed, limits checked, decoding tried, the good ones put into a table.

The verdict on each example is kept with a table on disk, keyed by path, size and modification time (or content, where
there is no file). A table in memory is decoded again at each start, and the verdict falls out of that.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data import audio, image, text
from toolkit.data.budget import Budget
from toolkit.data.contents import read_regular
from toolkit.data.examples import BadExample, Examples, shown
from toolkit.data.image import Unreadable
from toolkit.data.spec import DataSpec
from toolkit.data.tables import CacheEntry, ImageTable, ImageWriter, RaggedTable, RaggedWriter
from toolkit.errors import RunFailed, ToolkitError

Array = np.ndarray[Any, Any]
Report = Callable[[str], None]

MAX_BYTES = 512_000_000
"""Of one encoded picture or sound: beyond, the file is not even opened."""

_TABLE_FORMAT = 1
_ENCODED = Budget(MAX_BYTES)  # bytes of files at the same time, in all threads
_WAITING_BYTES = 256_000_000  # of rows that are decoded and wait for their turn in the table
_SECONDS_BETWEEN_REPORTS = 5.0


class _TableTooLarge(Exception):
    """The rows together grew beyond what a table in memory may take, which the files' sizes did not tell."""


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How examples become rows.

    Attributes:
        read: from (content, id) to a row; raises whatever says that it cannot be read, or ToolkitError to stop.
        row_shape: of each row, or None where rows have different lengths.
        dtype: of a row.
        settings: what else decides over the rows, as text for the cache's key.
        row_bytes: at most, of one row.
    """

    read: Callable[[Any, str], Array]
    row_shape: tuple[int, int, int] | None
    dtype: Any
    settings: str
    row_bytes: int


@dataclasses.dataclass(frozen=True)
class Reading:
    """What one split gave: the table's rows stand for the examples `kept`, in their order."""

    table: ImageTable | RaggedTable
    kept: Sequence[int]
    digests: Sequence[bytes]
    bad: tuple[BadExample, ...]


def image_decoding(splits: Iterable[Examples], size: tuple[int, int] | None, channels: int) -> Decoding:
    """Pictures of `size` (height, width), or of the size that all have.

    Raises:
        ToolkitError (by `read`): there is no `size` and the pictures differ.
    """
    import PIL

    first_id, found = "", size
    if size is None:
        first_id, found = _first(splits, image.read_size) or ("", (1, 1))
    height, width = found or (1, 1)

    def read(content: Any, id: str) -> Array:
        row = image.decode(content, size, channels)
        if row.shape[:2] != (height, width):
            raise ToolkitError(
                f"the pictures differ in size ({shown(first_id)} has {height}x{width} pixels, {shown(id)} has "
                f"{row.shape[0]}x{row.shape[1]}): set data.image_size to [height, width], and all are resized to that."
            )
        return row

    shape = (height, width, channels)
    settings = f"image {shape} {size is None} Pillow {PIL.__version__}"
    return Decoding(read, shape, np.uint8, settings, row_bytes=height * width * channels)


def audio_decoding(splits: Iterable[Examples], rate: int | None, array_rate: int | None) -> tuple[Decoding, int]:
    """Sounds at `rate`, or at the rate that all have; and that rate.

    Raises:
        ToolkitError (by `read`): there is no `rate` and the files differ.
    """
    import soundfile

    first_id, common = "", rate or array_rate
    if common is None:
        first_id, common = _first(splits, audio.read_rate) or ("", 1)
    chosen: int = common
    fixed = rate is not None or array_rate is not None

    def read(content: Any, id: str) -> Array:
        if not fixed and (found := audio.read_rate(content)) != chosen:
            raise ToolkitError(
                f"the sounds differ in sample rate ({shown(first_id)} has {chosen} Hz, {shown(id)} has {found} Hz): "
                "set data.sample_rate, and all are resampled to that."
            )
        return audio.decode(content, chosen, array_rate)

    settings = f"audio {chosen} {array_rate} {fixed} libsndfile {soundfile.__libsndfile_version__}"
    return Decoding(read, None, np.int16, settings, row_bytes=2 * audio.MAX_SECONDS * chosen), chosen


def image_shape(spec: DataSpec) -> tuple[tuple[int, int], int]:
    """((height, width), channels) that a spec of images prescribes."""
    height, width, channels = spec.shape
    assert height and width and channels  # an image spec has no open side
    return (height, width), channels


def estimate_bytes(splits: Iterable[Examples], decoding: Decoding) -> int:
    """About how much the decoded tables will take."""
    if decoding.row_shape is not None:
        return sum(len(examples) for examples in splits) * int(np.prod(decoding.row_shape))
    growth = {".flac": 2, ".ogg": 12}  # usual compression; resampling is left out of the guess
    total = 0
    for examples in splits:
        for value in examples.values:
            if isinstance(value, Path):
                total += _size(value) * growth.get(value.suffix.lower(), 1)
            elif isinstance(value, bytes):
                total += len(value) * growth.get({b"fLaC": ".flac", b"OggS": ".ogg"}.get(value[:4], ""), 1)
            else:
                total += value.nbytes
    return total


def read_table(
    name: str,
    examples: Examples,
    decoding: Decoding,
    *,
    to_disk: bool,
    report: Report,
    memory_limit: int | None = None,
    spill: bool = True,
) -> Reading:
    """Read one split of pictures or sounds into a table, in memory or in the cache folder.

    Args:
        memory_limit: bytes that a table in memory may take.
        spill: whether one that grows beyond goes to disk.

    Raises:
        RunFailed: the table grows beyond and must not go to disk, or the cache folder cannot be written.
    """
    if not to_disk:
        try:
            return _read_to_memory(name, examples, decoding, memory_limit, report)
        except _TableTooLarge as error:
            if not spill:
                raise RunFailed(
                    f"the decoded {name} split does not fit into the {memory_limit:,} bytes of memory that are free: "
                    "set data.cache: disk."
                ) from error
            report(f"{name}: larger than the sizes of its files tell, so its table goes to disk")
    entry = CacheEntry(_key(examples, decoding))
    cached = entry.read()
    if cached is not None:
        table, notes = cached
        report(f"{name}: {len(table):,} examples from {entry.folder}")
        digests = [bytes.fromhex(digest) for digest in notes["digests"]]
        return _reading(examples, table, digests, {int(i): reason for i, reason in notes["bad"].items()})
    writer = entry.writer(decoding.row_shape, decoding.dtype)
    try:
        digests, verdicts = _read_all(name, examples, decoding, writer.add, report)
        writer.finish({"digests": [digest.hex() for digest in digests], "bad": verdicts})
    except BaseException:  # an interrupt, too, leaves no half table behind
        writer.abandon()
        raise
    cached = entry.read()
    if cached is None:
        raise RunFailed(f"the decoded table {entry.folder} went away while it was read: run the command again.")
    return _reading(examples, cached[0], digests, verdicts)


def _read_to_memory(name: str, examples: Examples, decoding: Decoding, limit: int | None, report: Report) -> Reading:
    if decoding.row_shape is not None and limit is not None and len(examples) * decoding.row_bytes > limit:
        raise _TableTooLarge  # before it is laid out
    writer = (
        RaggedWriter(decoding.dtype) if decoding.row_shape is None else ImageWriter(len(examples), decoding.row_shape)
    )
    taken = 0

    def add(row: Array) -> None:
        nonlocal taken
        taken += row.nbytes
        if limit is not None and taken > limit:
            raise _TableTooLarge
        writer.add(row)

    digests, verdicts = _read_all(name, examples, decoding, add, report)
    return _reading(examples, writer.finish(), digests, verdicts)


def read_texts(
    name: str, examples: Examples, encode: Callable[[Iterable[str]], list[Array]], report: Report
) -> Reading:
    """Read one split of texts, always into memory: `encode` gives a row of tokens per text."""
    digests: list[bytes] = []
    verdicts: dict[int, str] = {}

    def checked() -> Iterator[str]:
        for i, value in enumerate(_told(examples.values, name, len(examples), report)):
            content = value.encode("utf-8", "surrogatepass")
            digests.append(hashlib.sha256(content).digest())
            if len(content) > text.MAX_BYTES:
                verdicts[i] = f"{len(content):,} bytes, at most {text.MAX_BYTES:,} are read"
            elif text.piles_marks(value):
                verdicts[i] = f"more than {text.MAX_MARKS} combining marks on one character"
            yield "" if i in verdicts else value

    writer = RaggedWriter(np.int32)
    rows = encode(checked())
    for i, row in enumerate(rows):
        if len(row):
            writer.add(row)
        else:
            verdicts.setdefault(i, "no words in it")
    return _reading(examples, writer.finish(), [d for i, d in enumerate(digests) if i not in verdicts], verdicts)


def digest(content: Any) -> bytes:
    """sha256 of an encoded file, of pixels or of samples."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).digest()
    array = np.ascontiguousarray(content)
    return hashlib.sha256(f"{array.dtype.str}{array.shape}".encode() + array.tobytes()).digest()


def _reading(
    examples: Examples, table: ImageTable | RaggedTable, digests: Sequence[bytes], verdicts: dict[int, str]
) -> Reading:
    kept = [i for i in range(len(examples)) if i not in verdicts]
    bad = tuple(BadExample(examples.ids[i], reason) for i, reason in sorted(verdicts.items()))
    return Reading(table, kept, digests, bad)


def _read_all(
    name: str, examples: Examples, decoding: Decoding, add: Callable[[Array], None], report: Report
) -> tuple[list[bytes], dict[int, str]]:
    """Every good example's row to `add`, in order. Returns the digests of the good, the reasons of the bad."""
    digests: list[bytes] = []
    verdicts: dict[int, str] = {}

    def read(value: Any, id: str) -> tuple[Array, bytes] | str:
        try:
            with _ENCODED.take(_size(value) if isinstance(value, Path) else 0):
                content = _content(value)
                return decoding.read(content, id), digest(content)
        except ToolkitError:
            raise
        except Exception as error:  # noqa: BLE001  # decoders raise nearly anything for a broken file
            return _reason(error)

    def take(result: tuple[Array, bytes] | str) -> None:
        if isinstance(result, str):
            verdicts[len(digests) + len(verdicts)] = result
        else:
            add(result[0])
            digests.append(result[1])

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    at_once = max(1, min(4 * threads, _WAITING_BYTES // max(decoding.row_bytes, 1)))
    waiting: deque[Future[tuple[Array, bytes] | str]] = deque()
    # Pillow and soundfile let other threads run while they decode.
    with image.quiet(), ThreadPoolExecutor(threads) as pool:
        try:
            values = _told(examples.values, name, len(examples), report)
            for id, value in zip(examples.ids, values, strict=True):
                if len(waiting) == at_once:  # rows that are not taken must not pile up
                    take(waiting.popleft().result())
                waiting.append(pool.submit(read, value, id))
            while waiting:
                take(waiting.popleft().result())
        except BaseException:
            for future in waiting:
                future.cancel()
            raise
    return digests, verdicts


def _content(value: Any) -> Any:
    if isinstance(value, Path):
        return read_regular(value, MAX_BYTES)
    if isinstance(value, bytes) and not value:
        raise Unreadable("it is empty")
    return value


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"not a picture in a known format ({', '.join(image.FORMATS)})"
    if isinstance(error, Unreadable):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # Libraries name the buffer by its address, which would make the reason another one in each run.
    message = re.sub(r"<_io\.BytesIO[^>]*>", "it", str(error)).strip() or type(error).__name__
    return shown(message.splitlines()[0][:200])


def _told(values: Iterable[Any], name: str, total: int, report: Report) -> Iterator[Any]:
    """`values`, and now and then a line that says how far it is."""
    last = time.monotonic()
    for i, value in enumerate(values):
        if (now := time.monotonic()) - last > _SECONDS_BETWEEN_REPORTS:
            last = now
            report(f"reading {name} {i:,} / {total:,}")
        yield value
    report(f"reading {name} {total:,} / {total:,}")


def _first(splits: Iterable[Examples], ask: Callable[[Any], Any]) -> tuple[str, Any] | None:
    """The id of the first example that can answer, and its answer."""
    with image.quiet():
        for examples in splits:
            for id, value in zip(examples.ids, examples.values, strict=True):
                try:
                    return id, ask(_content(value))
                except Exception:  # noqa: BLE001  # told as a bad example when its turn comes
                    continue
    return None


def _key(examples: Examples, decoding: Decoding) -> str:
    sha = hashlib.sha256(f"{_TABLE_FORMAT} {decoding.settings}".encode())
    for value in examples.values:
        if isinstance(value, Path):
            try:
                stat = value.stat()
                state = f"{stat.st_size}\0{stat.st_mtime_ns}"
            except OSError:
                state = "absent"
            sha.update(f"\0{value.absolute()}\0{state}".encode("utf-8", "surrogateescape"))
        else:
            sha.update(digest(value))
    return sha.hexdigest()[:32]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
