"""Hashes of examples, against all pairs one by one and against real pictures."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from toolkit.data.load import load
from toolkit.explain.copies import find_copies
from toolkit.explain.near_duplicates import PICTURE_BITS, close_pairs


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
