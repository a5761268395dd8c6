import keras
import numpy as np
import pytest

from toolkit.models.layers.word_pairs import WordPairs

numpy = keras.ops.convert_to_numpy


@pytest.mark.every_backend
def test_neighbours_are_numbered_by_a_hash_in_32_bits():
    tokens = np.random.default_rng(0).integers(1, 1_000_000, (5, 30), "int32")
    tokens[1, 20:], tokens[2, 1:], tokens[3] = 0, 0, 0
    numbers, there = map(numpy, WordPairs(1000)(tokens))
    after = np.pad(tokens[:, 1:], ((0, 0), (0, 1)))
    mixed = (tokens.astype(object) * 73856093) ^ (after.astype(object) * 19349663)
    low = (mixed + 2**31) % 2**32 - 2**31  # the lower 32 bits, signed
    np.testing.assert_array_equal(numbers, (low % 1000).astype(int))
    assert there.sum(axis=1).tolist() == [29, 19, 0, 0, 29]
    assert not there[:, -1].any()
    np.testing.assert_array_equal(there[:, :-1], (tokens[:, 1:] != 0) & (tokens[:, :-1] != 0))


@pytest.mark.every_backend
def test_order_counts_and_collisions_are_about_as_rare_as_by_chance():
    words = np.stack(np.meshgrid(np.arange(1, 101), np.arange(1, 101)), axis=-1).reshape(-1, 2).astype("int32")
    numbers = numpy(WordPairs(2**16)(words)[0])[:, 0]
    expected = 2**16 * (1 - np.exp(-(100**2) / 2**16))  # of 10,000 pairs thrown at random
    assert 0.97 * expected < len(set(numbers.tolist())) <= 10_000
    assert numbers[words.tolist().index([3, 7])] != numbers[words.tolist().index([7, 3])]
