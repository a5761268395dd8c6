"""The numbers of Adam, against NumPy in float64 and against two implementations by others."""

from __future__ import annotations

import inspect
import re

import keras
import numpy as np
import pytest
from keras import ops

from toolkit.optimizers import Adam

pytestmark = pytest.mark.every_backend
BACKEND = keras.backend.backend()


def assert_within_rounding(weights, expected, *, rate, steps):
    """1e-6 · rate · steps + √steps · ulp(θ): a millionth of the way, and rounding once a step."""
    for w, e in zip(weights, expected, strict=True):
        ulp = np.spacing(np.maximum(np.abs(w), np.abs(e)).astype("float32"))
        np.testing.assert_array_less(np.abs(w - e), 1e-6 * rate * steps + np.sqrt(steps) * ulp)


def adam_by_hand(w, grads, lr, b1, b2, eps):
    """Kingma & Ba 2015, Algorithm 1, float64."""
    m = v = np.zeros_like(w)
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        w = w - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return w


def test_adam_follows_algorithm_1_for_20_steps():
    rng = np.random.default_rng(0)
    start = rng.normal(size=4)
    # Columns: ordinary, small, near epsilon, dead. Rows shrink, which tells AMSGrad from Adam.
    grads = rng.normal(size=(20, 4)) * [1, 1e-3, 1e-8, 0] * np.geomspace(10, 0.1, 20)[:, None]
    optimizer = Adam(learning_rate=0.01, beta_1=0.9, beta_2=0.999, epsilon=1e-8)
    weight = keras.Variable(start, dtype="float32")
    for g in grads:
        optimizer.apply([ops.convert_to_tensor(g, "float32")], [weight])
    expected = adam_by_hand(start, grads, lr=0.01, b1=0.9, b2=0.999, eps=1e-8)
    # A step is about 1e-2, float32 rounding over 20 steps 7e-7; the nearest wrong variant (AMSGrad) is 3e-5 away.
    np.testing.assert_allclose(ops.convert_to_numpy(weight), expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"learning_rate": 0.01},
        {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.99, "epsilon": 1e-3},
        {"beta_1": 0.0, "beta_2": 0.0},
        {"beta_1": 0.99, "beta_2": 0.99999},
    ],
    ids=str,
)
def test_1000_steps_in_float32(options, by_hand, apply_all, gradients, start):
    rows = gradients(1000)
    weights = apply_all(Adam(**options), start, rows)
    expected = by_hand(start, rows, **options).weights
    assert_within_rounding(weights, expected, rate=options.get("learning_rate", 1e-3), steps=1000)


def test_growing_gradients(by_hand, apply_all):
    rows = [[np.float32([g, -1e-9 * g])] for g in np.geomspace(1e-3, 1e3, 1000)]
    start = [np.zeros(2, "float32")]
    optimizer = Adam(0.01)
    weights = apply_all(optimizer, start, rows)
    assert_within_rounding(weights, by_hand(start, rows, learning_rate=0.01).weights, rate=0.01, steps=1000)
    # v by itself: kernels that form 1−β₂ in float32, such as TensorFlow's ResourceApplyAdam, are 1.1e-5 off here.
    [v] = [v for v in optimizer.variables if "second_moment" in v.path]
    expected = 0.001 * sum(0.999 ** (999 - i) * row[0].astype("float64") ** 2 for i, row in enumerate(rows))
    np.testing.assert_allclose(ops.convert_to_numpy(v), expected, rtol=2e-6)


@pytest.mark.parametrize("gradient", [1.0, 1e-9])
def test_first_step(gradient):
    # α·g/(|g| + ε): for g = 1e-9 a step of α/11, where Keras's ε, 32 times larger in effect, would give α/317.
    weight = keras.Variable(np.zeros(1), dtype="float32")
    Adam(1e-3).apply([ops.convert_to_tensor([gradient], "float32")], [weight])
    np.testing.assert_allclose(ops.convert_to_numpy(weight), [-1e-3 * gradient / (gradient + 1e-8)], rtol=3e-7)


@pytest.mark.skipif(BACKEND == "jax", reason="needs JAX's x64 mode: test_20_steps_in_float64_on_jax")
@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.1}, {"use_ema": True, "ema_overwrite_frequency": 3}], ids=str
)
def test_20_steps_in_float64(options, by_hand, apply_all, gradients, start):
    rows = gradients(20)
    start = [w.astype("float64") for w in start]
    weights = apply_all(Adam(0.01, **options), start, rows, dtype="float64")
    for w, e in zip(weights, by_hand(start, rows, learning_rate=0.01, **options).weights, strict=True):
        np.testing.assert_allclose(w, e, rtol=0, atol=1e-12)


def test_against_torch(apply_all, gradients, start):
    torch = pytest.importorskip("torch")
    rows = gradients(200)
    parameters = [torch.nn.Parameter(torch.tensor(w, dtype=torch.float64)) for w in start]
    theirs = torch.optim.Adam(parameters, lr=0.01, betas=(0.8, 0.99), eps=1e-6)
    for row in rows:
        for p, g in zip(parameters, row, strict=True):
            p.grad = torch.tensor(g, dtype=torch.float64)
        theirs.step()
    ours = apply_all(Adam(0.01, beta_1=0.8, beta_2=0.99, epsilon=1e-6), start, rows)
    assert_within_rounding(ours, [p.detach().numpy() for p in parameters], rate=0.01, steps=200)


def test_against_optax(apply_all, gradients, start):
    optax = pytest.importorskip("optax")
    rows = gradients(100)
    theirs = optax.adam(0.01, b1=0.8, b2=0.99, eps=1e-6)
    weights = [np.asarray(w) for w in start]
    state = theirs.init(weights)
    for row in rows:
        updates, state = theirs.update([np.asarray(g) for g in row], state, weights)
        weights = optax.apply_updates(weights, updates)
    ours = apply_all(Adam(0.01, beta_1=0.8, beta_2=0.99, epsilon=1e-6), start, rows)
    # optax is float32 as well: rounding twice.
    assert_within_rounding(ours, [np.asarray(w) for w in weights], rate=2 * 0.01, steps=100)


@pytest.mark.parametrize("options", [{}, {"amsgrad": True}, {"weight_decay": 0.1}, {"clipvalue": 0.3}], ids=str)
def test_hat_gives_the_numbers_of_keras_adam(options, apply_all, gradients, start):
    rows = gradients(50)
    ours = apply_all(Adam(0.01, epsilon=1e-7, epsilon_placement="hat", **options), start, rows)
    theirs = [keras.Variable(w) for w in start]
    optimizer = keras.optimizers.Adam(0.01, epsilon=1e-7, **options)
    for row in rows:
        optimizer.apply([ops.convert_to_tensor(g) for g in row], theirs)
    for w, e in zip(ours, theirs, strict=True):
        # Keras's own scalars are off: 1 - 0.999 in float32 by 1.3e-5, and so are its steps by half of that.
        np.testing.assert_allclose(w, ops.convert_to_numpy(e), rtol=0, atol=1e-5 * 0.01 * 50)


def test_late_steps_have_no_bias_left(by_hand):
    # βᵗ of a large t by repeated rounding would not get here in a test; the step counter is set instead.
    optimizer = Adam(0.01)
    weight = keras.Variable(np.zeros(1), dtype="float32")
    optimizer.build([weight])
    optimizer.iterations.assign(3_000_000)
    optimizer.apply([ops.ones((1,))], [weight])
    # m = 0.1, v = 0.001 and both corrections are 1
    np.testing.assert_allclose(ops.convert_to_numpy(weight), [-0.01 * 0.1 / np.sqrt(0.001)], rtol=1e-6)


def test_zero_gradients_move_nothing():
    weight = keras.Variable([1.0, -2.0], dtype="float32")
    optimizer = Adam(0.1)
    for _ in range(3):
        optimizer.apply([ops.zeros((2,))], [weight])
    np.testing.assert_array_equal(ops.convert_to_numpy(weight), [1, -2])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_weights_learn(dtype):
    """Keras's Adam stands still in bfloat16, where its β₂ is 1, and divides 0 by 0 in float16, where its ε is 0."""
    target = ops.convert_to_tensor([1.0, -1.0, 0.5, 0.0], dtype)
    weight = keras.Variable(np.zeros(4), dtype=dtype)
    optimizer = Adam(0.05)
    for _ in range(100):
        optimizer.apply([ops.convert_to_tensor(weight) - target], [weight])
    learnt = ops.convert_to_numpy(ops.cast(weight, "float32"))
    np.testing.assert_allclose(learnt, [1.0, -1.0, 0.5, 0.0], atol=0.05)
    assert learnt[3] == 0  # its gradient was 0 throughout
    assert {keras.backend.standardize_dtype(v.dtype) for v in optimizer.variables[2:]} == {"float32"}


def test_half_precision_is_rounded_once_a_step(by_hand, apply_all, gradients, start):
    # Steps of about 1 on weights of about 1: bfloat16 keeps 8 bits, so each step rounds by 2⁻⁸ of the weight.
    rows = [[ops.convert_to_numpy(ops.cast(ops.cast(g, "bfloat16"), "float32")) for g in row] for row in gradients(5)]
    weights = apply_all(Adam(1.0), start, rows, dtype="bfloat16")
    for w, e in zip(weights, by_hand(start, rows, learning_rate=1.0).weights, strict=True):
        np.testing.assert_allclose(w, e, rtol=0, atol=5 * 4 * 2**-8)


def test_finds_the_minimum_of_rosenbrocks_valley():
    weight = keras.Variable([-1.2, 1.0], dtype="float32")
    optimizer = Adam(0.05, beta_2=0.9)
    for _ in range(800):
        x, y = ops.convert_to_numpy(weight).astype("float64")
        slope = [-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)]
        optimizer.apply([ops.convert_to_tensor(slope, "float32")], [weight])
    np.testing.assert_allclose(ops.convert_to_numpy(weight), [1, 1], atol=0.01)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("beta_1", 1.0),
        ("beta_1", -0.1),
        ("beta_2", 1.5),
        ("beta_2", float("nan")),
        ("epsilon", 0.0),
        ("epsilon", -1e-8),
        ("learning_rate", -1e-3),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("learning_rate", "1e-3"),
        ("learning_rate", True),
        ("learning_rate", None),
        ("weight_decay", -0.01),
        ("weight_decay", float("nan")),
        ("clipnorm", 0.0),
        ("clipnorm", float("nan")),
        ("clipvalue", -1.0),
        ("clipvalue", float("nan")),
        ("global_clipnorm", 0),
        ("global_clipnorm", float("inf")),  # 0 times it is no number
        ("global_clipnorm", float("nan")),
        ("ema_momentum", -0.1),
        ("ema_momentum", 1.1),
        ("ema_momentum", float("nan")),
        ("ema_momentum", None),
        ("ema_overwrite_frequency", 0),
        ("ema_overwrite_frequency", 2.5),
        ("ema_overwrite_frequency", True),
        ("loss_scale_factor", 0.0),
        ("loss_scale_factor", -8.0),
        ("loss_scale_factor", float("nan")),
        ("gradient_accumulation_steps", 0),
        ("gradient_accumulation_steps", 1),
        ("gradient_accumulation_steps", 2.5),
        ("gradient_accumulation_steps", float("nan")),
        ("weight_decay_mode", "l2"),
        ("epsilon_placement", "inside"),
        ("state_dtype", "bfloat16"),
        ("sparse_updates", True),
        ("exclude_from_decay", "bias"),
        ("exclude_from_decay", ["("]),
    ],
)
def test_bad_values_are_named(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be .* but it is {re.escape(repr(value))}"):
        Adam(**{argument: value})


def test_a_whole_number_is_a_rate():
    assert Adam(learning_rate=1).get_config()["learning_rate"] == 1.0


def test_unknown_argument_is_refused():
    with pytest.raises(ValueError, match="amsgrda"):
        Adam(amsgrda=True)


FULL = {
    "learning_rate": 0.25,
    "beta_1": 0.5,
    "beta_2": 0.75,
    "epsilon": 1e-4,
    "amsgrad": True,
    "weight_decay": 0.125,
    "weight_decay_mode": "coupled",
    "decay_biases_and_norms": False,
    "exclude_from_decay": ["embedding", "^head/"],
    "epsilon_placement": "hat",
    "sparse_updates": "exact",
    "global_clipnorm": 2.0,
    "use_ema": True,
    "ema_momentum": 0.75,
    "ema_overwrite_frequency": 7,
    "loss_scale_factor": 4.0,
    "gradient_accumulation_steps": 3,
    "name": "mine",
}


def test_every_argument_survives_serialisation():
    stored = keras.saving.serialize_keras_object(Adam(**FULL))
    assert stored["registered_name"] == "toolkit>Adam"
    again = keras.saving.deserialize_keras_object(stored)
    assert type(again) is Adam
    config = again.get_config()
    assert {key: config[key] for key in FULL} == FULL
    assert Adam(**config).get_config() == config


def test_defaults_are_the_papers():
    config = Adam().get_config()
    assert (config["beta_1"], config["beta_2"], config["epsilon"]) == (0.9, 0.999, 1e-8)
    assert config["learning_rate"] == pytest.approx(0.001, rel=1e-15 if BACKEND != "jax" else 1e-7)


def test_arguments_stand_in_the_order_of_keras_adam():
    ours, theirs = (list(inspect.signature(c).parameters) for c in (Adam, keras.optimizers.Adam))
    theirs.remove("kwargs")
    assert ours[: len(theirs)] == theirs


def test_the_rate_can_be_changed(by_hand, apply_all):
    weight = keras.Variable(np.zeros(1), dtype="float32")
    optimizer = Adam(0.1)
    optimizer.apply([ops.ones((1,))], [weight])
    optimizer.learning_rate = 0.01
    optimizer.apply([ops.ones((1,))], [weight])
    np.testing.assert_allclose(ops.convert_to_numpy(weight), [-0.11], rtol=1e-6)


def test_the_rate_can_be_a_function(apply_all):
    weights = apply_all(Adam(lambda: 0.5), [np.zeros(1)], [[np.ones(1)]] * 2)
    np.testing.assert_allclose(weights[0], [-1.0], rtol=1e-6)
