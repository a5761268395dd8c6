"""Arrays on disk: safetensors files, which cannot hold code and can be memory-mapped.

bfloat16 travels as uint16 with its true type in the file's metadata, because safetensors' NumPy interface
refuses it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ToolkitError
from toolkit.runs import trust
from toolkit.runs.files import atomic_path, not_written, sync_file

SUFFIX = ".safetensors"
MAX_HEADER = 8 * 2**20  # bytes: names, types and shapes of some 60,000 tensors

# One text for all: of several, the library writes sometimes one first and sometimes another.
_NOTES = "notes"
# Bytes of a number of each type that NumPy has.
_SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8"), 1),
    **dict.fromkeys(("U16", "I16", "F16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
# What other libraries keep weights in, by the first bytes; opening such a file can run what its author put there.
_FOREIGN = {
    b"PK\x03\x04": "a zip archive, as Keras and torch write it",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUM": "a NumPy file",
    **{bytes((0x80, protocol)): "a pickle" for protocol in range(2, 6)},
}
_WHAT = "use weights that train wrote"


def save(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]], *, about: Mapping[str, str] | None = None) -> None:
    """Write `arrays` and the short texts of `about` to `path`, replacing it whole or not at all.

    Raises:
        RunFailed: it cannot be written (a full disk).
    """
    try:
        with atomic_path(path) as temporary:
            write(temporary, arrays, about=about)
    except unwritable() as error:
        raise not_written(path, error, sum(np.asarray(value).nbytes for value in arrays.values())) from error


def write(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]], *, about: Mapping[str, str] | None = None) -> None:
    """Write `arrays` to `path` and wait until the disk has them; whoever calls sees to what a failure leaves."""
    from safetensors.numpy import save_file

    plain, types = {}, {}
    for key, value in arrays.items():
        value = np.asarray(value, order="C")
        if value.dtype.name == "bfloat16":
            types[key] = "bfloat16"
            value = value.view(np.uint16)
        plain[key] = value
    save_file(plain, path, metadata={_NOTES: json.dumps({"types": types, "about": dict(about or {})}, sort_keys=True)})
    sync_file(path)


def unwritable() -> tuple[type[Exception], ...]:
    """What `write` raises where a file cannot be written."""
    from safetensors import SafetensorError

    return OSError, SafetensorError


def header_sum(path: Path) -> str:
    """The SHA-256 of a safetensors file's header: its names, types, shapes and places. The rest are the tensors.

    Raises:
        ToolkitError: it has no such header.
    """
    header = _header(path)
    return hashlib.sha256(len(header).to_bytes(8, "little") + header).hexdigest()


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a file, by name; only its header is read.

    Raises:
        ToolkitError: there is no such file, or it is no safetensors file.
    """
    with _opened(path) as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no mapping


def about(path: Path) -> dict[str, str]:
    """The short texts that `save` was given; only the header is read.

    Raises:
        ToolkitError: there is no such file, or it is no safetensors file.
    """
    with _opened(path) as file:
        return _notes(file)[1]


def load(path: Path, *, only: Collection[str] | None = None) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, str]]:
    """The arrays and texts that `save` wrote.

    Args:
        only: the names of those that are wanted; None for all.

    Raises:
        ToolkitError: there is no such file, it is no safetensors file, or what is wanted is larger than the memory.
    """
    with _opened(path) as file:
        types, about = _notes(file)
        names = [key for key in file.keys() if only is None or key in only]  # noqa: SIM118 - no mapping
        needed = sum(_bytes(key, file.get_slice(key)) for key in names)
        if needed > _memory():
            raise ValueError(f"it holds {needed:,} bytes, more than the memory of this machine")
        arrays = {key: file.get_tensor(key) for key in names}
        for key in types & arrays.keys():
            import ml_dtypes

            if arrays[key].dtype != np.uint16:
                raise ValueError(f"tensor {_name(key)} is no bfloat16")
            arrays[key] = arrays[key].view(ml_dtypes.bfloat16)
        if only is None and types - arrays.keys():
            raise ValueError(f"it has no tensor {_name(min(types - arrays.keys()))}, but a type for it")
    return arrays, about


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open file, its header checked; what is wrong with it within the block becomes a ToolkitError."""
    from safetensors import SafetensorError, safe_open

    _header(path)
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, ValueError, RecursionError) as error:
        raise _unreadable(path, trust.shown(error, length=200)) from error


def _header(path: Path) -> bytes:
    if not path.exists():
        raise ToolkitError(f"{path} is missing: use a run directory whose training has kept its weights.")
    if path.suffix != SUFFIX:
        raise _unreadable(path, f"its name does not end in {SUFFIX}")
    with trust.open_file(path, what=_WHAT) as file:
        first = file.read(8)
        length, size = int.from_bytes(first, "little"), os.fstat(file.fileno()).st_size
        if len(first) < 8 or length > min(size - 8, MAX_HEADER):
            kind = next((kind for magic, kind in _FOREIGN.items() if first.startswith(magic)), None)
            raise _unreadable(path, f"it is {kind}" if kind else "its header is longer than a header may be")
        header = file.read(length)
    try:
        json.loads(header, object_pairs_hook=_each_once)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, f"its header: {trust.shown(error, length=200)}") from error
    return header


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    """Refuse a JSON object with a key that stands twice: readers differ in which they take."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name stands in it twice")


def _notes(file: Any) -> tuple[set[str], dict[str, str]]:
    """The tensors that are bfloat16, and the texts beside them."""
    notes = json.loads((file.metadata() or {}).get(_NOTES, "{}"))
    types, about = (notes.get(name, {}) if isinstance(notes, dict) else None for name in ("types", "about"))
    if not isinstance(types, dict) or any(name != "bfloat16" for name in types.values()):
        raise ValueError("it gives tensors types that are unknown")
    if not isinstance(about, dict) or not all(isinstance(text, str) for text in about.values()):
        raise ValueError("it says of itself what is no text")
    return set(types), about


def _bytes(key: str, tensor: Any) -> int:
    if tensor.get_dtype() not in _SIZES:
        raise ValueError(f"tensor {_name(key)} has the type {tensor.get_dtype()}, which NumPy has not")
    return int(_SIZES[tensor.get_dtype()] * math.prod(tensor.get_shape()))


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _name(key: str) -> str:
    return trust.shown(key, length=80)


def _unreadable(path: Path, why: str) -> ToolkitError:
    return ToolkitError(f"{trust.shown(path)} cannot be read as safetensors ({why}): {_WHAT}.")
