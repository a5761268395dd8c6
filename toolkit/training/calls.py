"""Several training steps in one call (TensorFlow).

What Keras and TensorFlow do around a step takes a millisecond, as long as a small model's step itself. So a call makes
as many steps as fit into `LENGTH` before something is due after one of them. How many does not change what they
compute: one step and many are the same graph, a loop around the step, and no row, checkpoint or measurement is moved.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from toolkit.data.wait import WaitMeter
from toolkit.training.feed import Feed, weighed
from toolkit.training.guard import KEY

LENGTH = 0.05
"""Seconds of a call, after which a signal is heeded and the bar may move."""
STEPS = "steps_of_call"
"""In the logs of a call: its steps; where it is missing, one."""


def steps_in(logs: Mapping[str, Any] | None) -> int:
    """How many steps these logs are of."""
    return int((logs or {}).get(STEPS, 1))


def figures_in(logs: Mapping[str, Any] | None) -> dict[str, float]:
    """The metrics in these logs."""
    return {name: float(value) for name, value in (logs or {}).items() if name not in (KEY, STEPS)}


class Calls:
    """Makes the steps of a compiled and built model whose steps are guarded.

    A step that the guard undid ends its call, and is told by a call of its own, so that whoever sees the logs has the
    steps before it behind them.

    Args:
        feed: has the batches.
        epochs: of the whole training.
        class_weights: class → weight of its examples in the training loss.
    """

    def __init__(
        self, model: keras.Model, feed: Feed, *, epochs: int, class_weights: Mapping[int, float] | None
    ) -> None:
        self.model, self.feed, self.epochs, self.class_weights = model, feed, epochs, class_weights
        self._meter = WaitMeter() if feed.metered else None
        self._seconds = 0.0  # waited in calls of several steps
        self._several: Any = None
        self._iterator: Any = None
        self._until_due: Callable[[], int] = lambda: 1
        self._left = 0
        self._most = 1  # steps that fit into a call, as far as is known
        self._undone = 0  # what the guard said of a step that is still to be told

    @contextlib.contextmanager
    def of(self, epoch: int, step: int, steps: int, until_due: Callable[[], int]) -> Iterator[Any]:
        """What `fit` is given within the block, to train on `steps` batches from one of an epoch on.

        Args:
            epoch: counted from 0, as `step`. A block that follows another goes on where that one ended.
            until_due: asked before each call: after how many more steps it must end. It ends with the last step, too.
        """
        if not _may_be_replaced(self.model):
            batches = self.feed.batches(epoch, step, steps)
            yield weighed(self._meter.dataset(batches) if self._meter else batches, self.class_weights)
            return
        import tensorflow as tf

        if self._iterator is None:
            # One for all epochs: to make one takes a tenth of a second, and this one is ahead during a validation.
            to_come = (self.epochs - epoch) * self.feed.per_epoch - step
            self._iterator = iter(weighed(self.feed.batches(epoch, step, to_come), self.class_weights))
            self._several = _several(self.model, metered=self.feed.metered)
        self._left, self._until_due = steps, until_due
        self.model.train_function = self._call
        try:
            yield tf.data.Dataset.range(steps)  # as many calls at most; `_call` has the batches
        finally:
            self.model.train_function = None

    def waited(self) -> float:
        """Seconds that all steps so far have waited for their batches; 0 where the feed is not metered."""
        return self._seconds + (self._meter.seconds if self._meter else 0.0)

    def _call(self, iterator: Any) -> dict[str, Any]:
        """In the place of Keras's `train_function`: logs of the last step that was not undone."""
        if self._undone:
            code, done, logs = self._undone, 1, {}
            self._undone = 0
        else:
            import tensorflow as tf

            start = time.perf_counter()
            count = min(self._most, self._left, self._until_due())
            good, code, waited, logs = self._several(self._iterator, tf.constant(count))
            good, code = int(good), int(code)
            self._seconds += float(waited)
            self._learn(count, time.perf_counter() - start)
            done = good or 1
            if good:
                self._undone, code = code, 0
            else:
                logs = {}
        self._left -= done
        if not self._left:
            self.model.stop_training = True
        return {**logs, KEY: code, STEPS: done}

    def _learn(self, steps: int, seconds: float) -> None:
        """How many steps the next call may have: twice as many at most, for one call tells little."""
        self._most = max(1, min(2 * self._most, int(LENGTH * steps / seconds)))


def _may_be_replaced(model: keras.Model) -> bool:
    """Whether Keras's own `train_function` would do nothing but make one step after the other."""
    if keras.backend.backend() != "tensorflow" or model.run_eagerly:
        return False
    own = type(model).make_train_function is not keras.Model.make_train_function
    return not own and model.distribute_strategy.num_replicas_in_sync == 1


def _several(model: keras.Model, *, metered: bool) -> Any:
    """(iterator, number of steps) → steps that were not undone, what the guard said, seconds waited, logs of the last.

    A clock in the loop costs less than `WaitMeter`, whose stages take a fifth of a millisecond for each batch.
    """
    import tensorflow as tf

    step = tf.function(model.train_step, jit_compile=model.jit_compile, reduce_retracing=True)

    def several(iterator: Any, steps: Any) -> Any:
        known = step.get_concrete_function(iterator.element_spec).structured_outputs
        nothing = {name: tf.zeros(spec.shape, spec.dtype) for name, spec in known.items() if name != KEY}

        def goes_on(done: Any, code: Any, waited: Any, logs: Any) -> Any:
            return tf.logical_and(done < steps, tf.equal(code, 0))

        def make(done: Any, code: Any, waited: Any, logs: Any) -> Any:
            batch, seconds = _next(iterator) if metered else (iterator.get_next(), 0.0)
            new = dict(step(batch))
            code = tf.cast(new.pop(KEY), tf.int32)
            finite = tf.equal(code, 0)
            kept = {name: tf.where(finite, value, logs[name]) for name, value in new.items()}
            return done + tf.cast(finite, tf.int32), code, waited + seconds, kept

        return tf.while_loop(goes_on, make, (0, 0, tf.constant(0.0, tf.float64), nothing), parallel_iterations=1)

    return tf.function(several, reduce_retracing=True, autograph=False)


def _next(iterator: Any) -> tuple[Any, Any]:
    """A batch, and the seconds from asking for it to having it."""
    import tensorflow as tf

    asked = tf.timestamp()
    with tf.control_dependencies([asked]):
        batch = iterator.get_next()
    with tf.control_dependencies(tf.nest.flatten(batch)):
        return batch, tf.timestamp() - asked
