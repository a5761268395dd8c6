import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from toolkit.data.wait import WaitMeter


def delayed(seconds, count=4):
    """Batches that each take so long: an event that nobody sets, waited for outside Python's lock."""
    never = threading.Event()

    def make(i):
        never.wait(seconds)
        return np.float32(i)

    dataset = tf.data.Dataset.range(count).map(lambda i: tf.ensure_shape(tf.numpy_function(make, [i], tf.float32), []))
    return dataset.prefetch(1)


def test_a_slow_source_is_told():
    meter = WaitMeter()
    assert list(meter.dataset(delayed(0.05)).as_numpy_iterator()) == [0, 1, 2, 3]
    # Below: nothing else is counted in the two seconds that a crowded machine may need.
    assert 0.18 < meter.seconds < 2


def test_what_is_ready_costs_no_wait():
    meter = WaitMeter()
    ready = tf.data.Dataset.range(200).prefetch(tf.data.AUTOTUNE)
    consumed = threading.Event()
    for _ in meter.dataset(ready):
        consumed.wait(0.002)  # training: 0.4 s, which must not be counted
    assert meter.seconds < 0.2


def test_a_slow_consumer_hides_a_slower_source_only_as_far_as_it_is_prefetched():
    # A meter that ran ahead of the consumer (with a prefetch behind it) would count the whole 0.3 s.
    meter = WaitMeter()
    training = threading.Event()
    for _ in meter.dataset(delayed(0.03, count=10)):
        training.wait(0.06)
    assert meter.seconds < 0.2


def test_the_number_of_batches_stays_known():
    meter = WaitMeter()
    measured = meter.dataset(tf.data.Dataset.range(7).batch(2))
    assert measured.cardinality() == 4
    assert measured.options().experimental_optimization.inject_prefetch is False


@pytest.mark.every_backend
def test_fit_is_measured_on_every_backend():
    meter = WaitMeter()
    x = keras.Input((1,), name="x")
    model = keras.Model({"x": x}, keras.layers.Dense(1)(x))
    model.compile(optimizer="sgd", loss="mse")
    batches = delayed(0.03).map(lambda i: ({"x": tf.reshape(i, (1, 1))}, tf.reshape(i, (1, 1)))).prefetch(1)
    history = model.fit(meter.dataset(batches), shuffle=False, verbose=0)
    assert len(history.history["loss"]) == 1
    assert meter.seconds > 0.02  # the first batch at least; the others may come while a step is compiled
