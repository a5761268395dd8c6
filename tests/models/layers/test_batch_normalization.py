import keras
import numpy as np
import pytest

from toolkit.models.layers.batch_normalization import BatchNormalization

numpy = keras.ops.convert_to_numpy
EPSILON, MOMENTUM = 1e-3, 0.97


def norm(**options):
    keras.utils.set_random_seed(0)
    layer = BatchNormalization(
        momentum=MOMENTUM,
        epsilon=EPSILON,
        beta_initializer="random_normal",
        gamma_initializer="random_normal",
        **options,
    )
    layer.build((None, None, None, 5))
    return layer


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(3, 2, shape).astype("float32")


def by_hand(x, gamma, beta, gradient):
    """Outputs, gradients for x, gamma and beta, and the batch's statistics, in float64."""
    x, gamma, beta, gradient = (np.float64(value) for value in (x, gamma, beta, gradient))
    n = x.size // x.shape[-1]
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    normal = (x - mean) / np.sqrt(variance + EPSILON)
    by_gamma, by_beta = (gradient * normal).sum((0, 1, 2)), gradient.sum((0, 1, 2))
    by_x = gamma / np.sqrt(variance + EPSILON) * (gradient - by_beta / n - normal * by_gamma / n)
    return normal * gamma + beta, (by_x, by_gamma, by_beta), mean, variance


@pytest.mark.every_backend
@pytest.mark.parametrize("shape", [(4, 7, 3, 5), (2, 1, 1, 5), (1, 1, 1, 5), (64, 2, 2, 5)])
def test_a_training_step_is_that_of_the_formulas(shape):
    layer, x = norm(), images(*shape)
    expected, _, mean, variance = by_hand(x, *map(numpy, (layer.gamma, layer.beta)), 0 * x)

    outputs = numpy(layer(keras.ops.convert_to_tensor(x), training=True))

    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(numpy(layer.moving_mean), (1 - MOMENTUM) * mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(numpy(layer.moving_variance), MOMENTUM + (1 - MOMENTUM) * variance, rtol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("form", ["eager", "graph", "xla"])
def test_the_gradient_is_that_of_the_formulas(policy, form):
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        pytest.skip("the fused operation is TensorFlow's; elsewhere the layer is Keras's own")
    layer = norm(dtype=policy)
    values = [tf.cast(images(4, 7, 3, 5, seed=seed), layer.compute_dtype) for seed in (1, 2)]
    x, gradient = values
    weights = [layer.gamma, layer.beta]

    def step():
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=True)
        return outputs, tape.gradient(outputs, [x, *(weight.value for weight in weights)], gradient)

    run = step if form == "eager" else tf.function(step, jit_compile=form == "xla")
    outputs, gradients = run()

    expected, by_hands, *_ = by_hand(*(tf.cast(v, "float64").numpy() for v in [x, *weights, gradient]))
    assert outputs.dtype == x.dtype == gradients[0].dtype
    digits = {"rtol": 1e-4, "atol": 1e-4} if policy == "float32" else {"rtol": 2e-2, "atol": 2e-2}
    np.testing.assert_allclose(tf.cast(outputs, "float64"), expected, **digits)
    for got, wanted in zip(gradients, by_hands, strict=True):
        np.testing.assert_allclose(tf.cast(got, "float64"), wanted, **digits)


@pytest.mark.every_backend
@pytest.mark.parametrize(
    ("options", "training", "mask"),
    [
        ({}, False, None),
        ({"trainable": False}, True, None),
        ({"axis": 1}, True, None),
        ({"renorm": True}, True, None),
        ({"scale": False}, True, None),
        ({"center": False}, True, None),
        ({}, True, np.arange(4 * 5 * 5).reshape(4, 5, 5) % 3 > 0),
    ],
)
def test_what_has_no_fused_form_is_keras_own(options, training, mask):
    x = keras.ops.convert_to_tensor(images(4, 5, 5, 5))
    ours, keras_own = BatchNormalization(**options), keras.layers.BatchNormalization(**options)
    if mask is not None:
        mask = keras.ops.convert_to_tensor(mask)

    np.testing.assert_array_equal(
        numpy(ours(x, training=training, mask=mask)), numpy(keras_own(x, training=training, mask=mask))
    )
    for mine, theirs in zip(ours.weights, keras_own.weights, strict=True):
        np.testing.assert_array_equal(numpy(mine), numpy(theirs))


@pytest.mark.every_backend
def test_a_model_with_it_is_saved_and_loaded(tmp_path):
    model = keras.Sequential([keras.Input((None, None, 5)), norm()])
    model(images(2, 3, 3, 5), training=True)
    model.save(tmp_path / "model.keras")

    x = images(2, 3, 3, 5, seed=1)
    np.testing.assert_array_equal(numpy(keras.models.load_model(tmp_path / "model.keras")(x)), numpy(model(x)))
