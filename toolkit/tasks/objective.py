"""From a task's name to what training and evaluation need to know about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from toolkit.data.spec import DataSpec
from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    import numpy as np


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a task asks of a model's output.

    Attributes:
        loss: what training minimises, a `keras.losses.Loss` of (labels, outputs).
        metrics: fresh Keras metrics for `compile`; they hold state, so an objective serves one model.
        label_dtype: of the labels in a batch.
        decode: outputs of a model to answers: of classification (n, classes) to probabilities, float64, each row with
            sum 1; of transcription (n, frames, labels) to n texts.
        losses: (outputs, labels) to the plain loss of each example, float64 (n,): without label smoothing or
            weights, so that runs with other settings can be compared by it.
    """

    loss: Any
    metrics: list[Any]
    label_dtype: str
    decode: Callable[[np.ndarray], Any]
    losses: Callable[[np.ndarray, np.ndarray], np.ndarray]


def objective(spec: DataSpec, *, label_smoothing: float = 0.0, beam_width: int = 1) -> Objective:
    """The objective of `spec.task`.

    Args:
        label_smoothing: share of a label's weight that is spread evenly over all classes, in [0, 1): in the
            losses of training, `val_loss` among them, not in those of an evaluation.
        beam_width: of transcription: how many beginnings of a text are followed while it is decoded; 1 is greedy.

    Raises:
        ToolkitError: the task has no such option, or its value is out of range.
    """
    if not 0 <= label_smoothing < 1:
        raise ToolkitError(
            f"training.label_smoothing is {label_smoothing}, but it is a share from 0 up to, not including, 1: "
            "use for example 0.1."
        )
    if beam_width < 1:
        raise ToolkitError(f"--beam-width is {beam_width}, but at least one beginning is followed: use 1, or more.")
    if spec.task == "transcription":
        return _transcription(spec, label_smoothing, beam_width)
    if beam_width != 1:
        raise ToolkitError(
            f"--beam-width is {beam_width}, but the model answers with classes, which are not searched for: leave it "
            "out."
        )
    from toolkit.tasks import classification

    return Objective(
        loss=classification.SoftmaxCrossEntropy(label_smoothing),
        metrics=classification.metrics(),
        label_dtype="int32",
        decode=classification.probabilities,
        losses=classification.cross_entropy,
    )


def _transcription(spec: DataSpec, label_smoothing: float, beam_width: int) -> Objective:
    if label_smoothing:
        raise ToolkitError(
            f"training.label_smoothing is {label_smoothing}, but the labels of this data are transcripts, whose loss "
            "(CTC) has none: remove it."
        )
    from toolkit.tasks import transcription

    return Objective(
        loss=transcription.CTC(),
        metrics=[],
        label_dtype="int32",
        decode=lambda logits: transcription.decode(logits, spec, beam_width=beam_width),
        losses=transcription.losses,
    )
