"""Loss, metrics and decoding against float64 NumPy, scikit-learn and torch."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from toolkit.data.spec import DataSpec
from toolkit.errors import ToolkitError
from toolkit.tasks.classification import SoftmaxCrossEntropy, class_weights, cross_entropy, probabilities
from toolkit.tasks.objective import objective

CLASSES = 5


def reference(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> np.ndarray:
    """−Σ target · log softmax, written out in float64 (n,)."""
    logits = logits.astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target = np.full(logits.shape, smoothing / logits.shape[1])
    target[np.arange(len(labels)), labels] += 1 - smoothing
    return -(target * log_p).sum(axis=1)


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(1).normal(scale=3, size=(64, CLASSES)).astype("float32")


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(2).integers(0, CLASSES, 64).astype("int32")


def spec(**changes: object) -> DataSpec:
    names = tuple("abcde")
    return DataSpec(**{"kind": "image", "shape": (CLASSES,), "dtype": "float32", "class_names": names, **changes})


def bias_model() -> keras.Model:
    """Logits are the input plus a bias, so that a step of plain SGD shows the loss's gradient."""
    image = keras.Input((CLASSES,), name="image")
    layer = keras.layers.Dense(CLASSES, kernel_initializer="identity", name="logits")
    return keras.Model({"image": image}, layer(image))


@pytest.mark.every_backend
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_loss_is_cross_entropy_with_a_smoothed_target(logits, labels, smoothing):
    loss = SoftmaxCrossEntropy(smoothing)
    # Losses are about 4, float32 rounding about 1e-6; Keras's other convention, s/(K−1), would be 1e-1 away.
    expected = reference(logits, labels, smoothing)
    np.testing.assert_allclose(float(loss(labels, logits)), expected.mean(), rtol=2e-6)
    each = SoftmaxCrossEntropy(smoothing, reduction=None)
    np.testing.assert_allclose(ops.convert_to_numpy(each(labels, logits)), expected, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(float(loss(labels[:, None], logits)), expected.mean(), rtol=2e-6)


def test_the_reference_is_what_torch_computes(logits, labels):
    torch = pytest.importorskip("torch")
    for smoothing in (0.0, 0.1, 0.6):
        theirs = torch.nn.functional.cross_entropy(
            torch.tensor(logits, dtype=torch.float64),
            torch.tensor(labels, dtype=torch.int64),
            label_smoothing=smoothing,
            reduction="none",
        )
        np.testing.assert_allclose(reference(logits, labels, smoothing), theirs.numpy(), rtol=1e-12)


@pytest.mark.every_backend
def test_one_step_of_sgd_moves_a_bias_by_the_gradient(logits, labels):
    aim = objective(spec(), label_smoothing=0.1)
    model = bias_model()
    model.compile(keras.optimizers.SGD(1.0), loss=aim.loss, metrics=aim.metrics)
    history = model.fit({"image": logits}, labels, batch_size=len(labels), epochs=1, verbose=0).history
    # d loss / d logit = p − target; the bias sees its mean.
    p = np.exp(logits.astype("float64"))
    p /= p.sum(axis=1, keepdims=True)
    target = 0.9 * np.eye(CLASSES)[labels] + 0.1 / CLASSES
    np.testing.assert_allclose(
        ops.convert_to_numpy(model.get_layer("logits").bias), (target - p).mean(axis=0), atol=1e-6
    )
    assert history["accuracy"][0] == pytest.approx((logits.argmax(axis=1) == labels).mean())
    assert history["loss"][0] == pytest.approx(reference(logits, labels, 0.1).mean(), rel=1e-5)


@pytest.mark.every_backend
def test_class_weights_weigh_the_examples_of_a_class(logits):
    labels = np.array([0] * 40 + [1] * 12 + [2] * 6 + [3] * 4 + [4] * 2, dtype="int32")
    weights = class_weights(labels, CLASSES)
    aim = objective(spec())
    model = bias_model()
    model.compile(keras.optimizers.SGD(0.0), loss=aim.loss)
    history = model.fit({"image": logits}, labels, batch_size=64, epochs=1, verbose=0, class_weight=weights).history
    each = reference(logits, labels, 0.0) * [weights[label] for label in labels]
    assert history["loss"][0] == pytest.approx(each.mean(), rel=1e-5)


@pytest.mark.every_backend
def test_loss_stays_in_float32_whatever_comes_in(logits, labels):
    loss = SoftmaxCrossEntropy(0.1)
    low = ops.cast(ops.convert_to_tensor(logits), "bfloat16")
    exact = ops.convert_to_numpy(ops.cast(low, "float32"))
    result = loss(labels, low)
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    np.testing.assert_allclose(float(result), reference(exact, labels, 0.1).mean(), rtol=2e-6)


@pytest.mark.every_backend
def test_loss_is_finite_far_from_the_answer():
    loss = SoftmaxCrossEntropy(0.0)
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]], dtype="float32")
    np.testing.assert_allclose(float(loss(np.array([1, 1]), logits)), 1e4)


@pytest.mark.every_backend
def test_a_saved_loss_keeps_its_smoothing(logits, labels):
    loss = SoftmaxCrossEntropy(0.3, reduction="sum", name="mine")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert isinstance(again, SoftmaxCrossEntropy)
    assert again.get_config() == {"name": "mine", "reduction": "sum", "label_smoothing": 0.3}
    assert float(again(labels, logits)) == float(loss(labels, logits))


def test_probabilities_and_plain_loss_in_float64(logits, labels):
    p = probabilities(logits)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=0, atol=1e-15 * CLASSES)
    np.testing.assert_allclose(-np.log(p[np.arange(64), labels]), reference(logits, labels, 0), rtol=1e-12)
    assert cross_entropy(logits, labels).mean() == pytest.approx(log_loss(labels, p, labels=range(CLASSES)), rel=1e-12)


def test_huge_logits_overflow_nowhere():
    logits = np.array([[3e38, -3e38], [1e4, 0]], dtype="float32")
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        np.testing.assert_array_equal(probabilities(logits), [[1, 0], [1, 0]])
        losses = cross_entropy(logits, np.array([0, 1]))
    np.testing.assert_array_equal(losses, [0, 1e4])
    assert cross_entropy(logits[:1], np.array([1]))[0] == pytest.approx(6e38, rel=1e-6)


def test_decoding_leaves_the_logits_alone(logits):
    before = logits.astype(np.float64)
    probabilities(before)
    np.testing.assert_array_equal(before, logits)


@pytest.mark.parametrize("counts", [[50, 30, 20], [1, 1], [997, 2, 1]])
def test_class_weights_are_scikit_learns_balanced(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    expected = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
    weights = class_weights(labels, len(counts))
    assert weights == pytest.approx(dict(enumerate(expected)))
    assert all(type(key) is int and type(value) is float for key, value in weights.items())


def test_class_weights_refuse_a_class_without_examples():
    with pytest.raises(ToolkitError, match=r"training.class_weights .* no example of 2 of the 5 classes .*label 3"):
        class_weights(np.array([0, 1, 2, 2]), 5)


def test_impossible_smoothing_is_refused():
    for wrong in (1.0, -0.1, float("nan")):
        with pytest.raises(ToolkitError, match=r"training.label_smoothing is .*from 0"):
            objective(spec(), label_smoothing=wrong)


def test_each_objective_has_metrics_of_its_own():
    first, second = objective(spec()), objective(spec())
    assert first.metrics[0] is not second.metrics[0]
    assert [metric.name for metric in first.metrics] == ["accuracy"]
    assert first.label_dtype == "int32"


def test_asking_for_the_objective_needs_no_keras_before(run_python):
    out = run_python("import sys, toolkit.tasks.objective; print('keras' in sys.modules, 'numpy' in sys.modules)")
    assert out.split() == ["False", "False"]
