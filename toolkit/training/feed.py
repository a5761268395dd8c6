"""What the loop is fed with, made from the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from toolkit.data.batches import TrainingBatches, evaluation_batches
from toolkit.data.load import Data, steps_per_epoch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feed:
    """Batches for the loop.

    Attributes:
        batches: (epoch, number of a batch in it, count), the first two counted from 0 → so many training batches from
            that on, over the ends of epochs.
        ids: those of the examples in a batch of an epoch.
        batch: that batch by itself.
        validation: all of the validation part.
        batch_size: of training.
        per_epoch: batches in an epoch.
        metered: whether it can be measured how long batches are waited for: by a clock of TensorFlow.
    """

    batches: Callable[[int, int, int], Any]
    ids: Callable[[int, int], list[str]]
    batch: Callable[[int, int], Any]
    validation: Any
    batch_size: int
    per_epoch: int
    metered: bool = True


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

    Raises:
        ToolkitError: a batch is larger than the training part, or the augmentation does not fit the kind of data.
    """
    train = data.splits["train"]
    training = TrainingBatches(train, data.spec, batch_size=batch_size, seed=seed, augmentation=augmentation)
    return Feed(
        batches=training.batches,
        ids=training.ids,
        batch=training.batch,
        validation=evaluation_batches(data.splits["validation"], data.spec, batch_size=evaluation_batch_size),
        batch_size=batch_size,
        per_epoch=steps_per_epoch(train, batch_size),
        metered=metered,
    )
