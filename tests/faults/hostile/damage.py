"""Ways in which files are damaged by disks, networks and programs; every one takes its chance from `rng`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Damage = Callable[[bytes, np.random.Generator], bytes]


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    """A download that broke off."""
    return content[: int(rng.integers(1, len(content) * 9 // 10))]


def empty(content: bytes, rng: np.random.Generator) -> bytes:
    """A file that was made and never written."""
    return b""


def zero_end(content: bytes, rng: np.random.Generator) -> bytes:
    """What a crash leaves: the length is right, the end never came to the disk."""
    kept = int(rng.integers(0, len(content) * 9 // 10))
    return content[:kept] + bytes(len(content) - kept)


def page(content: bytes, rng: np.random.Generator) -> bytes:
    """What a server sent in its place."""
    return b"<!DOCTYPE html><html><body>" + b"Not found. " * int(rng.integers(1, 50)) + b"</body></html>"


def noise(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes that mean nothing."""
    return rng.bytes(len(content))


def flips(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bits turned, anywhere."""
    data = bytearray(content)
    for place in rng.integers(0, len(data), int(rng.integers(1, 30))):
        data[place] ^= 1 << int(rng.integers(8))
    return bytes(data)


def head(content: bytes, rng: np.random.Generator) -> bytes:
    """The first bytes, which hold sizes and offsets, changed."""
    data = bytearray(content)
    for place in rng.integers(0, min(64, len(data)), int(rng.integers(1, 8))):
        data[place] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF]))
    return bytes(data)


def hole(content: bytes, rng: np.random.Generator) -> bytes:
    """A block of zeros inside."""
    start = int(rng.integers(0, len(content)))
    length = int(rng.integers(1, len(content)))
    return (content[:start] + bytes(length) + content[start + length :])[: len(content)]


def doubled(content: bytes, rng: np.random.Generator) -> bytes:
    """A part written twice."""
    start, stop = sorted(int(place) for place in rng.integers(0, len(content) + 1, 2))
    return content[:stop] + content[start:]


SURE: Mapping[str, Damage] = {"cut": cut, "empty": empty, "page": page, "noise": noise}
"""After these no file can be read."""
ANY: Mapping[str, Damage] = {
    **SURE,
    "zero_end": zero_end,
    "flips": flips,
    "head": head,
    "hole": hole,
    "doubled": doubled,
}
"""After some of these a file may still be read, with other pixels or samples."""
