"""CTC's loss and decoding against sums over all paths, and against torch."""

from __future__ import annotations

import itertools
from collections import defaultdict

import keras
import numpy as np
import pytest

from toolkit.data.spec import DataSpec
from toolkit.errors import ToolkitError
from toolkit.tasks import transcription
from toolkit.tasks.objective import objective

FRAMES, LABELS = 5, 4  # 4 ** 5 paths


def spec(units: str = "characters", vocabulary: tuple[str, ...] = ("a", "b", " ")) -> DataSpec:
    return DataSpec(
        kind="audio",
        task="transcription",
        shape=(None,),
        dtype="float32",
        class_names=(),
        vocabulary=vocabulary,
        units=units,
        sample_rate=8000,
        lengths=(800,),
    )


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(scale=1.5, size=(6, FRAMES, LABELS)).astype("float32")


def read(path: tuple[int, ...]) -> tuple[int, ...]:
    """Repeats merged, then blanks dropped."""
    return tuple(label for label, _ in itertools.groupby(path) if label)


def probabilities(logits: np.ndarray) -> dict[tuple[int, ...], float]:
    """Of every text, by trying all paths in float64: logits (frames, labels)."""
    shares = np.exp(logits.astype("float64"))
    shares /= shares.sum(axis=1, keepdims=True)
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(LABELS), repeat=FRAMES):
        found[read(path)] += np.prod(shares[np.arange(FRAMES), path])
    return found


@pytest.mark.every_backend
@pytest.mark.parametrize("label", [(), (1,), (1, 2), (2, 2), (3, 3, 3), (1, 2, 3, 1, 2), (1, 1, 2)])
def test_the_loss_is_that_of_all_paths(logits, label):
    labels = np.zeros((6, 5), "int32")
    labels[:, : len(label)] = label
    expected = [-np.log(probabilities(row)[label]) for row in logits]
    np.testing.assert_allclose(transcription.losses(logits, labels), expected, rtol=2e-6)
    loss = transcription.CTC()
    np.testing.assert_allclose(float(loss(labels.astype("float32"), logits)), np.mean(expected), rtol=2e-6)


@pytest.mark.every_backend
def test_the_gradient_is_that_of_torch(logits):
    torch = pytest.importorskip("torch")
    labels = np.array([[1, 2, 0], [2, 2, 0], [3, 0, 0], [1, 2, 3], [1, 1, 0], [2, 0, 0]], "int32")
    layer = keras.layers.Dense(LABELS, kernel_initializer="identity", name="logits")
    frames = keras.Input((FRAMES, LABELS))
    model = keras.Model(frames, layer(frames))
    model.compile(keras.optimizers.SGD(1.0), objective(spec()).loss, jit_compile=False)
    model.train_on_batch(logits, labels)
    theirs = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.ctc_loss(
        theirs.log_softmax(-1).transpose(0, 1),
        torch.tensor(labels),
        torch.full((6,), FRAMES),
        torch.tensor([2, 2, 1, 3, 2, 1]),
        reduction="none",
    ).mean()
    loss.backward()
    expected = -theirs.grad.numpy().sum(axis=(0, 1))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer.bias), expected, rtol=0, atol=1e-6)


@pytest.mark.every_backend
def test_greedy_reads_the_likeliest_path(logits):
    expected = [list(read(tuple(row.argmax(axis=1)))) for row in logits]
    assert transcription.greedy(logits) == expected
    path = np.eye(LABELS, dtype="float32")[[[1, 1, 0, 1, 2], [0, 3, 3, 3, 0]]]
    assert transcription.greedy(path) == [[1, 1, 2], [3]]


def test_a_wide_beam_finds_the_likeliest_text(logits):
    expected = [list(max((table := probabilities(row)), key=table.__getitem__)) for row in logits]
    assert transcription.beam_search(logits, 200) == expected
    assert transcription.greedy(logits) != expected  # else this would not show a search


def test_texts_are_joined_by_units():
    assert transcription.to_text([3, 1, 1, 3, 3, 2, 3], spec()) == "aa b"
    assert transcription.to_text([2, 1, 2], spec("words", ("one", "two"))) == "two one two"
    assert transcription.to_text([], spec()) == ""
    path = np.eye(LABELS, dtype="float32")[[[1, 0, 1, 3, 2]]] * 9
    assert objective(spec()).decode(path) == ["aa b"]
    assert objective(spec(), beam_width=5).decode(path) == ["aa b"]


def test_options_of_another_task_are_refused():
    with pytest.raises(ToolkitError, match=r"training.label_smoothing is 0.1, but the labels of this data are transc"):
        objective(spec(), label_smoothing=0.1)
    classes = DataSpec(kind="image", shape=(4, 4, 1), dtype="uint8", class_names=("a", "b"))
    with pytest.raises(ToolkitError, match="--beam-width is 5, but the model answers with classes"):
        objective(classes, beam_width=5)
