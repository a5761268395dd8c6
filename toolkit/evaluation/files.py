"""Files that are whole or not there, and the tables of predictions."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import RunFailed
from toolkit.runs.files import atomic_path

if TYPE_CHECKING:
    import numpy as np


def encode(text: str) -> bytes:
    r"""UTF-8; bytes of a file name that are no UTF-8 (Python keeps them as lone surrogates) become `\udcXX`."""
    return text.encode("utf-8", errors="backslashreplace")


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` to `path`; whoever reads meanwhile finds the old file or the new one, never a part.

    Raises:
        RunFailed: the file cannot be written (a full disk, no permission).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        reason = error.strerror or error
        raise RunFailed(f"{path} could not be written ({reason}): free space or choose another folder.") from error


def remove_file(path: Path) -> None:
    """Remove `path`, if there is such a file.

    Raises:
        RunFailed: it cannot be removed.
    """
    if path.exists():
        try:
            path.unlink()
        except OSError as error:
            reason = error.strerror or error
            raise RunFailed(f"{path} could not be replaced ({reason}): allow it or choose another folder.") from error


def strict_json(document: Mapping[str, Any]) -> str:
    """JSON without NaN or Infinity, a line per field and per element of a list, so that a matrix reads as one."""
    lines = []
    for key, value in document.items():
        if isinstance(value, list):
            rows = ",\n    ".join(_json(row) for row in value)
            text = f"[\n    {rows}\n  ]"
        else:
            text = _json(value)
        lines.append(f"  {_json(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def table_text(
    leading: Mapping[str, Sequence[str]],
    probabilities: np.ndarray,
    class_names: Sequence[str],
    *,
    every_class: bool,
) -> str:
    """CSV of predictions: the `leading` columns, then `answer`, `probability`, and with `every_class` a `p(name)` each.

    Strings stand as they are, quoted; probabilities have the seven digits that float32 logits are good for.
    """
    best = probabilities.argmax(axis=1)
    header = [*leading, "answer", "probability"]
    if every_class:
        # Marked as p(…): a class may be called "id" or "answer".
        header += [f"p({name})" for name in class_names]
    text = io.StringIO()
    # All strings are quoted: a carriage return or a leading space in a name then needs no special rule.
    strings = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="")
    strings.writerow(header)
    text.write("\n")
    for i, row in enumerate(probabilities):
        strings.writerow([*(column[i] for column in leading.values()), class_names[best[i]]])
        numbers: Iterable[float] = [row[best[i]], *(row if every_class else ())]
        text.write("".join(f",{number:.7g}" for number in numbers) + "\n")
    return text.getvalue()


def csv_text(columns: Mapping[str, Sequence[str]]) -> str:
    """CSV of columns of strings, which stand as they are, quoted."""
    text = io.StringIO()
    rows = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    rows.writerow(columns)
    rows.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()
