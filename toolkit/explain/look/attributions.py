"""Which parts of an input an answer rests on: integrated gradients and Grad-CAM.

The score of a class is its logit less the mean of all logits: what lifts all of them alike changes no answer.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from toolkit.explain.derivatives import value_and_gradient
from toolkit.explain.look import graph

Array = np.ndarray[Any, Any]
BATCH = 32  # points on the way from the baseline that are added at once
MOST_POINTS = 1024
TOLERANCE = 0.005


@dataclasses.dataclass(frozen=True)
class Attribution:
    """What each number of an input adds to a score.

    Attributes:
        values: of the shape of one example.
        difference: score of the input less that of the baseline, which the values sum to, but for what their
            computing in steps leaves.
    """

    values: Array
    difference: float


class _Point(NamedTuple):
    """One point on the way: its place from 0 to 1, the score and its slope along the way, and the gradient."""

    place: float
    score: float
    slope: float
    gradient: Array


class Scores:
    """The score of a class as a function of a tensor of the graph, with its gradient there.

    Several tensors, which differ in their last axis alone, are one: they stand side by side in it.
    """

    def __init__(self, model: Any, *tensors: Any) -> None:
        self._model = model
        self._read = graph.reader(model, tensors)
        outputs = graph.rest(model, tensors)
        ends = np.cumsum([tensor.shape[-1] for tensor in tensors[:-1]]).tolist()

        def score(value: Any, weights: Any, *inputs: Any) -> Any:
            parts = ops.split(value, ends, axis=-1) if ends else [value]
            return ops.sum(outputs(parts, *inputs) * weights, axis=1)

        self._compute = value_and_gradient(score)

    def value(self, inputs: graph.Inputs) -> Array:
        """The tensor for a batch."""
        return np.concatenate(self._read(inputs), axis=-1)

    def gradient(self, values: Array, inputs: graph.Inputs, label: int) -> tuple[Array, Array]:
        """Score of the class `label` and its gradient, where the tensor has `values` and all else the inputs of one."""
        rows, classes = len(values), int(self._model.outputs[0].shape[-1])
        weights = np.full((rows, classes), -1 / classes, np.float32)
        weights[:, label] += 1
        repeated = {name: np.repeat(value, rows, axis=0) for name, value in inputs.items()}
        return self._compute(values, weights, *graph.in_order(self._model, repeated))


def integrated_gradients(
    scores: Scores, inputs: graph.Inputs, label: int, *, baseline: graph.Inputs | None = None
) -> Attribution:
    """What each number of the tensor adds to the score of `label`, for one example, against that of a baseline.

    The gradient is averaged along the straight line from there to the input, by trapezoids. How far each is off is
    known, since the slope's integral is the difference of the scores at its ends: those that are off most are halved,
    until all together are off by half a percent of the whole difference, or at 1,024 points. (Equal steps, as in the
    source, can miss a place where a recurrent network tips over from one answer to another.)

    Args:
        baseline: inputs of the model, which give the tensor its numbers there; None makes all of them 0.

    Source: Sundararajan, Taly & Yan 2017 (arXiv:1703.01365), equation 1; completeness is their proposition 1.
    """
    value = scores.value(inputs)  # (1, …)
    start = np.zeros_like(value) if baseline is None else scores.value(baseline)
    way = value - start

    def at(places: Sequence[float]) -> list[_Point]:
        filled = np.resize(places, BATCH).reshape(-1, *[1] * (value.ndim - 1))  # one shape, compiled once
        found, gradients = scores.gradient(((1 - filled) * start + filled * value).astype(np.float32), inputs, label)
        slopes = (gradients * way).reshape(BATCH, -1).sum(axis=1, dtype=np.float64)
        return [_Point(*point) for point in zip(places, found.tolist(), slopes.tolist(), list(gradients), strict=False)]

    points = at(np.linspace(0, 1, BATCH).tolist())
    while True:
        points.sort(key=lambda point: point.place)
        off = [
            (abs((b.place - a.place) * (a.slope + b.slope) / 2 - (b.score - a.score)), (a.place + b.place) / 2)
            for a, b in itertools.pairwise(points)
        ]
        difference = points[-1].score - points[0].score
        if sum(error for error, _ in off) <= TOLERANCE * abs(difference) or len(points) >= MOST_POINTS:
            break
        points += at([middle for _, middle in sorted(off, reverse=True)[:BATCH]])
    mean = np.zeros(value.shape[1:])
    for a, b in itertools.pairwise(points):
        mean += (b.place - a.place) / 2 * (a.gradient.astype(np.float64) + b.gradient)
    return Attribution(mean * way[0], difference)


def grad_cam(scores: Scores, inputs: graph.Inputs, label: int) -> Array:
    """Where the maps of a convolution speak for `label`, `(height, width)`, 0 where nothing does.

    Each map is weighted with the mean of the score's gradient over it; what is negative in the sum is left out.

    Source: Selvaraju et al. 2017 (arXiv:1610.02391), equations 1 and 2.
    """
    maps = scores.value(inputs)  # (1, height, width, channels)
    _, gradients = scores.gradient(maps, inputs, label)
    weighted: Array = (maps[0] * gradients[0].mean(axis=(0, 1))).sum(axis=-1)
    return np.maximum(weighted, 0)
