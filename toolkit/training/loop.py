"""The training loop: one `fit` call per epoch, so that a run can be continued from any step.

A single `fit` over all epochs cannot resume inside one: it shifts or cuts the epochs that follow. What Keras would do
between the epochs (averages, validation, best weights, stopping) is done here, in the order that is written here.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from toolkit.errors import RunFailed, ToolkitError, did_you_mean
from toolkit.runs.run import Run
from toolkit.training.averages import averaged_weights, finalising_put_off
from toolkit.training.feed import Feed
from toolkit.training.guard import NonFiniteGuard
from toolkit.training.monitors import Best, EarlyStopping
from toolkit.training.progress import EpochBar, figures
from toolkit.training.recorder import StepRecorder, TensorBoard
from toolkit.training.steps import steps_done


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        epochs: trained, the last maybe in part.
        micro_batches: trained.
        seconds: of training and validation together.
        best: the epoch whose weights were kept.
    """

    epochs: int
    micro_batches: int
    seconds: float
    best: Best


def fit(
    model: Any,
    feed: Feed,
    run: Run,
    *,
    save_weights: Callable[[Any], None],
    epochs: int,
    best_metric: str,
    early_stopping: Mapping[str, Any] | None = None,
    class_weights: Mapping[int, float] | None = None,
    log_every: int = 50,
    limit: int | None = None,
) -> Outcome:
    """Train a compiled model, epoch by epoch.

    Args:
        save_weights: called with the model whenever `best_metric` improved (with its averaged weights, if any).
        class_weights: class → weight of its examples in the training loss.
        log_every: micro-batches between two rows of `metrics.jsonl`.
        limit: stop after so many micro-batches (a smoke run); None trains all epochs.

    Raises:
        RunFailed: the loss became non-finite; the weights kept before stay on disk.
        ToolkitError: a metric to watch does not exist.
    """
    best = Best(best_metric)
    stopping = EarlyStopping(**early_stopping) if early_stopping else None
    trained = 0
    epoch = 0
    start = time.perf_counter()
    rate = _rate_function(model.optimizer, feed.per_epoch)
    board = TensorBoard(run.path("tensorboard"))

    def append(row: Mapping[str, Any]) -> None:
        run.append_metrics(row)
        board.write(row)

    try:
        for epoch in range(1, epochs + 1):
            steps = feed.per_epoch if limit is None else min(feed.per_epoch, limit - trained)
            logs, speed = _train_epoch(
                model,
                feed,
                run,
                append,
                rate,
                epoch,
                trained,
                steps,
                title=f"epoch {epoch}/{epochs}",
                class_weights=class_weights,
                log_every=log_every,
            )
            trained += steps
            with averaged_weights(model):
                logs |= _validate(model, feed, epoch)
                if best.update(epoch, _watched(logs, best_metric, "training.best_metric")):
                    save_weights(model)
            append({"kind": "epoch", "epoch": epoch, "step": trained, **logs, "learning_rate": rate(trained), **speed})
            run.say(_line(f"epoch {epoch}/{epochs}", logs, speed, best=best.epoch == epoch))
            if limit is not None and trained >= limit:
                break
            if stopping and stopping.update(_watched(logs, stopping.monitor, "training.early_stopping.monitor")):
                run.say(
                    f"stopped early: {stopping.monitor} has not improved for {stopping.patience} epochs "
                    f"(best {stopping.best:.4f})"
                )
                break
    finally:
        board.close()
    return Outcome(epochs=epoch, micro_batches=trained, seconds=time.perf_counter() - start, best=best)


def _train_epoch(
    model: Any,
    feed: Feed,
    run: Run,
    append: Callable[[Mapping[str, Any]], None],
    rate: Callable[[int], float],
    epoch: int,
    trained: int,
    steps: int,
    *,
    title: str,
    class_weights: Mapping[int, float] | None,
    log_every: int,
) -> tuple[dict[str, float], dict[str, float]]:
    """One `fit` call; the logs and the speed of the epoch."""
    dataset, waited = feed.epoch(epoch - 1)
    with EpochBar(run.console, title=title, steps=steps) as bar:
        recorder = StepRecorder(
            epoch=epoch,
            first_step=trained,
            batch_size=feed.batch_size,
            log_every=log_every,
            append=append,
            bar=bar,
            waited=waited,
            learning_rate=rate,
        )
        with finalising_put_off(model.optimizer):
            history = model.fit(
                dataset.take(steps),
                initial_epoch=epoch - 1,
                epochs=epoch,
                callbacks=[NonFiniteGuard(epoch=epoch, first_step=trained), recorder],
                class_weight=class_weights,
                shuffle=False,  # the order is in the batches already
                verbose=0,
            )
        if hasattr(model.optimizer, "flush"):
            model.optimizer.flush()
    return {name: float(values[-1]) for name, values in history.history.items()}, recorder.speed()


def _validate(model: Any, feed: Feed, epoch: int) -> dict[str, float]:
    measured = model.evaluate(feed.validation, verbose=0, return_dict=True)
    logs = {f"val_{name}": float(value) for name, value in measured.items()}
    if not math.isfinite(logs["val_loss"]):
        raise RunFailed(
            f"the validation loss became {logs['val_loss']} after epoch {epoch}: lower optimizer.learning_rate, or "
            "look for examples with extreme values."
        )
    return logs


def _line(title: str, logs: Mapping[str, float], speed: Mapping[str, float], *, best: bool) -> str:
    """What a person reads about an epoch."""
    return (
        f"{title}  {figures(logs)}  {speed['examples_per_second']:,.0f} examples/s  "
        f"data {100 * speed['data_wait_share']:.0f} %  {speed['seconds']:.0f} s{'  best' if best else ''}"
    )


def _rate_function(optimizer: Any, per_epoch: int) -> Callable[[int], float]:
    """Micro-batches trained → the rate of the last of their steps.

    It is computed and not read from the optimizer, whose variables are away while JAX trains.
    """
    import keras
    from keras import ops

    rate = optimizer._learning_rate
    if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        constant = float(ops.convert_to_numpy(optimizer.learning_rate))
        return lambda trained: constant
    accumulation = optimizer.gradient_accumulation_steps

    def current(trained: int) -> float:
        done = steps_done(trained, per_epoch=per_epoch, accumulation=accumulation)
        return float(ops.convert_to_numpy(rate(max(done, 1) - 1)))

    return current


def _watched(logs: Mapping[str, float], metric: str, key: str) -> float:
    if metric not in logs:
        raise ToolkitError(
            f"{key} is {metric!r}, which is not measured{did_you_mean(metric, logs)}: use one of {', '.join(logs)}."
        )
    return logs[metric]
