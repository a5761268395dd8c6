"""What any JSON file of a run holds, whichever verb wrote it: values by name, and lists of entries as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from toolkit.explain.report.markup import Cell, element, facts, table
from toolkit.runs.trust import shown

MAX_ROWS = 500
MAX_COLUMNS = 12
LONG = 300  # characters of a value
_NAME = 80  # of a key
_DEPTH = 6


def document(content: Any, name: str) -> Iterator[Element]:
    """Tables of the JSON value `content` of the file `name`; what is deeper or longer than people read is left out."""
    entries = content.items() if isinstance(content, dict) else [("entries", content)]
    lists = {key: value for key, value in entries if _is_table(value)}
    values = {key: value for key, value in entries if key not in lists}
    told: dict[str, Cell] = {}
    for place, value in _leaves(values, "", 0):
        if len(told) == MAX_ROWS:
            yield _cut(name)
            break
        told[place] = number(value)
    if told:
        yield facts(name, told)
    for key, value in lists.items():
        title = shown(key, length=_NAME)
        yield element("h3", title)
        if len(value) > MAX_ROWS:
            yield _cut(name)
        yield _table(title, value[:MAX_ROWS])


def number(value: Any) -> str:
    """A value of JSON as people read it."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return shown(f"{value:,}", length=LONG)
    return shown(value, length=LONG)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


def _table(title: str, entries: Sequence[dict[str, Any]]) -> Element:
    """A row per entry; lists within an entry are left out."""
    rows = [dict(_leaves(entry, "", 0, lists=False)) for entry in entries]
    head = list(dict.fromkeys(name for row in rows for name in row))[:MAX_COLUMNS]
    numbers = [i for i, name in enumerate(head) if all(isinstance(row.get(name), int | float) for row in rows)]
    return table(title, head, [[number(row.get(name)) for name in head] for row in rows], numbers=numbers)


def _leaves(value: Any, place: str, depth: int, *, lists: bool = True) -> Iterator[tuple[str, Any]]:
    """The plain values in `value` with the way to each, as `passes › 3 › error`."""
    if isinstance(value, list) and not lists:
        return
    inner = value.items() if isinstance(value, dict) else enumerate(value, start=1) if isinstance(value, list) else ()
    if not inner or not value:
        yield place, value
    elif depth == _DEPTH:
        yield place, "…"
    else:
        for key, entry in inner:
            name = shown(key, length=_NAME)
            yield from _leaves(entry, f"{place} › {name}" if place else name, depth + 1, lists=lists)


def _cut(name: str) -> Element:
    return element("p", f"The first {MAX_ROWS}; {name} in the run directory has all.")
