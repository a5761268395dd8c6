"""Tables to batches: tf.data pipelines that feed every backend."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from toolkit.data import augment
from toolkit.data.augment_sounds import NOISE_SAMPLES, augment_sounds, epoch_noise
from toolkit.data.load import Split, steps_per_epoch
from toolkit.data.order import permutation
from toolkit.data.spec import DataSpec
from toolkit.data.tables import ImageTable, RaggedTable
from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    import tensorflow as tf

Table = ImageTable | RaggedTable

LEAST_WIDTH = 16  # of labels of transcripts, where the split has longer ones
_MOST_PARALLEL = 16  # batches in the making
_AHEAD = 4  # batches that are ready


def check_augmentation(spec: DataSpec, augmentation: Mapping[str, Any]) -> None:
    """Raises ToolkitError where `data.augmentation` asks for what examples of this kind cannot have."""
    for name in augment.active(dict(augmentation)):
        kind = augment.KINDS[name]
        if kind != spec.kind:
            changed = {"image": "pictures", "audio": "sounds"}[kind]
            raise ToolkitError(f"data.augmentation.{name} changes {changed}, but the data is {spec.kind}: remove it.")
    if crop := augmentation.get("crop"):
        height, width = spec.shape[:2]
        if crop[0] > (height or 0) or crop[1] > (width or 0):
            raise ToolkitError(
                f"data.augmentation.crop is {crop[0]}x{crop[1]}, larger than the pictures of {height}x{width}: make it "
                "smaller, or data.image_size larger."
            )


class TrainingBatches:
    """The training batches of every epoch: (inputs, int32 labels), all of `batch_size`.

    Which examples a batch holds and how they are augmented depends on (seed, epoch, batch number) alone. What computes
    them is traced once.
    """

    def __init__(
        self,
        split: Split,
        spec: DataSpec,
        *,
        batch_size: int,
        seed: int,
        augmentation: Mapping[str, Any] | None = None,
    ) -> None:
        import tensorflow as tf

        check_augmentation(spec, augmentation or {})
        self.split, self.batch_size, self.seed = split, batch_size, seed
        self._per_epoch = steps_per_epoch(split, batch_size)
        changes = augment.active(dict(augmentation or {}))
        inputs, labels = _reader(split.table, spec), _labels(split)

        def read(place: tf.Tensor, *noise: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
            epoch, step = place // self._per_epoch, place % self._per_epoch
            positions = step * batch_size + tf.range(batch_size, dtype=tf.int64)
            indices = permutation(seed, epoch, len(split), positions)
            batch = inputs(indices)
            if spec.kind == "image":
                batch = {"image": augment.augment(batch["image"], seed, epoch, indices, **changes)}
            if spec.kind == "audio":
                normal = noise[0] if noise else None
                samples, lengths = augment_sounds(
                    batch["samples"],
                    batch["lengths"],
                    seed,
                    epoch,
                    indices,
                    edges=spec.lengths,
                    normal=normal,
                    **changes,
                )
                batch = {"samples": samples, "lengths": lengths}
            return batch, labels(indices)

        self._noisy = "noise" in changes
        noise = [tf.TensorSpec([NOISE_SAMPLES])] if self._noisy else []
        self._read = tf.function(read, [tf.TensorSpec([], tf.int64), *noise], autograph=False)

    def batches(self, epoch: int, step: int, count: int) -> tf.data.Dataset:
        """So many of them from batch `step` of `epoch` (both counted from 0) on; those of the next epoch follow."""
        import tensorflow as tf

        first = epoch * self._per_epoch + step
        places = tf.data.Dataset.range(first, first + count)
        return _mapped(self._with_noise(places) if self._noisy else places, self._read)

    def _with_noise(self, places: tf.data.Dataset) -> tf.data.Dataset:
        """Beside each the noise of its epoch, drawn once: it takes as long as all else that changes a batch."""
        import tensorflow as tf

        def add(known: Any, place: tf.Tensor) -> Any:
            epoch = place // self._per_epoch
            noise = tf.cond(known[0] == epoch, lambda: known[1], lambda: epoch_noise(self.seed, epoch))
            return (epoch, noise), (place, noise)

        return places.scan((tf.constant(-1, tf.int64), tf.zeros([NOISE_SAMPLES])), add)

    def batch(self, epoch: int, step: int) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """One of them (from 0), at once: a pipeline of its own would take a tenth of a second to make."""
        import tensorflow as tf

        with tf.device("CPU"):
            noise = [epoch_noise(self.seed, epoch)] if self._noisy else []
            place = tf.constant(epoch * self._per_epoch + step, tf.int64)
            batch: tuple[dict[str, tf.Tensor], tf.Tensor] = self._read(place, *noise)
            return batch

    def ids(self, epoch: int, step: int) -> list[str]:
        """Those of the examples in it."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        return [self.split.ids[i] for i in permutation(self.seed, epoch, len(self.split), list(positions)).numpy()]


def evaluation_batches(split: Split, spec: DataSpec, *, batch_size: int) -> tf.data.Dataset:
    """Every example once, in table order: (inputs, int32 labels). The last batch may be smaller."""
    labels = _labels(split)
    return _in_order(split.table, spec, batch_size, lambda inputs, indices: (inputs, labels(indices)))


def unlabelled_batches(table: Table, spec: DataSpec, *, batch_size: int) -> tf.data.Dataset:
    """Every example once, in table order: inputs only."""
    return _in_order(table, spec, batch_size, lambda inputs, indices: inputs)


def one_batch(table: Table, spec: DataSpec) -> dict[str, Any]:
    """All of a small table as one batch of NumPy arrays, as `unlabelled_batches` makes it."""
    import tensorflow as tf

    with tf.device("CPU:0"):
        inputs = _reader(table, spec)(tf.range(len(table), dtype=tf.int64))
    return {name: value.numpy() for name, value in inputs.items()}


def _in_order(
    table: Table, spec: DataSpec, batch_size: int, finish: Callable[[dict[str, tf.Tensor], tf.Tensor], Any]
) -> tf.data.Dataset:
    import tensorflow as tf

    inputs = _reader(table, spec)
    count = len(table)

    def read(step: tf.Tensor) -> Any:
        indices = tf.range(step * batch_size, tf.minimum((step + 1) * batch_size, count), dtype=tf.int64)
        return finish(inputs(indices), indices)

    return _mapped(tf.data.Dataset.range(-(-count // batch_size)), read)


def _mapped(steps: tf.data.Dataset, read: Callable[..., Any]) -> tf.data.Dataset:
    """Batches computed in parallel, delivered in order, ahead of their consumer."""
    import tensorflow as tf

    # Nothing in `read` branches on tensors: without AutoGraph tracing takes a fifth of the time.
    read = tf.autograph.experimental.do_not_convert(read)
    parallel = min(os.cpu_count() or 1, _MOST_PARALLEL)
    options = tf.data.Options()
    # An iterator that is thrown away waits for its tuning thread, which sometimes (TensorFlow 2.21) misses the call and
    # sleeps on: one epoch in several would end seconds late.
    options.autotune.enabled = False
    return steps.map(read, parallel, deterministic=True).prefetch(_AHEAD).with_options(options)


def _labels(split: Split) -> Callable[[tf.Tensor], tf.Tensor]:
    """From example indices to labels, int32 `(batch,)`; transcripts `(batch, width)`, as wide as the longest needs.

    CTC on TensorFlow takes time and memory by the square of the width, so that without this one long transcript would
    slow every batch. Widths are few, since each may be compiled for: 16, 32, 64 …, and that of the split.
    """
    import tensorflow as tf

    known = tf.constant(split.labels, tf.int32)
    if split.labels.ndim == 1 or split.labels.shape[1] <= LEAST_WIDTH:
        return lambda indices: tf.gather(known, indices)
    full = split.labels.shape[1]
    doubled = [LEAST_WIDTH * 2**i for i in range(full.bit_length()) if LEAST_WIDTH * 2**i < full]
    widths = tf.constant([*doubled, full], tf.int64)

    def read(indices: tf.Tensor) -> tf.Tensor:
        rows = tf.gather(known, indices)
        longest = tf.reduce_max(tf.math.count_nonzero(rows, axis=1))  # 0 pads, and only that
        width = widths[tf.searchsorted(widths, longest[None])[0]]
        return tf.ensure_shape(rows[:, :width], [indices.shape[0], None])

    return read


def _reader(table: Table, spec: DataSpec) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """From example indices to what the model takes."""
    import tensorflow as tf

    if isinstance(table, ImageTable):
        return lambda indices: {"image": table.gather(indices)}

    def read(indices: tf.Tensor) -> dict[str, tf.Tensor]:
        rows, lengths = table.gather(indices, spec.lengths)
        if spec.kind == "text":
            return {"tokens": rows}
        return {"samples": tf.cast(rows, tf.float32) / 32768.0, "lengths": lengths}

    return read
