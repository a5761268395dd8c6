"""Transcription: a text per recording, logits of every frame, CTC between the two.

Label i + 1 is unit i of the vocabulary, a character or a word; label 0 is CTC's blank, and pads rows of labels.

Source: Graves et al. 2006, "Connectionist Temporal Classification: Labelling Unsegmented Sequence Data with Recurrent
Neural Networks", whose greedy decoding is the best path and whose prefix search is the beam search here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from toolkit.data.spec import DataSpec

BLANK = 0


@keras.saving.register_keras_serializable(package="toolkit")
class CTC(keras.losses.Loss):
    """−log of the probability of all paths that read as the label: (batch, width of labels), (batch, frames, labels).

    In nats per recording, in float32. All frames count, so that a model has to make certain blanks of those past a
    recording's end (`toolkit.models.layers.masked.CertainBlanks`). `keras.losses.CTC` on the three backends, but for
    the labels, which Keras hands over as floats and torch takes as whole numbers only.
    """

    def __init__(self, reduction: str = "sum_over_batch_size", name: str = "ctc") -> None:
        super().__init__(name=name, reduction=reduction, dtype="float32")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Loss of each recording, (batch,)."""
        return keras.losses.ctc(ops.cast(y_true, "int32"), y_pred)


def losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """−log of the label's probability, float64 (n,), of logits (n, frames, labels) and labels (n, longest label)."""
    values = ops.convert_to_numpy(CTC(reduction="none")(labels, logits))
    return np.asarray(values, np.float64)


def greedy(logits: np.ndarray) -> list[list[int]]:
    """Labels of the likeliest path of each recording: repeats merged, blanks dropped."""
    best = logits.argmax(axis=2)  # (n, frames)
    new = best != np.pad(best, ((0, 0), (1, 0)), constant_values=BLANK)[:, :-1]
    return [row[keep].tolist() for row, keep in zip(best, new & (best != BLANK), strict=True)]


def beam_search(logits: np.ndarray, width: int) -> list[list[int]]:
    """The likeliest labels of each recording, all their paths together, among `width` that are followed.

    TensorFlow's own search, on whatever Keras computes with: it is part of every installation.
    """
    import tensorflow as tf

    last = np.roll(logits, -1, axis=2)  # there the blank is the last label
    frames = np.full(len(logits), logits.shape[1], np.int32)
    with tf.device("CPU:0"):
        (found,), _ = tf.nn.ctc_beam_search_decoder(last.transpose(1, 0, 2), frames, beam_width=width)
        rows = tf.sparse.to_dense(found, default_value=-1).numpy()  # (n, longest)
    return [(row[row >= 0] + 1).tolist() for row in rows]


def to_text(labels: Sequence[int], spec: DataSpec) -> str:
    """What labels say; single spaces between words, none at the ends."""
    units = [spec.vocabulary[label - 1] for label in labels]
    return " ".join((" " if spec.units == "words" else "").join(units).split())


def decode(logits: np.ndarray, spec: DataSpec, *, beam_width: int = 1) -> list[str]:
    """Texts of logits (n, frames, labels): the greedy ones, or with `beam_width` > 1 those of a beam search."""
    found = greedy(logits) if beam_width == 1 else beam_search(logits, beam_width)
    return [to_text(labels, spec) for labels in found]
