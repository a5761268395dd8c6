"""Classical baselines: what scikit-learn reaches in about a minute on the same training part.

A logistic regression on simple features: pixels of a small picture, loudness in bands averaged over a sound, TF-IDF of
words and pairs of words. Its strength of regularisation is chosen by the validation part, as a recipe's epoch is.

Of transcripts in words: a recording is cut where it is quiet, and each piece is told by such a regression. What counts
as quiet is chosen by the validation part, too.
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data.spec import DataSpec
from toolkit.data.tables import ImageTable

if TYPE_CHECKING:
    from toolkit.data.load import Data, Split

SIDE = 28  # pixels; larger pictures are averaged down to it
MELS = 40
STRENGTHS = {"image": (1e-3, 1e-2, 1e-1), "audio": (1e-2, 1.0, 100.0), "text": (1.0, 4.0, 16.0)}  # C of scikit-learn

# Of speech: a frame is quiet below this share of the way from the recording's quietest tenth to its loudest, in
# log-mel; so many quiet frames of 10 ms part two words.
QUIET = (0.2, 0.35, 0.5)
PAUSE = (3, 6, 12)
LEAST_FRAMES = 5  # a shorter piece is a click
MOST_RECORDINGS = 2000  # of train; more would take more than a minute

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


@dataclasses.dataclass(frozen=True)
class TranscriptBaseline:
    """What it is, in a few words, and the text that it gives of each recording of the test part."""

    name: str
    texts: list[str]


def transcript_baseline(data: Data) -> TranscriptBaseline | None:
    """Fit one to `data`, whose three splits are loaded; None where transcripts are written in characters."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from toolkit.evaluation.transcripts import word_error_rate

    if data.spec.units != "words":
        return None
    train, validation, test = (data.splits[split] for split in ("train", "validation", "test"))
    frames = {
        split.name: list(_frames(split.table, data.spec, count))
        for split, count in ((train, MOST_RECORDINGS), (validation, None), (test, None))
    }
    labels = [row[row > 0] for row in train.labels[: len(frames["train"])]]

    def texts(recordings: Sequence[Array], cut: tuple[float, int], model: Any) -> list[str]:
        found = []
        for recording in recordings:
            pieces = _pieces(recording, *cut)
            answers = model.predict([_mean_and_deviation(piece) for piece in pieces]) if pieces else []
            found.append(" ".join(data.spec.vocabulary[label - 1] for label in answers))
        return found

    best: tuple[float, Any] = (np.inf, None)
    for cut in itertools.product(QUIET, PAUSE):
        # To learn from are the recordings that are cut into as many pieces as they have words.
        cuts = [(_pieces(recording, *cut), said) for recording, said in zip(frames["train"], labels, strict=True)]
        even = [
            (piece, label)
            for pieces, said in cuts
            if len(pieces) == len(said)
            for piece, label in zip(pieces, said, strict=True)
        ]
        if len({int(label) for _, label in even}) < 2:
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=100))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as above
            model.fit([_mean_and_deviation(piece) for piece, _ in even], [label for _, label in even])
        rate = word_error_rate(texts(frames["validation"], cut, model), validation.texts or ())
        if rate < best[0]:
            best = rate, (cut, model)
    if best[1] is None:
        return None
    name = "cut at pauses, logistic regression on averaged log-mel of each piece"
    return TranscriptBaseline(name, texts(frames["test"], *best[1]))


def _pieces(frames: Array, quiet: float, pause: int) -> list[Array]:
    """The parts of log-mel frames `(frames, MELS)` that are not quiet, but for at most `pause` frames at a time."""
    loudness = frames.mean(axis=1)
    low, high = np.quantile(loudness, (0.1, 0.95))
    loud = np.flatnonzero(loudness > low + quiet * (high - low))
    if not len(loud):
        return []
    ends = np.flatnonzero(np.diff(loud) > pause)
    starts, stops = loud[np.append(0, ends + 1)], loud[np.append(ends, len(loud) - 1)] + 1
    return [frames[a:b] for a, b in zip(starts, stops, strict=True) if b - a >= LEAST_FRAMES]


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
    return np.array([_mean_and_deviation(frames) for frames in _frames(table, spec)])


def _pixels(rows: Array) -> Array:
    import tensorflow as tf

    height, width = (min(side, SIDE) for side in rows.shape[1:3])
    small = [
        tf.image.resize(rows[i : i + 512], (height, width), method="area").numpy() for i in range(0, len(rows), 512)
    ]
    return np.concatenate(small).reshape(len(rows), -1) / 255


def _mean_and_deviation(frames: Array) -> Array:
    """Of each band over time: `(2 * MELS,)`."""
    return np.concatenate([frames.mean(axis=0), frames.std(axis=0)])


def _frames(table: Any, spec: DataSpec, count: int | None = None) -> Iterator[Array]:
    """Log-mel frames `(frames, MELS)` of each sound, or of the first `count`."""
    from keras import ops

    from toolkit.models.layers.log_mel import LogMel

    layer = LogMel(sample_rate=spec.sample_rate or 0, mels=MELS)
    for i in range(len(table))[:count]:
        samples = table.row(i).astype("float32") / 32768
        frames, _ = layer(ops.convert_to_tensor(samples[None]), ops.convert_to_tensor([len(samples)]))
        yield np.asarray(ops.convert_to_numpy(frames))[0]
