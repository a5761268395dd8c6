"""Rows of a table that others wrote, CSV or TSV: the wanted columns of each, or why the row cannot be used."""

from __future__ import annotations

import contextlib
import csv as reader
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from toolkit.data.examples import BadExample
from toolkit.data.splits import SHARES, check_shares
from toolkit.errors import ToolkitError, did_you_mean

MAX_BYTES = 2_000_000_000
"""Of one file: its rows are held in memory."""
MAX_LINE = 16_000_000
"""Characters in a line, and in a field, which may go over several: beyond, the file is no table of sentences."""
DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}


@dataclasses.dataclass(frozen=True)
class Form:
    """How files are written.

    Attributes:
        columns: per key of the config the column that it names: its name, or without a header its number, from 1.
        header: whether the first row holds names of columns.
        delimiter: what separates fields; None: what the suffix says.
        quotes: whether "…" holds a field together.
        words: what messages call the field of a column, where that is not the key.
    """

    columns: Mapping[str, str]
    header: bool
    delimiter: str | None
    quotes: bool
    words: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def word(self, key: str) -> str:
        """What messages call the field of a column."""
        return self.words.get(key, key)


@dataclasses.dataclass
class Table:
    """One file: the usable rows, and the others.

    Attributes:
        path: the file.
        fields: of each usable row, one per column of the form, in its order; none is blank.
        ids: `row-<line>`, in other files than train's with the split before it.
        bad: rows that cannot be used.
    """

    path: Path
    fields: list[tuple[str, ...]]
    ids: list[str]
    bad: list[BadExample]

    def refuse_if_empty(self) -> None:
        """Raises ToolkitError where no row can be used."""
        if not self.fields:
            reason = f" ({self.bad[0].id}: {self.bad[0].reason})" if self.bad else ""
            raise ToolkitError(f"{self.path} holds no row that can be used{reason}: fill it or name another file.")


def check(arguments: Mapping[str, Any], columns: Sequence[str]) -> list[tuple[str, str]]:
    """What is wrong with the keys that say how tables are written and split: (key, what is wrong)."""
    problems = check_shares(arguments)
    for split in SHARES:
        if arguments[split] is not None and arguments[f"{split}_path"] is not None:
            problems.append((split, f"{split} has no effect beside {split}_path: remove one of the two"))
    delimiter = arguments["delimiter"]
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        problems.append(("delimiter", f"delimiter is {delimiter!r}: write one character, for instance ';' or \"\\t\""))
    for key in columns:
        column = arguments[key]
        number = column.isascii() and column.isdecimal() and int(column) > 0
        if not arguments["header"] and not number:
            text = f"without a header columns have numbers, from 1, but {key} is '{column}': write for instance '1'"
            problems.append((key, text))
    first, second = columns
    if arguments[first] == arguments[second]:
        text = f"{first} and {second} are both the column '{arguments[second]}': name two columns"
        problems.append((second, text))
    return problems


def read(path: Path, form: Form, split: str) -> Table:
    """Every row of one file that is not blank.

    Raises:
        ToolkitError: the file is no such table, or lacks a column.
    """
    table = Table(path, [], [], [])
    prefix = "row" if split == "train" else f"{split}-row"
    delimiter = form.delimiter or DELIMITERS.get(path.suffix.lower())
    if delimiter is None:
        raise ToolkitError(
            f"{path} ends in neither {', '.join(DELIMITERS)}, so its separator is open: give it in data.delimiter."
        )
    places: tuple[int, ...] | None = None
    width = 0
    for line, row in _rows(path, delimiter, form.quotes):
        if places is None:
            places, width = _places(path, row, form, delimiter), len(row)
            if form.header:
                continue
        name = f"{prefix}-{line}"
        reason = row if isinstance(row, str) else _unusable(row, form, places, width)
        if reason is None:
            table.fields.append(tuple(row[place] for place in places))
            table.ids.append(name)
        else:
            table.bad.append(BadExample(name, reason))
    table.refuse_if_empty()
    return table


def _places(path: Path, first: Sequence[str] | str, form: Form, delimiter: str) -> tuple[int, ...]:
    """Positions of the columns in a row."""
    if isinstance(first, str):
        raise ToolkitError(f"{path}: its first row cannot be read ({first}): save the file as UTF-8 CSV or TSV.")
    if not form.header:
        for key, number in form.columns.items():
            if int(number) > len(first):
                raise ToolkitError(
                    f"data.{key}: {path} has no column {number}, its first row has {len(first)} fields separated by "
                    f"{delimiter!r}: correct the number or set data.delimiter."
                )
        return tuple(int(number) - 1 for number in form.columns.values())
    names = [name.strip() for name in first]
    places = []
    for key, name in form.columns.items():
        if names.count(name) != 1:
            how = f"{names.count(name)} columns '{name}'" if name in names else f"no column '{name}'"
            near = "" if name in names else did_you_mean(name, names)
            raise ToolkitError(
                f"data.{key}: {path} has {how}{near}; its header, separated by {delimiter!r}, has "
                f"{', '.join(map(repr, names))}: name one of them, set data.delimiter, or data.header: false where the "
                "first row is data."
            )
        places.append(names.index(name))
    return tuple(places)


def _unusable(row: Sequence[str], form: Form, places: Sequence[int], width: int) -> str | None:
    """Why a row is left out; None for a good one."""
    if len(row) != width:
        return f"{len(row)} fields instead of {width}"
    for key, place in zip(form.columns, places, strict=True):
        field = row[place]
        if any("\udc80" <= character <= "\udcff" for character in field):
            return f"the {form.word(key)} is not UTF-8"
        if "\0" in field:
            return f"the {form.word(key)} holds a NUL byte"
        if not field.strip():
            return f"the {form.word(key)} is empty"
    return None


def _rows(path: Path, delimiter: str, quotes: bool) -> Iterator[tuple[int, list[str] | str]]:
    """Each row that is not blank, with the line it starts on; a text instead of fields says why it is none."""
    try:
        size = path.stat().st_size
        with path.open("rb") as raw:
            start = raw.read(2)
    except OSError as error:
        raise ToolkitError(f"{path} cannot be read ({error.strerror}): allow it or give another table.") from error
    if size > MAX_BYTES:
        raise ToolkitError(f"{path} has {size:,} bytes, at most {MAX_BYTES:,} are read: give a part of it.")
    if start in (b"\xff\xfe", b"\xfe\xff"):
        raise ToolkitError(f"{path} is UTF-16: save it as UTF-8.")
    # Bytes that are not UTF-8 become lone surrogates, so that one bad row does not end the file.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file, _long_fields():
        rows = reader.reader(
            _lines(path, file),
            delimiter=delimiter,
            quoting=reader.QUOTE_MINIMAL if quotes else reader.QUOTE_NONE,
            strict=True,
        )
        while True:
            line = rows.line_num + 1
            try:
                row: list[str] | str = next(rows)
            except StopIteration:
                return
            except reader.Error as error:
                if rows.line_num > line:
                    raise ToolkitError(
                        f"{path}: a quotation mark opens on line {line} and is not closed properly before line "
                        f"{rows.line_num} ({error}): correct it, or set data.quotes: false where quotation marks are "
                        "ordinary characters."
                    ) from error
                row = str(error)
            if row:
                yield line, row


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    """Lines of bounded length: a file without line breaks would come as a single one."""
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE:
            raise ToolkitError(
                f"{path}: line {number} has {MAX_LINE:,} characters or more, so this is no table of sentences: give a "
                "CSV or TSV file with a row per sentence."
            )
        yield line


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """The csv module's limit of 131,072 characters a field is one setting for the process: raised, then put back."""
    limit = reader.field_size_limit(MAX_LINE)
    try:
        yield
    finally:
        reader.field_size_limit(limit)
