"""Sounds with a table of what is said in them: a column of file names and a column of transcripts."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toolkit.data.contents import unusable
from toolkit.data.examples import BadExample, Examples, Source, shown
from toolkit.data.sources import rows
from toolkit.data.sources.shared import existing, share_out, shares_to_cut
from toolkit.data.spec import SPLITS
from toolkit.data.splits import refuse
from toolkit.errors import ToolkitError
from toolkit.types import Seed, Share


def transcripts(
    *,
    path: str,
    folder: str | None = None,
    file: str = "file",
    text: str = "text",
    header: bool = True,
    delimiter: str | None = None,
    quotes: bool = True,
    suffix: str | None = None,
    validation_path: str | None = None,
    test_path: str | None = None,
    validation: Share | None = None,
    test: Share | None = None,
    split_seed: Seed = 0,
) -> Source:
    """Sounds (WAV, FLAC, OGG) and a UTF-8 table with a row for each; rows that cannot be used are listed as bad.

    Nothing outside of `folder` is read: names and symbolic links that lead out of it make a bad example.

    Args:
        path: the table; without the next two, validation and test are cut from it too.
        folder: where the sounds lie; by default beside the table.
        file: column of the file names, below `folder`: its name, or without a header its number, from 1.
        text: column of the transcripts, in the same way.
        header: whether the first row holds names of columns.
        delimiter: what separates fields; by default a comma in .csv, a tab in .tsv and .tab.
        quotes: whether "…" holds a field together; false where quotation marks are ordinary characters.
        suffix: what file names lack, for instance .wav.
        validation_path: another table of the same form, for validation.
        test_path: another table of the same form, for test.
        validation: share that chooses, 0.1 if not given; only where there is no table for it.
        test: share that is only measured, 0.2 if not given; only where there is no table for it.
        split_seed: another one gives other splits.

    Raises:
        ToolkitError: no such table, folder or column, or no row that can be used.
    """
    given = {"path": path, "validation_path": validation_path, "test_path": test_path}
    wanted = {"validation": validation, "test": test}
    columns = {"file": file, "text": text}
    written = {"header": header, "delimiter": delimiter, "quotes": quotes}
    refuse(_check({**columns, **written, **given, **wanted, "split_seed": split_seed, "suffix": suffix}))
    form = rows.Form(columns, header, delimiter, quotes, words={"file": "file name", "text": "transcript"})
    places = {
        split: existing(place, f"data.{key}", folder=False)
        for split, (key, place) in zip(SPLITS, given.items(), strict=True)
        if place is not None
    }
    base = existing(folder, "data.folder", folder=True) if folder is not None else None
    seen: dict[Path, str] = {}
    bases = {split: base or place.parent for split, place in places.items()}
    root = Path(os.path.commonpath(list(bases.values())))  # ids tell files of several folders apart
    tables = {
        split: _Spoken.of(rows.read(place, form, split), bases[split], root, suffix or "", seen)
        for split, place in places.items()
    }
    origin = f"transcripts {places['train']}"
    shares = shares_to_cut(wanted, tables, split_seed=split_seed, where=origin)
    splits: dict[str, Examples] = {}
    for split, table in tables.items():
        if split == "train":
            splits |= share_out(
                table.files,
                table.texts,
                table.ids,
                shares,
                split_seed=split_seed,
                class_names=(),
                where=origin,
                bad=tuple(table.bad),
            )
        else:
            splits[split] = Examples(table.files, table.texts, table.ids, tuple(table.bad))
    return Source("audio", (), {split: splits[split] for split in SPLITS}, origin=origin, task="transcription")


def _check(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    problems = rows.check(arguments, ("file", "text"))
    suffix = arguments["suffix"]
    if suffix is not None and (not suffix.startswith(".") or "/" in suffix or "\0" in suffix):
        problems.append(("suffix", f"suffix is {suffix!r}: write what follows the names, with its dot, such as .wav"))
    return problems


transcripts.check = _check  # type: ignore[attr-defined]


@dataclasses.dataclass
class _Spoken:
    """The rows of one table whose sound is there, and the others."""

    files: list[Path]
    texts: list[str]
    ids: list[str]
    bad: list[BadExample]

    @classmethod
    def of(cls, table: rows.Table, folder: Path, root: Path, suffix: str, seen: dict[Path, str]) -> _Spoken:
        """Ids are paths below `root`, and names are below `folder`.

        `seen` maps files to the rows that name them: one in two splits would be a test on what was trained with.
        """
        spoken = cls([], [], [], list(table.bad))
        for row, sound, text, reason in _sounds(table, folder, suffix):
            earlier = seen.setdefault(sound, row)
            if reason is None and earlier != row:
                reason = f"the file '{shown(sound.name)}' has a row already, {earlier}"
            if reason is None:
                spoken.files.append(sound)
                spoken.texts.append(text)
                spoken.ids.append(sound.relative_to(root).as_posix())
            else:
                spoken.bad.append(BadExample(row, reason))
        if not spoken.files:
            first = (spoken.bad[len(table.bad) :] or spoken.bad)[0]
            again = "has a row already" in first.reason
            todo = "give another table." if again else "correct data.folder, data.file or data.suffix."
            raise ToolkitError(f"{table.path} names no sound that can be used ({first.id}: {first.reason}): {todo}")
        return spoken


def _sounds(table: rows.Table, folder: Path, suffix: str) -> Iterator[tuple[str, Path, str, str | None]]:
    """Of each row its id, sound and transcript, and why the sound is left out unread."""
    for row, (name, text) in zip(table.ids, table.fields, strict=True):
        # Without what leads nowhere (./a.wav, x/../a.wav), so that a file has one name.
        sound = Path(os.path.normpath(folder / (name.strip() + suffix)))
        yield row, sound, text, _unusable(folder, sound)


def _unusable(folder: Path, sound: Path) -> str | None:
    """Why a sound is left out unread; None for an ordinary one."""
    name = shown(sound.name)
    try:
        # Links on the way count, too: the whole path must stay within, as it is written and where it leads.
        if not (sound.is_relative_to(folder) and Path(os.path.realpath(sound)).is_relative_to(folder)):
            return f"the file '{name}' lies outside of {folder}"
        if not sound.is_symlink() and not sound.exists():
            return f"there is no file '{name}' in {sound.parent}"
        reason = unusable(folder, sound)
    except OSError as error:
        reason = error.strerror or str(error)
    return None if reason is None else f"the file '{name}': {reason}"
