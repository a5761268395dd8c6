"""HTML as a tree of elements: what is put in as text stays text, whoever wrote it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from toolkit.runs.trust import shown

Cell = Element | str
LONG = 30  # rows; a table of more scrolls in a box


def element(tag: str, *children: Cell | None, **attributes: str) -> Element:
    """An element with `children` in it, strings as text and None left out.

    Args:
        attributes: `class_` is `class`, `aria_label` is `aria-label`.
    """
    made = Element(tag, {name.rstrip("_").replace("_", "-"): shown(value) for name, value in attributes.items()})
    for child in children:
        if isinstance(child, str):
            _add_text(made, shown(child, lines=True))
        elif child is not None:
            made.append(child)
    return made


def raw(tag: str, content: str, **attributes: str) -> Element:
    """A `script` or `style`, whose content HTML takes as it stands: only ours, or such as has no `<` in it."""
    made = element(tag, **attributes)
    made.text = content
    return made


def section(title: str, *children: Cell | None) -> Element:
    """A part of the page under a heading."""
    return element("section", element("h2", title), *children)


def folded(title: str, *children: Cell | None) -> Element:
    """What is read once somebody opens it."""
    return element("details", element("summary", title), *children)


def table(title: str, head: Sequence[Cell], rows: Iterable[Sequence[Cell]], *, numbers: Sequence[int] = ()) -> Element:
    """A table in a box of its own, in which it scrolls on a narrow screen; the first cell of a row names it.

    Args:
        title: what it holds, for who cannot see it.
        numbers: columns that stand at the right.
    """
    columns = ["number" if i in numbers else "" for i in range(len(head))]
    lines = [element("tr", *map(_cell, itertools.repeat("th"), head, columns))]
    body = [
        element("tr", _cell("th", row[0], columns[0]), *map(_cell, itertools.repeat("td"), row[1:], columns[1:]))
        for row in rows
    ]
    return _box(title, element("thead", *lines), body)


def facts(title: str, values: Mapping[str, Cell]) -> Element:
    """A table of names and values."""
    body = [element("tr", element("th", name), element("td", value)) for name, value in values.items()]
    return _box(title, None, body)


def html(page: Element) -> str:
    """The text of a whole page."""
    return f"<!DOCTYPE html>\n{ElementTree.tostring(page, encoding='unicode', method='html')}\n"


def percent(share: float | None) -> str:
    """A share in [0, 1]; one that is not defined is a dash."""
    return "–" if share is None else f"{100 * share:.2f} %"


def _box(title: str, head: Element | None, body: Sequence[Element]) -> Element:
    """What scrolls by itself, also by the keyboard."""
    made = element("table", head, element("tbody", *body))
    return element(
        "div", made, class_="wide long" if len(body) > LONG else "wide", aria_label=title, role="region", tabindex="0"
    )


def _cell(tag: str, content: Cell, kind: str) -> Element:
    return element(tag, content, **({"class_": kind} if kind else {}))


def _add_text(made: Element, text: str) -> None:
    if len(made):
        made[-1].tail = (made[-1].tail or "") + text
    else:
        made.text = (made.text or "") + text
