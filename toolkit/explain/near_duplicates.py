"""Examples that are nearly the same: pictures by a perceptual hash, sounds by a fingerprint, texts by shared phrases.

Each kind first finds candidates by equal parts of what it hashes, so that not every pair has to be compared; the
thresholds are justified in docs/check.md.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from toolkit.data.load import Data
from toolkit.data.tables import ImageTable, RaggedTable

Array = np.ndarray[Any, Any]

PICTURE_BITS = 6
"""Of 256, in which the hashes of two pictures may differ."""
SOUND_BITS = 24
"""Of 256, in which the fingerprints of two sounds may differ."""
SHARED_PHRASES = 0.6
"""Of all phrases of two texts, the part that must be in both."""

_HASH = 16  # bits a side of a picture's hash
_FRAMES, _BANDS = 16, 16  # of a sound's fingerprint
_LOWEST, _HIGHEST = 150, 3800  # Hz: what a telephone passes on
_LOUD = 0.05  # of the loudest 10 ms, from which a sound begins and ends
_FLOOR = 1e-4  # of the strongest band: what is quieter is noise
_PHRASE = 5  # words
_HASHES, _ROWS = 48, 3  # of a text: 16 bands of 3


def near_pairs(data: Data) -> Array:
    """int64 `(pairs, 2)`: examples that are nearly the same, counted through all splits one after the other.

    Where three or more have the same hash, they form a chain of pairs.
    """
    tables = [split.table for split in data.splits.values()]
    if isinstance(tables[0], ImageTable):
        return close_pairs(_hashes(_picture_hash, _rows(tables)), most=PICTURE_BITS, part=4)
    if data.spec.kind == "text":
        return _similar_texts(list(_rows(tables)))
    rate = data.spec.sample_rate
    assert rate  # sounds have one
    return close_pairs(_hashes(lambda row: sound_hash(row, rate), _rows(tables)), most=SOUND_BITS, part=2)


def close_pairs(hashes: Array, *, most: int, part: int) -> Array:
    """Pairs of rows of uint8 `hashes` `(n, bytes)` that differ in at most `most` bits.

    Only rows that agree in one part of `part` bytes are compared: all pairs are found where there are more parts than
    `most`, and else those whose differing bits leave one part alone.
    """
    order = np.lexsort(hashes.T)
    same = (hashes[order[1:]] == hashes[order[:-1]]).all(axis=1)
    chains = np.stack([order[:-1], order[1:]], axis=1)[same]
    first = order[np.concatenate([[True], ~same])]  # one of each hash
    unique = np.ascontiguousarray(hashes[first])
    words, parts = unique.view(np.uint64), unique.view(f"u{part}")
    found = [chains]
    for column in parts.T:
        for a, b in _equal_pairs(column):
            close = np.bitwise_count(words[a] ^ words[b]).sum(axis=1) <= most
            found.append(np.stack([first[a[close]], first[b[close]]], axis=1))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _equal_pairs(keys: Array) -> Iterator[tuple[Array, Array]]:
    """Every pair of positions with equal keys, in as many blocks as the most frequent key has places less one."""
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    for shift in range(1, len(keys)):
        places = np.flatnonzero(sorted_keys[shift:] == sorted_keys[:-shift])
        if not len(places):
            return
        yield order[places], order[places + shift]


def _rows(tables: Sequence[ImageTable | RaggedTable]) -> Iterator[Array]:
    for table in tables:
        yield from table.rows if isinstance(table, ImageTable) else map(table.row, range(len(table)))


def _hashes(function: Any, rows: Iterator[Array]) -> Array:
    """uint8 `(n, 32)`: 256 bits of each row."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow and NumPy let other threads run
        batches = iter(lambda: list(itertools.islice(rows, 4096)), [])  # the pool would take in all rows at once
        bits = [row for batch in batches for row in pool.map(function, batch, chunksize=64)]
    return np.packbits(np.array(bits), axis=1)


def _picture_hash(row: Array) -> Array:
    """256 bits: which of the lowest frequencies of the grey picture are above their median."""
    import imagehash
    from PIL import Image

    picture = Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row)
    bits: Array = imagehash.phash(picture, hash_size=_HASH, highfreq_factor=2).hash.ravel()
    return bits


def sound_hash(row: Array, rate: int) -> Array:
    """256 bits of int16 samples: whether the energy between neighbouring bands rises from frame to frame.

    The sound is cut where it is loud and divided into 17 frames, so neither loudness, nor silence around it, nor the
    sample rate matters. The signs of these differences are those of Haitsma & Kalker 2002, "A Highly Robust Audio
    Fingerprinting System", whose frames are of a fixed length.
    """
    from scipy import fft

    samples, block = row.astype(np.float64), max(rate // 100, 1)
    levels = np.abs(np.pad(samples, (0, -len(samples) % block))).reshape(-1, block).sum(axis=1)  # of 10 ms
    loud = np.flatnonzero(levels >= _LOUD * levels.max())
    samples = samples[loud[0] * block : (loud[-1] + 1) * block]
    hop = len(samples) / (_FRAMES + 1)
    width = max(int(4 * hop), 64)
    starts = ((np.arange(_FRAMES + 1) + 0.5) * hop + width / 2).astype(int)
    padded = np.pad(samples, (width, 2 * width))
    frames = padded[starts[:, None] + np.arange(width)] * np.hanning(width)  # (17, width)
    size = fft.next_fast_len(max(512, width), real=True)
    power = np.pad(np.abs(fft.rfft(frames, size)) ** 2, ((0, 0), (1, 0))).cumsum(axis=1)
    edges = np.geomspace(_LOWEST, min(_HIGHEST, rate / 2), _BANDS + 2) / rate * size
    bands = np.diff(power[:, edges.round().astype(int)], axis=1)  # (17, 17)
    levels = np.log(bands + _FLOOR * bands.max() + 1e-9)
    rising: Array = np.diff(np.diff(levels, axis=1), axis=0) > 0
    return rising.ravel()


def _similar_texts(rows: Sequence[Array]) -> Array:
    """Pairs of texts whose sets of phrases have a Jaccard similarity of at least `SHARED_PHRASES`.

    Candidates are those with an equal band of minima: Broder 1997, "On the resemblance and containment of documents",
    with the bands of Indyk & Motwani 1998.
    """
    phrases, starts = _phrases(rows)
    rng = np.random.default_rng(0)
    factors = rng.integers(2**63, size=_HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    minima = np.stack(
        [np.minimum.reduceat((phrases * factor) >> np.uint64(32), starts[:-1]) for factor in factors], axis=1
    )
    candidates: set[tuple[int, int]] = set()
    for band in range(0, _HASHES, _ROWS):
        _, keys = np.unique(minima[:, band : band + _ROWS], axis=0, return_inverse=True)
        for a, b in _equal_pairs(keys.ravel()):
            candidates.update(zip(np.minimum(a, b).tolist(), np.maximum(a, b).tolist(), strict=True))

    def share(a: int, b: int) -> float:
        first, second = (np.unique(phrases[starts[i] : starts[i + 1]]) for i in (a, b))
        both = len(np.intersect1d(first, second, assume_unique=True))
        return both / (len(first) + len(second) - both)

    found = [pair for pair in sorted(candidates) if share(*pair) >= SHARED_PHRASES]
    return np.array(found, np.int64).reshape(-1, 2)


def _phrases(rows: Sequence[Array]) -> tuple[Array, Array]:
    """Hashes of every five words in a row of every text, uint64, and where those of each text start.

    A text of fewer words is one phrase.
    """
    counts = [max(1, len(row) - _PHRASE + 1) for row in rows]
    starts = np.cumsum([0, *counts], dtype=np.int64)
    phrases = np.zeros(starts[-1], np.uint64)
    factors = np.random.default_rng(1).integers(2**63, size=_PHRASE, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    for row, start, count in zip(rows, starts, counts, strict=False):
        words = row.astype(np.uint64)
        for place in range(min(_PHRASE, len(words))):
            phrases[start : start + count] += words[place : place + count] * factors[place]
    # The sums' low bits tell little, and minima of products need all: the finaliser of SplitMix64.
    phrases ^= phrases >> np.uint64(30)
    phrases *= np.uint64(0xBF58476D1CE4E5B9)
    phrases ^= phrases >> np.uint64(27)
    return phrases, starts
