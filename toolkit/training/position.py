"""Where a training stands, in plain values: what a checkpoint keeps beside the tensors."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from toolkit.errors import ToolkitError
from toolkit.training.monitors import Best, EarlyStopping, Plateau

_MOST = 2**31  # of what is counted
_LARGEST = 1e12  # of what a config may set
_MOST_FIELDS = 1000  # each could be an error that takes memory
_BY_METRIC = ("row_sums", "means")  # of what `StepRecorder` keeps; all else is a number


@dataclasses.dataclass
class Position:
    """Where a training stands, after a micro-batch or after an epoch with its validation.

    Attributes:
        best: the epoch whose weights were kept.
        stopping: counts epochs without improvement; None without early stopping.
        plateau: lowers the rate; None without `training.plateau`.
        epoch: the one that is trained, from 1; after a validation the next.
        batch: micro-batches of it that are trained.
        trained: micro-batches of the whole run.
        seconds: of training and validation, in all sittings.
        rows: of `metrics.jsonl`.
        gradient_rows: of `gradients.jsonl`.
        skipped: steps whose loss or gradient was not finite.
        logs: metrics of the epoch so far, means over its examples.
        recorder: what `StepRecorder` knows of the epoch.
        stopped_early: whether early stopping has ended the training.
    """

    best: Best
    stopping: EarlyStopping | None = None
    plateau: Plateau | None = None
    epoch: int = 1
    batch: int = 0
    trained: int = 0
    seconds: float = 0.0
    rows: int = 0
    gradient_rows: int = 0
    skipped: int = 0
    logs: dict[str, float] = dataclasses.field(default_factory=dict)
    recorder: dict[str, int | float | dict[str, float]] = dataclasses.field(default_factory=dict)
    stopped_early: bool = False

    @property
    def name(self) -> str:
        """Of its checkpoint; later ones are later as text too."""
        done = f"-epoch-{self.epoch - 1:05d}" if self.trained and self.batch == 0 else ""
        return f"step-{self.trained:08d}{done}"

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Position:
        """What `to_dict` gave.

        Raises:
            ToolkitError: it is none that a training can be in. Sums do not tell that: whoever writes a checkpoint
                makes its sums.
        """
        from pydantic import TypeAdapter, ValidationError

        if any(isinstance(value, dict) and len(value) > _MOST_FIELDS for value in values.values()):
            raise ToolkitError(f"position has a part with more than {_MOST_FIELDS} fields")
        try:
            position = TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(part for part in map(str, first["loc"]) if part.isidentifier())
            raise ToolkitError(f"position.{place} is none that a training gives ({first['msg']})") from error
        unknown = _names(values) - _names(position.to_dict())
        if unknown:
            raise ToolkitError("position has fields that no training gives")
        fault = position._fault()
        if fault:
            raise ToolkitError(f"position.{fault} is none that a training gives")
        return position

    def _fault(self) -> str | None:
        """The field with a value of the right type that no training gives."""
        monitors = [monitor for monitor in (self.stopping, self.plateau) if monitor]
        metrics = [self.best.metric, *(monitor.monitor for monitor in monitors), *self.logs]
        rows = self.rows, self.gradient_rows
        numbers: list[Any] = [self.epoch - 1, self.batch, self.trained, self.seconds, *rows, self.skipped]
        for monitor in monitors:
            kept = [value for name, value in vars(monitor).items() if name not in ("monitor", "best")]
            numbers += [value for value in kept if not isinstance(value, float)]
            if not all(0 <= value <= _LARGEST for value in kept):
                return "stopping, or the plateau,"
        for name, value in self.recorder.items():
            if (name in _BY_METRIC) != isinstance(value, dict):
                return "recorder"
            if isinstance(value, dict):
                metrics += value
            else:
                numbers.append(value)
        best = self.best.epoch, self.best.value
        if not all(map(str.isidentifier, metrics)):
            return "logs, or the name of a metric,"
        if not all(0 <= number < _MOST for number in numbers):  # NaN is not
            return "epoch, or a number beside it,"
        if (None in best) != (self.epoch == 1) or not 0 < (self.best.epoch or 1) <= max(self.epoch - 1, 1):
            return "best"
        return None


def _names(values: Mapping[str, Any]) -> set[str]:
    """Of its fields, and of those of its monitors."""
    monitors = ("best", "stopping", "plateau")
    inner = {f"{name}.{field}" for name in monitors if values.get(name) for field in values[name]}
    return set(values) | inner


def check_state(state: Mapping[str, Any]) -> None:
    """Raises ToolkitError where the state of a checkpoint is none that a training saved."""
    if not isinstance(state.get("run"), str) or not isinstance(state.get("position"), dict):
        raise ToolkitError("its state names no run or no position")
    Position.from_dict(state["position"])
