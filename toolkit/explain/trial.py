"""A model tried before its training: what it knows at the start, whether it can learn, how long a step takes."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.tasks.objective import Objective

if TYPE_CHECKING:
    from toolkit.training.feed import Feed

LEARNT = {"classification": 0.1, "transcription": 0.02}
"""Of the loss of a model that knows nothing: where the loss of a batch falls below, it is learnt by heart.

By CTC a model that puts its labels anywhere has a tenth already.
"""

_RATE = 2e-3
_MOST_STEPS = 400
_CERTAIN = 1e3  # logits of this size are no answer but certain blanks past the end of a recording
_SETTLING = 3  # calls that compile, and take batches that lay ready
_LEAST = 8  # steps or calls
_NO_GRADIENTS = ("No gradients provided for any variable", "element 0 of tensors does not require grad")
_COMPILED = 5.0  # times the median of all: such a step has compiled for a new length


@contextlib.contextmanager
def weights_kept(model: Any) -> Iterator[None]:
    """Weights, statistics and seeds of `model` are afterwards as they were."""
    from keras import ops

    kept = [(variable, np.array(ops.convert_to_numpy(variable.value))) for variable in model.variables]
    try:
        yield
    finally:
        for variable, value in kept:
            variable.assign(value)


@dataclasses.dataclass(frozen=True)
class Start:
    """Losses in nats per example: of the model as training first sees it, and of one that finds all answers alike."""

    loss: float
    blind: float


def start_losses(model: Any, objective: Objective, inputs: Mapping[str, Any], labels: np.ndarray) -> Start:
    """Of one batch, as in training (dropout active, batch normalisation by the batch)."""
    from keras import ops

    with weights_kept(model):
        outputs = model({name: ops.convert_to_tensor(value) for name, value in inputs.items()}, training=True)
    logits = np.array(ops.convert_to_numpy(outputs), np.float32)
    certain = np.abs(logits) >= _CERTAIN if logits.ndim == 3 else np.zeros_like(logits, bool)
    blind = np.where(certain, logits, np.float32(0))
    return Start(*(float(objective.losses(values, labels).mean()) for values in (logits, blind)))


@dataclasses.dataclass(frozen=True)
class ByHeart:
    """How learning one batch went.

    Attributes:
        steps: that were made; none where the backend refuses, because no weight gets a gradient.
        first: loss of the first, in nats per example; NaN without steps.
        last: mean loss of the last few.
        learnt: whether the loss fell far enough.
        ended: whether all steps were made that are allowed; False where time was up.
        seconds: that it might take after the first step.
        unmoved: names of trainable weights that are where they were: they get no gradient.
        cut_off: whether these are all that there are.
    """

    steps: int
    first: float
    last: float
    learnt: bool
    ended: bool
    seconds: float
    unmoved: tuple[str, ...]
    cut_off: bool


def learn_by_heart(
    model: Any, loss: Any, inputs: Mapping[str, Any], labels: np.ndarray, *, goal: float, seconds: float
) -> ByHeart:
    """Train `model` on one batch alone, by Adam, until its loss is below `goal`.

    Adam moves every weight with a gradient by about its rate in the first step, however small the gradient, so what did
    not move has none. The model is left with what it learnt and compiled for it: see `weights_kept`.
    """
    import keras

    from toolkit.optimizers import Adam

    jit = "auto" if keras.backend.backend() == "jax" else False
    model.compile(optimizer=Adam(learning_rate=_RATE, global_clipnorm=1.0), loss=loss, jit_compile=jit)
    before = _trained(model)
    losses: list[float] = []
    learnt, end = False, math.inf
    with _missing_gradients(), _no_gradients():
        while len(losses) < _MOST_STEPS and not learnt and (len(losses) < _LEAST or time.monotonic() < end):
            model.reset_metrics()  # the loss would be the mean of all steps
            losses.append(float(model.train_on_batch(dict(inputs), labels, return_dict=True)["loss"]))
            if not math.isfinite(losses[-1]):
                break
            learnt = statistics.fmean(losses[-3:]) < goal
            end = min(end, time.monotonic() + seconds)  # the first step compiles
    unmoved = tuple(name for name, value in _trained(model).items() if np.array_equal(value, before[name]))
    cut_off = bool(before) and len(unmoved) == len(before)
    first, last = (losses[0], statistics.fmean(losses[-3:])) if losses else (math.nan, math.nan)
    return ByHeart(len(losses), first, last, learnt, len(losses) == _MOST_STEPS, seconds, unmoved, cut_off)


@contextlib.contextmanager
def _no_gradients() -> Iterator[None]:
    """Ends the block where no weight at all gets a gradient: Keras and torch refuse that, JAX goes on with zeros."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if not any(message in str(error) for message in _NO_GRADIENTS):
            raise


@contextlib.contextmanager
def _missing_gradients() -> Iterator[None]:
    """Keras warns of weights without a gradient, which the check tells itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Gradients do not exist")
        yield


def _trained(model: Any) -> dict[str, np.ndarray]:
    """Copies of the weights that are trained, by name."""
    from toolkit.models.weights import get_arrays, named_variables

    trained = {id(variable) for variable in model.trainable_variables}
    names = [name for name, variable in named_variables(model).items() if id(variable) in trained]
    values = get_arrays(model)
    return {name: np.array(values[name]) for name in names}  # torch's share their memory with the weights


@dataclasses.dataclass(frozen=True)
class Pace:
    """Seconds of a training.

    Attributes:
        step: mean of a step, waiting included.
        waiting: of `step`, for data; None where it cannot be measured.
        validation: of one pass over the validation part.
        compiling: until the first step was done.
        steps: that were measured.
    """

    step: float
    waiting: float | None
    validation: float
    compiling: float
    steps: int


def measure_pace(model: Any, feed: Feed, *, class_weights: Mapping[int, float] | None, seconds: float) -> Pace:
    """Time the steps of a compiled model as the loop makes them, for about `seconds`.

    Where an epoch has too few, epochs follow until they suffice or time is up.
    """
    from toolkit.training.averages import finalising_put_off
    from toolkit.training.calls import Calls
    from toolkit.training.guard import guarded_steps
    from toolkit.training.state import prepare

    prepare(model, feed.validation)
    times, waits, steps = np.empty(0), np.empty(0), np.empty(0, dtype=int)  # of calls
    epochs = _SETTLING + _LEAST  # of a call each are enough
    calls = Calls(model, feed, epochs=epochs, class_weights=class_weights)
    with guarded_steps(model), finalising_put_off(model.optimizer), _missing_gradients():
        for epoch in range(epochs):
            clock, waited = _clock(calls.waited, seconds), calls.waited()
            with calls.of(epoch, 0, feed.per_epoch, lambda: feed.per_epoch) as fed:
                start = time.perf_counter()
                model.fit(fed, callbacks=[clock], shuffle=False, verbose=0)
            times = np.append(times, np.diff(clock.times, prepend=start))
            waits = np.append(waits, np.diff(clock.waits, prepend=waited))
            steps = np.append(steps, clock.steps)
            if len(times) >= epochs or (len(times) > 1 and times[1:].sum() > seconds):
                break
    settled = slice(_SETTLING if len(times) >= _SETTLING + 2 else -1, None)
    times, waits, steps, compiling = times[settled], waits[settled], steps[settled], float(times[0])
    usual = times / steps <= _COMPILED * np.median(times / steps)
    made = int(steps[usual].sum())
    return Pace(
        step=float(times[usual].sum()) / made,
        waiting=float(waits[usual].sum()) / made if feed.metered else None,
        validation=_validation_seconds(model, feed.validation),
        compiling=compiling,
        steps=made,
    )


def _clock(waited: Callable[[], float], seconds: float) -> Any:
    """A callback that reads the clock, and the meter of waiting, after every call, and ends `fit` when time is up."""
    import keras

    from toolkit.training.calls import steps_in

    class Clock(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.times: list[float] = []
            self.waits: list[float] = []
            self.steps: list[int] = []

        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            float((logs or {}).get("loss", 0.0))  # waits until the step is done; one that was undone has none
            self.times.append(time.perf_counter())
            self.waits.append(waited())
            self.steps.append(steps_in(logs))
            enough = _SETTLING + _LEAST
            if len(self.times) >= enough and self.times[-1] - self.times[_SETTLING - 1] > seconds:
                self.model.stop_training = True

    return Clock()


def _validation_seconds(model: Any, validation: Any) -> float:
    """A few batches, and from them all."""
    batches = int(validation.cardinality())
    few = min(batches, 3)
    model.evaluate(validation.take(few), verbose=0)  # the last may be smaller, and is then compiled for
    start = time.perf_counter()
    model.evaluate(validation.take(few), verbose=0)
    return (time.perf_counter() - start) * batches / few
