"""The rows of `gradients.jsonl`: what was measured of each layer in single steps of a training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ToolkitError
from toolkit.runs import metrics, trust

KIND = "gradients"
MEASURES = ("gradient_norm", "update_ratio", "zero_share", "moment_ratio")

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Gradients:
    """All that a run measured.

    Attributes:
        steps: micro-batches trained at each measurement, as `metrics.jsonl` counts them; ascending.
        clipped: at each measurement, whether the optimizer limits gradients.
        seconds: that each measurement took.
        layers: in the order of the model.
        values: measure → (layers, measurements); NaN where a layer has no such value, infinite where it was no finite
            number.
    """

    steps: Array
    clipped: Array
    seconds: Array
    layers: tuple[str, ...]
    values: Mapping[str, Array]


def make_row(
    *, epoch: int, step: int, clipped: bool, seconds: float, layers: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """A row: for each layer those of `MEASURES` that it has, with the nine digits of float32."""
    rounded = {
        layer: {name: float(f"{value:.9g}") if math.isfinite(value) else math.inf for name, value in measured.items()}
        for layer, measured in layers.items()
    }
    return {"kind": KIND, "epoch": epoch, "step": step, "clipped": clipped, "seconds": seconds, "layers": rounded}


def scalars(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as TensorBoard takes it: `layer/measure` → number."""
    flat = {f"{layer}/{name}": value for layer, measured in row["layers"].items() for name, value in measured.items()}
    return {"kind": KIND, "step": row["step"], **flat}


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of `path`, each as `make_row` made it.

    Raises:
        ToolkitError: there is no such file, or a line is none of its rows: each has the layers of the one before.
    """
    step, layers = 0, None
    for number, row in enumerate(metrics.read(path), start=1):
        # Other layers in each row would make a table that grows with the square of the file.
        if not _is_row(row, after=step) or (layers is not None and row["layers"].keys() != layers):
            raise ToolkitError(
                f"{trust.shown(path)}:{number} is no row of gradients.jsonl: use the file as train left it, or remove "
                "the line."
            )
        step, layers = row["step"], row["layers"].keys()
        yield row


def read(path: Path) -> Gradients:
    """What `path` holds.

    Raises:
        ToolkitError: there is no such file, no row in it, or a line is none.
    """
    found = list(rows(path))
    if not found:
        raise ToolkitError(f"{trust.shown(path)} holds no measurement yet: train at least one step.")
    layers = tuple(found[0]["layers"])
    places = {layer: i for i, layer in enumerate(layers)}
    values = {name: np.full((len(layers), len(found)), np.nan) for name in MEASURES}
    for column, row in enumerate(found):
        for layer, measured in row["layers"].items():
            for name, value in measured.items():
                values[name][places[layer], column] = value
    return Gradients(
        steps=np.array([row["step"] for row in found]),
        clipped=np.array([row["clipped"] for row in found]),
        seconds=np.array([row["seconds"] for row in found]),
        layers=layers,
        values=values,
    )


def _is_row(row: Mapping[str, Any], *, after: int) -> bool:
    if row["kind"] != KIND or row["step"] <= after or not isinstance(row.get("layers"), dict):
        return False
    layers = row["layers"].values()
    if type(row.get("clipped")) is not bool or not _is_measured(row.get("seconds")):
        return False
    if not all(isinstance(measured, dict) for measured in layers) or not any("gradient_norm" in m for m in layers):
        return False
    return all(name in MEASURES and _is_measured(value) for measured in layers for name, value in measured.items())


def _is_measured(value: Any) -> bool:
    if type(value) is int:
        return 0 <= value <= metrics.MAX_WHOLE  # a larger one may be none that a float can hold
    return type(value) is float and value >= 0  # NaN is not
