"""The tree of a config file before it is checked: values that know where they stand, and the problems found so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from toolkit.errors import ToolkitError

SHOWN = 60  # characters of a value that a message repeats
TOLD = 100  # problems in one message
SAID = 550  # characters about one problem, beside its place and key
LONG = 200  # characters of a path, or of a dotted key, in a message


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a key or value stands: a line of a file, or (line 0) a whole file or a `--set` argument."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        source = _without_middle(self.source)
        return f"{source}:{self.line}" if self.line else source


@dataclasses.dataclass
class Node:
    """One value of the tree.

    Attributes:
        value: None, bool, int, float, str, list of nodes, or dict from key to node.
        place: of the value.
        key_place: of the key in front of it; the value's own place where there is none.
        text: of a scalar as it was written, empty for lists and mappings.
        broken: a problem has been told already, so nothing more is said about this value.
    """

    value: Any
    place: Place
    key_place: Place
    text: str = ""
    broken: bool = False

    def plain(self) -> Any:
        """The value without positions; broken entries of mappings are left out."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items() if not node.is_broken()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def is_broken(self) -> bool:
        """Broken itself, or a list that holds something broken: a list cannot do without one of its entries."""
        return self.broken or (isinstance(self.value, list) and any(node.is_broken() for node in self.value))

    def find(self, location: Iterable[str | int]) -> tuple[Node, list[str | int]]:
        """The deepest node on the way to `location`, and the part of the way that was found."""
        node: Node = self
        way: list[str | int] = []
        for part in location:
            inner: Node | None = None
            if isinstance(node.value, dict):
                inner = node.value.get(part)
            elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
                inner = node.value[part]
            if inner is None:
                break
            node = inner
            way.append(part)
        return node, way

    def shown(self) -> str:
        """The value as a message repeats it: numbers as written, text in quotes, all of it short."""
        if isinstance(self.value, str):
            return shorten(repr(self.value))
        if isinstance(self.value, dict):
            return shorten("{" + ", ".join(f"{key}: {node.shown()}" for key, node in self.value.items()) + "}")
        if isinstance(self.value, list):
            return shorten("[" + ", ".join(node.shown() for node in self.value) + "]")
        return shorten(self.text) if self.value is not None else "nothing (null)"


def shorten(text: str, most: int = SHOWN) -> str:
    """At most `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def shown_path(path: object) -> str:
    """In quotes, at most about `LONG` characters: a file may name anything as another file's path."""
    return repr(_without_middle(str(path)))


def _without_middle(text: str) -> str:
    return text if len(text) <= LONG else f"{text[: LONG // 2]}…{text[1 - LONG // 2 :]}"


def _visible(text: str) -> str:
    """Escapes for line breaks, for what steers a terminal, for the invisible, and for halves of characters."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def dotted(parts: Iterable[str | int]) -> str:
    """`("data", "image_size", 1)` → `data.image_size[1]`."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else ("." if text else "") + shorten(part)
    return _without_middle(text)


class Problems:
    """What is wrong with a config; told together, in the order of the lines, missing keys last."""

    def __init__(self) -> None:
        self._found: dict[tuple[Place, str, str], bool] = {}  # (place, key, text) → is about something missing

    def add(self, place: Place, key: str, text: str, *, missing: bool = False) -> None:
        """Note that at `place` the `key` (empty: the whole file) has the problem `text`."""
        # Components and types explain themselves in their own words, which may repeat a value of any size.
        self._found.setdefault((place, key, shorten(text, SAID)), missing)

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def enough(self) -> bool:
        """Whether there are so many already that details of another would never be read."""
        return len(self._found) > TOLD

    def raise_if_any(self) -> None:
        """Raise all of them as one error.

        Raises:
            ToolkitError: one line per problem.
        """
        if not self._found:
            return
        sources = list(dict.fromkeys(place.source for place, _, _ in self._found))
        ordered = sorted(
            self._found, key=lambda entry: (self._found[entry], sources.index(entry[0].source), entry[0].line)
        )
        lines = [_visible(": ".join(filter(None, map(str, entry)))) for entry in ordered]
        if len(lines) > TOLD:
            lines[TOLD:] = [f"… and {len(lines) - TOLD} more problems"]
        raise ToolkitError("\n".join(lines))
