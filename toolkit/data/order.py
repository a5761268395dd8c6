"""The order of the examples and the random numbers behind augmentation: pure functions of (seed, epoch, index).

Both come from one C++ operation of TensorFlow, `RandomIndexShuffle`: a block cipher (Simon, Beaulieu et al. 2013) over
`[0, n)`, keyed by (stream, seed, epoch). Nothing is stored and nothing is drawn in sequence, so any batch of any epoch
can be computed alone: that is what lets a run go on in the middle of an epoch, on any backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

ORDER_VERSION = 1
"""Rises when the same (seed, epoch) would give another order; `record.json` carries it."""

# `tf.random.experimental.index_shuffle` takes 4 rounds of the cipher, which is no shuffle: over MNIST's 60,000 examples
# the orders of two epochs correlate at 0.9, and neighbours stay together. From 12 rounds on, serial and epoch-to-epoch
# statistics are those of NumPy's permutations up to 2**33 examples (8 still fail at a million). The cost is the same.
_ROUNDS = 16
_ORDER_STREAM = 498247692
_AUGMENTATION_STREAM = 1013904223
_COLUMNS = 64
_COUNTERS = 2**48


def permutation(seed: int, epoch: Any, n: int, positions: Any) -> tf.Tensor:
    """The examples that stand at `positions` of an epoch: int64, the same shape (one axis) as `positions`.

    Over all positions in `[0, n)` it is a bijection of `[0, n)`. `seed` and `epoch` are below 2**32; `epoch` may be a
    tensor, here and below.
    """
    import tensorflow as tf

    positions = tf.cast(positions, tf.int64)
    if n <= 2**16 or (n - 1) & (n - 2):
        return _shuffle(_ORDER_STREAM, seed, epoch, n, positions)
    # With n = 2**k + 1 the operation (TensorFlow 2.21) takes blocks one bit too small and its answers repeat:
    # permute n + 1 numbers instead and step over the one too many.
    shuffled = _shuffle(_ORDER_STREAM, seed, epoch, n + 1, positions)
    return tf.where(shuffled == n, _shuffle(_ORDER_STREAM, seed, epoch, n + 1, [n]), shuffled)


def uniforms(seed: int, epoch: Any, indices: Any, count: int) -> tf.Tensor:
    """Random numbers in [0, 1), float32 `(len(indices), count)`, for the examples `indices` in this epoch.

    Each is a function of (seed, epoch, example index, column) alone, whatever else stands in the batch, whatever
    `count` is. The key differs from the order's, so the two have nothing to do with each other.
    """
    import tensorflow as tf

    if count > _COLUMNS:
        raise ValueError(f"count is {count}, at most {_COLUMNS} columns per example are reserved")
    indices = tf.cast(indices, tf.int64)
    counters = indices[:, None] * _COLUMNS + tf.range(count, dtype=tf.int64)  # (len(indices), count)
    bits = _shuffle(_AUGMENTATION_STREAM, seed, epoch, _COUNTERS, tf.reshape(counters, [-1]), rounds=32)
    # The upper 24 of 48 bits: as many as a float32 below 1 holds exactly.
    values = tf.cast(bits // 2**24, tf.float32) * 2.0**-24
    return tf.reshape(values, tf.shape(counters))


def _shuffle(stream: int, seed: int, epoch: Any, n: int, index: Any, rounds: int = _ROUNDS) -> tf.Tensor:
    import tensorflow as tf

    return tf.raw_ops.RandomIndexShuffle(
        index=tf.convert_to_tensor(index, tf.int64),
        seed=tf.stack([tf.constant(stream, tf.uint32), tf.constant(seed, tf.uint32), tf.cast(epoch, tf.uint32)]),
        max_index=tf.constant(n - 1, tf.int64),
        rounds=rounds,
    )
