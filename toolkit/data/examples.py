"""What a source hands over: indexable tables of examples, still encoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np


def shown(text: str) -> str:
    """`text` with escapes for what is not printable: names come from others, and a terminal acts on some characters."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


@dataclasses.dataclass(frozen=True)
class BadExample:
    """An example that cannot be read, and why: it is listed, counted against its split's budget and left out."""

    id: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Examples:
    """One split, nothing decoded yet.

    Attributes:
        values: image: encoded bytes or a `pathlib.Path`, or a uint8 array (height, width, channels) where a source
            holds pixels; audio: an int16 array (n,), one channel at `Source.sample_rate`, or a Path, or bytes of a
            sound file; text: str.
        labels: int64 (n,), positions in `Source.class_names`; for transcription n strings, the transcripts as the
            source has them.
        ids: stable names, unique over all splits of the source.
        bad: rows that the source itself could not read; they stand in none of the three above.
    """

    values: Sequence[Any]
    labels: np.ndarray[Any, Any] | Sequence[str]
    ids: Sequence[str]
    bad: tuple[BadExample, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


@dataclasses.dataclass(frozen=True)
class Source:
    """What there is: the splits and what holds for all of them.

    Attributes:
        kind: what an example is.
        class_names: position is the label. Empty for transcription.
        splits: `train`, `validation` and `test`, disjoint by id, none empty.
        sample_rate: in Hz, of audio values that are arrays; files bring their own (None).
        channels: of images; the pipeline decodes every image to that many. None but for images.
        origin: for messages: "tfds mnist 3.0.1", "folder /x/y".
        task: what is asked about an example: its class, or (audio only) what is said in it.
    """

    kind: Literal["image", "audio", "text"]
    class_names: tuple[str, ...]
    splits: Mapping[str, Examples]
    sample_rate: int | None = None
    channels: int | None = None
    origin: str = ""
    task: Literal["classification", "transcription"] = "classification"
