"""What every builder asks of its data before it builds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from toolkit.data.spec import DataSpec
from toolkit.errors import ToolkitError

_WORDS = {"image": "images", "audio": "sounds", "text": "texts"}
_GIVES = {"classification": "one answer per example", "transcription": "the text of a recording"}
_NEEDS = {"classification": "one label per example", "transcription": "a transcript per recording"}


def refuse(problems: Sequence[tuple[str, str]]) -> None:
    """Raise what a builder's `check` found; a config tells it with its line before any data is read.

    Raises:
        ToolkitError: there is a problem. Each text begins with the name of the hyperparameter.
    """
    if problems:
        raise ToolkitError("; ".join(f"model.{text}" for _, text in problems) + ".")


def check_data(
    spec: DataSpec,
    kind: Literal["image", "audio", "text"],
    *,
    model: str,
    task: Literal["classification", "transcription"] = "classification",
) -> None:
    """Refuse data that the model cannot read.

    Raises:
        ToolkitError: the data are of another kind than `kind`, or for another task than `task`.
    """
    if spec.kind != kind:
        raise ToolkitError(
            f"model.name is {model}, which takes {_WORDS[kind]}, but data.source gives {_WORDS[spec.kind]}: "
            f"choose a model for {_WORDS[spec.kind]} or a source of {_WORDS[kind]}."
        )
    if spec.task != task:
        raise ToolkitError(
            f"model.name is {model}, which gives {_GIVES[task]}, but the task of the data is {spec.task}: choose data "
            f"with {_NEEDS[task]}, or a model for {spec.task}."
        )


def check_halvings(spec: DataSpec, times: int, *, key: str, model: str) -> None:
    """Refuse images that cannot be halved `times` times; Keras would floor 150 pixels to 18.

    Args:
        key: the hyperparameter that asks for the halvings.

    Raises:
        ToolkitError: height or width is no multiple of 2 ** times.
    """
    height, width, _ = spec.shape
    factor = 2**times
    if not height or not width or height % factor or width % factor:
        raise ToolkitError(
            f"{key} of {model} halves the image {times} times, so height and width must be multiples of {factor}, "
            f"but data.image_size is {height}x{width}: change one of the two."
        )
