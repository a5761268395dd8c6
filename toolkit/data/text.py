"""Texts: strings to word numbers. docs/pipeline.md tells the rules."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

SUFFIXES = (".txt",)
MAX_BYTES = 1_000_000
MAX_MARKS = 256
"""Combining marks in a row: bringing them into their order takes time with the square of their number."""
PADDING, UNKNOWN = "", "[unk]"

_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
# A word (letters with inner apostrophes: don't), a run of digits, or one other mark that is not a space.
_TOKEN = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|[^\w\s]|_")


def tokenize(text: str) -> list[str]:
    """Lower-case words, numbers and single punctuation marks, in order."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    if "<" in text:
        text = _BREAK.sub(" ", text)
    return _TOKEN.findall(text.lower())


def piles_marks(text: str) -> bool:
    """Whether more than `MAX_MARKS` combining marks stand in a row."""
    if text.isascii() or len(text) <= MAX_MARKS:
        return False
    runs = itertools.groupby(map(unicodedata.combining, text), bool)
    return any(marks and sum(1 for _ in run) > MAX_MARKS for marks, run in runs)


def encode(texts: Iterable[str], vocabulary: Sequence[str], max_tokens: int) -> list[np.ndarray[Any, Any]]:
    """One int32 array per text, cut after `max_tokens`; a word that the vocabulary lacks becomes 1."""
    import numpy as np

    number = {word: i for i, word in enumerate(vocabulary) if i > 1}.get
    return [np.array([number(word, 1) for word in tokenize(text)[:max_tokens]], np.int32) for text in texts]


def learn(texts: Iterable[str], size: int, max_tokens: int) -> tuple[tuple[str, ...], list[np.ndarray[Any, Any]]]:
    """The vocabulary of `texts`, and the texts encoded with it (as `encode` would, in one pass over them).

    `size` counts the two first entries, padding and the unknown word; the others come by falling frequency,
    ties by the alphabet (code points).
    """
    import numpy as np

    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__  # words are numbered as they appear: tokenizing twice would cost twice
    counts: Counter[str] = Counter()
    rows = []
    for text in texts:
        tokens = tokenize(text)
        counts.update(tokens)
        rows.append(np.array([numbers[word] for word in tokens], np.int32)[:max_tokens].copy())
    words = list(numbers)
    order = sorted(range(len(words)), key=lambda i: (-counts[words[i]], words[i]))[: size - 2]
    final = np.ones(len(words), np.int32)
    final[order] = np.arange(2, len(order) + 2)
    return (PADDING, UNKNOWN, *(words[i] for i in order)), [final[row] for row in rows]
