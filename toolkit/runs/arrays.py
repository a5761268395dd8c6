"""Arrays on disk: safetensors files, which cannot hold code and can be memory-mapped.

bfloat16 travels as uint16 with its true type in the file's metadata, because safetensors' NumPy interface
refuses it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import RunFailed, ToolkitError
from toolkit.runs.files import atomic_path, sync_file

_TYPES = "types"


def save(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]], *, about: Mapping[str, str] | None = None) -> None:
    """Write `arrays` and the short texts of `about` to `path`, replacing it whole or not at all.

    Raises:
        RunFailed: it cannot be written (a full disk).
    """
    try:
        with atomic_path(path) as temporary:
            write(temporary, arrays, about=about)
    except unwritable() as error:
        raise RunFailed(f"{path} could not be written ({error}): free space; what was kept before is whole.") from error


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
    save_file(plain, path, metadata={**(about or {}), _TYPES: json.dumps(types)})
    sync_file(path)


def unwritable() -> tuple[type[Exception], ...]:
    """What `write` raises where a file cannot be written."""
    from safetensors import SafetensorError

    return OSError, SafetensorError


def header_sum(path: Path) -> str:
    """The SHA-256 of a safetensors file's header: its names, types, shapes and places. The rest are the tensors."""
    with path.open("rb") as file:
        length = file.read(8)
        size = min(int.from_bytes(length, "little"), path.stat().st_size)  # a damaged length must not fill the memory
        return hashlib.sha256(length + file.read(size)).hexdigest()


def load(path: Path) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, str]]:
    """The arrays and texts that `save` wrote.

    Raises:
        ToolkitError: there is no such file, or it is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ToolkitError(f"{path} is missing: use a run directory whose training has kept its weights.")
    try:
        with safe_open(path, framework="numpy") as file:
            about = dict(file.metadata() or {})
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        types = json.loads(about.pop(_TYPES, "{}"))
    except (SafetensorError, ValueError) as error:
        raise ToolkitError(f"{path} cannot be read as safetensors ({error}): use weights that train wrote.") from error
    for key, name in types.items():
        import ml_dtypes

        if name != "bfloat16" or key not in arrays:
            raise ToolkitError(f"{path} gives tensor {key!r} the unknown type {name!r}: use weights that train wrote.")
        arrays[key] = arrays[key].view(ml_dtypes.bfloat16)
    return arrays, about
