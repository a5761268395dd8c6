"""Where a training stands, in plain values: what a checkpoint keeps beside the tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from toolkit.training.monitors import Best, EarlyStopping, Plateau


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
    skipped: int = 0
    logs: dict[str, float] = dataclasses.field(default_factory=dict)
    recorder: dict[str, Any] = dataclasses.field(default_factory=dict)
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
        """What `to_dict` gave."""
        monitors = {
            "best": Best(**values["best"]),
            "stopping": values["stopping"] and EarlyStopping(**values["stopping"]),
            "plateau": values["plateau"] and Plateau(**values["plateau"]),
        }
        return cls(**{**values, **monitors})
