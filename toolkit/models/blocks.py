"""Parts of a graph that several builders share."""

from __future__ import annotations

from typing import Any

# Statistics over about the last 30 batches: Keras's 0.99 leaves validation blind in the first hundred steps of a run,
# 0.9 makes it jump with the last ten batches.
MOMENTUM = 0.97


def convolution(x: Any, channels: int, size: int, *, stride: int = 1, batch_norm: bool, name: str) -> Any:
    """Convolution with same padding, optional batch normalisation, ReLU.

    `(batch, height, width, any)` → `(batch, ceil(height / stride), ceil(width / stride), channels)`; the layers are
    `{name}_conv`, `{name}_norm`, `{name}_relu`. A convolution before a normalisation has no bias, which the
    normalisation's own offset would undo.
    """
    from keras import layers

    from toolkit.models.layers.batch_normalization import BatchNormalization

    x = layers.Conv2D(channels, size, strides=stride, padding="same", use_bias=not batch_norm, name=f"{name}_conv")(x)
    if batch_norm:
        x = BatchNormalization(momentum=MOMENTUM, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
