"""Adam as the child of momentum, RMSProp and AdaGrad: with the right values it takes the steps of Keras's own."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from toolkit.optimizers import Adam

pytestmark = pytest.mark.every_backend
RATE = 0.01
GRADIENTS = np.random.default_rng(0).normal(size=(30, 6)).astype("float32")


class OfStep(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that is a function of t = 1, 2, …"""

    def __init__(self, function):
        self.function = function

    def __call__(self, step):
        return self.function(ops.cast(step, "float32") + 1)


def run(optimizer):
    weight = keras.Variable(np.linspace(-1, 1, 6).astype("float32"))
    for g in GRADIENTS:
        optimizer.apply([ops.convert_to_tensor(g)], [weight])
    return ops.convert_to_numpy(weight)


def assert_same(ours, theirs):
    np.testing.assert_allclose(run(ours), run(theirs), rtol=0, atol=2e-5)


def test_a_large_epsilon_leaves_momentum():
    # √v̂ + ε is ε, so a step is α/ε · m̂; m̂ has the weights (1−β)βᵏ/(1−βᵗ), momentum's velocity has βᵏ.
    epsilon = 2.0**40
    rate = OfStep(lambda t: RATE * epsilon * (1 - 0.9**t) / (1 - 0.9))
    assert_same(Adam(rate, beta_1=0.9, epsilon=epsilon), keras.optimizers.SGD(RATE, momentum=0.9))


def test_a_large_epsilon_and_no_beta_1_leave_sgd():
    epsilon = 2.0**40
    assert_same(Adam(RATE * epsilon, beta_1=0.0, epsilon=epsilon), keras.optimizers.SGD(RATE))


def test_no_beta_1_leaves_rmsprop_with_bias_correction():
    rate = OfStep(lambda t: RATE / ops.sqrt(1 - 0.9**t))  # takes the correction of v back
    ours = Adam(rate, beta_1=0.0, beta_2=0.9, epsilon=1e-12)
    assert_same(ours, keras.optimizers.RMSprop(RATE, rho=0.9, epsilon=1e-12))


def test_beta_2_near_1_leaves_adagrad():
    # v̂ is then the mean of all squares so far, AdaGrad divides by their sum.
    rate = OfStep(lambda t: RATE / ops.sqrt(t))
    ours = Adam(rate, beta_1=0.0, beta_2=1 - 1e-7, epsilon=1e-12)
    assert_same(ours, keras.optimizers.Adagrad(RATE, initial_accumulator_value=0.0, epsilon=1e-12))
