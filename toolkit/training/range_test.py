"""Training at a rate that rises step by step, to see at which rates the loss falls (Smith 2015, arXiv:1506.01186)."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import keras
from keras import ops

from toolkit.training.averages import finalising_put_off
from toolkit.training.feed import Feed

WINDOW = 5  # steps, whose mean tells whether the loss has left its lowest
DIVERGED = 4.0  # times the lowest of these means; the same bound as fastai's LRFinder has


@dataclasses.dataclass(frozen=True)
class Rise:
    """What was seen while the rate rose.

    Attributes:
        losses: of each step, on its own batch, before its update; all finite.
        ended: at the highest rate, or earlier because the loss diverged or was not finite.
    """

    losses: tuple[float, ...]
    ended: Literal["highest", "diverged", "not finite"]


def range_test(
    model: keras.Model,
    feed: Feed,
    rates: Sequence[float],
    *,
    class_weights: Mapping[int, float] | None = None,
    progress: Callable[[int, float], object] = lambda steps, loss: None,
) -> Rise:
    """Train a compiled model one step at each of `rates`, on the batches that a training begins with.

    Args:
        rates: rising; with gradient accumulation a step is a whole window of batches.
        class_weights: class → weight of its examples in the loss.
        progress: told the steps done and the last one's loss.
    """
    optimizer = model.optimizer
    # A schedule and no callback that assigns: on JAX the optimizer's variables are away while `fit` runs.
    optimizer.learning_rate = _Steps(rates)
    watch = _Watch(len(rates), optimizer.gradient_accumulation_steps or 1, progress)
    with finalising_put_off(optimizer):
        for epoch in itertools.count():  # until `watch` ends it
            model.fit(
                feed.batches(epoch, 0, min(feed.per_epoch, watch.batches_left())),
                initial_epoch=epoch,
                epochs=epoch + 1,
                callbacks=[watch],
                class_weight=class_weights,
                shuffle=False,  # the order is in the batches already
                verbose=0,
            )
            if watch.ended:
                return Rise(tuple(watch.losses), watch.ended)
    raise RuntimeError("the batches ended before the rates")


class _Steps(keras.optimizers.schedules.LearningRateSchedule):
    """A rate for each step; the last one for all that follow."""

    def __init__(self, rates: Sequence[float]) -> None:
        self.rates = list(rates)

    def __call__(self, step: Any) -> Any:
        step = ops.minimum(ops.cast(step, "int32"), len(self.rates) - 1)
        return ops.take(ops.convert_to_tensor(self.rates, "float32"), step)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"rates": self.rates}


class _Watch(keras.callbacks.Callback):
    """Takes each step's loss out of the mean that Keras hands on, and stops where there is no more to see."""

    def __init__(self, steps: int, accumulation: int, progress: Callable[[int, float], object]) -> None:
        super().__init__()
        self.steps, self.accumulation, self.progress = steps, accumulation, progress
        self.losses: list[float] = []
        self.ended: Literal["highest", "diverged", "not finite"] | None = None
        self._window: list[float] = []  # of the step that is not complete
        self._total = 0.0  # of the epoch
        self._lowest = math.inf

    def batches_left(self) -> int:
        """Until the highest rate."""
        return (self.steps - len(self.losses)) * self.accumulation - len(self._window)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._total = 0.0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        total = float((logs or {})["loss"]) * (batch + 1)
        self._window.append(total - self._total)
        self._total = total
        if not math.isfinite(total):
            self.ended = "not finite"
        elif len(self._window) == self.accumulation:
            self.losses.append(sum(self._window) / self.accumulation)
            self._window = []
            self.progress(len(self.losses), self.losses[-1])
            self._judge()
        self.model.stop_training = self.ended is not None

    def _judge(self) -> None:
        if len(self.losses) >= WINDOW:
            mean = sum(self.losses[-WINDOW:]) / WINDOW
            self._lowest = min(self._lowest, mean)
            if mean > DIVERGED * self._lowest:
                self.ended = "diverged"
                return
        if len(self.losses) == self.steps:
            self.ended = "highest"
