"""The typical small convolutional network, for MNIST and small images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolkit.data.spec import DataSpec
from toolkit.models.blocks import convolution
from toolkit.models.checks import check_data, check_halvings, refuse
from toolkit.types import Share, Size

if TYPE_CHECKING:
    import keras


def simple_cnn(
    spec: DataSpec,
    *,
    filters: tuple[Size, ...] = (32, 64),
    convolutions: Size = 1,
    units: Size = 128,
    dropout: Share = 0.5,
    batch_norm: bool = False,
) -> keras.Model:
    """Per entry of `filters` 3x3 convolutions with ReLU and one 2x2 max-pooling; then a dense layer and the logits.

    Input: uint8 `(batch, height, width, channels)` in 0..255. Output: float32 `(batch, classes)`, logits.

    Args:
        filters: channels of each block; its pooling halves height and width.
        convolutions: of each block, one on the other.
        units: width of the dense layer.
        dropout: share of the dense layer's units set to zero in training, in [0, 1).
        batch_norm: normalise each convolution's output over the batch, before its ReLU.

    Raises:
        ToolkitError: the data are no images, `filters` is empty, or the image cannot be halved once per entry of it.

    Source: the form of LeNet-5 (LeCun et al. 1998) with ReLU and max-pooling; batch normalisation from Ioffe & Szegedy
    2015 (arXiv:1502.03167), dropout from Srivastava et al. 2014; several convolutions to a pooling from
    Simonyan & Zisserman 2015 (arXiv:1409.1556).
    """
    import keras
    from keras import layers

    check_data(spec, "image", model="simple_cnn")
    refuse(_check({"filters": filters}))
    check_halvings(spec, len(filters), key="model.filters", model="simple_cnn")
    image = keras.Input(spec.shape, dtype="uint8", name="image")
    x = layers.Rescaling(1 / 255, name="to_unit_range")(image)
    for i, channels in enumerate(filters, start=1):
        for j in range(1, convolutions + 1):
            x = convolution(x, channels, 3, batch_norm=batch_norm, name=f"block{i}" if j == 1 else f"block{i}_{j}")
        x = layers.MaxPooling2D(name=f"block{i}_pool")(x)
    x = layers.Flatten(name="flatten")(x)  # (batch, height * width / 4 ** len(filters) * filters[-1])
    x = layers.Dense(units, activation="relu", name="hidden")(x)
    x = layers.Dropout(dropout, name="hidden_dropout")(x)
    logits = layers.Dense(len(spec.class_names), dtype="float32", name="logits")(x)
    return keras.Model({"image": image}, logits, name="simple_cnn")


def _check(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What shows without data: (key, what is wrong)."""
    if arguments["filters"]:
        return []
    return [("filters", "filters is empty: give the channels of at least one convolution, such as [32, 64]")]


simple_cnn.check = _check  # type: ignore[attr-defined]
