"""The rate rises step by step as it says, on every backend: losses follow a formula."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from toolkit.optimizers.adam import Adam
from toolkit.training.feed import Feed
from toolkit.training.range_test import DIVERGED, WINDOW, range_test

every_backend = pytest.mark.every_backend
PER_EPOCH = 7  # so that the steps go on over several epochs


def feed(targets):
    """Batches of one number each: input 1, label the next of `targets`."""

    def batches(epoch, step, count):
        first = epoch * PER_EPOCH + step
        labels = np.array(targets[first : first + count], "float32").reshape(-1, 1)
        return tf.data.Dataset.from_tensor_slices((np.ones_like(labels), labels)).batch(1)

    return Feed(batches=batches, ids=None, batch=None, validation=None, batch_size=1, per_epoch=PER_EPOCH)


def compiled(optimizer):
    """One weight w, beginning at 0, whose loss is (w - label)²."""
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((1,)), dense])
    model.compile(optimizer=optimizer, loss="mse")
    return model


@every_backend
def test_each_step_is_taken_at_its_own_rate_until_the_loss_diverges():
    rates = np.concatenate([np.linspace(0.01, 0.05, 15), np.linspace(1.02, 1.2, 25)])
    rise = range_test(compiled(keras.optimizers.SGD(0.5)), feed([1.0] * 40), rates.tolist())
    # A step multiplies the error by 1 - 2 · rate: it falls below a rate of 1 and grows above.
    errors = np.concatenate([[1], np.cumprod(1 - 2 * rates)])[:40]
    expected = errors**2
    means = np.convolve(expected, np.ones(WINDOW) / WINDOW, "valid")
    end = WINDOW + int(np.argmax(means > DIVERGED * np.minimum.accumulate(means)))
    assert rise.ended == "diverged"
    assert PER_EPOCH * 2 < len(rise.losses) == end < 40
    # Each is a difference of sums of up to 7 losses in float32, which begin near 1.
    np.testing.assert_allclose(rise.losses, expected[:end], rtol=1e-4)


@every_backend
def test_with_accumulation_a_step_is_a_window_of_batches():
    targets = np.random.default_rng(0).normal(size=60).tolist()
    rates = np.geomspace(1e-9, 1e-8, 20)  # too low to change what is measured
    told = []
    optimizer = Adam(1e-3, gradient_accumulation_steps=3)
    rise = range_test(compiled(optimizer), feed(targets), rates.tolist(), progress=lambda *step: told.append(step))
    assert rise.ended in ("highest", "diverged")
    expected = (np.array(targets) ** 2).reshape(20, 3).mean(axis=1)[: len(rise.losses)]
    np.testing.assert_allclose(rise.losses, expected, rtol=1e-3, atol=1e-4)
    assert told == list(enumerate(rise.losses, start=1))
    assert int(optimizer.iterations) == len(rise.losses)


@every_backend
def test_it_ends_where_the_loss_is_not_finite():
    targets = [1.0] * 60
    targets[23] = np.inf
    rise = range_test(compiled(Adam(1e-3, use_ema=True)), feed(targets), np.geomspace(1e-5, 1e-4, 60).tolist())
    assert (rise.ended, len(rise.losses)) == ("not finite", 23)


def test_it_ends_at_the_highest_rate():
    rise = range_test(compiled(Adam(1e-3)), feed([1.0] * 21), np.geomspace(1e-5, 1e-4, 21).tolist())
    assert (rise.ended, len(rise.losses)) == ("highest", 21)
