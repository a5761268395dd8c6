"""Changes of texts: they act on words, before these become numbers.

A text is a list of what the tokenizer makes of it (`toolkit.data.text.tokenize`): joined by spaces and tokenized
again it stays the same list. Typing errors after Belinkov & Bisk 2018 (arXiv:1711.02173, their "key" noise), words that
are dropped or swapped after Wei & Zou 2019 (arXiv:1901.11196).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection

import numpy as np

from toolkit.explain.robustness.change import Change

Words = list[str]

_ROWS = (("qwertyuiop", 0.0), ("asdfghjkl", 0.25), ("zxcvbnm", 0.75))
"""Letters of a keyboard, and where each row begins, in widths of a key."""
_REACH = 1.3
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_UNSEEN_LETTERS = 8


def typos(words: Words, level: float, random: np.random.Generator, known: Collection[str]) -> Words:
    """A share `level` of the letters becomes one whose key is next to its own; other alphabets stay as they are."""
    neighbours = _neighbours()
    places = [(i, j) for i, word in enumerate(words) for j, letter in enumerate(word) if letter in neighbours]
    changed = [list(word) for word in words]
    for k in _some(len(places), level, random):
        i, j = places[k]
        near = neighbours[words[i][j]]
        changed[i][j] = near[int(random.integers(len(near)))]
    return ["".join(letters) for letters in changed]


def dropped_words(words: Words, level: float, random: np.random.Generator, known: Collection[str]) -> Words:
    """A share `level` of the words is left out; one at least stays."""
    lost = set(_some(len(words), level, random)[: len(words) - 1])
    return [word for i, word in enumerate(words) if i not in lost]


def swapped_words(words: Words, level: float, random: np.random.Generator, known: Collection[str]) -> Words:
    """A share `level` of the words changes places with the word after it, one pair after the other."""
    changed = list(words)
    for i in _some(len(words) - 1, level, random):
        changed[i], changed[i + 1] = changed[i + 1], changed[i]
    return changed


def upper_case(words: Words, level: float, random: np.random.Generator, known: Collection[str]) -> Words:
    """A share `level` of the words in capitals."""
    loud = set(_some(len(words), level, random))
    return [word.upper() if i in loud else word for i, word in enumerate(words)]


def truncation(words: Words, level: float, random: np.random.Generator, known: Collection[str]) -> Words:
    """Only the first share `level` of the words, one at least."""
    return words[: max(1, round(level * len(words)))]


def unseen_words(words: Words, level: float, random: np.random.Generator, known: Collection[str]) -> Words:
    """A share `level` of the words becomes words that the vocabulary lacks."""
    changed = list(words)
    for i in _some(len(words), level, random):
        while (word := "".join(_LETTERS[k] for k in random.integers(len(_LETTERS), size=_UNSEEN_LETTERS))) in known:
            pass
        changed[i] = word
    return changed


def changes(vocabulary: Collection[str]) -> dict[str, Change]:
    """The changes of texts for a model that knows the words of `vocabulary`."""
    known = frozenset(vocabulary)
    return {apply.__name__: Change(functools.partial(apply, known=known), _LEVELS[apply]) for apply in _LEVELS}


_LEVELS: dict[Callable[..., Words], tuple[float, float, float, float, float]] = {
    typos: (0.01, 0.02, 0.05, 0.1, 0.2),
    dropped_words: (0.05, 0.1, 0.2, 0.3, 0.5),
    swapped_words: (0.05, 0.1, 0.2, 0.3, 0.5),
    upper_case: (0.2, 0.4, 0.6, 0.8, 1.0),
    truncation: (0.8, 0.6, 0.4, 0.2, 0.1),
    unseen_words: (0.05, 0.1, 0.2, 0.3, 0.5),
}
NAMES = tuple(apply.__name__ for apply in _LEVELS)


def _some(count: int, share: float, random: np.random.Generator) -> list[int]:
    """Places among `count`, in random order: `share` of them in the mean, since what is left of it is drawn."""
    number = share * max(count, 0)
    whole = math.floor(number) + (random.random() < number % 1)
    return random.permutation(max(count, 0))[:whole].tolist()  # type: ignore[no-any-return]


@functools.cache
def _neighbours() -> dict[str, str]:
    """Of each letter those whose keys are at most 1.3 widths of a key away."""
    places = {key: (x + i, y) for y, (row, x) in enumerate(_ROWS) for i, key in enumerate(row)}
    return {
        key: "".join(other for other in places if other != key and math.dist(places[other], place) <= _REACH)
        for key, place in places.items()
    }
