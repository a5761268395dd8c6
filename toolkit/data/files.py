"""Files and texts without labels, for predict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data import audio, image, reading, text
from toolkit.data.batches import unlabelled_batches
from toolkit.data.contents import read_regular, unusable, walk
from toolkit.data.examples import BadExample, Examples, shown
from toolkit.data.image import Unreadable
from toolkit.data.reading import Reading, Report
from toolkit.data.spec import DataSpec
from toolkit.data.tables import MEMORY_SHARE, ImageTable, RaggedTable, available_memory
from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    import tensorflow as tf

_SUFFIXES = {"image": image.SUFFIXES, "audio": audio.SUFFIXES, "text": text.SUFFIXES}


@dataclasses.dataclass(frozen=True, eq=False)
class Unlabelled:
    """Examples to predict: row i of the table is the one named `ids[i]`; `bad` could not be read."""

    spec: DataSpec
    table: ImageTable | RaggedTable
    ids: Sequence[str]
    bad: tuple[BadExample, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, batch_size: int) -> tf.data.Dataset:
        """Inputs only, in the order of `ids`, nothing left out."""
        return unlabelled_batches(self.table, self.spec, batch_size=batch_size)


def read_files(spec: DataSpec, paths: Sequence[Path], report: Report = lambda line: None) -> Unlabelled:
    """Pictures, sounds or (one per `.txt` file) texts. A folder stands for what it holds at any depth, sorted.

    Links in a folder that lead out of it are listed as bad; a link that is itself one of `paths` is followed.

    Raises:
        ToolkitError: a path does not exist, a folder holds no such file, or none can be read.
    """
    bad: list[BadExample] = []
    files = [file for path in paths for file in _expand(Path(path), spec.kind, bad)]
    ids = [str(file) for file in files]
    if spec.kind == "text":
        contents = []
        for file, id in zip(files, ids, strict=True):
            try:
                content = read_regular(file, text.MAX_BYTES)
                contents.append((id, content.decode("utf-8-sig")))
            except UnicodeDecodeError:
                bad.append(BadExample(id, "not UTF-8 text"))
            except (OSError, Unreadable) as error:
                bad.append(BadExample(id, getattr(error, "strerror", None) or str(error)))
        return _texts(spec, [id for id, _ in contents], [content for _, content in contents], tuple(bad), report)
    examples = _examples(ids, files, tuple(bad))
    if spec.kind == "image":
        decoding = reading.image_decoding([examples], *reading.image_shape(spec))
    else:
        decoding, _ = reading.audio_decoding([examples], spec.sample_rate, None)
    limit = int(MEMORY_SHARE * available_memory())
    to_disk = reading.estimate_bytes([examples], decoding) > limit
    read = reading.read_table("files", examples, decoding, to_disk=to_disk, report=report, memory_limit=limit)
    return _unlabelled(spec, examples, read)


def read_texts(spec: DataSpec, texts: Sequence[str], report: Report = lambda line: None) -> Unlabelled:
    """Texts given as they are; their ids are "1", "2", ….

    Raises:
        ToolkitError: the model does not take text, or no text holds a word.
    """
    if spec.kind != "text":
        raise ToolkitError(f"the model takes {spec.kind} data, not text: give it files.")
    return _texts(spec, [str(i) for i in range(1, len(texts) + 1)], texts, (), report)


def _texts(
    spec: DataSpec, ids: Sequence[str], texts: Sequence[str], bad: tuple[BadExample, ...], report: Report
) -> Unlabelled:
    examples = _examples(ids, texts, bad)
    encode: Callable[[Any], Any] = lambda values: text.encode(values, spec.vocabulary, spec.lengths[-1])  # noqa: E731
    return _unlabelled(spec, examples, reading.read_texts("texts", examples, encode, report))


def _examples(ids: Sequence[str], values: Sequence[Any], bad: tuple[BadExample, ...] = ()) -> Examples:
    return Examples(values, np.zeros(len(ids), np.int64), ids, bad)


def _unlabelled(spec: DataSpec, examples: Examples, read: Reading) -> Unlabelled:
    bad = (*examples.bad, *read.bad)
    if not len(read.kept):
        first = f", the first is {shown(bad[0].id)} ({shown(bad[0].reason)})" if bad else ""
        raise ToolkitError(f"there is nothing to predict: {len(bad)} examples cannot be read{first}: give others.")
    return Unlabelled(spec, read.table, [examples.ids[i] for i in read.kept], bad)


def _expand(path: Path, kind: str, bad: list[BadExample]) -> list[Path]:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # told below
    except OSError as error:
        raise ToolkitError(f"{shown(str(path))} cannot be read ({error.strerror}): give files or folders.") from error
    if path.is_file():
        return [path]
    if path.exists() and not path.is_dir():
        raise ToolkitError(f"{path} is no regular file: give files or folders.")
    if not path.is_dir():
        raise ToolkitError(f"{path} does not exist: give files or folders that do.")

    def stop(error: OSError) -> None:
        raise ToolkitError(f"{error.filename} cannot be read ({error.strerror}): allow it or give another folder.")

    suffixes, root, found = _SUFFIXES[kind], path.resolve(), []
    for file in sorted(walk(path, stop)):
        if file.suffix.lower() not in suffixes:
            continue
        reason = unusable(root, file)
        if reason is None:
            found.append(file)
        else:
            bad.append(BadExample(str(file), reason))
    if not found and not bad:
        raise ToolkitError(f"the folder {path} holds no {kind} files ({', '.join(suffixes)}): give another one.")
    return found
