"""Adam inside Keras: fit on each backend, saved and continued, graphs, sparse gradients."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from toolkit.optimizers import Adam
from toolkit.optimizers.schedules import Cosine

BACKEND = keras.backend.backend()
JIT = [False, True] if BACKEND != "torch" else [False]


def data(examples=48, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples, 6)).astype("float32")
    return x, (x @ rng.normal(size=(6, 2))).astype("float32")


def small_model(optimizer, jit=False):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(2)])
    model.compile(optimizer, "mse", jit_compile=jit)
    return model


def fit(model, x, y, batch, epochs=1):
    return model.fit(x, y, batch_size=batch, epochs=epochs, shuffle=False, verbose=0).history["loss"]


@pytest.mark.every_backend
@pytest.mark.parametrize("jit", JIT)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.01, "global_clipnorm": 1.0, "loss_scale_factor": 8.0},
        {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 5},
        {"gradient_accumulation_steps": 2, "use_ema": True, "ema_momentum": 0.5, "clipnorm": 1.0},
    ],
    ids=str,
)
def test_fit_learns_and_can_be_called_again(options, jit):
    model = small_model(Adam(0.03, **options), jit)
    first = fit(model, *data(), 8, epochs=8)
    second = fit(model, *data(), 8, epochs=8)  # with EMA, Keras's own Adam ends in a crash here on JAX
    assert second[-1] < 0.25 * first[0]
    assert int(model.optimizer.iterations) == 2 * 8 * 6 // options.get("gradient_accumulation_steps", 1)


@pytest.mark.every_backend
@pytest.mark.parametrize("jit", JIT)
def test_micro_batches_in_fit_make_one_batch(jit):
    """20 examples in windows of 3 · 4: a full one and an incomplete one, which the end of `fit` applies."""
    x, y = data(20)

    def rate():
        return Cosine(0.05, total_steps=4, warmup_steps=2)

    options = {"weight_decay": 0.1, "global_clipnorm": 0.5, "use_ema": True, "ema_momentum": 0.5}
    model = small_model(Adam(rate(), gradient_accumulation_steps=3, **options), jit)
    fit(model, x, y, 4)
    whole = small_model(Adam(rate(), **options), jit)
    fit(whole, x, y, 12)  # 12 and 8 examples
    assert int(model.optimizer.iterations) == int(whole.optimizer.iterations) == 2
    for a, b in zip(model.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.every_backend
@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 4, "weight_decay": 0.1}], ids=str)
def test_saved_and_continued_bit_for_bit(options, tmp_path):
    x, y = data()
    model = small_model(Adam(Cosine(0.05, 40, warmup_steps=3), **options))
    for i in range(6):  # with accumulation, a window of 2 is left open
        model.train_on_batch(x[8 * i : 8 * i + 8], y[8 * i : 8 * i + 8])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is Adam
    for one in (model, again):
        for i in range(6):
            one.train_on_batch(x[8 * i : 8 * i + 8], y[8 * i : 8 * i + 8])
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(a), ops.convert_to_numpy(b))


@pytest.mark.every_backend
@pytest.mark.parametrize("jit", JIT)
def test_a_layer_used_twice_beside_a_frozen_one(jit):
    """W·a + W·b is W·(a + b): two uses are one, with one pair of moments; what is frozen has none and stays."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 48, 6)).astype("float32")
    y = rng.normal(size=(48, 2)).astype("float32")

    def model(combine):
        keras.utils.set_random_seed(0)
        inputs = [keras.Input((6,)), keras.Input((6,))]
        used, frozen = keras.layers.Dense(4, use_bias=False), keras.layers.Dense(2, trainable=False)
        model = keras.Model(inputs, frozen(combine(used, *inputs)))
        model.compile(Adam(0.03), "mse", jit_compile=jit)
        before = [ops.convert_to_numpy(weight) for weight in frozen.weights]
        model.fit([a, b], y, batch_size=8, epochs=5, shuffle=False, verbose=0)
        for weight, value in zip(frozen.weights, before, strict=True):
            np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)
        assert [tuple(v.shape) for v in model.optimizer.variables if "moment" in v.path] == [(6, 4)] * 2
        return ops.convert_to_numpy(used.kernel)

    twice = model(lambda layer, one, other: keras.layers.add([layer(one), layer(other)]))
    once = model(lambda layer, one, other: layer(keras.layers.add([one, other])))
    np.testing.assert_allclose(twice, once, rtol=0, atol=1e-5)


@pytest.mark.every_backend
@pytest.mark.parametrize("jit", JIT)
def test_a_layer_in_two_models_has_moments_in_each(jit):
    """Trained in turns, as one parameter under two `torch.optim.Adam` is."""
    torch = pytest.importorskip("torch")
    x, y = data()
    targets, rates = (y, -y), (0.03, 0.01)
    layer, inputs = keras.layers.Dense(2, use_bias=False), [keras.Input((6,)), keras.Input((6,))]
    models = [keras.Model(given, layer(given)) for given in inputs]
    for model, rate in zip(models, rates, strict=True):
        model.compile(Adam(rate), "mse", jit_compile=jit)
    kernel = torch.nn.Parameter(torch.tensor(ops.convert_to_numpy(layer.kernel), dtype=torch.float64))
    theirs = [torch.optim.Adam([kernel], lr=rate) for rate in rates]
    for _ in range(10):
        for model, target, optimizer in zip(models, targets, theirs, strict=True):
            model.train_on_batch(x, target)
            optimizer.zero_grad()
            torch.mean((torch.tensor(x).double() @ kernel - torch.tensor(target).double()) ** 2).backward()
            optimizer.step()
    np.testing.assert_allclose(ops.convert_to_numpy(layer.kernel), kernel.detach().numpy(), rtol=0, atol=2e-6)
    with pytest.raises(ValueError, match="Unknown variable: <Variable path=other"):  # not of its model
        models[0].optimizer.apply([ops.zeros((6, 2))], [keras.Variable(np.zeros((6, 2)), name="other")])


@pytest.mark.every_backend
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_fit_in_low_precision(policy):
    x, y = data()
    with_policy = keras.DTypePolicy(policy)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2, dtype=with_policy)])
    model.compile(Adam(0.05, use_ema=True, ema_momentum=0.5), "mse", jit_compile=False)
    losses = fit(model, x, y, 8, epochs=20)
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.every_backend
def test_embedding_in_fit():
    """TensorFlow gives the embedding's gradient as rows; the other backends give it dense."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.layers.Embedding(50, 4), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(1)]
    )
    model.compile(Adam(0.05, global_clipnorm=1.0, loss_scale_factor=4.0, gradient_accumulation_steps=2), "mse")
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 50, size=(64, 5))
    target = (tokens < 10).mean(axis=1, keepdims=True).astype("float32")
    losses = fit(model, tokens, target, 8, epochs=30)
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="IndexedSlices are TensorFlow's")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"clipnorm": 0.5},
        {"clipvalue": 0.3},
        {"global_clipnorm": 0.5},
        {"loss_scale_factor": 2.0, "gradient_accumulation_steps": 2, "weight_decay": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("graph", [False, True])
def test_rows_are_the_same_as_the_dense_gradient(options, graph):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    start = rng.normal(size=(6, 3)).astype("float32")
    pairs = [(rng.normal(size=(4, 3)).astype("float32"), np.array([i % 6, 2, 2, 5])) for i in range(8)]  # 2 comes twice

    def run(as_rows):
        optimizer, variable = Adam(0.05, **options), keras.Variable(start)
        optimizer.build([variable])

        def step(values, indices):
            gradient = tf.IndexedSlices(values, indices, dense_shape=(6, 3))
            optimizer.apply([gradient if as_rows else tf.convert_to_tensor(gradient)], [variable])

        call = tf.function(step) if graph else step
        for values, indices in pairs:
            call(tf.constant(values), tf.constant(indices))
        return ops.convert_to_numpy(variable)

    np.testing.assert_array_equal(run(as_rows=True), run(as_rows=False))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="paths of TensorFlow")
@pytest.mark.parametrize("way", ["eager", "graph", "jit"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_every_way_of_tensorflow_gives_the_same_numbers(way, dtype, by_hand, gradients, start):
    import tensorflow as tf

    optimizer = Adam(0.5, weight_decay=0.1)
    variables = [keras.Variable(w, dtype=dtype) for w in start]
    optimizer.build(variables)
    step = lambda gs: optimizer.apply(gs, variables)  # noqa: E731
    call = step if way == "eager" else tf.function(step, jit_compile=way == "jit")
    rows = gradients(10)
    rows = [[np.asarray(ops.cast(ops.cast(g, dtype), "float64")) for g in row] for row in rows]
    for row in rows:
        call([ops.convert_to_tensor(g, dtype) for g in row])
    begin = [np.asarray(ops.cast(ops.cast(w, dtype), "float64")) for w in start]
    expected = by_hand(begin, rows, learning_rate=0.5, weight_decay=0.1).weights
    # Steps of 0.5; the rounding of a weight of about 4, ten times, twice a step
    atol = {"float64": 1e-12, "float32": 1e-5, "float16": 20 * 4 * 2**-11, "bfloat16": 20 * 4 * 2**-8}[dtype]
    for v, e in zip(variables, expected, strict=True):
        np.testing.assert_allclose(np.asarray(ops.cast(v, "float64")), e, rtol=0, atol=atol)


@pytest.mark.skipif(BACKEND != "jax", reason="stateless calls are for JAX")
@pytest.mark.every_backend
@pytest.mark.parametrize("accumulation", [None, 3])
def test_stateless_under_jit(accumulation, by_hand, gradients, start):
    import jax

    rows = gradients(9)
    options = {"weight_decay": 0.1, "clipnorm": 1.0, "use_ema": True, "ema_overwrite_frequency": 2}
    optimizer = Adam(0.01, gradient_accumulation_steps=accumulation, **options)
    variables = [keras.Variable(w) for w in start]
    optimizer.build(variables)
    step = jax.jit(optimizer.stateless_apply)
    state, weights = [v.value for v in optimizer.variables], [v.value for v in variables]
    for row in rows:
        weights, state = step(state, row, weights)
    expected = by_hand(start, rows, learning_rate=0.01, gradient_accumulation_steps=accumulation or 1, **options)
    for w, e in zip(weights, expected.weights, strict=True):
        np.testing.assert_allclose(np.asarray(w), e, rtol=0, atol=2e-6)


@pytest.mark.skipif(BACKEND != "jax", reason="stateless calls are for JAX")
@pytest.mark.every_backend
def test_flush_under_jit():
    import jax

    optimizer, variable = Adam(0.1, gradient_accumulation_steps=4), keras.Variable([0.0])
    optimizer.build([variable])
    known = [variable, *optimizer.variables]

    def flush(values):
        with keras.StatelessScope(state_mapping=list(zip(known, values, strict=True))) as scope:
            optimizer.flush()
        return [scope.get_current_value(v) for v in known]

    weights, state = optimizer.stateless_apply(
        [v.value for v in optimizer.variables], [ops.ones((1,))], [variable.value]
    )
    values = jax.jit(flush)(weights + state)
    np.testing.assert_allclose(values[0], [-0.1], rtol=1e-6)
    np.testing.assert_array_equal(jax.jit(flush)(values)[0], values[0])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a loop by hand with tf.GradientTape")
def test_hand_written_loop_in_a_graph():
    import tensorflow as tf

    x, y = data()
    model = small_model("sgd")
    optimizer = Adam(0.03, gradient_accumulation_steps=2)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    losses = [float(step(x[i : i + 16], y[i : i + 16])) for _ in range(20) for i in (0, 16, 32)]
    optimizer.flush()
    assert losses[-1] < 0.25 * losses[0]
    assert int(optimizer.iterations) == 30


@pytest.mark.every_backend
def test_loss_scale_optimizer():
    x, y = data()
    model = small_model(keras.optimizers.LossScaleOptimizer(Adam(0.03), initial_scale=64.0))
    plain = small_model(Adam(0.03))
    for one in (model, plain):
        fit(one, x, y, 8)
    for a, b in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.every_backend
@pytest.mark.parametrize("jit", JIT)
def test_loss_scale_optimizer_in_float16(jit):
    """It learns; and a batch whose gradients are no float16 leaves everything as it was but for the scale."""
    x, y = data()
    keras.utils.set_random_seed(0)
    policy = keras.DTypePolicy("mixed_float16")
    layers = [keras.layers.Dense(8, "tanh", dtype=policy), keras.layers.Dense(2, dtype=policy)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    optimizer = keras.optimizers.LossScaleOptimizer(Adam(0.03, weight_decay=0.01), initial_scale=1024.0)
    model.compile(optimizer, "mse", jit_compile=jit)
    losses = fit(model, x, y, 8, epochs=16)
    assert losses[-1] < 0.25 * losses[0]
    assert float(ops.convert_to_numpy(optimizer.dynamic_scale)) == 1024  # no step was left out so far

    def state():
        return [ops.convert_to_numpy(v).copy() for v in (*model.weights, *optimizer.inner_optimizer.variables)]

    before = state()
    model.train_on_batch(x[:8], 1e4 * y[:8])
    assert float(ops.convert_to_numpy(optimizer.dynamic_scale)) == 512
    for a, b in zip(before, state(), strict=True):
        np.testing.assert_array_equal(a, b)
    model.train_on_batch(x[:8], y[:8])
    assert int(optimizer.iterations) == 16 * 6 + 1
    assert all(np.isfinite(weight).all() for weight in state())


@pytest.mark.every_backend
def test_compile_by_config():
    """A config that names the class brings it back, as `clone` and `from_config` do."""
    model = small_model(Adam(0.03, beta_1=0.5))
    again = keras.optimizers.deserialize(keras.optimizers.serialize(model.optimizer))
    assert type(again) is Adam
    assert again.beta_1 == 0.5
