"""How long training waits for its data, measured where it happens and without extra steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf


class WaitMeter:
    """Adds up the seconds between each request for a batch and its delivery.

    The stages work inside tf.data, so it counts the same whichever backend asks: a clock is read when a batch is
    requested, the prefetched dataset is asked, the clock is read again.
    """

    def __init__(self) -> None:
        import tensorflow as tf

        with tf.device("CPU:0"):
            self._seconds = tf.Variable(0.0, trainable=False, dtype=tf.float64)

    def dataset(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The same batches, measured. `batches` should end in `prefetch`: what is ready in time costs no wait."""
        import tensorflow as tf

        def add(asked: tf.Tensor, batch: object) -> object:
            self._seconds.assign_add(tf.timestamp() - asked)
            return batch

        # `zip` asks its parts in turn; both stages are sequential and, reading a clock, never fused or made parallel.
        asked = tf.data.Dataset.counter().map(lambda _: tf.timestamp())
        measured = tf.data.Dataset.zip(asked, batches).map(add)
        options = tf.data.Options()
        # tf.data would put a prefetch at the end by itself: the meter would run ahead and measure the producer.
        options.experimental_optimization.inject_prefetch = False
        return measured.with_options(options)

    @property
    def seconds(self) -> float:
        """Waited so far."""
        return float(self._seconds.numpy())
