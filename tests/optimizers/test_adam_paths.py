"""Each way that an update can take: fused or not, whole weights or rows, one device or several."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from keras import ops

from toolkit.optimizers import Adam

BACKEND = keras.backend.backend()
LARGE = [(300, 250), (250,), (3, 3, 4, 8)]  # the first is large enough for TensorFlow's fused kernel


def within_rounding(weights, expected, *, rate, steps, drift=0.0):
    """1e-6 · rate · steps + (√steps + drift) · ulp(θ); a single step may be 3e-5 of its size off in a fused kernel."""
    for w, e in zip(weights, expected, strict=True):
        ulp = np.spacing(np.maximum(np.abs(w), np.abs(e)).astype("float32"))
        np.testing.assert_array_less(np.abs(w - e), 1e-6 * rate * max(steps, 30) + (np.sqrt(steps) + drift) * ulp)


def large(steps, seed=0):
    """Weights and gradients, the same sign for long, which shows a wrong 1−β; and many steps at little cost."""
    rng = np.random.default_rng(seed)
    start = [rng.normal(size=shape).astype("float32") for shape in LARGE]
    lean = [rng.normal(size=shape) for shape in LARGE]
    rows = [[(x + 0.3 * np.sin(0.1 * i)).astype("float32") for x in lean] for i in range(steps)]
    return start, rows


# Whole weights --------------------------------------------------------------------------------------------------------


@pytest.mark.every_backend
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"amsgrad": True, "weight_decay": 0.3},
        {"weight_decay": 0.3, "weight_decay_mode": "coupled"},
        {"epsilon_placement": "hat", "epsilon": 0.1},
        {"beta_1": 0.3, "beta_2": 0.4, "epsilon_placement": "hat", "epsilon": 1e-3},
    ],
    ids=str,
)
def test_large_weights(options, by_hand, apply_all):
    start, rows = large(300)
    weights = apply_all(Adam(0.01, **options), start, rows)
    within_rounding(weights, by_hand(start, rows, learning_rate=0.01, **options).weights, rate=0.01, steps=300)


@pytest.mark.every_backend
@pytest.mark.parametrize("beta_2", [0.999, 0.99999])
def test_large_weights_under_growing_gradients(beta_2, apply_all):
    """v by itself: 1−β₂ of a kernel, off to the same side in every step, shows in no bias correction here."""
    rows = [[np.full(2**16, g, "float32")] for g in np.geomspace(1e-3, 1e3, 1000)]
    optimizer = Adam(0.01, beta_2=beta_2)
    apply_all(optimizer, [np.zeros(2**16, "float32")], rows)
    [v] = [v for v in optimizer.variables if "second_moment" in v.path]
    squares = (row[0][0].astype("float64") ** 2 for row in rows)
    expected = (1 - beta_2) * sum(beta_2 ** (999 - i) * square for i, square in enumerate(squares))
    np.testing.assert_allclose(ops.convert_to_numpy(v), expected, rtol=2e-6)


@pytest.mark.every_backend
def test_large_weights_step_by_the_rate_under_a_constant_gradient():
    """m̂ and √v̂ are 1 whatever t: a bias correction that is not of the very β of each step shows at once."""
    variable = keras.Variable(np.zeros(2**16, "float32"))
    optimizer = Adam(1.0)
    optimizer.build([variable])
    for t in range(1, 21):
        optimizer.apply([ops.ones(2**16)], [variable])
        np.testing.assert_allclose(ops.convert_to_numpy(variable), -t, rtol=0, atol=1e-6 * t)


@pytest.mark.every_backend
def test_large_weights_with_everything_on(by_hand, apply_all):
    start, rows = large(23)
    options = {"weight_decay": 0.3, "global_clipnorm": 50.0, "use_ema": True, "ema_momentum": 0.9}
    options |= {"ema_overwrite_frequency": 3, "gradient_accumulation_steps": 4}
    weights = apply_all(Adam(0.01, **options), start, rows)
    for w, e in zip(weights, by_hand(start, rows, learning_rate=0.01, **options).weights, strict=True):
        np.testing.assert_allclose(w, e, rtol=0, atol=2e-6)


@pytest.mark.every_backend
@pytest.mark.skipif(BACKEND != "torch", reason="only torch's tensors may lie in memory in another order")
@pytest.mark.parametrize("which", ["gradient", "weight", "both"])
def test_tensors_that_lie_transposed_in_memory(which, by_hand):
    start, rows = large(5)
    variable = keras.Variable(start[0])
    if which != "gradient":
        variable.value.data = variable.value.data.T.contiguous().T
    optimizer = Adam(0.01)
    optimizer.build([variable])
    for row in rows:
        gradient = ops.convert_to_tensor(row[0])
        optimizer.apply([gradient if which == "weight" else gradient.T.contiguous().T], [variable])
    expected = by_hand(start[:1], [row[:1] for row in rows], learning_rate=0.01).weights
    np.testing.assert_allclose(ops.convert_to_numpy(variable), expected[0], rtol=0, atol=1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="paths of TensorFlow")
@pytest.mark.parametrize("way", ["eager", "graph", "jit"])
@pytest.mark.parametrize("options", [{}, {"amsgrad": True}, {"sparse_updates": "lazy"}], ids=str)
@pytest.mark.parametrize("apart", [False, True], ids=["side by side", "apart"])
def test_fused_kernel_and_simple_operations_agree(way, options, apart, monkeypatch):
    import tensorflow as tf

    from toolkit.optimizers.kernels import flat

    start, rows = large(10)

    def run():
        optimizer = Adam(0.01, weight_decay=0.1, **options)
        variables = [keras.Variable(w) for w in start]
        optimizer.build(variables)
        step = lambda gs: optimizer.apply(gs, variables)  # noqa: E731
        step = step if way == "eager" else tf.function(step, jit_compile=way == "jit")
        for row in rows:
            step([tf.constant(g) for g in row])
        return [ops.convert_to_numpy(v) for v in variables]

    fused = run()
    monkeypatch.setattr(flat, "LARGE", 10**9)
    if apart:
        monkeypatch.setattr(flat, "_is_small", lambda variable: False)
    for w, e in zip(fused, run(), strict=True):
        # Ten steps of 1e-2, each rounded once or, with the decay by itself, twice: by 1e-7 where a weight is near 3.
        np.testing.assert_allclose(w, e, rtol=0, atol=2e-6)


@pytest.mark.every_backend
def test_variables_without_gradient_for_a_while(by_hand):
    start, rows = large(6)
    optimizer, variables = Adam(0.01), [keras.Variable(w) for w in start]
    optimizer.build(variables)
    for i, row in enumerate(rows):
        chosen = range(3) if i % 2 else range(2)
        optimizer.apply([ops.convert_to_tensor(row[k]) for k in chosen], [variables[k] for k in chosen])
    expected = by_hand(start[:2], [row[:2] for row in rows], learning_rate=0.01).weights
    for w, e in zip(variables, expected, strict=False):
        np.testing.assert_allclose(ops.convert_to_numpy(w), e, rtol=0, atol=1e-6)


@pytest.mark.every_backend
def test_state_is_two_or_three_numbers_per_weight():
    for amsgrad, each in [(False, 2), (True, 3)]:
        optimizer, variables = Adam(amsgrad=amsgrad), [keras.Variable(np.zeros(shape, "float32")) for shape in LARGE]
        optimizer.build(variables)
        moments = [v for v in optimizer.variables if "moment" in v.path]
        numbers = sum(int(np.prod(v.shape)) for v in moments)
        assert numbers == each * sum(int(np.prod(v.shape)) for v in variables)


@pytest.mark.every_backend
@pytest.mark.skipif(BACKEND == "jax", reason="JAX has float64 only where the whole process has it")
def test_moments_in_float64(by_hand, apply_all, gradients, start):
    optimizer = Adam(0.01, state_dtype="float64")
    weights = apply_all(optimizer, start, gradients(100))
    assert {keras.backend.standardize_dtype(m.dtype) for m in optimizer._first_moments} == {"float64"}
    for w, e in zip(weights, by_hand(start, gradients(100), learning_rate=0.01).weights, strict=True):
        np.testing.assert_array_less(np.abs(w - e), 10 * np.spacing(np.maximum(np.abs(e), 0.1).astype("float32")))


of_any_numbers = given(
    shape=st.lists(st.integers(1, 5), max_size=3).map(tuple),
    rate=st.floats(1e-5, 0.1),
    beta_1=st.sampled_from([0.0, 0.3, 0.5, 0.9, 0.99]),
    beta_2=st.sampled_from([0.0, 0.4, 0.9, 0.99, 0.999, 0.9999]),
    epsilon=st.sampled_from([1e-8, 1e-6, 1e-3]),
    decay=st.sampled_from([0.0, 0.01, 0.1]),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-9, 1e-4, 1.0, 1e3]),
    steps=st.sampled_from([1, 2, 10, 1000, 1000]),
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@of_any_numbers
@pytest.mark.every_backend
def test_whatever_the_numbers(by_hand, apply_all, **numbers):
    # On torch a step that decays rounds a weight twice, as that of `torch.optim.AdamW` does: √2 times as much.
    drift = 0.5 * np.sqrt(numbers["steps"]) if BACKEND == "torch" and numbers["decay"] else 0.0
    follows_all_others(by_hand, apply_all, **numbers, drift=drift)


# Without shrinking, which takes minutes where an example has 1,000 steps.
@settings(max_examples=150, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@of_any_numbers
@pytest.mark.long
def test_whatever_the_numbers_often(by_hand, apply_all, **numbers):
    # A decay of a few ulp takes the same off in every step, and float32 rounds it to the same side: half an ulp a step.
    drift = 0.5 * numbers["steps"] if numbers["decay"] else 0.0
    follows_all_others(by_hand, apply_all, **numbers, drift=drift)


def follows_all_others(by_hand, apply_all, shape, rate, beta_1, beta_2, epsilon, decay, seed, scale, steps, drift):
    """Against the transcription, `torch.optim.AdamW` and `optax.adamw`, all in float64."""
    torch, optax, jax = (pytest.importorskip(name) for name in ("torch", "optax", "jax"))
    rng = np.random.default_rng(seed)
    start = [rng.normal(size=shape).astype("float32")]
    rows = [[(scale * (g + 0.5)).astype("float32")] for g in rng.normal(size=(steps, *shape))]
    # Steps of a few ulp, too, are rounded to the same side again and again; those below half an ulp are no steps.
    few_ulp = rate * scale / (scale + epsilon) < 8 * np.spacing(np.abs(start[0]))
    drift = np.where(few_ulp, 0.5 * steps, drift)
    options = {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon}
    ours = apply_all(Adam(rate, weight_decay=decay or None, **options), start, rows)
    oracle = by_hand(start, rows, learning_rate=rate, weight_decay=decay, **options).weights
    within_rounding(ours, oracle, rate=rate, steps=steps, drift=drift)
    parameter = torch.nn.Parameter(torch.tensor(start[0], dtype=torch.float64))
    theirs = torch.optim.AdamW([parameter], lr=rate, betas=(beta_1, beta_2), eps=epsilon, weight_decay=decay)
    for [g] in rows:
        parameter.grad = torch.tensor(g, dtype=torch.float64)
        theirs.step()
    within_rounding(ours, [parameter.detach().numpy()], rate=rate, steps=steps, drift=drift)
    with jax.enable_x64(True):  # in float32 optax is further from itself in float64 than the bound
        transformation = optax.adamw(rate, b1=beta_1, b2=beta_2, eps=epsilon, weight_decay=decay)

        def step(carry, g):
            weight, state = carry
            update, state = transformation.update(g, state, weight)
            return (optax.apply_updates(weight, update), state), None

        weight = start[0].astype("float64")
        (weight, _), _ = jax.lax.scan(step, (weight, transformation.init(weight)), np.array(rows, "float64")[:, 0])
        within_rounding(ours, [np.asarray(weight)], rate=rate, steps=steps, drift=drift)


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(1, 5), max_size=3).map(tuple),
    rate=st.floats(1e-5, 0.1),
    beta_1=st.sampled_from([0.0, 0.3, 0.9, 0.99]),
    beta_2=st.sampled_from([0.0, 0.4, 0.99, 0.999]),
    epsilon=st.sampled_from([1e-8, 1e-3]),
    decay=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-9, 1.0, 1e3]),
)
@pytest.mark.every_backend
@pytest.mark.skipif(BACKEND == "jax", reason="needs JAX's x64 mode: test_20_steps_in_float64_on_jax")
def test_whatever_the_numbers_in_float64(apply_all, shape, rate, beta_1, beta_2, epsilon, decay, seed, scale):
    """20 steps of float64 weights, as `torch.optim.AdamW` and `optax.adamw` take them."""
    torch, optax, jax = (pytest.importorskip(name) for name in ("torch", "optax", "jax"))
    rng = np.random.default_rng(seed)
    start = rng.normal(size=shape)
    rows = scale * (rng.normal(size=(20, *shape)) + 0.5)
    optimizer = Adam(rate, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon, weight_decay=decay or None)
    [ours] = apply_all(optimizer, [start], rows[:, None], dtype="float64")
    parameter = torch.nn.Parameter(torch.tensor(start))
    theirs = torch.optim.AdamW([parameter], lr=rate, betas=(beta_1, beta_2), eps=epsilon, weight_decay=decay)
    for g in rows:
        parameter.grad = torch.tensor(g)
        theirs.step()
    np.testing.assert_allclose(ours, parameter.detach().numpy(), rtol=0, atol=1e-12)
    with jax.enable_x64(True):
        transformation = optax.adamw(rate, b1=beta_1, b2=beta_2, eps=epsilon, weight_decay=decay)
        weight = jax.numpy.asarray(start)
        state = transformation.init(weight)
        for g in rows:
            update, state = transformation.update(jax.numpy.asarray(g), state, weight)
            weight = optax.apply_updates(weight, update)
        np.testing.assert_allclose(ours, np.asarray(weight), rtol=0, atol=1e-12)


@pytest.mark.every_backend
@pytest.mark.parametrize("dtype", ["float32", "float64"] if BACKEND != "jax" else ["float32"])
@pytest.mark.parametrize("options", [{}, {"amsgrad": True}, {"beta_1": 0.3, "beta_2": 0.4, "epsilon": 1e-3}], ids=str)
def test_coupled_decay_is_that_of_torch(options, dtype, apply_all, gradients, start):
    """300 steps of `torch.optim.Adam(weight_decay=…)` in float64; decoupled decay ends 0.6 away."""
    torch = pytest.importorskip("torch")
    rows = gradients(300)
    optimizer = Adam(0.01, weight_decay=0.1, weight_decay_mode="coupled", **options)
    ours = apply_all(optimizer, start, rows, dtype=dtype)
    parameters = [torch.nn.Parameter(torch.tensor(w, dtype=torch.float64)) for w in start]
    betas, epsilon = (optimizer.beta_1, optimizer.beta_2), optimizer.epsilon
    theirs = torch.optim.Adam(
        parameters, lr=0.01, betas=betas, eps=epsilon, weight_decay=0.1, amsgrad=optimizer.amsgrad
    )
    for row in rows:
        for parameter, g in zip(parameters, row, strict=True):
            parameter.grad = torch.tensor(g, dtype=torch.float64)
        theirs.step()
    expected = [parameter.detach().numpy() for parameter in parameters]
    if dtype == "float32":
        within_rounding(ours, expected, rate=0.01, steps=300)
    else:
        for w, e in zip(ours, expected, strict=True):
            np.testing.assert_allclose(w, e, rtol=0, atol=1e-12)


# Rows -----------------------------------------------------------------------------------------------------------------


def row_gradient(indices, values, count):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.IndexedSlices(tf.constant(values), tf.constant(indices), dense_shape=(count, values.shape[1]))
    import torch

    return torch.sparse_coo_tensor(
        torch.tensor(indices)[None], torch.tensor(values), (count, values.shape[1]), check_invariants=True
    )


rows_only = [
    pytest.mark.every_backend,
    pytest.mark.skipif(BACKEND == "jax", reason="JAX has no gradients that name rows"),
]
LAZY_OPTIONS = [
    {},
    {"amsgrad": True, "weight_decay": 0.1},
    {"weight_decay": 0.1, "weight_decay_mode": "coupled"},
    {"clipnorm": 0.5},
    {"global_clipnorm": 0.5, "loss_scale_factor": 4.0},
    {"clipvalue": 0.1, "loss_scale_factor": 16.0},  # Adam and a norm do not see a scale, this clipping does
]


class TestLazy:
    pytestmark = rows_only

    @pytest.mark.parametrize("options", LAZY_OPTIONS, ids=str)
    def test_all_rows_touched_gives_the_dense_numbers(self, options, by_hand):
        rng = np.random.default_rng(0)
        start = rng.normal(size=(6, 3)).astype("float32")
        optimizer, variable = Adam(0.05, sparse_updates="lazy", **options), keras.Variable(start)
        dense = []
        for _ in range(8):
            indices = np.concatenate([rng.permutation(6), [2, 2, 5]])  # 2 and 5 come again
            values = rng.normal(size=(9, 3)).astype("float32")
            optimizer.apply([row_gradient(indices, values, 6)], [variable])
            whole = np.zeros((6, 3))
            np.add.at(whole, indices, values)
            dense.append([whole])
        expected = by_hand([start], dense, learning_rate=0.05, **options).weights[0]
        np.testing.assert_allclose(ops.convert_to_numpy(variable), expected, rtol=0, atol=2e-6)

    def test_rows_without_gradient_stay_with_their_moments(self):
        start = np.ones((1000, 4), "float32")
        optimizer, variable = Adam(0.1, sparse_updates="lazy", weight_decay=0.5), keras.Variable(start)
        for indices in ([3, 7, 3], [7, 8, 9]):
            optimizer.apply([row_gradient(np.array(indices), np.ones((3, 4), "float32"), 1000)], [variable])
        touched = [3, 7, 8, 9]
        for tensor in (variable, optimizer._first_moments[0], optimizer._second_moments[0]):
            array = ops.convert_to_numpy(tensor)
            untouched = np.delete(array, touched, axis=0)
            np.testing.assert_array_equal(untouched, np.full_like(untouched, 1.0 if tensor is variable else 0.0))
            assert (array[touched] != (1.0 if tensor is variable else 0.0)).all()
        # Row 3 had one gradient of 2 (it came twice): m is a tenth of it, and did not decay since.
        np.testing.assert_allclose(ops.convert_to_numpy(optimizer._first_moments[0])[3], 0.2, rtol=1e-6)

    def test_bias_correction_counts_every_step(self):
        optimizer, variable = Adam(0.1, sparse_updates="lazy"), keras.Variable(np.zeros((4, 1), "float32"))
        one = np.ones((1, 1), "float32")
        for row in (0, 0, 1):
            optimizer.apply([row_gradient(np.array([row]), one, 4)], [variable])
        # The first gradient of row 1 comes at step 3.
        expected = -0.1 * (0.1 / (1 - 0.9**3)) / np.sqrt(0.001 / (1 - 0.999**3))
        np.testing.assert_allclose(ops.convert_to_numpy(variable)[1, 0], expected, rtol=1e-5)

    def test_weights_in_half_precision(self):
        optimizer = Adam(0.1, sparse_updates="lazy")
        variable = keras.Variable(np.zeros((4, 2)), dtype="bfloat16")
        gradient = row_gradient(np.array([1, 1]), np.ones((2, 2), "float32"), 4)
        optimizer.apply([gradient], [variable])
        expected = np.zeros((4, 2))
        expected[1] = -0.1
        np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(variable, "float32")), expected, atol=1e-3)


@pytest.mark.every_backend
def test_lazy_rows_and_accumulation_exclude_one_another():
    with pytest.raises(ValueError, match="sparse_updates is 'lazy', but with gradient_accumulation_steps"):
        Adam(sparse_updates="lazy", gradient_accumulation_steps=2)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="IndexedSlices are TensorFlow's")
@pytest.mark.parametrize("jit", [False, True])
def test_lazy_embedding_in_fit(jit):
    keras.utils.set_random_seed(0)
    embedding = keras.layers.Embedding(50, 4)
    model = keras.Sequential([embedding, keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(1)])
    model.compile(Adam(0.05, sparse_updates="lazy", global_clipnorm=1.0), "mse", jit_compile=jit)
    tokens = np.random.default_rng(0).integers(0, 40, size=(64, 5))
    target = (tokens < 10).mean(axis=1, keepdims=True).astype("float32")
    model.build((None, 5))
    unused = ops.convert_to_numpy(embedding.embeddings)[40:]
    losses = model.fit(tokens, target, batch_size=8, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.1 * losses[0]
    np.testing.assert_array_equal(ops.convert_to_numpy(embedding.embeddings)[40:], unused)


# What decays ----------------------------------------------------------------------------------------------------------


@pytest.mark.every_backend
@pytest.mark.parametrize(
    ("options", "stay"),
    [
        ({}, []),
        ({"decay_biases_and_norms": False}, ["a/bias", "norm/gamma"]),
        ({"exclude_from_decay": ["bias$", "embedding"]}, ["a/bias", "embedding/embeddings"]),
        ({"exclude_from_decay": ["^a/"], "decay_biases_and_norms": False}, ["a/bias", "a/kernel", "norm/gamma"]),
    ],
    ids=str,
)
def test_what_does_not_decay(options, stay):
    shapes = {"a/kernel": (2, 2), "a/bias": (2,), "norm/gamma": (2,), "embedding/embeddings": (3, 2)}
    variables = []
    for path, shape in shapes.items():
        scope, name = path.split("/")
        with keras.name_scope(scope):
            variables.append(keras.Variable(np.ones(shape, "float32"), name=name))
    optimizer = Adam(0.1, weight_decay=0.5, **options)
    optimizer.apply([ops.zeros(v.shape) for v in variables], variables)
    values = dict(zip(shapes, map(ops.convert_to_numpy, variables), strict=True))
    assert sorted(path for path, value in values.items() if value.max() == 1) == sorted(stay)


# State ----------------------------------------------------------------------------------------------------------------


class TestState:
    pytestmark = pytest.mark.every_backend

    def saved(self, shapes, **options):
        with keras.name_scope("layer"):
            variables = [keras.Variable(np.ones(s, "float32"), name=f"w{i}") for i, s in enumerate(shapes)]
        optimizer = Adam(0.1, **options)
        optimizer.apply([ops.ones(v.shape) for v in variables], variables)
        store = {}
        optimizer.save_own_variables(store)
        return optimizer, store

    def test_it_comes_back_as_it_was(self):
        _, store = self.saved([(2, 3), (3,)], amsgrad=True)
        other, _ = self.saved([(2, 3), (3,)], amsgrad=True)
        other.apply([ops.ones((2, 3)), ops.ones((3,))])
        other.load_own_variables(store)
        again = {}
        other.save_own_variables(again)
        assert again.keys() == store.keys()
        for key, value in store.items():
            np.testing.assert_array_equal(again[key], value)

    @pytest.mark.parametrize(
        ("shapes", "options", "message"),
        [
            ([(2, 3)], {}, "lacks .*/layer_w1_first_moment, lacks .*/layer_w1_second_moment"),
            ([(2, 3), (3,), (4,)], {}, "has a variable 6 too much, has a variable 7 too much"),
            ([(2, 3), (4,)], {}, r"layer_w1_first_moment as \(4,\), not \(3,\)"),
            ([(2, 3), (3,)], {"amsgrad": True}, "too much"),
        ],
    )
    def test_what_does_not_fit_is_named_and_nothing_changes(self, shapes, options, message):
        optimizer, before = self.saved([(2, 3), (3,)])
        _, store = self.saved(shapes, **options)
        with pytest.raises(ValueError, match=message):
            optimizer.load_own_variables(store)
        after = {}
        optimizer.save_own_variables(after)
        for key, value in before.items():
            np.testing.assert_array_equal(after[key], value)


# Processes of their own -----------------------------------------------------------------------------------------------


def in_a_process(text, *arguments):
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(text), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="paths of TensorFlow")
def test_no_pair_of_types_ends_the_process():
    """TensorFlow's fused Adam aborts where weights are bfloat16 and moments float32."""
    told = in_a_process(
        """
        import keras, numpy as np, tensorflow as tf
        from toolkit.optimizers import Adam
        for dtype in ("float16", "bfloat16", "float32", "float64"):
            for state in ("float32", "float64"):
                for size in (3, 70_000):
                    for way in (lambda f: f, tf.function, lambda f: tf.function(f, jit_compile=True)):
                        weight = keras.Variable(np.zeros(size), dtype=dtype)
                        optimizer = Adam(0.125, state_dtype=state)
                        optimizer.build([weight])
                        gradient = tf.ones(size, dtype)
                        way(lambda: optimizer.apply([gradient], [weight]))()
                        assert abs(float(weight[0]) + 0.125) < 1e-6, (dtype, state, size, float(weight[0]))
                        print("ok")
        """
    )
    assert told == ["ok"] * 48


@pytest.mark.every_backend
@pytest.mark.skipif(BACKEND != "jax", reason="on JAX float64 is a matter of the whole process")
def test_20_steps_in_float64_on_jax(by_hand, gradients, start):
    rows = gradients(20)
    cases = [{}, {"weight_decay": 0.1}, {"use_ema": True, "ema_overwrite_frequency": 3}]
    given = json.dumps({"cases": cases, "start": start, "rows": rows}, default=lambda array: array.tolist())
    [told] = in_a_process(
        """
        import os
        os.environ["JAX_ENABLE_X64"] = "1"
        import json, keras, numpy as np, sys
        from toolkit.optimizers import Adam
        given, ends = json.loads(sys.argv[1]), []
        for options in given["cases"]:
            weights = [keras.Variable(np.array(w), dtype="float64") for w in given["start"]]
            optimizer = Adam(0.01, **options)
            for row in given["rows"]:
                optimizer.apply([keras.ops.convert_to_tensor(np.array(g), "float64") for g in row], weights)
            ends.append([keras.ops.convert_to_numpy(w).tolist() for w in weights])
        print(json.dumps(ends, separators=(",", ":")))
        """,
        given,
    )
    for options, ours in zip(cases, json.loads(told), strict=True):
        for w, e in zip(ours, by_hand(start, rows, learning_rate=0.01, **options).weights, strict=True):
            np.testing.assert_allclose(w, e, rtol=0, atol=1e-12)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="strategies are TensorFlow's")
@pytest.mark.parametrize("amsgrad", [False, True])  # True never takes the fused kernel, False does for the first weight
def test_mirrored_on_two_devices(amsgrad):
    told = in_a_process(
        """
        import sys, numpy as np, tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        import keras
        from toolkit.optimizers import Adam
        x = np.random.default_rng(0).normal(size=(64, 300)).astype("float32")
        y = x[:, :1]

        def train(strategy):
            keras.utils.set_random_seed(0)
            with strategy.scope():
                model = keras.Sequential([keras.Input((300,)), keras.layers.Dense(256), keras.layers.Dense(1)])
                optimizer = Adam(0.01, weight_decay=0.1, amsgrad=sys.argv[1] == "True", use_ema=True)
                model.compile(optimizer, "mse", jit_compile=False)
            model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
            return model.get_weights()

        two = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
        one = train(tf.distribute.get_strategy())
        for a, b in zip(one, two):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)
        print("same")
        """,
        str(amsgrad),
    )
    assert told[-1] == "same"


@pytest.mark.skipif(BACKEND != "tensorflow", reason="strategies are TensorFlow's")
def test_accumulation_within_a_strategy_is_refused():
    """TensorFlow would end the first step with a page about `merge_call`, as it does with Keras's Adam."""
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        optimizer = Adam(0.01, gradient_accumulation_steps=2)
        with pytest.raises(ValueError, match=r"gradient_accumulation_steps cannot be used within a strategy of tf\."):
            optimizer.build([keras.Variable(np.zeros(3, "float32"))])


@pytest.mark.every_backend
@pytest.mark.parametrize("clip", [{"clipnorm": 1.0}, {"global_clipnorm": 1.0}], ids=str)
def test_norms_of_half_precision_gradients_do_not_overflow(clip):
    """300² is no float16."""
    optimizer, variable = Adam(0.5, **clip), keras.Variable(np.ones(10), dtype="float16")
    optimizer.apply([ops.full((10,), 300.0, dtype="float16")], [variable])
    np.testing.assert_allclose(ops.convert_to_numpy(variable), np.full(10, 0.5), rtol=1e-3)
