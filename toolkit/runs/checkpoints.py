"""Checkpoints: everything that a run needs to go on, in folders that are whole or not there.

A checkpoint is a folder of `checkpoints/` with two files. `arrays.safetensors` holds the tensors, and cannot hold code;
`manifest.json`, written last, holds the state in plain values and the SHA-256 of every tensor, of the other file's
header and of itself. The folder is made under a name that begins with a dot, synced, and then renamed. So whatever
kills the process, what has a proper name is complete, and what was kept before is still there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ToolkitError
from toolkit.runs import arrays, trust
from toolkit.runs.files import not_written, sync_directory

FORMAT = 1
FOLDER = "checkpoints"
ARRAYS = "arrays.safetensors"
MANIFEST = "manifest.json"
# Being written; being replaced by another of the same name; being removed; found to be damaged.
_NEW, _OLD, _GONE, _DAMAGED = ".new-", ".old-", ".gone-", "damaged-"
# Names are told to people: nothing in them may speak to a terminal.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What was read from a checkpoint.

    Attributes:
        path: its folder.
        arrays: tensors by name.
        state: what `save` was given beside them.
    """

    path: Path
    arrays: dict[str, np.ndarray[Any, Any]]
    state: dict[str, Any]


class DamagedError(Exception):
    """A checkpoint is not what was written; the text says what is wrong."""


def save(
    folder: Path, name: str, tensors: Mapping[str, np.ndarray[Any, Any]], state: Mapping[str, Any], *, keep: int
) -> Path:
    """Write a checkpoint `name` into `folder`, then remove all but the newest `keep`.

    Args:
        name: rises from one checkpoint to the next, as text.
        state: plain values, as JSON has them.

    Raises:
        RunFailed: it cannot be written (a full disk); those that were there before are.
    """
    target = folder / name
    try:
        folder.mkdir(exist_ok=True)
        temporary = folder / f"{_NEW}{name}"
        temporary.mkdir()
        try:
            _write(temporary, tensors, state)
            if target.exists():
                target.rename(folder / f"{_OLD}{name}")
            temporary.rename(target)
            sync_directory(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except arrays.unwritable() as error:
        needed = sum(value.nbytes for value in tensors.values())
        raise not_written(target, error, needed) from error
    for old in names(folder)[:-keep]:
        (folder / old).rename(folder / f"{_GONE}{old}")  # half of a folder must not look like a checkpoint
    _remove(folder, _OLD, _GONE)
    return target


def names(folder: Path) -> list[str]:
    """The checkpoints in `folder`, oldest first; what cannot be a checkpoint's name is left alone."""
    if not folder.is_dir():
        return []
    entries = (entry.name for entry in folder.iterdir())
    return sorted(name for name in entries if _NAME.fullmatch(name) and not name.startswith(_DAMAGED))


def clean(folder: Path) -> None:
    """Remove what a process left that was killed while it saved."""
    for name in _beginning(folder, _OLD):
        kept = folder / name.removeprefix(_OLD)
        if not kept.exists():  # killed between two renames: nothing had taken its place yet
            (folder / name).rename(kept)
    _remove(folder, _NEW, _OLD, _GONE)


def newest(
    folder: Path, *, report: Callable[[str], None], check: Callable[[Mapping[str, Any]], object] = lambda state: None
) -> Checkpoint | None:
    """The newest checkpoint whose sums are right and whose state is; None where there never was one.

    Others are set aside under another name and told to `report`.

    Args:
        check: raises ToolkitError where a state is none that was saved: right sums only tell of accidents.

    Raises:
        ToolkitError: there are some, and all are damaged.
    """
    if folder.is_symlink():
        raise ToolkitError(f"{folder} is a symbolic link: put the folder itself in its place.")
    clean(folder)
    for name in reversed(names(folder)):
        try:
            found = load(folder / name)
            check(found.state)
            return found
        except (DamagedError, ToolkitError) as error:
            aside = _free_name(folder / f"{_DAMAGED}{name}")
            (folder / name).rename(aside)
            report(f"warning: the checkpoint {name} is damaged ({error}); it was set aside as {aside.name}")
    if _beginning(folder, _DAMAGED):
        raise ToolkitError(
            f"every checkpoint in {folder} is damaged: bring back a good copy of one, or train anew in another folder."
        )
    return None


def load(path: Path) -> Checkpoint:
    """Read a checkpoint and compare it with all its sums.

    Raises:
        DamagedError: something is missing or not as it was written.
    """
    if path.is_symlink() or not path.is_dir():
        raise DamagedError("it is no folder")
    for file in (path / MANIFEST, path / ARRAYS):
        if file.is_symlink() or not file.is_file():
            raise DamagedError(f"{file.name} is missing or no plain file")
    manifest = _read_manifest(path / MANIFEST)
    try:
        if arrays.header_sum(path / ARRAYS) != manifest["header_sha256"]:
            raise DamagedError(f"the header of {ARRAYS} is another than was written")
        tensors, _ = arrays.load(path / ARRAYS)
    except (ToolkitError, OSError) as error:
        raise DamagedError(f"{ARRAYS} cannot be read") from error
    if tensors.keys() != manifest["tensors"].keys():
        raise DamagedError(f"{ARRAYS} holds other tensors than were written")
    for name, value in tensors.items():
        if _describe(value) != manifest["tensors"][name]:
            raise DamagedError(f"the tensor {trust.shown(name, length=80)} is another than was written")
    return Checkpoint(path, tensors, manifest["state"])


def _write(folder: Path, tensors: Mapping[str, np.ndarray[Any, Any]], state: Mapping[str, Any]) -> None:
    arrays.write(folder / ARRAYS, tensors)
    manifest = {
        "format": FORMAT,
        "state": dict(state),
        "tensors": {name: _describe(np.asarray(value)) for name, value in tensors.items()},
        "header_sha256": arrays.header_sum(folder / ARRAYS),
    }
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump({**manifest, "sha256": _sum(manifest)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(folder)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = trust.read_json(path)
        if not isinstance(manifest, dict) or manifest.pop("sha256", None) != _sum(manifest):
            raise DamagedError(f"{path.name} is another than was written")
    except (ToolkitError, RecursionError) as error:
        raise DamagedError(f"{path.name} cannot be read") from error
    if manifest.get("format") != FORMAT:
        found = trust.shown(manifest.get("format"), length=40)
        raise DamagedError(f"{path.name} has format {found}, this version reads {FORMAT}")
    if (
        not all(isinstance(manifest.get(name), dict) for name in ("state", "tensors"))
        or "header_sha256" not in manifest
    ):
        raise DamagedError(f"{path.name} lacks a part of what was written")
    return manifest


def _describe(value: np.ndarray[Any, Any]) -> dict[str, Any]:
    contiguous = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    return {
        "shape": list(value.shape),
        "dtype": value.dtype.name,
        "sha256": hashlib.sha256(contiguous.data).hexdigest(),
    }


def _sum(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _beginning(folder: Path, prefix: str) -> list[str]:
    return [entry.name for entry in folder.iterdir() if entry.name.startswith(prefix)] if folder.is_dir() else []


def _remove(folder: Path, *prefixes: str) -> None:
    for prefix in prefixes:
        for name in _beginning(folder, prefix):
            if (folder / name).is_symlink() or not (folder / name).is_dir():
                (folder / name).unlink()  # a link: what it leads to is not ours
            else:
                shutil.rmtree(folder / name)


def _free_name(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
