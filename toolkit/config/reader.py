"""YAML text to a tree of nodes: the plain part of YAML 1.2, every value with its line.

PyYAML's parser reads the syntax; what a scalar means is decided here, by YAML 1.2's core schema. Tags, anchors,
aliases, merge keys and directives are refused, so that nothing in a file can build an object or grow when read.
"""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from pathlib import Path
from typing import Any, NoReturn

import yaml

from toolkit.config.nodes import Node, Place, Problems, dotted, shorten

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_VALUES = 5_000
MAX_DIGITS = 400  # Python itself stops at 4,300, with an error

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
# The last three of the first group would count as line breaks in YAML 1.1 and shift every line number below them.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_SHARE = "remove it; `extends` shares values between files"
_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclasses.dataclass
class Allowance:
    """What a config, all that it extends and all `--set` arguments may still hold: each file could be small."""

    size: int = MAX_BYTES
    values: int = MAX_VALUES


class Unreadable(Exception):
    """The text cannot be read to its end; the reason has been noted among the problems."""


def resolve_scalar(text: str) -> Any:
    """What an unquoted scalar means: YAML 1.2's core schema, nothing of YAML 1.1 (`no`, `010`, `2:30`, `1_000`).

    Raises:
        ValueError: a whole number too long to be meant.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        if len(text) > MAX_DIGITS:
            raise ValueError(f"found a number of {len(text)} digits, allowed: at most {MAX_DIGITS}")
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def is_readable(path: Path) -> bool:
    """Whether something other than a folder stands at `path`; False too for what can be no path (too long, NUL)."""
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def is_regular(path: Path) -> bool:
    """Whether a regular file stands at `path` or behind a link there; not a device or pipe, which may never end."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def read_file(
    path: str | os.PathLike[str],
    problems: Problems,
    allowance: Allowance | None = None,
    *,
    wanted: str = "a mapping with the keys seed, data, model, optimizer, training",
) -> Node:
    """Read a config file: one document, a mapping. What it holds is taken off the `allowance`.

    Args:
        wanted: what it should hold, for the message where it is no mapping.

    Raises:
        Unreadable: no such file, not UTF-8, not YAML …; `problems` has the reason.
    """
    place = Place(os.fspath(path))
    allowance = allowance or Allowance()
    # Some files of the system (/proc/kmsg) are regular and make a reader wait; a pipe that a person gives may do so.
    opener = _open_at_once if is_regular(Path(path)) else None
    try:
        with open(path, "rb", opener=opener) as file:  # Path.open takes no opener
            raw = file.read(allowance.size + 1) or b""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        problems.add(place, "", f"the file cannot be read ({reason}): check the path")
        raise Unreadable from error
    if len(raw) > allowance.size:
        found = f"more than {MAX_BYTES // 1024} KiB stand in this file and those that extend it"
        problems.add(place, "", f"{found}: a config is a short YAML file")
        raise Unreadable
    allowance.size -= len(raw)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        found = f"found the byte 0x{raw[error.start]:02x}, which is not UTF-8: save the file as UTF-8"
        problems.add(Place(place.source, line), "", found)
        raise Unreadable from error
    root = read_text(text, place.source, problems, allowance=allowance)
    if not isinstance(root.value, dict):
        text = "the file is empty" if root.value is None else f"found {root.shown()}"
        problems.add(root.place, "", f"{text}, allowed: {wanted}")
        raise Unreadable
    return root


def read_text(
    text: str,
    source: str,
    problems: Problems,
    *,
    lines: bool = True,
    way: tuple[str, ...] = (),
    allowance: Allowance | None = None,
) -> Node:
    """Read YAML text of one value.

    Args:
        text: the YAML.
        source: the file's name, or the `--set` argument.
        problems: takes what is wrong.
        lines: False for a `--set` argument, whose places have no line.
        way: the keys that lead to the value, for messages.
        allowance: how many values there may be; those that are found are taken off.

    Raises:
        Unreadable: not YAML, or beyond the part of it that a config may use; `problems` has the reason.
    """
    match = _UNPRINTABLE.search(text)
    if match:
        line = len(re.findall(r"\r\n|\r|\n", text[: match.start()])) + 1
        found = f"found the control character U+{ord(match[0]):04X}: remove it"
        problems.add(Place(source, line if lines else 0), dotted(way), found)
        raise Unreadable
    return _Reader(text, source, problems, allowance or Allowance(), lines=lines, way=way).document()


class _Reader:
    """Builds nodes from the parser's events."""

    def __init__(
        self, text: str, source: str, problems: Problems, allowance: Allowance, *, lines: bool, way: tuple[str, ...]
    ) -> None:
        self._parser = yaml.SafeLoader(text)
        self._source, self._problems, self._lines = source, problems, lines
        self._way: list[str | int] = list(way)
        self._allowance = allowance

    def document(self) -> Node:
        """The root of the only document."""
        try:
            return self._document()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            reason = " ".join(filter(None, (error.context, error.problem)))
            self._stop(self._place(mark), f"this is not YAML ({reason}): check indentation, colons and quotes")
        except (yaml.YAMLError, ValueError, OverflowError) as error:  # the parser converts some escapes unchecked
            self._stop(self._place(None), f"this is not YAML ({error}): check escapes and directives")

    def _document(self) -> Node:
        self._parser.get_event()  # start of the stream
        if self._parser.check_event(yaml.StreamEndEvent):
            place = self._place(None)
            return Node(None, place, place)
        start = self._parser.get_event()
        if start.version or start.tags:
            self._stop(self._place(start.start_mark), "found a directive (%YAML, %TAG): remove it")
        root = self._node(None)
        self._parser.get_event()  # end of the document
        if not self._parser.check_event(yaml.StreamEndEvent):
            mark = self._parser.peek_event().start_mark
            self._stop(self._place(mark), "a second document begins here: keep one document per file")
        return root

    def _node(self, key_place: Place | None) -> Node:
        event = self._parser.get_event()
        place = self._place(event.start_mark)
        self._allowance.values -= 1
        if self._allowance.values < 0:
            self._stop(place, f"more than {MAX_VALUES} values stand up to here: a config is a short YAML file")
        node = Node(None, place, key_place or place)
        if isinstance(event, yaml.AliasEvent):
            alias = shorten(event.anchor or "")
            self._complain(place, f"found the alias *{alias}: write the value out, or share it through `extends`")
            node.broken = True
            return node
        if event.anchor is not None:
            self._complain(place, f"found the anchor &{shorten(event.anchor)}: {_SHARE}")
            node.broken = True
        if event.tag is not None:
            self._complain(place, f"found the tag {_tag(event.tag)}: remove it; tags are not allowed")
            node.broken = True
        if isinstance(event, yaml.ScalarEvent):
            self._fill_scalar(node, event)
        elif len(self._way) >= MAX_DEPTH:
            self._stop(place, f"more than {MAX_DEPTH} levels stand inside one another: a config needs five")
        elif isinstance(event, yaml.SequenceStartEvent):
            node.value = self._entries()
        else:
            node.value = self._mapping()
        return node

    def _fill_scalar(self, node: Node, event: yaml.ScalarEvent) -> None:
        node.value = node.text = event.value
        try:
            if event.style is None:
                node.value = resolve_scalar(event.value)
            if isinstance(node.value, str):
                node.value = expand(node.value, self._allowance)
        except ValueError as error:
            self._complain(node.place, str(error))
            node.broken = True

    def _entries(self) -> list[Node]:
        nodes: list[Node] = []
        while not self._parser.check_event(yaml.SequenceEndEvent):
            self._way.append(len(nodes))
            nodes.append(self._node(None))
            self._way.pop()
        self._parser.get_event()
        return nodes

    def _mapping(self) -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        while not self._parser.check_event(yaml.MappingEndEvent):
            key = self._key()
            self._way.append(key.value if isinstance(key.value, str) else shorten(key.text or "?"))
            node = self._node(key.place)
            if isinstance(key.value, str) and not key.broken:
                first = nodes.setdefault(key.value, node)
                if first is not node:
                    line = f" (first in line {first.key_place.line})" if self._lines else ""
                    self._complain(key.place, f"the key stands here a second time{line}: remove one of the two")
            self._way.pop()
        self._parser.get_event()
        return nodes

    def _key(self) -> Node:
        """A key; `broken` where it is none that a config may use."""
        event = self._parser.get_event()
        place = self._place(event.start_mark)
        if isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):  # first: what is in it follows
            self._stop(place, "found a list or a mapping as a key, allowed: a word")
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            anchor = shorten(event.anchor or "")
            self._complain(place, f"found &{anchor} or *{anchor} at a key: write the key out")
            return Node(None, place, place, broken=True)
        if event.tag is not None:
            self._complain(place, f"found the tag {_tag(event.tag)}: remove it; tags are not allowed")
            return Node(None, place, place, broken=True)
        node = Node(event.value, place, place, text=event.value)
        if event.style is None and event.value == "<<":
            self._complain(place, f"found the merge key <<: {_SHARE}")
            node.broken = True
        elif event.style is None and not isinstance(resolve_scalar(event.value[:MAX_DIGITS]), str):
            self._complain(place, f"found the key {shorten(event.value) or 'nothing'}, allowed: a word, not a number")
            node.broken = True
        elif _UNPRINTABLE.search(event.value):
            self._complain(place, f"found the key {shorten(ascii(event.value))}: remove its control characters")
            node.broken = True
        return node

    def _place(self, mark: yaml.Mark | None) -> Place:
        return Place(self._source, (mark.line + 1 if mark else 1) if self._lines else 0)

    def _complain(self, place: Place, text: str) -> None:
        self._problems.add(place, dotted(self._way), text)

    def _stop(self, place: Place, text: str) -> NoReturn:
        self._complain(place, " ".join(text.split()))
        raise Unreadable


def _tag(tag: str) -> str:
    """As a file has it: `!!str`, where PyYAML has the full name."""
    return shorten(re.sub("^tag:yaml.org,2002:", "!!", tag))


def expand(text: str, allowance: Allowance) -> str:
    """Put environment variables in: `${NAME}`, `${NAME:default}`; `$${` is a plain `${`.

    A variable that is empty counts as unset. What variables bring is taken off the `allowance`.

    Raises:
        ValueError: a variable without default is not set, its name or a brace is wrong, or the text that results
            is too long or holds control characters.
    """

    def value(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        name, colon, default = (match[1] or "").partition(":")
        if not match[2] or not _VARIABLE_NAME.fullmatch(name):
            raise ValueError(
                f"found {shorten(match[0])!r}, allowed: ${{NAME}} or ${{NAME:default}}; a plain ${{ is written $${{"
            )
        found = os.environ.get(name) or (default if colon else None)
        if found is None:
            shown = shorten(name)
            raise ValueError(f"the environment variable {shown} is not set: set it, or give a default, ${{{shown}:…}}")
        if len(found) > allowance.size:
            raise ValueError(f"the environment variables bring more than {MAX_BYTES // 1024} KiB: set shorter ones")
        allowance.size -= len(found)
        return found

    expanded = _VARIABLE.sub(value, text)
    if _UNPRINTABLE.search(expanded):
        raise ValueError(f"found {shorten(ascii(expanded))}, allowed: text without control characters")
    return expanded
