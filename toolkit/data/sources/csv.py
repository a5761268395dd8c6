"""Tables of sentences: a text column and a label column, CSV or TSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.data.examples import Examples, Source
from toolkit.data.sources import rows
from toolkit.data.sources.shared import at_least_two, existing, share_out, shares_to_cut
from toolkit.data.spec import SPLITS
from toolkit.data.splits import in_order, refuse
from toolkit.errors import ToolkitError, did_you_mean
from toolkit.types import Seed, Share


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
    import numpy as np

    given = {"path": path, "validation_path": validation_path, "test_path": test_path}
    wanted = {"validation": validation, "test": test}
    columns = {"text": text, "label": label}
    written = {"header": header, "delimiter": delimiter, "quotes": quotes}
    refuse(_check({**columns, **written, **given, **wanted, "split_seed": split_seed}))
    form = rows.Form(columns, header, delimiter, quotes)
    tables = {
        split: rows.read(existing(file, f"data.{key}", folder=False), form, split)
        for split, (key, file) in zip(SPLITS, given.items(), strict=True)
        if file is not None
    }
    labels = {split: [fields[1].strip() for fields in table.fields] for split, table in tables.items()}
    origin = f"csv {tables['train'].path}"
    class_names = in_order(labels["train"])
    at_least_two(class_names, f"column '{label}' of {origin}", "check data.label, or add rows of another class")
    shares = shares_to_cut(wanted, tables, split_seed=split_seed, where=origin)
    splits: dict[str, Examples] = {}
    for split, table in tables.items():
        texts = [fields[0] for fields in table.fields]
        numbers = _numbers(table, labels[split], class_names, label)
        bad = tuple(table.bad)
        if split == "train":
            splits |= share_out(
                texts,
                numbers,
                table.ids,
                shares,
                split_seed=split_seed,
                class_names=class_names,
                where=origin,
                bad=bad,
            )
        else:
            splits[split] = Examples(texts, np.asarray(numbers, np.int64), table.ids, bad)
    return Source("text", class_names, {split: splits[split] for split in SPLITS}, origin=origin)


def _check(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    return rows.check(arguments, ("text", "label"))


csv.check = _check  # type: ignore[attr-defined]


def _numbers(table: rows.Table, labels: Sequence[str], class_names: Sequence[str], column: str) -> list[int]:
    """Positions in `class_names`."""
    number = {name: i for i, name in enumerate(class_names)}
    for name, label in zip(table.ids, labels, strict=True):
        if label not in number:
            raise ToolkitError(
                f"{table.path}, {name}: the label '{label}'{did_you_mean(label, class_names)} does not occur in "
                f"data.path, which has {', '.join(class_names[:20])}: correct column '{column}'."
            )
    return [number[label] for label in labels]
