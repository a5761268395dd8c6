"""Figures of one pass: how often the model is right, how sure it is of that, and how many answers are new.

Calibration error and reliability diagram are those of Guo et al. 2017 (arXiv:1706.04599), the corruption error is that
of Hendrycks & Dietterich 2019 (arXiv:1903.12261).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from toolkit.evaluation.transcripts import word_error_rate
from toolkit.explain.robustness.change import Array

BINS = 15

_Count = Annotated[int, Field(ge=0, lt=2**53)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
_Positive = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bin:
    """The answers whose confidence lies in one fifteenth of [0, 1]; confidence and accuracy are means over them.

    Both are None where there are none.
    """

    examples: _Count
    confidence: _Share | None
    accuracy: _Share | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figures:
    """What one pass over the examples gave.

    Attributes:
        error: share of wrong answers; of transcription the word error rate, which may exceed 1.
        flips: share of answers that are others than those to the unchanged examples.
        calibration_error: mean distance between confidence and accuracy, weighted by examples. None for transcription.
        reliability: the bins, from the least confident. Empty for transcription.
    """

    error: _Positive
    flips: _Share
    calibration_error: _Share | None
    reliability: tuple[Bin, ...]

    @property
    def accuracy(self) -> float:
        """Share of right answers; of transcription 1 − word error rate."""
        return 1 - self.error


def of_classes(probabilities: Array, labels: Array, clean: Array | None) -> Figures:
    """Figures of `probabilities` (n, classes) beside the `labels` and the answers to the `clean` examples, (n,).

    `clean` is None for the clean examples themselves.
    """
    answers = probabilities.argmax(axis=1)
    right = answers == labels
    bins = _bins(probabilities.max(axis=1), right)
    gaps = [
        one.examples * abs(one.confidence - one.accuracy)
        for one in bins
        if one.confidence is not None and one.accuracy is not None
    ]
    return Figures(
        error=float(1 - right.mean()),
        flips=0.0 if clean is None else float((answers != clean).mean()),
        calibration_error=float(sum(gaps) / len(labels)),
        reliability=bins,
    )


def of_transcripts(answers: Sequence[str], texts: Sequence[str], clean: Sequence[str] | None) -> Figures:
    """Figures of texts that were written, beside what was said, and what was written of the clean recordings."""
    changed = 0 if clean is None else sum(one != other for one, other in zip(answers, clean, strict=True))
    return Figures(
        error=word_error_rate(answers, texts), flips=changed / len(texts), calibration_error=None, reliability=()
    )


def pooled(passes: Iterable[Figures]) -> tuple[Bin, ...]:
    """The bins of several passes as if they were one."""
    bins = []
    for alike in zip(*(one.reliability for one in passes), strict=True):
        examples = sum(one.examples for one in alike)

        def mean(name: str, alike: tuple[Bin, ...] = alike, examples: int = examples) -> float | None:
            if not examples:
                return None
            return float(sum(one.examples * (getattr(one, name) or 0.0) for one in alike) / examples)

        bins.append(Bin(examples=examples, confidence=mean("confidence"), accuracy=mean("accuracy")))
    return tuple(bins)


def corruption_error(own: Sequence[float], other: Sequence[float]) -> float | None:
    """The errors of one change over its severities, as a part of another model's; None where that makes none."""
    return sum(own) / sum(other) if sum(other) > 0 else None


def _bins(confidences: Array, right: Array) -> tuple[Bin, ...]:
    # The bins are (0, 1/15], (1/15, 2/15] …: what lies on an edge belongs below it.
    place = np.clip(np.ceil(confidences * BINS).astype(int) - 1, 0, BINS - 1)
    bins = []
    for i in range(BINS):
        inside = place == i
        some = bool(inside.any())
        bins.append(
            Bin(
                examples=int(inside.sum()),
                confidence=float(confidences[inside].mean()) if some else None,
                accuracy=float(right[inside].mean()) if some else None,
            )
        )
    return tuple(bins)
