"""Reading prepared TFDS data: chosen positions and nothing else, images left encoded, sounds as int16."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.data import audio
from toolkit.data.examples import BadExample, Examples
from toolkit.data.selections import field_pattern
from toolkit.data.sources.spool import Spool, Spooled
from toolkit.data.sources.tfrecord import whole_records
from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    import numpy as np

    Positions = np.ndarray[Any, np.dtype[np.int64]]

# Examples that are parsed at once.
BATCH = 512
# Where a row says what is wrong with its record, in place of features: no feature of a dataset has this name.
DAMAGE = "\0damage"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A prepared dataset and what was decided about it."""

    builder: Any
    origin: str
    counts: Mapping[str, int]
    input: str
    label: str
    kind: Literal["image", "audio", "text"]
    sample_rate: int | None
    channels: int | None
    file_name: str | None  # the feature that holds file names
    class_names: tuple[str, ...]  # empty where labels are plain integers or transcripts
    transcribed: bool  # labels are texts: what is said in a sound


@dataclasses.dataclass(frozen=True)
class _Row:
    """One example, with its value or where that lies.

    `reason` says why it cannot be used, and then value and label may be missing.
    """

    value: Any
    label: int | str | None
    name: str
    tfds_id: str
    reason: str | None


def records(dataset: Dataset, pattern: str) -> dict[str, list[dict[str, str]]]:
    """Fields of the file names in the split that selectors choose from: `train`, or the only one.

    Raises:
        ToolkitError: the dataset has no file names, or one does not fit the pattern.
    """
    if dataset.file_name is None:
        raise ToolkitError(
            f"{dataset.origin} has no file names, so nothing can be selected by their fields: use slices."
        )
    if "train" not in dataset.counts and len(dataset.counts) > 1:
        raise ToolkitError(
            f"{dataset.origin} has no split 'train' to select from ({', '.join(dataset.counts)}): use slices."
        )
    split = "train" if "train" in dataset.counts else next(iter(dataset.counts))
    expression, found = field_pattern(pattern), []
    for row in _iterate(dataset, split, 0, dataset.counts[split], [dataset.file_name]):
        if DAMAGE in row:
            raise ToolkitError(
                f"{row['tfds_id']} of {dataset.origin} cannot be read ({row[DAMAGE]}), so nothing can be selected by "
                f"its file name: {_repair(dataset)}."
            )
        name = row[dataset.file_name].decode(errors="backslashreplace")
        match = expression.fullmatch(name.rpartition("/")[2])
        if match is None:
            raise ToolkitError(
                f"data.fields: '{name}' of {dataset.origin} does not fit '{pattern}': correct the pattern."
            )
        found.append(match.groupdict())
    return {split: found}


def read(
    dataset: Dataset, positions: Mapping[str, Mapping[str, Positions]]
) -> tuple[tuple[str, ...], dict[str, Examples]]:
    """Class names and the examples of our splits, each read once.

    Args:
        dataset: what to read.
        positions: per split of ours, positions in the splits of the dataset; disjoint.

    Raises:
        ToolkitError: a file is missing, cut short, or broken so that its records cannot be told apart.
    """
    import numpy as np

    rows: dict[str, list[_Row]] = {name: [] for name in positions}
    spool = Spool()
    wanted = [dataset.input, dataset.label, *([dataset.file_name] if dataset.file_name else [])]
    for split, count in dataset.counts.items():
        owner = np.full(count, "", dtype=object)
        for name, parts in positions.items():
            if split in parts:
                owner[parts[split]] = name
        for start, stop in _runs(owner != ""):
            for position, row in enumerate(_iterate(dataset, split, start, stop, wanted), start):
                read = _row(dataset, row)
                rows[owner[position]].append(dataclasses.replace(read, value=spool.add(read.value)))
    class_names, label = _classes(dataset, rows)
    names = [row.name for part in rows.values() for row in part if row.label is not None]
    # File names say more, but only some datasets make them unique over their splits.
    named = all(names) and len(set(names)) == len(names)
    return class_names, {name: _examples(part, spool, named, label) for name, part in rows.items()}


def _examples(
    rows: Sequence[_Row], spool: Spool, named: bool, labels: Callable[[Sequence[Any]], Positions | Sequence[str]]
) -> Examples:
    def id(row: _Row) -> str:
        return row.name if named and row.name else row.tfds_id

    good = [row for row in rows if not row.reason]
    return Examples(
        values=Spooled(spool, [row.value for row in good]),
        labels=labels([row.label for row in good]),
        ids=tuple(id(row) for row in good),
        bad=tuple(BadExample(id(row), row.reason) for row in rows if row.reason),
    )


def _classes(
    dataset: Dataset, rows: Mapping[str, Sequence[_Row]]
) -> tuple[tuple[str, ...], Callable[[Sequence[Any]], Positions | Sequence[str]]]:
    """Class names, and what turns labels of the dataset into ours: positions, or transcripts as they are."""
    import numpy as np

    if dataset.transcribed:
        return (), tuple
    if dataset.class_names:
        return dataset.class_names, lambda labels: np.array(labels, np.int64)
    found = sorted({int(row.label) for part in rows.values() for row in part if row.label is not None})
    number = {label: i for i, label in enumerate(found)}
    return tuple(map(str, found)), lambda labels: np.array([number[label] for label in labels], np.int64)


def _row(dataset: Dataset, row: Mapping[str, Any]) -> _Row:
    if DAMAGE in row:
        return _Row(None, None, "", row["tfds_id"], row[DAMAGE])
    value = row[dataset.input]
    label: int | str
    if dataset.transcribed:
        label, reason = _text(row[dataset.label], "transcript")
    else:
        label, classes = int(row[dataset.label]), len(dataset.class_names)
        reason = f"label {label} stands for no class" if classes and not 0 <= label < classes else None
    if dataset.kind == "text":
        value, wrong = _text(value, "text")
        reason = reason or wrong
    elif dataset.kind == "audio" and not isinstance(value, bytes):
        value, wrong = _one_channel(value)
        reason = reason or wrong
    name = row[dataset.file_name].decode(errors="backslashreplace") if dataset.file_name else ""
    return _Row(value, label, name, row["tfds_id"], reason)


def _text(content: bytes, word: str) -> tuple[str, str | None]:
    """A text, and why it cannot be used."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        return "", f"the {word} is not UTF-8 ({error.reason} at byte {error.start})"
    return text, None if text.strip() else f"the {word} is empty"


def _one_channel(samples: Any) -> tuple[Any, str | None]:
    """Samples as int16 (n,), and why they cannot be that."""
    import numpy as np

    if samples.ndim == 2:  # (samples, channels)
        samples = samples.mean(axis=1)
        samples = np.rint(samples) if samples.dtype == np.float64 else samples
    if not samples.size:
        return samples.astype(np.int16), "the sound is empty"
    if samples.dtype == np.float32:  # in [-1, 1]
        if not np.isfinite(samples).all():
            return np.empty(0, np.int16), "the sound has samples that are no numbers"
        samples = np.rint(np.clip(samples, -1, 1) * 32767)
    if samples.min() < -32768 or samples.max() > 32767:
        return np.empty(0, np.int16), "the sound has samples outside 16 bits"
    return samples.astype(np.int16), None


def _runs(wanted: Any) -> Iterator[tuple[int, int]]:
    """Stretches of neighbours: first position and the one after the last."""
    import numpy as np

    edges = np.flatnonzero(np.diff(np.concatenate([[0], wanted.astype(np.int8), [0]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _iterate(dataset: Dataset, split: str, start: int, stop: int, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Examples `start` to `stop` of a split in the order of its files, as NumPy values with `tfds_id`.

    What TFDS's `as_dataset` gives with `SkipDecoding` for images, but several times as fast (scalars are
    parsed by the batch), and with the name of the file that cannot be read.
    """
    import tensorflow as tf

    for file in dataset.builder.info.splits[f"{split}[{start}:{stop}]"].file_instructions:
        path = Path(file.filename)
        if not path.is_file():
            raise ToolkitError(f"{dataset.origin} is not complete: {path} is missing: {_repair(dataset)}.")
        position = file.skip
        try:
            for row in _parsed(dataset, file, wanted):
                yield {**row, "tfds_id": f"{path.name}__{position}"}
                position += 1
        except tf.errors.OpError:
            for row in _one_by_one(dataset, path, range(position, file.skip + file.take), wanted):
                yield {**row, "tfds_id": f"{path.name}__{position}"}
                position += 1
        except (NotImplementedError, ImportError) as error:
            form = dataset.builder.info.file_format.value
            raise ToolkitError(
                f"{dataset.origin} is prepared in the format {form}, which TFDS cannot stream: prepare it as tfrecord."
            ) from error
        if position - file.skip != file.take:
            raise ToolkitError(
                f"{path} of {dataset.origin} ends after {position} examples, before the end that dataset_info.json "
                f"states: {_repair(dataset)}."
            )


def _repair(dataset: Dataset) -> str:
    return f"remove {dataset.builder.data_path} and prepare the dataset again"


def _one_by_one(dataset: Dataset, path: Path, positions: range, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of a file that TensorFlow refuses: features of a whole record, `DAMAGE` for another."""
    import tensorflow as tf

    parse = _parser(dataset, wanted)
    try:
        for content in itertools.islice(whole_records(path), positions.start, positions.stop):
            if content is None:
                yield {DAMAGE: "its record does not fit its checksum"}
                continue
            try:
                row = {key: value.numpy() for key, value in parse(tf.constant(content)).items()}
            except tf.errors.OpError:
                row = {DAMAGE: f"its record does not hold {', '.join(wanted)} as the dataset states"}
            yield row
    except (ValueError, OSError) as error:
        raise ToolkitError(f"{path} of {dataset.origin} cannot be read ({error}): {_repair(dataset)}.") from error


def _parser(dataset: Dataset, wanted: Sequence[str]) -> Callable[[Any], Mapping[str, Any]]:
    """From a serialized example to the wanted features; arrays of samples as TFDS knows how."""
    import tensorflow as tf
    from tensorflow_datasets import features

    if _holds_samples(dataset, wanted):
        chosen = features.FeaturesDict({key: dataset.builder.info.features[key] for key in wanted})
        parse: Callable[[Any], Mapping[str, Any]] = chosen.deserialize_example
        return parse
    form = _form(dataset, wanted)
    return lambda serialized: tf.io.parse_single_example(serialized, form)


def _form(dataset: Dataset, wanted: Sequence[str]) -> dict[str, Any]:
    import tensorflow as tf

    numbers = () if dataset.transcribed else (dataset.label,)
    return {key: tf.io.FixedLenFeature((), tf.int64 if key in numbers else tf.string) for key in wanted}


def _holds_samples(dataset: Dataset, wanted: Sequence[str]) -> bool:
    """Whether there are arrays to parse; a sound may also be stored as a file, which TFDS calls lazy decoding."""
    if dataset.kind != "audio" or dataset.input not in wanted:
        return False
    stored = dataset.builder.info.features[dataset.input].to_json_content()
    # Files that we read ourselves stay as they are: TFDS would need tensorflow_io, and decoded they take twice as much.
    return not (stored.lazy_decode and f".{stored.file_format}" in audio.SUFFIXES)


def _parsed(dataset: Dataset, file: Any, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The wanted features of the examples that a TFDS file instruction names."""
    import tensorflow as tf
    from tensorflow_datasets.core import file_adapters

    records = file_adapters.ADAPTER_FOR_FORMAT[dataset.builder.info.file_format].make_tf_data(file.filename)
    records = records.skip(file.skip).take(file.take)
    if _holds_samples(dataset, wanted):
        parse = _parser(dataset, wanted)
        yield from records.map(parse, num_parallel_calls=tf.data.AUTOTUNE).as_numpy_iterator()
        return
    form = _form(dataset, wanted)
    for serialized in records.batch(BATCH):
        parsed = tf.io.parse_example(serialized, form)
        columns = [parsed[key].numpy() for key in form]
        yield from (dict(zip(form, row, strict=True)) for row in zip(*columns, strict=True))
