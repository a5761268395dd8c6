"""What is watched from epoch to epoch: which one was best, and whether it is time to stop.

Both are plain state, never reset by a new `fit`, because the loop calls `fit` once per epoch.
"""

from __future__ import annotations

import dataclasses
import math


def is_better(metric: str, value: float, than: float | None) -> bool:
    """Whether `value` beats `than`: lower for a loss, higher for everything else; a tie does not, NaN never does."""
    if math.isnan(value):
        return False
    if than is None:
        return True
    return value < than if metric.endswith("loss") else value > than


@dataclasses.dataclass
class Best:
    """The best epoch by one metric; of equal ones the earlier."""

    metric: str
    value: float | None = None
    epoch: int | None = None

    def update(self, epoch: int, value: float) -> bool:
        """Take `value` in; True if it is the new best."""
        if not is_better(self.metric, value, self.value):
            return False
        self.value, self.epoch = value, epoch
        return True


@dataclasses.dataclass
class EarlyStopping:
    """Says stop after `patience` epochs in which `monitor` did not improve by more than `min_delta`."""

    monitor: str
    patience: int
    min_delta: float = 0.0
    best: float | None = None
    waited: int = 0

    def __post_init__(self) -> None:
        self.min_delta = float(self.min_delta)  # a config may have a whole number; a checkpoint gives it back as float

    def update(self, value: float) -> bool:
        """Take `value` in; True if training should stop."""
        margin = self.min_delta if self.monitor.endswith("loss") else -self.min_delta
        if is_better(self.monitor, value + margin, self.best):
            self.best, self.waited = value, 0
            return False
        self.waited += 1
        return self.waited >= self.patience


@dataclasses.dataclass
class Plateau(EarlyStopping):
    """Lowers the rate, by `factor` and down to `min_rate`, where early stopping would stop; then counts anew."""

    factor: float = 0.1
    min_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.factor, self.min_rate = float(self.factor), float(self.min_rate)

    def lower(self, value: float, rate: float) -> float:
        """Take `value` in; the rate from now on."""
        if not self.update(value):
            return rate
        self.waited = 0
        return min(rate, max(rate * self.factor, self.min_rate))
