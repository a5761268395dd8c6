"""Tables of sentences: a text column and a label column, CSV or TSV."""

from __future__ import annotations

import contextlib
import csv as reader
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from toolkit.data.examples import BadExample, Examples, Source
from toolkit.data.sources.shared import at_least_two, existing, share_out, shares_to_cut
from toolkit.data.spec import SPLITS
from toolkit.data.splits import SHARES, check_shares, in_order, refuse
from toolkit.errors import ToolkitError, did_you_mean
from toolkit.types import Seed, Share

MAX_BYTES = 2_000_000_000
"""Of one file: its texts are held in memory."""
MAX_LINE = 16_000_000
"""Characters in a line, and in a field, which may go over several: beyond, the file is no table of sentences."""
DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}


def csv(
    *,
    path: str,
    text: str = "text",
    label: str = "label",
    header: bool = True,
    delimiter: str | None = None,
    quotes: bool = True,
    validation_path: str | None = None,
    test_path: str | None = None,
    validation: Share | None = None,
    test: Share | None = None,
    split_seed: Seed = 0,
) -> Source:
    """Sentences in a UTF-8 table, a row each; rows that cannot be used are listed as bad, with their line.

    Args:
        path: the file; without the next two, validation and test are cut from it too.
        text: column of the text: its name, or without a header its number, from 1.
        label: column of the label, in the same way.
        header: whether the first row holds names of columns.
        delimiter: what separates fields; by default a comma in .csv, a tab in .tsv and .tab.
        quotes: whether "…" holds a field together; false where quotation marks are ordinary characters.
        validation_path: another file of the same form, for validation.
        test_path: another file of the same form, for test.
        validation: share of each class that chooses, 0.1 if not given; only where there is no file for it.
        test: share of each class that is only measured, 0.2 if not given; only where there is no file for it.
        split_seed: another one gives other splits.

    Raises:
        ToolkitError: no such file or column, one class only, too few rows of a class, an unknown class in another file.
    """
    form = _Form(text, label, header, delimiter, quotes)
    given = {"path": path, "validation_path": validation_path, "test_path": test_path}
    wanted = {"validation": validation, "test": test}
    refuse(_check({**dataclasses.asdict(form), **given, **wanted, "split_seed": split_seed}))
    tables = {
        split: _Table.read(existing(file, f"data.{key}", folder=False), form, split)
        for split, (key, file) in zip(SPLITS, given.items(), strict=True)
        if file is not None
    }
    origin = f"csv {tables['train'].path}"
    class_names = in_order(tables["train"].labels)
    at_least_two(class_names, f"column '{label}' of {origin}", "check data.label, or add rows of another class")
    shares = shares_to_cut(wanted, tables, split_seed=split_seed, where=origin)
    splits: dict[str, Examples] = {}
    for split, table in tables.items():
        numbers = table.numbers(class_names, label)
        if split == "train":
            splits |= share_out(
                table.texts,
                numbers,
                table.ids,
                shares,
                split_seed=split_seed,
                class_names=class_names,
                where=origin,
                bad=tuple(table.bad),
            )
        else:
            splits[split] = table.examples(numbers)
    return Source("text", class_names, {split: splits[split] for split in SPLITS}, origin=origin)


def _check(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    problems = check_shares(arguments)
    for split in SHARES:
        if arguments[split] is not None and arguments[f"{split}_path"] is not None:
            problems.append((split, f"{split} has no effect beside {split}_path: remove one of the two"))
    delimiter = arguments["delimiter"]
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        problems.append(("delimiter", f"delimiter is {delimiter!r}: write one character, for instance ';' or \"\\t\""))
    for key in ("text", "label"):
        column = arguments[key]
        number = column.isascii() and column.isdecimal() and int(column) > 0
        if not arguments["header"] and not number:
            text = f"without a header columns have numbers, from 1, but {key} is '{column}': write for instance '1'"
            problems.append((key, text))
    if arguments["text"] == arguments["label"]:
        problems.append(("label", f"text and label are both the column '{arguments['label']}': name two columns"))
    return problems


csv.check = _check  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class _Form:
    """How the files are written."""

    text: str
    label: str
    header: bool
    delimiter: str | None
    quotes: bool


@dataclasses.dataclass
class _Table:
    """The usable rows of one file, and the others."""

    path: Path
    texts: list[str]
    labels: list[str]
    ids: list[str]
    bad: list[BadExample]

    @classmethod
    def read(cls, path: Path, form: _Form, split: str) -> _Table:
        table = cls(path, [], [], [], [])
        prefix = "row" if split == "train" else f"{split}-row"
        delimiter = form.delimiter or DELIMITERS.get(path.suffix.lower())
        if delimiter is None:
            raise ToolkitError(
                f"{path} ends in neither {', '.join(DELIMITERS)}, so its separator is open: give it in data.delimiter."
            )
        rows = _rows(path, delimiter, form.quotes)
        columns: tuple[int, int] | None = None
        width = 0
        for line, row in rows:
            if columns is None:
                columns, width = _columns(path, row, form, delimiter), len(row)
                if form.header:
                    continue
            table._add(f"{prefix}-{line}", row, columns, width)
        if not table.texts:
            reason = f" ({table.bad[0].id}: {table.bad[0].reason})" if table.bad else ""
            raise ToolkitError(f"{path} holds no row that can be used{reason}: fill it or name another file.")
        return table

    def _add(self, name: str, row: Sequence[str] | str, columns: tuple[int, int], width: int) -> None:
        reason = row if isinstance(row, str) else _unusable(row, columns, width)
        if reason is not None:
            self.bad.append(BadExample(name, reason))
            return
        self.texts.append(row[columns[0]])
        self.labels.append(row[columns[1]].strip())
        self.ids.append(name)

    def numbers(self, class_names: Sequence[str], column: str) -> list[int]:
        number = {name: i for i, name in enumerate(class_names)}
        for name, label in zip(self.ids, self.labels, strict=True):
            if label not in number:
                raise ToolkitError(
                    f"{self.path}, {name}: the label '{label}'{did_you_mean(label, class_names)} does not occur in "
                    f"data.path, which has {', '.join(class_names[:20])}: correct column '{column}'."
                )
        return [number[label] for label in self.labels]

    def examples(self, numbers: Sequence[int]) -> Examples:
        import numpy as np

        return Examples(self.texts, np.asarray(numbers, np.int64), self.ids, tuple(self.bad))


def _columns(path: Path, first: Sequence[str] | str, form: _Form, delimiter: str) -> tuple[int, int]:
    """Positions of text and label."""
    if isinstance(first, str):
        raise ToolkitError(f"{path}: its first row cannot be read ({first}): save the file as UTF-8 CSV or TSV.")
    if not form.header:
        for key, number in (("text", form.text), ("label", form.label)):
            if int(number) > len(first):
                raise ToolkitError(
                    f"data.{key}: {path} has no column {number}, its first row has {len(first)} fields separated by "
                    f"{delimiter!r}: correct the number or set data.delimiter."
                )
        return int(form.text) - 1, int(form.label) - 1
    names = [name.strip() for name in first]
    places = []
    for key, name in (("text", form.text), ("label", form.label)):
        if names.count(name) != 1:
            how = f"{names.count(name)} columns '{name}'" if name in names else f"no column '{name}'"
            near = "" if name in names else did_you_mean(name, names)
            raise ToolkitError(
                f"data.{key}: {path} has {how}{near}; its header, separated by {delimiter!r}, has "
                f"{', '.join(map(repr, names))}: name one of them, set data.delimiter, or data.header: false where the "
                "first row is data."
            )
        places.append(names.index(name))
    return places[0], places[1]


def _unusable(row: Sequence[str], columns: tuple[int, int], width: int) -> str | None:
    """Why a row is left out; None for a good one."""
    if len(row) != width:
        return f"{len(row)} fields instead of {width}"
    for name, column in zip(("text", "label"), columns, strict=True):
        field = row[column]
        if any("\udc80" <= character <= "\udcff" for character in field):
            return f"the {name} is not UTF-8"
        if "\0" in field:
            return f"the {name} holds a NUL byte"
        if not field.strip():
            return f"the {name} is empty"
    return None


def _rows(path: Path, delimiter: str, quotes: bool) -> Iterator[tuple[int, list[str] | str]]:
    """Each row that is not blank, with the line it starts on; a text instead of fields says why it is none."""
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ToolkitError(f"{path} has {size:,} bytes, at most {MAX_BYTES:,} are read: give a part of it.")
    with path.open("rb") as raw:
        if raw.read(2) in (b"\xff\xfe", b"\xfe\xff"):
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
