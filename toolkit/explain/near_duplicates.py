"""Examples that are nearly the same: pictures by a perceptual hash, sounds by a fingerprint, texts by shared phrases.

Each kind first finds candidates by equal parts of what it hashes, so that not every pair has to be compared; the
thresholds are justified in docs/check.md.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from toolkit.data.load import Data
from toolkit.data.tables import ImageTable, RaggedTable

Array = np.ndarray[Any, Any]

PICTURE_BITS = 6
"""Of 256, in which the hashes of two pictures may differ."""
PICTURE_LEVELS = 40
"""Of 255, by which the mean of an area of two pictures may differ in a channel."""
SOUND_BITS = 24
"""Of 256, in which the fingerprints of two sounds may differ."""
SHARED_PHRASES = 0.6
"""Of all phrases of two texts, the part that must be in both."""

_HASH = 16  # bits a side of a picture's hash
_AREAS = 8  # a side of a picture
_FRAMES, _BANDS = 16, 16  # of a sound's fingerprint
_LOWEST, _HIGHEST = 150, 3800  # Hz: what a telephone passes on
_LOUD = 0.05  # of the loudest 10 ms, from which a sound begins and ends
_FLOOR = 1e-4  # of the strongest band: what is quieter is noise
_PHRASE = 5  # words
_HASHES, _ROWS = 48, 3  # of a text: 16 bands of 3


def near_pairs(data: Data) -> Array:
    """int64 `(pairs, 2)`: examples that are nearly the same, counted through all splits one after the other.

    Where three or more have the same hash, or the same phrases, pairs connect them, but not each with every other.
    """
    tables = [split.table for split in data.splits.values()]
    if isinstance(tables[0], ImageTable):
        return close_pictures(_rows(tables))
    if data.spec.kind == "text":
        return similar_texts(list(_rows(tables)))
    rate = data.spec.sample_rate
    assert rate  # sounds have one
    hashes = _of_each(lambda row: np.packbits(sound_hash(row, rate)), _rows(tables))
    return close_pairs(hashes, most=SOUND_BITS, part=2)


def close_pairs(hashes: Array, *, most: int, part: int, areas: Array | None = None) -> Array:
    """Pairs of rows of uint8 `hashes` `(n, bytes)` that differ in at most `most` bits.

    Only rows that agree in one part of `part` bytes are compared: all pairs are found where there are more parts than
    `most`, and else those whose differing bits leave one part alone.

    Where `areas`, uint8 `(n, values)`, are given, none of the values of a pair may differ by more than
    `PICTURE_LEVELS`. Of rows with the same hash that pairs connect, one is compared with those of other hashes.
    """
    order = np.lexsort(hashes.T)
    same = (hashes[order[1:]] == hashes[order[:-1]]).all(axis=1)
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    if areas is None:
        chains, first = np.stack([order[:-1], order[1:]], axis=1)[same], order[starts]
    else:
        groups = [_connected(rows, areas) for rows in np.split(order, starts[1:])]
        chains = np.concatenate([pairs for pairs, _ in groups])
        first = np.concatenate([one for _, one in groups])
    unique = np.ascontiguousarray(hashes[first])
    words, parts = unique.view(np.uint64), unique.view(f"u{part}")
    found = [chains]
    for column in parts.T:
        for a, b in _equal_pairs(column):
            bits = np.bitwise_count(words[a] ^ words[b]).sum(axis=1)
            close = (bits > 0) & (bits <= most)  # those with 0 are not alike, or already connected
            a, b = first[a[close]], first[b[close]]
            if areas is not None:
                alike = _difference(areas[a], areas[b]) <= PICTURE_LEVELS
                a, b = a[alike], b[alike]
            found.append(np.stack([a, b], axis=1))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _connected(rows: Array, areas: Array) -> tuple[Array, Array]:
    """Pairs that connect all of `rows` whose `areas` are alike, at once or by way of others, and one row of each part.

    From a first row on it goes to those that are alike, and on from each. By the triangle inequality only rows can be
    alike that are about as far from the first, so that copies of a few pictures cost no comparison of all with all.
    """
    pairs, ones = [np.empty((0, 2), np.int64)], []
    if len(rows) == 1:  # as most are
        return pairs[0], rows
    while len(rows):
        first, rows = rows[0], rows[1:]
        ones.append(first)
        away = _difference(areas[rows], areas[first])
        order = np.argsort(away, kind="stable")
        rows, away = rows[order], away[order]
        free = np.ones(len(rows), bool)
        reached = [(first, 0)]
        while reached and free.any():
            row, distance = reached.pop()
            start, end = np.searchsorted(away, [distance - PICTURE_LEVELS, distance + PICTURE_LEVELS + 1])
            near = start + np.flatnonzero(free[start:end])
            near = near[_difference(areas[rows[near]], areas[row]) <= PICTURE_LEVELS]
            free[near] = False
            pairs.append(np.stack([np.full(len(near), row), rows[near]], axis=1))
            reached.extend(zip(rows[near].tolist(), away[near].tolist(), strict=True))
        rows = rows[free]
    return np.concatenate(pairs), np.array(ones)


def _difference(a: Array, b: Array) -> Array:
    """How much each row of uint8 `a` differs from that of `b`, or from the one row `b`, in a value at most; int64."""
    largest: Array = (np.maximum(a, b) - np.minimum(a, b)).max(axis=1).astype(np.int64)
    return largest


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


def _of_each(function: Callable[[Array], Array], rows: Iterator[Array]) -> Array:
    """What `function` gives for each row, one below the other."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow and NumPy let other threads run
        batches = iter(lambda: list(itertools.islice(rows, 4096)), [])  # the pool would take in all rows at once
        return np.array([given for batch in batches for given in pool.map(function, batch, chunksize=64)])


def close_pictures(rows: Iterator[Array]) -> Array:
    """Pairs of pictures of close hashes and like areas: the hash alone is blind to colours and to flat pictures."""
    seen = _of_each(_hash_and_areas, rows)
    hashes, areas = np.split(seen, [_HASH * _HASH // 8], axis=1)
    return close_pairs(hashes, most=PICTURE_BITS, part=4, areas=areas)


def _hash_and_areas(row: Array) -> Array:
    """uint8: 256 bits in 32, which of the lowest frequencies of the grey picture are above their median; then means.

    The means are those of 8 × 8 areas in each channel.
    """
    import imagehash
    from PIL import Image

    picture = Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row)
    bits = imagehash.phash(picture, hash_size=_HASH, highfreq_factor=2).hash.ravel()
    means = np.asarray(picture.resize((_AREAS, _AREAS), Image.Resampling.BOX)).ravel()
    return np.concatenate([np.packbits(bits), means])


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


def similar_texts(rows: Sequence[Array]) -> Array:
    """Pairs of texts whose sets of phrases have a Jaccard similarity of at least `SHARED_PHRASES`.

    Texts with the same set form a chain, and one of them stands for all. Candidates are those with an equal band of
    minima: Broder 1997, "On the resemblance and containment of documents", with the bands of Indyk & Motwani 1998.
    """
    phrases, starts = _phrases(rows)
    alike: dict[bytes, list[int]] = {}
    for i, (start, end) in enumerate(itertools.pairwise(starts)):
        alike.setdefault(hashlib.sha256(np.unique(phrases[start:end]).tobytes()).digest(), []).append(i)
    chains = [pair for places in alike.values() for pair in itertools.pairwise(places)]
    first = np.array([places[0] for places in alike.values()])
    rng = np.random.default_rng(0)
    factors = rng.integers(2**63, size=_HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    minima = np.stack(
        [np.minimum.reduceat((phrases * factor) >> np.uint64(32), starts[:-1]) for factor in factors], axis=1
    )
    candidates: set[tuple[int, int]] = set()
    for band in range(0, _HASHES, _ROWS):
        _, keys = np.unique(minima[first, band : band + _ROWS], axis=0, return_inverse=True)
        for a, b in _equal_pairs(keys.ravel()):  # b comes after a: the sort is stable
            candidates.update(zip(first[a].tolist(), first[b].tolist(), strict=True))

    def share(a: int, b: int) -> float:
        first, second = (np.unique(phrases[starts[i] : starts[i + 1]]) for i in (a, b))
        both = len(np.intersect1d(first, second, assume_unique=True))
        return both / (len(first) + len(second) - both)

    found = [pair for pair in candidates if share(*pair) >= SHARED_PHRASES]
    return np.array(sorted(chains + found), np.int64).reshape(-1, 2)


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
