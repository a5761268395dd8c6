"""Hashes of examples, against all pairs one by one and against real pictures."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import sklearn
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from toolkit.data.load import load
from toolkit.explain.copies import find_copies
from toolkit.explain.near_duplicates import (
    PICTURE_BITS,
    PICTURE_LEVELS,
    close_pairs,
    close_pictures,
    similar_texts,
)


def test_close_pairs_are_those_that_counting_finds():
    """Chains stand for all pairs of equal hashes; apart from them every pair within the bound is there."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (60, 32), np.uint8)
    for i in range(20):  # copies with 0 to 9 bits changed
        bits = np.unpackbits(hashes[i])
        bits[rng.choice(256, i % 10, replace=False)] ^= 1
        hashes[40 + i] = np.packbits(bits)
    expected = [
        [a, b]
        for a, b in itertools.combinations(range(60), 2)
        if np.unpackbits(hashes[a] ^ hashes[b]).sum() <= PICTURE_BITS
    ]
    assert len(expected) == 14
    assert close_pairs(hashes, most=PICTURE_BITS, part=4).tolist() == expected


def test_equal_hashes_are_a_chain():
    hashes = np.zeros((4, 32), np.uint8)
    assert close_pairs(hashes, most=PICTURE_BITS, part=4).tolist() == [[0, 1], [1, 2], [2, 3]]


def components(pairs, count):
    """Of each of `count`, the first that pairs connect it with."""
    _, parts = connected_components(coo_array((np.ones(len(pairs)), np.transpose(pairs)), shape=(count, count)))
    return [parts.tolist().index(part) for part in parts]


@pytest.mark.parametrize("seed", range(5))
def test_pictures_of_one_hash_are_connected_as_comparing_all_of_them_does(seed):
    areas = np.random.default_rng(seed).integers(0, 256, (60, 3), np.uint8)
    areas[50:] = areas[:10]
    alike = [
        (a, b)
        for a, b in itertools.combinations(range(60), 2)
        if max(abs(int(x) - int(y)) for x, y in zip(areas[a], areas[b], strict=True)) <= PICTURE_LEVELS
    ]
    found = close_pairs(np.zeros((60, 32), np.uint8), most=PICTURE_BITS, part=4, areas=areas)
    assert {*map(tuple, found.tolist())} <= {*alike}
    assert components(found, 60) == components(alike, 60)
    assert 10 < len(set(components(found, 60))) < 50
    assert len(found) < 60  # not every pair


def test_a_hash_that_two_kinds_of_pictures_share_is_close_to_others_by_each_of_them():
    hashes = np.zeros((5, 32), np.uint8)
    hashes[3:, 0] = 1
    red, blue, green = (np.roll([200, 0, 0], place).astype(np.uint8) for place in (0, 2, 1))
    pairs = close_pairs(hashes, most=PICTURE_BITS, part=4, areas=np.stack([blue, red, red, red, green]))
    assert components(pairs, 5) == [0, 1, 1, 1, 4]


def square(colour, size=32, *, ground=(0, 0, 0)):
    rows = np.full((size, size, 3), ground, np.uint8)
    rows[8:14, 10:20] = colour
    return rows


def flat(*colour):
    return np.full((32, 32, len(colour)), colour, np.uint8)


RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


@pytest.mark.parametrize(
    "pictures",
    [
        (square(RED), square(BLUE)),
        (square(RED, ground=WHITE), square(BLUE, ground=WHITE)),
        (flat(*RED), flat(0, 255, 0)),
        (flat(0), flat(255)),
    ],
    ids=["squares", "squares on white", "tiles", "grey tiles"],
)
def test_pictures_that_differ_in_colour_alone_are_no_copies(pictures):
    assert close_pictures(iter(pictures)).tolist() == []
    assert close_pictures(iter([*pictures, *pictures])).tolist() == [[0, 2], [1, 3]]


def saved(rows):
    file = io.BytesIO()
    Image.fromarray(rows).save(file, "jpeg", quality=50)
    return np.asarray(Image.open(file))


def halved(rows):
    small = Image.fromarray(rows).resize((rows.shape[1] // 2, rows.shape[0] // 2))
    return np.asarray(small.resize(rows.shape[1::-1]))


def brightened(rows):
    return np.clip(1.15 * rows, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("change", [saved, halved, brightened])
def test_a_photo_that_was_saved_halved_or_brightened_is_a_copy(change):
    """Parts of two photos; of one in ten or so the hash is another then."""
    photos = []
    for name in ("china", "flower"):
        with Image.open(Path(sklearn.__file__).parent / f"datasets/images/{name}.jpg") as whole:
            corners = itertools.product(range(0, 600, 200), range(0, 400, 200))
            photos += [np.asarray(whole.crop((x, y, x + 200, y + 200)).resize((128, 128))) for x, y in corners]
    pairs = close_pictures(itertools.chain(photos, map(change, photos)))
    assert {*map(tuple, pairs.tolist())} <= {(i, 12 + i) for i in range(12)}
    assert len(pairs) >= 9


def test_texts_that_stand_there_many_times_are_a_chain():
    """Of one word or of many; another that shares most of their phrases is compared with one of them."""
    long = np.arange(1, 41, dtype=np.int32)
    rows = [np.array([7], np.int32), long, long[:-3]] + 100 * [np.array([7], np.int32), long]
    pairs = similar_texts(rows)
    assert components(pairs, 203) == [0, 1, 1] + 100 * [0, 1]
    assert len(pairs) == 201


@pytest.fixture(scope="module")
def digits():
    return load("mnist_sample", {})


def test_handwritten_digits_are_no_copies_of_one_another(digits):
    """They look alike, many of them; none of the 5,000 is told to be another."""
    assert [len(copies) for copies in find_copies(digits)] == [0] * 6


def test_a_digit_that_was_saved_as_jpeg_is_a_copy(digits):
    train, test = digits.splits["train"], digits.splits["test"]
    rows = test.table.rows.copy()
    for i in range(20):
        file = io.BytesIO()
        Image.fromarray(train.table.rows[i, ..., 0]).save(file, "jpeg", quality=95)
        rows[i, ..., 0] = np.asarray(Image.open(file))
    changed = type(test)(
        name="test",
        table=type(test.table)(rows),
        labels=test.labels,
        ids=test.ids,
        fingerprint="",
        digests=[bytes(32)[:31] + bytes([i]) if i < 20 else digest for i, digest in enumerate(test.digests)],
    )
    data = type(digits)(spec=digits.spec, splits={"train": train, "test": changed}, duplicates={}, bad=())
    between = find_copies(data)[1]
    assert (between.first, between.second, between.exact) == ("train", "test", ())
    assert set(between.near) <= set(zip(test.ids[:20], train.ids[:20], strict=True))
    assert len(between.near) >= 18
