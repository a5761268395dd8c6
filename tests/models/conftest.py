"""Data for models: every registered model is tested with the first kind of data that it takes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from toolkit import registry
from toolkit.data.spec import DataSpec
from toolkit.errors import ToolkitError

# Sizes all differ, so that two that were mixed up cannot agree; the image can be halved four times.
CLASSES = tuple("abcdefg")
SPECS = {
    "image": DataSpec(kind="image", shape=(32, 48, 3), dtype="uint8", class_names=CLASSES),
    "audio": DataSpec(
        kind="audio", shape=(None,), dtype="float32", class_names=CLASSES, sample_rate=4000, lengths=(900, 1300)
    ),
    "speech": DataSpec(
        kind="audio",
        task="transcription",
        shape=(None,),
        dtype="float32",
        class_names=(),
        vocabulary=tuple("abcdef"),
        units="characters",
        sample_rate=4000,
        lengths=(900, 1300),
    ),
    "text": DataSpec(
        kind="text",
        shape=(None,),
        dtype="int32",
        class_names=CLASSES,
        vocabulary=("", "[unk]", *(f"w{i}" for i in range(21))),
        lengths=(11, 19),
    ),
}

# Small where the defaults would make a test slow, and every kind of part in use. A model that is missing here is tested
# with its defaults.
SMALL: dict[str, list[dict[str, Any]]] = {
    "mnist_dense": [{"hidden": 17, "dropout": 0.4}],
    # So many units that some are alive for some of the rows, whatever the seed.
    "simple_cnn": [
        {"filters": (4, 5), "units": 19},
        {"filters": (4, 5), "units": 19, "batch_norm": True},
        {"filters": (4, 5), "units": 19, "convolutions": 2},
    ],
    "cat_dog_cnn": [{"stem": 4, "blocks": ((5,), (6, 8))}],
    "speech_lstm": [
        {"mels": 12, "units": 5},
        {"mels": 12, "units": 5, "cell": "gru", "layers": 2, "bidirectional": True, "pooling": "max"},
        {
            "mels": 12,
            "units": 5,
            "convolutions": (4, 6),
            "mask_bands": 3,
            "mask_time": 0.2,
            "normalization": "mean",
            "top_db": 30.0,
        },
    ],
    "speech_ctc": [
        {"mels": 12, "convolutions": (6,), "units": 5},
        {"mels": 12, "convolutions": (), "units": 5, "cell": "gru", "layers": 1, "bidirectional": False},
    ],
    "text_transformer": [
        {"width": 8, "heads": 2, "feed_forward": 10},
        {"width": 8, "heads": 4, "feed_forward": 10, "blocks": 2, "norm": "post", "pooling": "max", "dropout": 0.0},
        {"width": 8, "heads": 2, "feed_forward": 10, "ngram": 4, "stride": 3, "token_dropout": 0.2},
        {"width": 8, "heads": 2, "feed_forward": 10, "pairs": 50, "bag_width": 6},
    ],
}
CASES = [(name, arguments) for name in registry.names("models") for arguments in SMALL.get(name, [{}])]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `case` runs over every registered model."""
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", CASES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(CASES)])


@pytest.fixture
def cases() -> list[tuple[str, dict[str, Any]]]:
    """Every registered model with its hyperparameters."""
    return CASES


@pytest.fixture
def specs() -> dict[str, DataSpec]:
    """Data of each kind."""
    return SPECS


@pytest.fixture
def spec_of() -> Callable[[str], DataSpec]:
    """The data that a model takes."""
    return _spec_of


@pytest.fixture
def spec(case: tuple[str, dict[str, Any]]) -> DataSpec:
    """The data that the model of the case takes."""
    return _spec_of(case[0])


@pytest.fixture
def make_batch() -> Callable[..., dict[str, np.ndarray]]:
    """A batch as the data pipeline makes it."""
    return _batch


@pytest.fixture
def labels() -> Callable[[DataSpec], np.ndarray]:
    """Labels of the five rows of a batch; those of transcripts have several units and end in padding."""
    return lambda spec: np.array([[1, 2], [3, 3], [4, 0], [5, 1], [6, 0]] if spec.units else range(5), "int32")


@pytest.fixture
def trained() -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Weights as if trained: no regular start value (zeros, ones) is left, variances stay positive."""
    return _trained


@functools.cache
def _spec_of(name: str) -> DataSpec:
    for spec in SPECS.values():
        try:
            registry.resolve("models", name)(spec, **SMALL.get(name, [{}])[0])
        except ToolkitError:
            continue
        return spec
    raise AssertionError(f"{name} takes no kind of data")


def _batch(spec: DataSpec, rows: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    if spec.kind == "image":
        return {"image": rng.integers(0, 256, (rows, *spec.shape), "uint8")}
    longest = spec.lengths[0]
    if spec.kind == "audio":
        lengths = rng.integers(longest // 2, longest, rows).astype("int32")
        samples = rng.normal(0, 0.1, (rows, longest)).astype("float32")
        return {"samples": samples * (np.arange(longest) < lengths[:, None]), "lengths": lengths}
    tokens = rng.integers(1, len(spec.vocabulary), (rows, longest)).astype("int32")
    return {"tokens": tokens * (np.arange(longest) < rng.integers(3, longest, (rows, 1)))}


def _trained(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        name: (array * rng.uniform(0.8, 1.5, array.shape) + rng.uniform(0, 0.2, array.shape)).astype("float32")
        for name, array in arrays.items()
    }
