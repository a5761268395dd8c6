from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from toolkit.errors import ToolkitError
from toolkit.models.build import build, check_size


def steps(model, spec):
    """The layers that shape the data, with their settings, in order; the model is a chain of them."""
    told, shape = [], (None, *spec.shape)
    for layer in model.layers[1:]:
        kind, shape = type(layer).__name__, layer.compute_output_shape(shape)
        if kind == "Conv2D":
            told.append(f"{layer.kernel_size[0]}x{layer.kernel_size[1]}/{layer.strides[0]} {layer.filters}")
        elif "Pooling" in kind or kind in ("Dense", "Flatten"):
            told.append(f"{kind} {'x'.join(str(size) for size in shape[1:])}")
    return told


def test_simple_cnn_is_convolution_and_pooling_twice_then_dense(specs):
    assert steps(build("simple_cnn", {}, specs["image"]), specs["image"]) == [
        "3x3/1 32",
        "MaxPooling2D 16x24x32",
        "3x3/1 64",
        "MaxPooling2D 8x12x64",
        "Flatten 6144",
        "Dense 128",
        "Dense 7",
    ]


def test_simple_cnn_with_two_convolutions_to_a_pooling(specs):
    assert steps(build("simple_cnn", {"convolutions": 2, "filters": (8, 9)}, specs["image"]), specs["image"])[:6] == [
        "3x3/1 8",
        "3x3/1 8",
        "MaxPooling2D 16x24x8",
        "3x3/1 9",
        "3x3/1 9",
        "MaxPooling2D 8x12x9",
    ]


def test_cat_dog_cnn_is_the_reference_network(specs):
    assert steps(build("cat_dog_cnn", {}, specs["image"]), specs["image"]) == [
        "5x5/2 32",
        "3x3/1 64",
        "MaxPooling2D 8x12x64",
        "3x3/1 96",
        "3x3/1 128",
        "MaxPooling2D 4x6x128",
        "3x3/1 192",
        "3x3/1 256",
        "MaxPooling2D 2x3x256",
        "3x3/1 256",
        "GlobalAveragePooling2D 256",
        "Dense 7",
    ]


def test_cat_dog_cnn_takes_pictures_of_any_size_and_simple_cnn_does_not(specs):
    model = build("cat_dog_cnn", {"blocks": ((4,), (5,))}, specs["image"])
    for size in (specs["image"].shape[:2], (16, 20)):
        check_size(model, size, "this")
        assert model({"image": np.zeros((2, *size, 3), "uint8")}).shape == (2, 7)
    fixed = build("simple_cnn", {}, specs["image"])
    check_size(fixed, specs["image"].shape[:2], "this")
    with pytest.raises(ToolkitError, match=r"this, which takes pictures of 32x48 only, .*crop makes them 16x48"):
        check_size(fixed, (16, 48), "this")


@pytest.mark.parametrize(
    ("name", "arguments", "size", "message"),
    [
        (
            "simple_cnn",
            {},
            (28, 30),
            "model.filters of simple_cnn halves the image 2 times, .* multiples of 4, .* 28x30",
        ),
        ("cat_dog_cnn", {}, (128, 150), "model.blocks of cat_dog_cnn .* multiples of 16, .* 128x150"),
        ("cat_dog_cnn", {"blocks": ((8,),)}, (31, 32), "multiples of 2, .* 31x32"),
        ("simple_cnn", {"filters": ()}, (28, 28), "model.filters is empty"),
        ("cat_dog_cnn", {"blocks": ()}, (32, 32), r"model.blocks is \[\]"),
        ("cat_dog_cnn", {"blocks": ((8,), ())}, (32, 32), r"model.blocks is \[\[8\], \[\]\]"),
    ],
)
def test_what_keras_would_let_pass_is_refused(specs, name, arguments, size, message):
    spec = dataclasses.replace(specs["image"], shape=(*size, 3))
    with pytest.raises(ToolkitError, match=message):
        build(name, arguments, spec)


def test_a_convolution_before_a_normalization_has_no_bias(specs):
    with_norm = build("cat_dog_cnn", {}, specs["image"])
    without = build("cat_dog_cnn", {"batch_norm": False}, specs["image"])
    assert not with_norm.get_layer("stem_conv").use_bias
    assert without.get_layer("stem_conv").use_bias
