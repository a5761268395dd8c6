"""A deeper convolutional network, for photos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolkit.data.spec import DataSpec
from toolkit.models.blocks import convolution
from toolkit.models.checks import check_data, check_halvings, refuse
from toolkit.types import Share, Size

if TYPE_CHECKING:
    import keras


def cat_dog_cnn(
    spec: DataSpec,
    *,
    stem: Size = 32,
    blocks: tuple[tuple[Size, ...], ...] = ((64,), (96, 128), (192, 256), (256,)),
    batch_norm: bool = True,
    dropout: Share = 0.3,
) -> keras.Model:
    """A strided 5x5 convolution, blocks of 3x3 convolutions with 2x2 max-pooling between them, average pooling, logits.

    Input: uint8 `(batch, height, width, channels)` in 0..255, of any size, as what is averaged in the end may have any;
    the data's own is one that can be halved without remainder. Output: float32 `(batch, classes)`, logits.

    Args:
        stem: channels of the 5x5 convolution, which halves height and width.
        blocks: for each block the channels of its convolutions; each block but the last ends with a halving.
        batch_norm: normalise each convolution's output over the batch, before its ReLU.
        dropout: share of the averaged features set to zero in training, in [0, 1).

    Raises:
        ToolkitError: the data are no images, `blocks` or one of its entries is empty, or the image cannot be halved
            once per entry of `blocks`.

    Source: blocks of Simonyan & Zisserman 2015 (arXiv:1409.1556) with batch normalisation (Ioffe & Szegedy 2015,
    arXiv:1502.03167); the stem and the average pooling in place of their dense layers from He et al. 2016
    (arXiv:1512.03385), with 5x5 for 7x7.
    """
    import keras
    from keras import layers

    check_data(spec, "image", model="cat_dog_cnn")
    refuse(_check({"blocks": blocks}))
    check_halvings(spec, len(blocks), key="model.blocks", model="cat_dog_cnn")
    image = keras.Input((None, None, spec.shape[2]), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 255, name="to_unit_range")(image)
    x = convolution(x, stem, 5, stride=2, batch_norm=batch_norm, name="stem")
    for i, block in enumerate(blocks, start=1):
        for j, channels in enumerate(block, start=1):
            x = convolution(x, channels, 3, batch_norm=batch_norm, name=f"block{i}_{j}")
        if i < len(blocks):
            x = layers.MaxPooling2D(name=f"block{i}_pool")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)  # (batch, blocks[-1][-1])
    x = layers.Dropout(dropout, name="pool_dropout")(x)
    logits = layers.Dense(len(spec.class_names), dtype="float32", name="logits")(x)
    return keras.Model({"image": image}, logits, name="cat_dog_cnn")


def _check(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What shows without data: (key, what is wrong)."""
    blocks = arguments["blocks"]
    if blocks and all(blocks):
        return []
    text = f"blocks is {[list(block) for block in blocks]}: give at least one block, and each block the channels of at "
    return [("blocks", text + "least one convolution, such as [[64], [96, 128]]")]


cat_dog_cnn.check = _check  # type: ignore[attr-defined]
