"""What the examples of a transcription are labelled with, and which sounds are long enough for their transcript."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from toolkit.data import audio, transcripts
from toolkit.data.examples import Examples, shown
from toolkit.data.image import Unreadable
from toolkit.data.reading import Decoding, Reading
from toolkit.data.transcripts import Encoder, Units

Frames = Callable[[int, int], int]
"""From a clip's samples and its rate in Hz to the frames that a model makes of it: never fewer of a longer one."""

NEEDS_FRAMES = "its transcript needs"
"""How the reason begins for which a sound is left out that is too short for what is said in it."""

_NAMED_UNITS = 5


class TranscriptLabels:
    """Labels of the splits of one source, which are read one after the other, train first.

    The vocabulary is the given one, or that of the examples of train that could be read.
    """

    def __init__(self, units: Units, vocabulary: tuple[str, ...] | None, frames: Frames | None) -> None:
        self.units = units
        self.vocabulary = vocabulary
        self._frames = frames

    def decoding(
        self, examples: Examples, decoding: Decoding, rate: int, *, own: bool = False, fastest: float = 1.0
    ) -> Decoding:
        """`decoding` that refuses the examples whose transcript is none, or takes more frames than the sound gives.

        Args:
            rate: of the decoded sounds, in Hz.
            own: whether the vocabulary is, or was, learnt from these examples. Every unit then counts, also those that
                only left out examples hold: else a second reading, with the vocabulary, would keep these.
            fastest: how many times as fast a sound may be played to the model.
        """
        verdicts = [transcripts.unusable(transcript) for transcript in examples.labels]
        if self.vocabulary is None:  # too many words are told before anything is decoded
            good = zip(examples.labels, verdicts, strict=True)
            transcripts.learn((transcript for transcript, verdict in good if not verdict), self.units)
        needed = [
            0 if verdict else transcripts.frames_needed(self._label(transcript, own))
            for transcript, verdict in zip(examples.labels, verdicts, strict=True)
        ]
        shortest = functools.cache(lambda frames: math.ceil(_shortest(frames, rate, self._frames) * fastest))
        # What decides over each example, whatever the model is called: a text, or the samples that it must have.
        deciding = [verdict or shortest(frames) for verdict, frames in zip(verdicts, needed, strict=True)]
        by_id = dict(zip(examples.ids, zip(deciding, needed, strict=True), strict=True))

        def read(content: Any, id: str) -> Any:
            least, frames = by_id[id]
            if isinstance(least, str):
                raise Unreadable(least)
            row = decoding.read(content, id)
            if len(row) < least:
                assert self._frames is not None  # nothing is too short otherwise
                given = self._frames(max(1, int(len(row) / fastest)), rate)
                played = "" if fastest == 1 else f", played {fastest:g} times as fast,"
                raise Unreadable(
                    f"{NEEDS_FRAMES} {frames:,} frames, and its {len(row) / rate:.2f} s{played} give {given:,}"
                )
            return row

        sha = hashlib.sha256(json.dumps(deciding).encode())
        return dataclasses.replace(decoding, read=read, settings=f"{decoding.settings} transcripts {sha.hexdigest()}")

    def learn(self, examples: Examples, read: Reading) -> None:
        """Take the vocabulary from what was read of `examples`, where none was given."""
        if self.vocabulary is None:
            self.vocabulary = transcripts.learn((str(examples.labels[i]) for i in read.kept), self.units)

    def texts(self, examples: Examples, read: Reading) -> list[str]:
        """The transcripts of what was read, normalised."""
        return [transcripts.normalize(str(examples.labels[i])) for i in read.kept]

    def matrix(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        """int32 `(examples, longest label)`, padded with 0; at least one column."""
        encoder = self._encoder
        rows = [encoder.encode(text) for text in texts]
        labels = np.zeros((len(rows), max([1, *map(len, rows)])), np.int32)
        for i, row in enumerate(rows):
            labels[i, : len(row)] = row
        return labels

    def note(self, name: str, texts: Sequence[str]) -> str | None:
        """A line that says which units of a split the vocabulary lacks; None where it has all."""
        encoder = self._encoder
        lacking = [unknown for unknown in map(encoder.unknown, texts) if unknown]
        if not lacking:
            return None
        units = sorted(set().union(*lacking))
        named = ", ".join(f"'{shown(unit)}'" for unit in units[:_NAMED_UNITS])
        more = ", …" if len(units) > _NAMED_UNITS else ""
        one = len(lacking) == 1
        return (
            f"note: {len(lacking):,} transcript{'' if one else 's'} of {name} hold{'s' if one else ''} {self.units} "
            f"that train does not ({named}{more}): {'it' if one else 'they'} cannot be written right"
        )

    def _label(self, transcript: str, own: bool) -> Sequence[Any]:
        if own:
            return transcripts.split(transcript, self.units)
        return self._encoder.encode(transcript).tolist()  # type: ignore[no-any-return]

    @functools.cached_property
    def _encoder(self) -> Encoder:
        assert self.vocabulary is not None  # train is read first
        return Encoder(self.vocabulary, self.units)


def _shortest(needed: int, rate: int, frames: Frames | None) -> int:
    """The fewest samples that give so many frames; more than any sound has, where none does."""
    if frames is None or not needed:
        return 0
    low, high = 1, audio.MAX_SAMPLES + 1
    while low < high:
        middle = (low + high) // 2
        if frames(middle, rate) >= needed:
            high = middle
        else:
            low = middle + 1
    return low
