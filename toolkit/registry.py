"""Names that a config may use, each with the function behind it as text: nothing is imported until it is used.

To add one, write the function and one line here. Name, function and YAML value are one spelling. Packages
outside the toolkit add theirs through entry points of the groups `toolkit.models`, `toolkit.optimizers`,
`toolkit.schedules` and `toolkit.sources`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Any

from toolkit.errors import ToolkitError, did_you_mean

SHIPPED: dict[str, dict[str, str]] = {
    "sources": {
        "tfds": "toolkit.data.sources.tfds:tfds",
        "folder": "toolkit.data.sources.folder:folder",
        "csv": "toolkit.data.sources.csv:csv",
        "transcripts": "toolkit.data.sources.transcripts:transcripts",
        "spoken_digit_strings": "toolkit.data.sources.spoken_digit_strings:spoken_digit_strings",
        "mnist_sample": "toolkit.data.sources.mnist_sample:mnist_sample",
        "synthetic_images": "toolkit.data.sources.synthetic:synthetic_images",
        "synthetic_audio": "toolkit.data.sources.synthetic:synthetic_audio",
        "synthetic_speech": "toolkit.data.sources.synthetic:synthetic_speech",
        "synthetic_text": "toolkit.data.sources.synthetic:synthetic_text",
    },
    "models": {
        "mnist_dense": "toolkit.models.mnist_dense:mnist_dense",
        "simple_cnn": "toolkit.models.simple_cnn:simple_cnn",
        "cat_dog_cnn": "toolkit.models.cat_dog_cnn:cat_dog_cnn",
        "speech_lstm": "toolkit.models.speech_lstm:speech_lstm",
        "speech_ctc": "toolkit.models.speech_ctc:speech_ctc",
        "text_transformer": "toolkit.models.text_transformer:text_transformer",
    },
    "optimizers": {
        "adam": "toolkit.optimizers.build:adam",
        "sgd": "toolkit.optimizers.build:sgd",
        "momentum": "toolkit.optimizers.build:momentum",
        "rmsprop": "toolkit.optimizers.build:rmsprop",
        "adagrad": "toolkit.optimizers.build:adagrad",
    },
    "schedules": {
        "constant": "toolkit.optimizers.build:constant",
        "cosine": "toolkit.optimizers.build:cosine",
        "exponential": "toolkit.optimizers.build:exponential",
        "step": "toolkit.optimizers.build:step",
        "warm_restarts": "toolkit.optimizers.build:warm_restarts",
    },
}


@functools.cache
def _references(kind: str) -> dict[str, str]:
    references = dict(SHIPPED[kind])
    for entry in importlib.metadata.entry_points(group=f"toolkit.{kind}"):
        if entry.name in references:
            raise ToolkitError(
                f"the entry point {entry.name!r} = {entry.value!r} of group toolkit.{kind} repeats a name that "
                f"{references[entry.name]!r} has already: uninstall one of the two packages or rename its entry."
            )
        references[entry.name] = entry.value
    return references


def names(kind: str) -> tuple[str, ...]:
    """The names of one kind (`sources`, `models`, `optimizers`, `schedules`), shipped ones first."""
    return tuple(_references(kind))


def resolve(kind: str, name: str) -> Callable[..., Any]:
    """The function behind `name`.

    Raises:
        ToolkitError: there is no such name, or the entry of an outside package cannot be imported.
    """
    references = _references(kind)
    if name not in references:
        raise ToolkitError(
            f"there is no {kind[:-1]} {name!r}{did_you_mean(name, references)}: use one of {', '.join(references)}."
        )
    reference = references[name]
    module, _, attribute = reference.partition(":")
    if name in SHIPPED[kind]:
        return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]
    try:
        return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        raise ToolkitError(
            f"the {kind[:-1]} {name!r} of an installed package cannot be loaded from {reference!r} ({error}): mend or "
            "uninstall that package."
        ) from error
