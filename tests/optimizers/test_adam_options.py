"""What Keras's base class adds to an optimizer, with Adam, against NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from toolkit.optimizers import Adam
from toolkit.optimizers.schedules import Cosine, Step

pytestmark = pytest.mark.every_backend
RATE = 0.01


def assert_close(weights, expected, atol=2e-6):
    # A step is about 1e-2; float32 rounds weights of about 1 by 6e-8 a step, over 30 steps and squares of gradients.
    for w, e in zip(weights, expected, strict=True):
        np.testing.assert_allclose(w, e, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "options",
    [
        {"weight_decay": 0.5},
        {"clipnorm": 0.5},
        {"clipvalue": 0.2},
        {"global_clipnorm": 1.0},
        {"loss_scale_factor": 1024.0},
        {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 4},
        {"weight_decay": 0.5, "clipnorm": 0.5, "loss_scale_factor": 8.0},
        {"amsgrad": True},
        {"weight_decay": 0.5, "weight_decay_mode": "coupled"},
        {"weight_decay": 0.5, "weight_decay_mode": "coupled", "clipnorm": 0.5, "amsgrad": True},
        {"epsilon_placement": "hat", "epsilon": 1e-4},
    ],
    ids=str,
)
@pytest.mark.parametrize("accumulation", [None, 4])
def test_option(options, accumulation, by_hand, apply_all, gradients, start):
    rows = gradients(30)
    ours = apply_all(Adam(RATE, gradient_accumulation_steps=accumulation, **options), start, rows)
    expected = by_hand(start, rows, learning_rate=RATE, gradient_accumulation_steps=accumulation or 1, **options)
    assert_close(ours, expected.weights)


def test_averages(by_hand, gradients, start):
    rows = gradients(20)
    optimizer = Adam(RATE, use_ema=True, ema_momentum=0.8)
    variables = [keras.Variable(w, dtype="float32") for w in start]
    for row in rows:
        optimizer.apply([ops.convert_to_tensor(g) for g in row], variables)
    expected = by_hand(start, rows, learning_rate=RATE, use_ema=True, ema_momentum=0.8)
    assert_close([ops.convert_to_numpy(v) for v in variables], expected.weights)
    optimizer.finalize_variable_values(variables)
    assert_close([ops.convert_to_numpy(v) for v in variables], expected.averages)


def test_averages_of_bfloat16_weights_keep_moving():
    # 1 % of the way from 0 to 1 is less than a bfloat16 near 1 can hold.
    weight = keras.Variable(np.zeros(1), dtype="bfloat16")
    optimizer = Adam(0.0, use_ema=True, ema_momentum=0.99)
    optimizer.apply([ops.ones((1,), "bfloat16")], [weight])
    weight.assign([1.0])
    for _ in range(150):
        optimizer.apply([ops.ones((1,), "bfloat16")], [weight])
    optimizer.finalize_variable_values([weight])
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(weight, "float32")), [1 - 0.99**150], atol=2**-8)


def test_weight_decay_leaves_out_what_is_excluded():
    variables = [keras.Variable([1.0], name="kernel"), keras.Variable([1.0], name="bias")]
    optimizer = Adam(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.apply([ops.zeros((1,)), ops.zeros((1,))], variables)
    np.testing.assert_allclose([ops.convert_to_numpy(v)[0] for v in variables], [0.95, 1.0], rtol=1e-7)


def test_constraints_hold_after_every_step():
    variable = keras.Variable([0.05], name="w")
    variable.constraint = keras.constraints.NonNeg()
    optimizer = Adam(0.1, gradient_accumulation_steps=2)
    optimizer.apply([ops.ones((1,))], [variable])
    optimizer.flush()
    np.testing.assert_array_equal(ops.convert_to_numpy(variable), [0.0])


@pytest.mark.parametrize("micro_batches", [12, 10, 1])
def test_everything_at_once_counts_steps(micro_batches, by_hand, apply_all, gradients, start):
    """Micro-batches with schedule, warm-up, average, clipping, decay: rate, bias and average go by steps."""
    schedule = Cosine(RATE, total_steps=5, warmup_steps=2)
    options = {"weight_decay": 0.1, "global_clipnorm": 1.0, "use_ema": True, "ema_momentum": 0.9}
    rows = gradients(micro_batches)
    optimizer = Adam(schedule, gradient_accumulation_steps=3, ema_overwrite_frequency=2, **options)
    ours = apply_all(optimizer, start, rows)
    expected = by_hand(
        start,
        rows,
        learning_rate=lambda step: float(ops.convert_to_numpy(schedule(step))),
        gradient_accumulation_steps=3,
        ema_overwrite_frequency=2,
        **options,
    )
    assert_close(ours, expected.weights)
    assert int(optimizer.iterations) == -(-micro_batches // 3)


def test_micro_batches_make_one_batch(apply_all, gradients, start):
    rows = gradients(12)
    batches = [[np.mean(gs, axis=0) for gs in zip(*rows[i : i + 4], strict=True)] for i in (0, 4, 8)]
    schedule = {"learning_rate": Step(RATE, 3, boundaries=[1, 2], factor=0.5), "weight_decay": 0.1, "clipnorm": 1.0}
    many = apply_all(Adam(gradient_accumulation_steps=4, **schedule), start, rows)
    one = apply_all(Adam(**schedule), start, batches)
    assert_close(many, one, atol=1e-6)


def test_nothing_moves_within_a_window():
    weight = keras.Variable([1.0], dtype="float32")
    optimizer = Adam(0.1, gradient_accumulation_steps=3, weight_decay=0.1, use_ema=True)
    states = []
    for _ in range(3):
        optimizer.apply([ops.ones((1,))], [weight])
        states.append((float(ops.convert_to_numpy(weight)[0]), int(optimizer.iterations)))
    assert states[:2] == [(1.0, 0)] * 2
    assert states[2] == (pytest.approx(0.89), 1)


def test_flush_takes_what_is_held_and_nothing_twice():
    weight = keras.Variable([0.0], dtype="float32")
    optimizer = Adam(0.1, gradient_accumulation_steps=4)
    optimizer.flush()  # before anything is built
    optimizer.apply([ops.ones((1,))], [weight])
    optimizer.flush()
    once = ops.convert_to_numpy(weight).copy()
    np.testing.assert_allclose(once, [-0.1], rtol=1e-6)  # the mean over what is held: 1, not a quarter
    optimizer.flush()
    np.testing.assert_array_equal(ops.convert_to_numpy(weight), once)
    assert int(optimizer.iterations) == 1
    for _ in range(4):  # and the next window starts empty
        optimizer.apply([ops.ones((1,))], [weight])
    np.testing.assert_allclose(ops.convert_to_numpy(weight), [-0.2], rtol=1e-6)


def test_flush_without_accumulation_does_nothing():
    weight = keras.Variable([0.0], dtype="float32")
    optimizer = Adam(0.1)
    optimizer.apply([ops.ones((1,))], [weight])
    optimizer.flush()
    assert int(optimizer.iterations) == 1


def test_variables_without_gradient_stay(recwarn):
    variables = [keras.Variable([1.0]), keras.Variable([1.0])]
    optimizer = Adam(0.1, weight_decay=0.1, gradient_accumulation_steps=2)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([ops.ones((1,)), None], variables)
    optimizer.flush()
    np.testing.assert_allclose([ops.convert_to_numpy(v)[0] for v in variables], [0.89, 1.0], rtol=1e-6)
