"""Transcripts: what is said in a sound, as text, to the labels that CTC learns. docs/pipeline.md tells the rules."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from toolkit.data.text import MAX_MARKS, piles_marks
from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    import numpy as np

Units = Literal["characters", "words"]

MAX_WORDS = 20_000
"""Of a vocabulary of words: each is an output of the model, for every frame."""
MAX_CHARACTERS = 20_000
"""Of a transcript: nobody says so much in the ten minutes that a sound may last."""

_APOSTROPHES = "\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}"
_REPEATED = re.compile("''+")  # quotation marks


class _Kept(dict[int, str]):
    """What each character becomes: itself, or a space."""

    def __missing__(self, code: int) -> str:
        category = unicodedata.category(chr(code))
        self[code] = kept = chr(code) if category[0] in "LM" or category == "Nd" else " "
        return kept


_KEPT = _Kept({ord("'"): "'", **{ord(mark): "'" for mark in _APOSTROPHES}})


def normalize(text: str) -> str:
    """Lower-case words of letters (with their combining marks), digits and inner apostrophes, one space between them.

    Everything else is a space; the typographic apostrophe is `'`. Done twice, it changes nothing more.
    """
    text = text.lower()
    if not text.isascii():  # after lower case, whose letters have composed forms that the capitals have not
        text = unicodedata.normalize("NFC", text)
    text = _REPEATED.sub(" ", text.translate(_KEPT))
    return " ".join(word for word in map(_bare, text.split()) if word)


def _bare(word: str) -> str:
    """Without apostrophes around it, and marks that stand on no letter."""
    word = word.rstrip("'")
    while word and (word[0] == "'" or unicodedata.category(word[0])[0] == "M"):
        word = word[1:]
    return word


def unusable(transcript: str) -> str | None:
    """Why a transcript cannot be a label; None for a good one."""
    if len(transcript) > MAX_CHARACTERS:
        return f"its transcript has {len(transcript):,} characters, at most {MAX_CHARACTERS:,} are read"
    if piles_marks(transcript):
        return f"its transcript has more than {MAX_MARKS} combining marks on one character"
    if not normalize(transcript):
        return "its transcript holds no letter and no digit"
    return None


def split(text: str, units: Units) -> list[str]:
    """The units of `text`, normalised: its characters, the space among them, or its words."""
    text = normalize(text)
    return list(text) if units == "characters" else text.split()


def learn(transcripts: Iterable[str], units: Units) -> tuple[str, ...]:
    """The different units of `transcripts`, sorted by code points.

    Raises:
        ToolkitError: there are more than `MAX_WORDS` words.
    """
    found: set[str] = set()
    for transcript in transcripts:
        found.update(split(transcript, units))
        if units == "words" and len(found) > MAX_WORDS:
            raise ToolkitError(
                f"the transcripts of train hold more than {MAX_WORDS:,} different words, and a model has an output for "
                "each: set data.transcript_units: characters."
            )
    return tuple(sorted(found))


def encode(transcript: str, vocabulary: Sequence[str], units: Units) -> np.ndarray[Any, Any]:
    """int32 `(label,)`: entry i of `vocabulary` is i + 1, since 0 is CTC's blank and the padding.

    Units that the vocabulary lacks are left out. For many transcripts use `Encoder`.
    """
    return Encoder(vocabulary, units).encode(transcript)


class Encoder:
    """From transcripts to labels."""

    def __init__(self, vocabulary: Sequence[str], units: Units) -> None:
        self._units = units
        self._number = {unit: i for i, unit in enumerate(vocabulary, start=1)}

    def encode(self, transcript: str) -> np.ndarray[Any, Any]:
        """As `encode` of this module."""
        import numpy as np

        number = self._number
        return np.array([number[unit] for unit in split(transcript, self._units) if unit in number], np.int32)

    def unknown(self, transcript: str) -> set[str]:
        """Units of the transcript that the vocabulary lacks."""
        return set(split(transcript, self._units)) - self._number.keys()


def frames_needed(label: Sequence[Any]) -> int:
    """How many frames CTC needs to write a label: one for each unit, and a blank between two equal neighbours."""
    return len(label) + sum(1 for a, b in itertools.pairwise(label) if a == b)
