"""Augmentation of sounds: a pure function of (seed, epoch, example index), in the pipeline, for training only."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from toolkit.data.augment import product
from toolkit.data.order import uniforms

if TYPE_CHECKING:
    import tensorflow as tf

# Which random number of an example serves what: fixed, so that switching one kind on leaves the other as it was.
SPEED, NOISE, NOISE_START = range(3)
_COUNT = 3

NOISE_SAMPLES = 2**17
"""Of an epoch's noise."""
_NOISE_STREAM = 1540483477


def augment_sounds(
    samples: tf.Tensor,
    lengths: tf.Tensor,
    seed: int,
    epoch: int | tf.Tensor,
    indices: tf.Tensor,
    *,
    edges: Sequence[int],
    speed: float = 0.0,
    noise: float = 0.0,
    normal: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Changed copies of float32 `(batch, time)` in [-1, 1] and their lengths, int32 `(batch,)`; padding stays zero.

    What happens to a sound depends on seed, epoch and its example index alone, not on the batch around it.

    Args:
        samples: the sounds, padded with zeros.
        lengths: samples of each.
        seed: of the run.
        epoch: counted from 0.
        indices: int64 `(batch,)`, the index of each sound in its table.
        edges: widths that a batch may have, rising; no sound is slowed down beyond the last of them.
        speed: played faster by a factor in 1 ± speed, which moves pitch and resonances, too.
        noise: white noise is added whose RMS is up to this share of the sound's.
        normal: what `epoch_noise` gives of seed and epoch; it is drawn where it is not given.
    """
    if not (speed or noise):
        return samples, lengths
    random = uniforms(seed, epoch, indices, _COUNT)  # (batch, _COUNT)
    if speed:
        samples, lengths = change_speed(samples, lengths, random, speed, edges)
    if noise:
        samples = add_noise(samples, lengths, random, noise, epoch_noise(seed, epoch) if normal is None else normal)
    return samples, lengths


def change_speed(
    samples: tf.Tensor, lengths: tf.Tensor, random: tf.Tensor, speed: float, edges: Sequence[int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sample j of the new sound is the old one at j · factor, between two samples on the line that joins them."""
    import tensorflow as tf

    # float64, so that places far into a long sound are still exact.
    last = tf.cast(tf.maximum(lengths, 1) - 1, tf.float64)  # (batch,)
    factor = 1.0 + (2.0 * tf.cast(random[:, SPEED], tf.float64) - 1.0) * speed
    known = tf.constant(edges, tf.int32)
    # A sound that is longer than the last edge already (there is none in training) is not slowed down at all.
    longest = tf.maximum(known[-1], lengths)
    factor = tf.maximum(factor, last / tf.cast(tf.maximum(longest - 1, 1), tf.float64))
    new = tf.minimum(tf.cast(tf.floor(last / factor), tf.int32) + 1, longest)
    new = tf.where(lengths > 0, new, lengths)
    most = tf.reduce_max(new)
    width = tf.maximum(known[tf.minimum(tf.searchsorted(known, most[None])[0], len(edges) - 1)], most)
    place = tf.range(width, dtype=tf.int32)
    # All of one width before, since each pair of widths before and after is compiled for.
    given = tf.shape(samples)[1]
    samples = tf.pad(samples, [[0, 0], [0, tf.maximum(known[-1] - given, 0)]])
    changed = _interpolated()(samples, place, factor, tf.cast(last, tf.int32), new)
    return tf.ensure_shape(changed, [samples.shape[0], None]), new


@functools.cache
def _interpolated() -> Any:
    """(samples, places, factors, last places, lengths) → each sound at place · factor, and zeros past its length.

    Compiled, since a dozen operations on every sample take ten times as long one after the other; once for all epochs.
    """
    import tensorflow as tf

    def interpolated(samples: Any, place: Any, factor: Any, last: Any, lengths: Any) -> Any:
        at = product(tf.cast(place, tf.float64)[None, :], factor[:, None])  # (batch, width)
        before = tf.minimum(tf.cast(at, tf.int32), last[:, None])
        after = tf.minimum(before + 1, last[:, None])
        share = tf.cast(at - tf.cast(before, tf.float64), tf.float32)
        left, right = (tf.gather(samples, index, batch_dims=1) for index in (before, after))
        return tf.where(place[None, :] < lengths[:, None], left + product(right - left, share), 0.0)

    rows, each = tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([None], tf.int32)
    signature = [rows, each, tf.TensorSpec([None], tf.float64), each, each]
    return tf.function(interpolated, signature, autograph=False, jit_compile=True)


def epoch_noise(seed: int, epoch: int | tf.Tensor) -> tf.Tensor:
    """Normal numbers, float32 `(NOISE_SAMPLES,)`: each example takes its piece of them, for to draw costs more."""
    import tensorflow as tf

    key = tf.stack([(seed ^ _NOISE_STREAM) % 2**31, tf.cast(epoch, tf.int32)])
    return tf.random.stateless_normal([NOISE_SAMPLES], key, alg="philox")


def add_noise(samples: tf.Tensor, lengths: tf.Tensor, random: tf.Tensor, noise: float, normal: tf.Tensor) -> tf.Tensor:
    """The sound and, within its length, a piece of the epoch's noise; cut off at -1 and 1."""
    import tensorflow as tf

    # The energy comes from whole numbers: a sum of floats depends on how the batch is padded and cut among threads.
    energy = tf.cast(_energies()(samples), tf.float64)  # (batch,)
    rms = tf.sqrt(energy / tf.cast(tf.maximum(lengths, 1), tf.float64)) / 32768.0
    level = tf.cast(rms * tf.cast(random[:, NOISE], tf.float64) * noise, tf.float32)
    start = tf.cast(random[:, NOISE_START] * NOISE_SAMPLES, tf.int32)
    noisy = _with_pieces()(samples, lengths, normal, start, level)
    return tf.ensure_shape(noisy, samples.shape)


@functools.cache
def _energies() -> Any:
    """Sounds → the sum of the squares of each one's 16-bit samples, as a whole number."""
    import tensorflow as tf

    def energies(samples: Any) -> Any:
        whole = tf.cast(tf.round(samples * 32768.0), tf.int64)
        return tf.reduce_sum(whole * whole, axis=1)

    return tf.function(energies, [tf.TensorSpec([None, None], tf.float32)], autograph=False, jit_compile=True)


@functools.cache
def _with_pieces() -> Any:
    """(samples, lengths, noise, starts, levels) → each sound with its piece of the noise, cut off at -1 and 1."""
    import tensorflow as tf

    def with_pieces(samples: Any, lengths: Any, normal: Any, start: Any, level: Any) -> Any:
        place = tf.range(tf.shape(samples)[1])
        piece = tf.gather(normal, (start[:, None] + place[None, :]) % NOISE_SAMPLES)
        noisy = tf.clip_by_value(samples + product(piece, level[:, None]), -1.0, 1.0)
        return tf.where(place[None, :] < lengths[:, None], noisy, 0.0)

    rows, each, real = tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([None], tf.int32), tf.TensorSpec([None])
    return tf.function(with_pieces, [rows, each, real, each, real], autograph=False, jit_compile=True)
