"""One tree out of a file, the files it extends, and `--set` arguments; every value keeps its own place.

The mappings of a config's own structure (`STRUCTURE`) are merged key by key. Everything else is one value and is
replaced whole: lists, and mappings that a builder takes as an argument. Where a child gives a component
another name, the parent's arguments of the replaced component are left out; options that all share stay.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from toolkit.config.nodes import Node, Place, Problems, dotted, shorten, shown_path
from toolkit.config.options import DataOptions, OptimizerOptions
from toolkit.config.reader import MAX_DEPTH, Allowance, Unreadable, is_regular, read_file, read_text

Way = tuple[str, ...]
CIRCLE = 400  # characters of its files' paths in a message

STRUCTURE: frozenset[Way] = frozenset(
    {
        (),
        ("data",),
        ("data", "augmentation"),
        ("model",),
        ("optimizer",),
        ("optimizer", "schedule"),
        ("training",),
        ("training", "early_stopping"),
        ("training", "plateau"),
        ("training", "checkpoint"),
    }
)
# Those that null takes away.
OPTIONAL: frozenset[Way] = frozenset(
    {("data", "augmentation"), ("optimizer", "schedule"), ("training", "early_stopping"), ("training", "plateau")}
)
_EMPTY = "an empty mapping changes nothing of what the config has there: remove it"
_OR_NULL = ", or write null to take away what is there"

# Where a component stands, the key that names it, and the keys beside it that are not its arguments.
COMPONENTS: dict[Way, tuple[str, frozenset[str]]] = {
    ("data",): ("source", frozenset(DataOptions.model_fields)),
    ("model",): ("name", frozenset()),
    ("optimizer",): ("name", frozenset({"schedule", *OptimizerOptions.model_fields})),
    ("optimizer", "schedule"): ("name", frozenset()),
}


def compose(path: Path, overrides: Sequence[str], problems: Problems, values: Mapping[str, Node] | None = None) -> Node:
    """The tree of `path` with all it extends, all overrides and, over all of them, `values` by their dotted keys.

    Raises:
        Unreadable: one of the files cannot be read; `problems` has the reason.
    """
    allowance = Allowance()
    changes = [change for text in overrides for change in _override(text, problems, allowance)]
    changes += [change for key, node in (values or {}).items() for change in _changes(tuple(key.split(".")), node)]
    root = _file(path, (), problems, allowance)
    _apply(root, changes, problems)
    return root


def _file(path: Path, children: tuple[Path, ...], problems: Problems, allowance: Allowance) -> Node:
    """Read `path` on top of what it extends; `children` are the files that led here."""
    tree = read_file(path, problems, allowance)
    parent = tree.value.pop("extends", None)
    if children:
        tree.value.pop("name", None)  # a name is one file's own
    if parent is None:
        root = Node({}, tree.place, tree.key_place)
    else:
        root = _parent(parent, path, children, problems, allowance)
    root.place = root.key_place = tree.place
    _apply(root, list(_changes((), tree)), problems)
    return root


def _parent(extends: Node, path: Path, children: tuple[Path, ...], problems: Problems, allowance: Allowance) -> Node:
    if extends.is_broken():
        raise Unreadable
    if not isinstance(extends.value, str) or not extends.value:
        problems.add(extends.place, "extends", f"found {extends.shown()}, allowed: the path of one YAML file")
        raise Unreadable
    target = path.parent / extends.value
    chain = (*children, path)
    if any(_same(target, earlier) for earlier in chain):
        circle = shorten(" → ".join(map(str, (*chain, target))), CIRCLE)
        problems.add(extends.place, "extends", f"the files extend one another in a circle ({circle}): cut it")
        raise Unreadable
    if not is_regular(target):
        shown = shown_path(target)
        found = f"{shown} is a folder, device or pipe, allowed: the path of one YAML file"
        missing = f"there is no file {shown}: the path is relative to this file"
        problems.add(extends.place, "extends", found if _exists(target) else missing)
        raise Unreadable
    if len(chain) >= MAX_DEPTH:
        problems.add(
            extends.place, "extends", f"more than {MAX_DEPTH} files extend one another: make the chain shorter"
        )
        raise Unreadable
    return _file(target, chain, problems, allowance)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False


def _override(text: str, problems: Problems, allowance: Allowance) -> Iterator[tuple[Way, Node]]:
    """The changes that one `--set` argument asks for."""
    place = Place(f"--set {shorten(ascii(text)[1:-1])}")
    name, equals, value = text.partition("=")
    way = tuple(name.strip().split("."))
    if not equals or not all(way) or len(way) > MAX_DEPTH:
        problems.add(place, "", "allowed: KEY=VALUE with a dotted key, as in optimizer.learning_rate=3e-4")
        return
    if way[0] == "extends":
        problems.add(place, "", "only a file can extend another: write a file with `extends`")
        return
    try:
        node = read_text(value, place.source, problems, lines=False, way=way, allowance=allowance)
    except Unreadable:
        node = Node(None, place, place, broken=True)
    yield from _changes(way, node)


def _changes(way: Way, node: Node) -> Iterator[tuple[Way, Node]]:
    """Take the mappings of the structure apart, down to the values that are replaced whole."""
    if way in STRUCTURE and isinstance(node.value, dict) and not node.broken:
        yield way, dataclasses.replace(node, value={})
        for key, child in node.value.items():
            yield from _changes((*way, key), child)
    else:
        yield way, node


def _apply(root: Node, changes: Sequence[tuple[Way, Node]], problems: Problems) -> None:
    """Put `changes` on `root`, in their order; components that get another name lose their arguments first."""
    wanted = dict(changes)
    for section, (selector, shared) in COMPONENTS.items():
        old, found = root.find((*section, selector))
        new = wanted.get((*section, selector))
        if len(found) == len(section) + 1 and new is not None and new.value != old.value:
            node, _ = root.find(section)
            node.value = {key: child for key, child in node.value.items() if key == selector or key in shared}
    for way, change in changes:
        if way and way in STRUCTURE and change.value == {} and not _is_prefix(way, wanted) and _holds_keys(root, way):
            problems.add(change.place, dotted(way), _EMPTY + _OR_NULL * (way in OPTIONAL))
            continue
        _put(root, way, change, problems)


def _is_prefix(way: Way, ways: Iterable[Way]) -> bool:
    return any(len(other) > len(way) and other[: len(way)] == way for other in ways)


def _holds_keys(root: Node, way: Way) -> bool:
    node, found = root.find(way)
    return len(found) == len(way) and isinstance(node.value, dict) and bool(node.value)


def _put(root: Node, way: Way, change: Node, problems: Problems) -> None:
    if not way:
        return
    node = root
    for depth, key in enumerate(way):
        if isinstance(node.value, list):
            name = dotted(way[:depth])
            problems.add(change.place, dotted(way), f"{name} is a list, and lists are replaced whole: set {name}=[…]")
            return
        if not isinstance(node.value, dict):
            node.value, node.place, node.broken = {}, change.place, False
        if depth < len(way) - 1:
            node = node.value.setdefault(key, Node({}, change.place, change.place))
    old = node.value.get(way[-1])
    if way in STRUCTURE and change.value == {} and old is not None and isinstance(old.value, dict):
        old.place, old.key_place = change.place, change.key_place  # merged: its keys follow
    else:
        node.value[way[-1]] = change
