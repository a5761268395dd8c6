"""Hostile files, each made here: what they would do is write a canary, and nothing else."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

ESCAPE = "\x1b[2J\x1b]0;pwned\x07"


class Bite:
    """Unpickled, it writes the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.canary, "pickle")


def pickled(canary: Path, protocol: int = 4) -> bytes:
    return pickle.dumps(Bite(canary), protocol)


def numpy_objects(canary: Path) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([Bite(canary)], dtype=object), allow_pickle=True)
    return file.getvalue()


def torch_checkpoint(canary: Path) -> bytes:
    """As `torch.save` lays it out: a zip archive around a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(canary, 2))
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def keras_lambda(canary: Path, folder: Path, suffix: str) -> bytes:
    """A whole Keras model (`.keras` or `.h5`) with code in it."""
    import keras

    where = str(canary)
    image = keras.Input((12, 12, 1), dtype="uint8", name="image")
    # Where the function is loaded, it has none of the names of this file, but its closure.
    bite = keras.layers.Lambda(lambda x: (open(where, "w").close(), x)[1])  # noqa: PTH123
    flat = keras.layers.Flatten()(bite(image))
    path = folder / f"lambda{suffix}"
    keras.Model(image, keras.layers.Dense(3)(flat)).save(path)
    canary.unlink(missing_ok=True)  # building the model has run the layer once
    content = path.read_bytes()
    path.unlink()
    return content


def safetensors(header: Mapping[str, Any] | bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file with this header, said to be of this length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape: list[int], start: int = 0, end: int | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, start + 4 if end is None else end]}


def sparse(path: Path, content: bytes, size: int) -> None:
    """`content`, then zeros that take no room, up to `size` bytes."""
    with path.open("wb") as file:
        file.write(content)
        file.truncate(size)


def many_tensors(size: int) -> bytes:
    """A header of about so many bytes: empty tensors."""
    one = '"%08d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return ("{" + ",".join(one % i for i in range(size // (len(one % 0) + 1))) + "}").encode()


def deep(levels: int = 200_000) -> str:
    return "[" * levels + "]" * levels
