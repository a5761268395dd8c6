"""Sums of gradients on TensorFlow that come out the same to the bit each time.

Where a tensor is used several times, as in a residual connection or for mean, variance and values of a normalisation,
the gradients of its uses are added by TensorFlow's `AddN`. It writes into the memory of an input that no other
operation holds any more, and begins with that one; which it is depends on what the threads have finished. From three
addends on the last digits of the sum depend on that, also with `tf.config.experimental.enable_op_determinism`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def sums_in_order() -> Iterator[None]:
    """Within the block, what TensorFlow traces (or computes eagerly) adds gradients two by two, in a fixed order.

    It has no setting for that, so its function is replaced for as long as the block lasts.
    """
    import tensorflow as tf
    from tensorflow.python.ops import gen_math_ops

    add = gen_math_ops.add_n

    def add_in_order(inputs: Sequence[Any], name: str | None = None) -> Any:
        if len(inputs) < 3:
            return add(inputs, name=name)
        total = add(inputs[:2])
        for addend in inputs[2:]:
            # Without the Snapshot, which copies nothing, the graph optimizer would make one AddN of all.
            total = add([tf.raw_ops.Snapshot(input=total), addend])
        return total

    gen_math_ops.add_n = add_in_order
    try:
        yield
    finally:
        gen_math_ops.add_n = add
