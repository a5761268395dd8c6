"""How the files of a run directory are opened: it may come from somebody else.

The folder that a person names may be reached by a link. Everything within must be its own plain file or folder: a link
could lead anywhere, a pipe would wait forever, a device never ends.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    from pydantic import BaseModel

MAX_ENTRIES = 100_000
MAX_DEPTH = 16
MAX_CONFIG = 256 * 1024  # bytes, as for any config
MAX_EVENTS = 40_000  # of YAML: more than a config may hold
MAX_JSON = 8 * 2**20  # bytes of record.json or of a manifest; what can be read from so many stays below 500 MB
MAX_EVALUATION = 128 * 2**20  # bytes: the confusion matrix of 6,000 classes, three bytes and more to a count
MAX_LISTS = 1_000_000  # and objects, in a JSON file of more bytes: an empty one takes 30 times its text

MAX_PARTS = 10_000  # of one field of record.json

_Split = Literal["train", "validation", "test"]
_State = Literal["training", "trained", "finished", "stopped", "failed"]
_BRING = "use the run directory as train left it"


def check_folder(
    directory: Path, *, files: Collection[str], folders: Collection[str], in_place: Collection[str]
) -> None:
    """Refuse a run directory whose content is not its own.

    Args:
        files: names that must be files, where they exist.
        folders: names that must be folders, where they exist.
        in_place: those of `files` that are written in place, so that a second name (a hard link) would change too.

    Raises:
        ToolkitError: something in it, at any depth, is neither file nor folder, or is not what its name says.
    """
    found, waiting = 0, [(directory, 0)]
    while waiting:
        folder, depth = waiting.pop()
        for entry in _entries(folder):
            found += 1
            if found > MAX_ENTRIES or depth > MAX_DEPTH:
                raise ToolkitError(
                    f"{shown(directory)} holds more than {MAX_ENTRIES:,} files, or folders more than {MAX_DEPTH} deep "
                    "in one another: move what is not the run's own elsewhere."
                )
            kind = _kind(entry)
            if kind == "folder":
                waiting.append((Path(entry.path), depth + 1))
            if depth == 0 and entry.name in (folders if kind == "file" else files):
                raise ToolkitError(f"{shown(entry.path)} is a {kind}, which train does not make it: {_BRING}.")
            if depth == 0 and entry.name in in_place and entry.stat(follow_symlinks=False).st_nlink > 1:
                raise ToolkitError(
                    f"{shown(entry.path)} has a second name elsewhere (a hard link), which would be changed with it: "
                    "copy the run directory and give the copy."
                )


def check_complete(config: Path) -> None:
    """Refuse a run's config that extends a file: a run keeps all of its config, and a path in it leads elsewhere.

    Raises:
        ToolkitError: it does, or it cannot be read.
    """
    import yaml

    text, depth, is_key = read_text(config, limit=MAX_CONFIG), 0, True
    try:
        for event in itertools.islice(yaml.parse(text, Loader=yaml.SafeLoader), MAX_EVENTS):
            if isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.NodeEvent):
                if depth == 1:
                    if is_key and getattr(event, "value", None) == "extends":
                        raise ToolkitError(
                            f"{shown(config)} extends another file, but the config of a run is complete: {_BRING}."
                        )
                    is_key = not is_key
                depth += isinstance(event, yaml.CollectionStartEvent)
            if depth > MAX_DEPTH:
                return  # a config has no such depth, and PyYAML takes ever longer for each level
    except (yaml.YAMLError, ValueError, OverflowError):
        return  # it is no YAML: whoever reads all of the config tells where


def open_file(path: Path, *, what: str = _BRING) -> BinaryIO:
    """Open a plain file for reading; a link in its place is not followed, and nothing is waited for.

    Args:
        what: to do, for the message.

    Raises:
        ToolkitError: there is none, or it cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else error.strerror or error
        raise ToolkitError(f"{shown(path)} cannot be read ({reason}): {what}.") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ToolkitError(f"{shown(path)} is no plain file: {what}.")
    return os.fdopen(handle, "rb")


def read_text(path: Path, *, limit: int = MAX_JSON) -> str:
    """The UTF-8 text of a plain file of at most `limit` bytes.

    Raises:
        ToolkitError: there is none, it is longer, or it is not UTF-8.
    """
    with open_file(path) as file:
        try:
            raw = file.read(limit + 1)
        except OSError as error:
            raise ToolkitError(f"{shown(path)} cannot be read ({error.strerror or error}): {_BRING}.") from error
    if len(raw) > limit:
        raise ToolkitError(f"{shown(path)} has more than {limit:,} bytes: {_BRING}.")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ToolkitError(f"{shown(path)} cannot be read ({error}): {_BRING}.") from error


def read_json(path: Path, *, limit: int = MAX_JSON) -> Any:
    """The JSON value of a plain file of at most `limit` bytes.

    Raises:
        ToolkitError: there is none, it is too long or has too many lists for its length, or it is not JSON.
    """
    text = read_text(path, limit=limit)
    if len(text) > MAX_JSON and text.count("[") + text.count("{") > MAX_LISTS:
        raise ToolkitError(f"{shown(path)} has more than {MAX_LISTS:,} lists and objects: {_BRING}.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of too many digits is a ValueError
        raise ToolkitError(f"{shown(path)} cannot be read ({error}): {_BRING}.") from error


def read_record(path: Path, *, needed: Collection[str] = ()) -> dict[str, Any]:
    """The fields of `record.json`; those that are read again have the types that `train` gave them.

    Args:
        needed: fields that must be there besides the fingerprints.

    Raises:
        ToolkitError: there is no such file, or a field is missing or has another type.
    """
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("fingerprints"), dict):
        raise ToolkitError(f"{shown(path)} holds no fingerprints of the data: {_BRING}.")
    needed = [*needed, *(["epochs"] if record.get("state") == "finished" else [])]
    missing = [name for name in needed if name not in record]
    if missing:
        raise ToolkitError(f"{shown(path)} lacks {', '.join(missing)}: {_BRING}.")
    for name, value in record.items():
        if isinstance(value, dict | list) and len(value) > MAX_PARTS:  # each could be an error that takes memory
            raise ToolkitError(f"{shown(path)}: {shown(name, length=80)} has more than {MAX_PARTS:,} parts: {_BRING}.")
    from pydantic import ValidationError

    try:
        _record_schema().model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = shown(".".join(map(str, first["loc"])), length=80)
        raise ToolkitError(f"{shown(path)}: {place}: {shown(first['msg'])}: {_BRING}.") from error
    return record


@functools.cache
def _record_schema() -> type[BaseModel]:
    from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, create_model

    def on_one_line(text: str) -> str:  # a terminal would act on what cannot be printed
        if not text.isprintable():
            raise ValueError("found control characters")
        return text

    word = Annotated[str, StringConstraints(max_length=200), AfterValidator(on_one_line)]
    number = Annotated[int, Field(ge=0, lt=2**31)]
    return create_model(
        "Record",
        __config__=ConfigDict(strict=True),
        fingerprints=dict[_Split, word],
        state=(_State, "training"),
        diverged=(bool, False),
        epochs=(number, 0),
        total_steps=(Annotated[int, Field(ge=0, lt=2**53)], 0),
        limit=(number | None, None),
        order_version=(number, 0),
        resumed=(list[dict[str, Any]], []),
        commit=(word | None, None),
        python=(word, ""),
        versions=(dict[word, word], {}),
        machine=(dict[word, word | int | float | None], {}),
    )


def shown(text: object, *, length: int | None = None, lines: bool = False) -> str:
    """What others have written, for a message: without what a terminal would act on; one line unless `lines`."""
    kept = "\n" if lines else ""
    plain = "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in str(text)[:length])
    return f"{plain}…" if length is not None and len(str(text)) > length else plain


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(itertools.islice(entries, MAX_ENTRIES + 1))
    except OSError as error:
        raise ToolkitError(f"{shown(folder)} cannot be read ({error.strerror or error}): check its rights.") from error


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    if entry.is_file(follow_symlinks=False):
        return "file"
    what = "a symbolic link" if entry.is_symlink() else "a pipe, a socket or a device"
    raise ToolkitError(
        f"{shown(entry.path)} is {what}, and a run directory may hold only files and folders of its own: put the file "
        "itself in its place, or remove it."
    )
