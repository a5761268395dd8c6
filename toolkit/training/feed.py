"""What the loop is fed with, made from the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from toolkit.data.batches import TrainingBatches, evaluation_batches
from toolkit.data.load import Data, steps_per_epoch
from toolkit.data.wait import WaitMeter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feed:
    """Batches for the loop.

    Attributes:
        epoch: gives the training batches of an epoch (counted from 0) from one of them on, and a function that tells
            the seconds that its consumer has waited for them, or None where that cannot be measured.
        ids: those of the examples in a batch of an epoch (both counted from 0).
        batch: that batch by itself.
        validation: all of the validation part.
        batch_size: of `epoch`.
        per_epoch: batches in an epoch.
    """

    epoch: Callable[[int, int], tuple[Any, Callable[[], float] | None]]
    ids: Callable[[int, int], list[str]]
    batch: Callable[[int, int], Any]
    validation: Any
    batch_size: int
    per_epoch: int


def weighed(batches: Any, class_weights: Mapping[int, float] | None) -> Any:
    """Batches of inputs, labels and each example's weight in the loss, as Keras's `class_weight` makes them."""
    if class_weights is None:
        return batches
    import tensorflow as tf

    weights = tf.constant([class_weights[label] for label in range(len(class_weights))], tf.float32)
    return batches.map(lambda inputs, labels: (inputs, labels, tf.gather(weights, labels)))


def feed(
    data: Data,
    *,
    batch_size: int,
    evaluation_batch_size: int,
    seed: int,
    augmentation: Mapping[str, Any],
    metered: bool = True,
) -> Feed:
    """Training batches in the order of `seed`, augmented, and the validation part as it stands.

    `metered` tells how long they were waited for, by a clock in the pipeline.

    Raises:
        ToolkitError: a batch is larger than the training part, or the augmentation does not fit the kind of data.
    """
    train = data.splits["train"]
    training = TrainingBatches(train, data.spec, batch_size=batch_size, seed=seed, augmentation=augmentation)

    def epoch(number: int, skip: int) -> tuple[Any, Callable[[], float] | None]:
        batches = training.epoch(number, skip)
        if not metered:
            return batches, None
        meter = WaitMeter()
        return meter.dataset(batches), lambda: meter.seconds

    return Feed(
        epoch=epoch,
        ids=training.ids,
        batch=training.batch,
        validation=evaluation_batches(data.splits["validation"], data.spec, batch_size=evaluation_batch_size),
        batch_size=batch_size,
        per_epoch=steps_per_epoch(train, batch_size),
    )
