"""Classical baselines: what scikit-learn reaches in about a minute on the same training part.

A logistic regression on simple features: pixels of a small picture, loudness in bands averaged over a sound, TF-IDF of
words and pairs of words. Its strength of regularisation is chosen by the validation part, as a recipe's epoch is.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data.spec import DataSpec
from toolkit.data.tables import ImageTable, RaggedTable

if TYPE_CHECKING:
    from toolkit.data.load import Data, Split

SIDE = 28  # pixels; larger pictures are averaged down to it
MELS = 40
STRENGTHS = {"image": (1e-3, 1e-2, 1e-1), "audio": (1e-2, 1.0, 100.0), "text": (1.0, 4.0, 16.0)}  # C of scikit-learn

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Baseline:
    """What it is, in a few words, and its answer to each example of the test part: class numbers `(examples,)`."""

    name: str
    answers: Array


def baseline(data: Data) -> Baseline:
    """Fit one to `data`, whose three splits are loaded."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    name, *steps = _steps(data.spec)
    train, validation, test = (data.splits[split] for split in ("train", "validation", "test"))
    features = {split.name: _features(split, data.spec) for split in (train, validation, test)}
    before = make_pipeline(*steps).fit(features["train"], train.labels)
    inputs = {split: before.transform(values) for split, values in features.items()}

    def fit(strength: float) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where its steps run out, it is as good as a minute makes it
            return LogisticRegression(C=strength, max_iter=100).fit(inputs["train"], train.labels)

    fitted = [fit(strength) for strength in STRENGTHS[data.spec.kind]]
    best = max(fitted, key=lambda model: model.score(inputs["validation"], validation.labels))
    return Baseline(f"logistic regression on {name}", np.asarray(best.predict(inputs["test"])))


def _steps(spec: DataSpec) -> tuple[Any, ...]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import StandardScaler

    if spec.kind == "text":
        words = TfidfVectorizer(analyzer=_words_and_pairs, min_df=2, sublinear_tf=True)
        return "TF-IDF of words and pairs", words
    return {"image": "pixels", "audio": "averaged log-mel"}[spec.kind], StandardScaler()


def _words_and_pairs(tokens: Sequence[int]) -> list[tuple[int, ...]]:
    words = [int(token) for token in tokens]
    return [*((word,) for word in words), *itertools.pairwise(words)]


def _features(split: Split, spec: DataSpec) -> Any:
    """Of each example: pixels, the mean and deviation of each band, or its words."""
    table = split.table
    if isinstance(table, ImageTable):
        return _pixels(table.rows)
    if spec.kind == "text":
        return [table.row(i) for i in range(len(table))]
    return _bands(table, spec)


def _pixels(rows: Array) -> Array:
    import tensorflow as tf

    height, width = (min(side, SIDE) for side in rows.shape[1:3])
    small = [
        tf.image.resize(rows[i : i + 512], (height, width), method="area").numpy() for i in range(0, len(rows), 512)
    ]
    return np.concatenate(small).reshape(len(rows), -1) / 255


def _bands(table: RaggedTable, spec: DataSpec) -> Array:
    from keras import ops

    from toolkit.models.layers.log_mel import LogMel

    layer, bands = LogMel(sample_rate=spec.sample_rate or 0, mels=MELS), []
    for i in range(len(table)):
        samples = table.row(i).astype("float32") / 32768
        frames, _ = layer(ops.convert_to_tensor(samples[None]), ops.convert_to_tensor([len(samples)]))
        values = np.asarray(ops.convert_to_numpy(frames))[0]  # (frames, MELS)
        bands.append(np.concatenate([values.mean(axis=0), values.std(axis=0)]))
    return np.array(bands)
