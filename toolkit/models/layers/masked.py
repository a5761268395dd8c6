"""Layers that look at the valid part of padded sequences and at nothing else.

Masks are ordinary boolean tensors `(batch, time)`, true where valid, handed from layer to layer; Keras's implicit
masks get lost at the first operation that does not know them. All sums are float32 whatever the dtype policy says.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import keras
from keras import ops

Pooling = Literal["mean", "max", "sqrtn"]


@keras.saving.register_keras_serializable(package="toolkit")
class PaddingMask(keras.layers.Layer):
    """Which tokens are no padding: int32 `(batch, time)` → bool `(batch, time)`.

    Token 0 is padding. The first position always counts as valid, so that a text without any word reads as one
    padding token: attention and pooling then have something to look at, and the answer depends on no padded length.
    """

    def call(self, tokens: Any) -> Any:
        """The mask."""
        first = ops.arange(ops.shape(tokens)[1]) == 0
        return ops.logical_or(tokens != 0, first[None, :])

    def compute_output_spec(self, tokens: Any) -> Any:
        """Shape and type of the mask."""
        return keras.KerasTensor(tokens.shape, dtype="bool")


@keras.saving.register_keras_serializable(package="toolkit")
class UtteranceNormalization(keras.layers.Layer):
    """Each feature to mean 0 and variance 1 over the valid frames of its own clip: float32 `(batch, time, features)`.

    x ↦ (x − mean) / √(variance + epsilon); padding becomes 0. It takes away level and colour of a recording. A feature
    that does not change, as in a clip of a single frame, becomes 0.

    Args:
        epsilon: added to the variance.
        shared_variance: divide all features of a clip by the same number, from the mean of their variances: what is
            loud in a clip then stays larger than what is noise in it.
    """

    def __init__(self, *, epsilon: float = 1e-5, shared_variance: bool = False, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.epsilon, self.shared_variance = epsilon, shared_variance

    def call(self, features: Any, valid: Any) -> Any:
        """Normalise `features` where the boolean `(batch, time)` tensor `valid` is true."""
        weight = ops.cast(valid, features.dtype)[:, :, None]
        count = ops.maximum(ops.sum(weight, axis=1, keepdims=True), 1)  # (batch, 1, 1)
        centred = (features - ops.sum(features * weight, axis=1, keepdims=True) / count) * weight
        variance = ops.sum(ops.square(centred), axis=1, keepdims=True) / count
        if self.shared_variance:
            variance = ops.mean(variance, axis=2, keepdims=True)
        return centred / ops.sqrt(variance + self.epsilon)

    def compute_output_spec(self, features: Any, valid: Any) -> Any:
        """Shape and type of the features, which stay as they are."""
        return keras.KerasTensor(features.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Everything the constructor needs."""
        return {**super().get_config(), "epsilon": self.epsilon, "shared_variance": self.shared_variance}


@keras.saving.register_keras_serializable(package="toolkit")
class SpectrumMasking(keras.layers.Layer):
    """In training, two ranges of bands and two of time are silenced: `(batch, time, bands)` and its mask → the same.

    Of each clip and each range anew: a width from 0 to the most, all as likely, and a place. What is silenced becomes
    0, the mean of normalised features. At other times nothing changes.

    Args:
        bands: the most bands of a range.
        time: the most of a clip's time that a range covers, in [0, 1).
        seed: of the random numbers.

    Source: SpecAugment (Park et al. 2019, arXiv:1904.08779), with the policy of two masks of each kind.
    """

    RANGES = 2

    def __init__(self, *, bands: int, time: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bands, self.time, self.seed = bands, time, seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, features: Any, valid: Any, training: bool = False) -> Any:
        """Silence parts of `features` that are true in the boolean `(batch, time)` tensor `valid`."""
        if not training:
            return features
        batch, time, bands = ops.shape(features)
        random = keras.random.uniform((batch, 4, self.RANGES, 1), seed=self.seed_generator)
        frames = ops.cast(ops.sum(ops.cast(valid, "int32"), axis=1), "float32")[:, None, None]  # (batch, 1, 1)

        def silenced(width: Any, start: Any, most: Any, extent: Any, places: Any) -> Any:
            width = ops.floor(width * (most + 1))
            start = ops.floor(start * (extent - width + 1))
            place = ops.cast(ops.arange(places), "float32")
            return ops.any((place >= start) & (place < start + width), axis=1)  # (batch, places)

        in_bands = silenced(random[:, 0], random[:, 1], float(min(self.bands, bands)), float(bands), bands)
        in_time = silenced(random[:, 2], random[:, 3], ops.floor(self.time * frames), frames, time)
        return ops.where(in_bands[:, None, :] | in_time[:, :, None], ops.zeros_like(features), features)

    def compute_output_spec(self, features: Any, valid: Any, training: bool = False) -> Any:
        """Shape and type of the features, which stay as they are."""
        return keras.KerasTensor(features.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Everything the constructor needs."""
        return {**super().get_config(), "bands": self.bands, "time": self.time, "seed": self.seed}


@keras.saving.register_keras_serializable(package="toolkit")
class StridedConvolution(keras.layers.Layer):
    """Convolution over time with ReLU that looks at valid steps alone, at every `stride`th of them.

    `(batch, time, any)` and bool `(batch, time)` → `(batch, ceil(time / stride), channels)` and its mask. Keras's own
    padding would stand elsewhere for sequences of another length, and so make padding count.

    Args:
        channels: of the convolution.
        width: steps that it sees, the middle one among them.
        stride: from one step to the next.
    """

    def __init__(self, channels: int, *, width: int, stride: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels, self.width, self.stride = channels, width, stride
        self.convolution = keras.layers.Conv1D(
            channels, width, strides=stride, activation="relu", dtype=self.dtype_policy, name="convolution"
        )

    def build(self, sequence_shape: Any, valid_shape: Any) -> None:
        """Make the weights of the convolution."""
        self.convolution.build(sequence_shape)

    def call(self, sequence: Any, valid: Any) -> tuple[Any, Any]:
        """The convolved steps and their mask."""
        x = sequence * ops.cast(valid[:, :, None], sequence.dtype)
        before = (self.width - 1) // 2
        x = ops.pad(x, ((0, 0), (before, self.width - 1 - before), (0, 0)))
        return self.convolution(x), valid[:, :: self.stride]

    def compute_output_spec(self, sequence: Any, valid: Any) -> tuple[Any, Any]:
        """Shapes and types of steps and mask."""
        batch, time, _ = sequence.shape
        time = None if time is None else -(-time // self.stride)
        steps = keras.KerasTensor((batch, time, self.channels), dtype=self.compute_dtype)
        return steps, keras.KerasTensor((batch, time), dtype="bool")

    def get_config(self) -> dict[str, Any]:
        """Everything the constructor needs."""
        return {**super().get_config(), "channels": self.channels, "width": self.width, "stride": self.stride}


@keras.saving.register_keras_serializable(package="toolkit")
class MaskedPooling(keras.layers.Layer):
    """Mean, maximum, or sum ÷ √n over the n valid steps: `(batch, time, features)` → float32 `(batch, features)`.

    A row without any valid step gives 0. The last, `sqrtn`, keeps its size where many steps say nothing: a mean of
    independent steps shrinks by √n.

    Args:
        pooling: `mean`, `max` or `sqrtn`.
    """

    def __init__(self, pooling: Pooling = "mean", **kwargs: Any) -> None:
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling is {pooling!r}: use one of {', '.join(get_args(Pooling))}.")
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.pooling = pooling
        self.supports_masking = True  # recurrent layers attach Keras's own mask beside ours

    def call(self, sequence: Any, valid: Any) -> Any:
        """Pool `sequence` over time where the boolean `(batch, time)` tensor `valid` is true."""
        if self.pooling != "max":
            weight = ops.cast(valid, sequence.dtype)[:, :, None]
            count = ops.maximum(ops.sum(weight, axis=1), 1)
            return ops.sum(sequence * weight, axis=1) / (ops.sqrt(count) if self.pooling == "sqrtn" else count)
        lowest = ops.cast(-3e38, sequence.dtype)
        highest = ops.max(ops.where(valid[:, :, None], sequence, lowest), axis=1)
        return ops.where(ops.any(valid, axis=1, keepdims=True), highest, ops.zeros_like(highest))

    def compute_mask(self, *arguments: Any) -> None:
        """No mask: time is gone."""

    def compute_output_spec(self, sequence: Any, valid: Any) -> Any:
        """Shape and type of the pooled features."""
        return keras.KerasTensor((sequence.shape[0], sequence.shape[2]), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Everything the constructor needs."""
        return {**super().get_config(), "pooling": self.pooling}


@keras.saving.register_keras_serializable(package="toolkit")
class CertainBlanks(keras.layers.Layer):
    """Logits `(batch, time, labels)` as they are where a frame is valid, and a certain blank (label 0) elsewhere.

    CTC over all frames of a padded batch then is CTC over each clip's own: a blank of probability 1 at the end adds
    nothing to any path, and a loss needs to know no lengths. In float32 whatever the dtype policy says.
    """

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.supports_masking = True  # recurrent layers attach Keras's own mask beside ours

    def call(self, logits: Any, valid: Any) -> Any:
        """Logits; the boolean `(batch, time)` tensor `valid` is true where they are to stay."""
        # Far beyond any logit, and finite: a backend's own −∞ makes NaN of gradients.
        blank = ops.where(ops.arange(logits.shape[-1]) == 0, 1e4, -1e4)
        return ops.where(valid[:, :, None], logits, ops.cast(blank, logits.dtype)[None, None, :])

    def compute_mask(self, *arguments: Any) -> None:
        """No mask: every frame counts from here on."""

    def compute_output_spec(self, logits: Any, valid: Any) -> Any:
        """Shape and type of the logits, which stay as they are."""
        return keras.KerasTensor(logits.shape, dtype=self.compute_dtype)
