"""Which parts of an input an answer rests on: integrated gradients and Grad-CAM.

The score of a class is its logit less the mean of all logits: what lifts all of them alike changes no answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from toolkit.explain.derivatives import value_and_gradient
from toolkit.explain.look import graph

Array = np.ndarray[Any, Any]
# Points on the way from the baseline, twice as many until the sum is right. With both ends they fill whole batches.
POINTS = (30, 62, 126, 254, 510, 1022)
BATCH = 32
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

    @property
    def error(self) -> float:
        """How far the sum of the values is from the difference, as a part of that."""
        return abs(float(self.values.sum()) - self.difference) / max(abs(self.difference), 1e-12)


class Scores:
    """The score of a class as a function of one tensor of the graph, with its gradient there."""

    def __init__(self, model: Any, tensor: Any) -> None:
        self._model = model
        self._read = graph.reader(model, [tensor])
        outputs = graph.rest(model, tensor)
        self._compute = value_and_gradient(
            lambda value, weights, *inputs: ops.sum(outputs(value, *inputs) * weights, axis=1)
        )

    def value(self, inputs: graph.Inputs) -> Array:
        """The tensor for a batch."""
        return self._read(inputs)[0]

    def gradient(self, values: Array, inputs: graph.Inputs, label: int) -> tuple[Array, Array]:
        """Score of the class `label` and its gradient, where the tensor has `values` and all else the inputs of one."""
        rows, classes = len(values), int(self._model.outputs[0].shape[-1])
        weights = np.full((rows, classes), -1 / classes, np.float32)
        weights[:, label] += 1
        repeated = {name: np.repeat(value, rows, axis=0) for name, value in inputs.items()}
        return self._compute(values, weights, *graph.in_order(self._model, repeated))


def integrated_gradients(scores: Scores, inputs: graph.Inputs, label: int) -> Attribution:
    """What each number of the tensor adds to the score of `label`, for one example, against all numbers being 0.

    The gradient is averaged over points on the straight line from 0 to the input (midpoints of equal stretches), until
    the sum is within half a percent of the difference of the scores, or after 1,022 of them.

    Source: Sundararajan, Taly & Yan 2017 (arXiv:1703.01365), equations 1 and 3; completeness is their proposition 1.
    """
    value = scores.value(inputs)  # (1, …)
    for points in POINTS:
        found = _integrate(lambda at: scores.gradient(at, inputs, label), value, points)
        if found.error <= TOLERANCE:
            break
    return found


def _integrate(gradient: Callable[[Array], tuple[Array, Array]], value: Array, points: int) -> Attribution:
    places = np.concatenate([[0, 1], (np.arange(points) + 0.5) / points])
    weights = np.concatenate([[0, 0], np.full(points, 1 / points)])
    mean = np.zeros(value.shape[1:])
    ends: list[float] = []
    for start in range(0, len(places), BATCH):
        part = places[start : start + BATCH].reshape(-1, *[1] * (value.ndim - 1))
        values, gradients = gradient((part * value).astype(np.float32))
        ends += values[:2].tolist()
        mean += np.tensordot(weights[start : start + BATCH], gradients.astype(np.float64), axes=1)
    return Attribution(mean * value[0], ends[1] - ends[0])


def grad_cam(scores: Scores, inputs: graph.Inputs, label: int) -> Array:
    """Where the maps of a convolution speak for `label`, `(height, width)`, 0 where nothing does.

    Each map is weighted with the mean of the score's gradient over it; what is negative in the sum is left out.

    Source: Selvaraju et al. 2017 (arXiv:1610.02391), equations 1 and 2.
    """
    maps = scores.value(inputs)  # (1, height, width, channels)
    _, gradients = scores.gradient(maps, inputs, label)
    weighted: Array = (maps[0] * gradients[0].mean(axis=(0, 1))).sum(axis=-1)
    return np.maximum(weighted, 0)
