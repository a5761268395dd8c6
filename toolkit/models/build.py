"""From a name and its hyperparameters to a model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from toolkit import registry
from toolkit.data.spec import DataSpec
from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    import keras

PRECISIONS = ("float32", "mixed_bfloat16")
INPUTS = {"image": ("image",), "audio": ("samples", "lengths"), "text": ("tokens",)}
"""Keys of a batch, by kind of data."""


def build(name: str, arguments: Mapping[str, Any], spec: DataSpec, *, precision: str = "float32") -> keras.Model:
    """The registered model `name` for the data that `spec` describes.

    Inputs are a dictionary with the keys of a batch, the output is float32 logits `(batch, classes)`, for
    transcripts `(batch, frames, units + 1)`.

    Args:
        arguments: hyperparameters, as the builder names them.
        precision: `float32`, or `mixed_bfloat16` (bfloat16 arithmetic, float32 weights and logits).

    Raises:
        ToolkitError: no such model or precision, or the builder refuses the data or a hyperparameter.
    """
    builder = registry.resolve("models", name)
    with _dtype_policy(precision):
        model = builder(spec, **arguments)
    check_output(model, spec, f"model.name is {name}")
    return model


def check_inputs(model: keras.Model, kind: str, what: str) -> None:
    """Refuse a model whose named inputs are not those that examples of the kind come with."""
    taken, given = getattr(model, "input", None), INPUTS[kind]  # a Sequential that was never called has none
    if isinstance(taken, dict) and set(taken) != set(given):
        raise ToolkitError(
            f"{what}, which takes {_names(taken)}, but {kind} data come as {_names(given)}: name its inputs so "
            "(it need not use them all)."
        )


def _names(names: Iterable[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)


def check_output(model: keras.Model, spec: DataSpec, what: str) -> None:
    """Refuse a model that does not give the float32 logits that the data ask for; `what` begins the sentence."""
    spoken = spec.task == "transcription"
    expected = (None, None, spec.outputs) if spoken else (None, spec.outputs)
    found = model.outputs[0]
    if tuple(found.shape) != expected or str(found.dtype) != "float32":
        raise ToolkitError(
            f"{what}, which gives {found.dtype} of shape {tuple(found.shape)}, but the data ask for "
            f'float32 logits of shape {expected}: end it with Dense({spec.outputs}, dtype="float32")'
            f"{', over frames' if spoken else ''}."
        )


def check_size(model: keras.Model, size: tuple[int, int], what: str) -> None:
    """Refuse a model that does not take pictures of `size` that `data.augmentation.crop` makes."""
    taken = tuple(model.inputs[0].shape[1:3])
    if any(side not in (None, wanted) for side, wanted in zip(taken, size, strict=True)):
        raise ToolkitError(
            f"{what}, which takes pictures of {taken[0]}x{taken[1]} only, but data.augmentation.crop makes them "
            f"{size[0]}x{size[1]}: remove it, or choose a model for any size, such as cat_dog_cnn."
        )


@contextlib.contextmanager
def _dtype_policy(precision: str) -> Iterator[None]:
    """Keras's global dtype policy for the time of building, so that what is built later does not inherit it."""
    import keras

    if precision not in PRECISIONS:
        raise ToolkitError(f"training.precision is {precision!r}: use one of {', '.join(PRECISIONS)}.")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
