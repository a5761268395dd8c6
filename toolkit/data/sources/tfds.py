"""TensorFlow Datasets: images, sounds or texts with one label per example, or sounds with their transcripts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import unittest.mock
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.data.examples import Source
from toolkit.data.selections import Selection, conflicts, field_pattern
from toolkit.data.splits import assign, refuse
from toolkit.errors import ToolkitError, did_you_mean
from toolkit.types import Hertz

if TYPE_CHECKING:
    from toolkit.data.sources.tfds_reader import Dataset

# File names that carry more than the label, for selectors; `fields` of the config wins.
KNOWN_FIELDS = {"spoken_digit": "{digit}_{speaker}_{index}.wav"}
STALLED_SECONDS = 60.0
"""After so long without a byte a download of TFDS ends with an error."""

# Rates that older versions of TFDS do not state; `source_rate` of the config wins.
KNOWN_RATES = {"spoken_digit": 8000}


def tfds(
    *,
    name: str,
    train: Selection = "train[:90%]",
    validation: Selection = "train[90%:]",
    test: Selection = "test",
    input: str | None = None,
    label: str | None = None,
    fields: str | None = None,
    source_rate: Hertz | None = None,
    data_dir: str | None = None,
) -> Source:
    """A dataset of TensorFlow Datasets, prepared on disk or downloaded and prepared now.

    Args:
        name: as TFDS spells it: `mnist`, `imdb_reviews/plain_text`, `mnist:3.0.1`.
        train: a split expression (`train[:80%]`, `train+test`) or a selector (`{speaker: theo}`).
        validation: the same; must share no example with the others.
        test: the same.
        input: feature that is the input, where the dataset's supervised keys do not say it or say another.
        label: the same for the label; a text beside a sound is its transcript.
        fields: pattern of the file names whose fields selectors use; known for spoken_digit.
        source_rate: samples per second of the dataset's sounds, where TFDS does not state it.
        data_dir: folder of prepared datasets; before the environment's TFDS_DATA_DIR, before ~/tensorflow_datasets.

    Raises:
        ToolkitError: no such dataset, split or feature; splits that overlap; data that is missing or broken.
    """
    selections = {"train": train, "validation": validation, "test": test}
    refuse(_check({"name": name, **selections, "fields": fields}))
    from toolkit.data.sources import tfds_reader

    with _quiet():
        dataset = _open(name, data_dir, input=input, label=label, source_rate=source_rate)
        selecting = any(isinstance(selection, Mapping) for selection in selections.values())
        pattern = fields or KNOWN_FIELDS.get(dataset.builder.name, "")
        records = tfds_reader.records(dataset, pattern) if selecting else {}
        positions = assign(selections, dataset.counts, records, dataset.origin)
        class_names, splits = tfds_reader.read(dataset, positions)
    return Source(
        kind=dataset.kind,
        class_names=class_names,
        splits=splits,
        sample_rate=dataset.sample_rate,
        channels=dataset.channels,
        origin=dataset.origin,
        task="transcription" if dataset.transcribed else "classification",
    )


def _check(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Problems that show before TensorFlow is loaded: (key, what is wrong)."""
    selections = {split: arguments[split] for split in ("train", "validation", "test")}
    problems = conflicts(selections)
    name = arguments["name"]
    if not name.strip():
        problems.append(("name", "name is empty: write a dataset as TFDS spells it, for instance mnist"))
    elif re.match(r"[^/]*:(?!\d)", name):
        text = "has a namespace, whose code TFDS would download and run: use a dataset of TFDS itself, or folder or csv"
        problems.append(("name", f"{name!r} {text}"))
    selectors = {split: value for split, value in selections.items() if isinstance(value, Mapping)}
    if arguments.get("fields") and not selectors:
        problems.append(("fields", "fields has no effect where no split selects by them: remove it"))
    pattern = arguments.get("fields") or KNOWN_FIELDS.get(re.split(r"[/:]", name)[0])
    if pattern is None:
        text = (
            "selects by fields, but nothing says where they stand: give data.fields, a pattern of the file names such "
            f"as '{KNOWN_FIELDS['spoken_digit']}'"
        )
        return [*problems, *((split, f"{split} {text}") for split in selectors)]
    try:
        known = field_pattern(pattern).groupindex
    except ValueError as error:
        return [*problems, ("fields", str(error))]
    for split, selector in selectors.items():
        for field in selector:
            if field not in known:
                near = did_you_mean(field, known)
                problems.append((split, f"there is no field '{field}'{near}: '{pattern}' has {', '.join(known)}"))
    return problems


tfds.check = _check  # type: ignore[attr-defined]  # the config runs it with the rest of its checks


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide warnings that nobody can act on: of own deprecations (on every read), of each retry of a download."""
    import logging

    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow", "urllib3")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# Opening ------------------------------------------------------------------------------------------------------------


def _folder(data_dir: str | None) -> Path:
    # Read at each call: TFDS itself looks at the environment only when it is imported.
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def _open(name: str, data_dir: str | None, *, input: str | None, label: str | None, source_rate: int | None) -> Dataset:
    from toolkit.data.sources.tfds_reader import Dataset

    builder = _builder(name, _folder(data_dir))
    info = builder.info
    origin = f"tfds {info.full_name.rpartition('/')[0]} {info.version}"
    counts = {split: part.num_examples for split, part in info.splits.items() if part.num_examples}
    if not counts:
        raise ToolkitError(
            f"{origin} in {builder.data_path} holds no example: remove that folder and prepare it again."
        )
    input_key, label_key = _keys(info, input, label, origin)
    kind, sample_rate, channels = _kind(info.features[input_key], input_key, origin, source_rate)
    transcribed = kind == "audio" and _is_text(info.features[label_key])
    names = [f"{input_key}/filename", "image/filename", "audio/filename", "filename", "file_name"]
    if transcribed and "id" in info.features and _is_text(info.features["id"]):
        names.append("id")
    return Dataset(
        builder=builder,
        origin=origin,
        counts=counts,
        input=input_key,
        label=label_key,
        kind=kind,
        sample_rate=sample_rate,
        channels=channels,
        file_name=next((key for key in names if key in info.features), None),
        class_names=() if transcribed else _class_names(info.features[label_key], label_key, origin),
        transcribed=transcribed,
    )


def _builder(name: str, folder: Path) -> Any:
    """A builder whose data is on disk, complete as far as dataset_info.json tells."""
    _refuse_foreign_features(folder / re.split(r"[/:]", name)[0])
    builder = _find(name, folder)
    path = Path(builder.data_path)
    if not path.exists():
        _prepare(builder, name, folder)
        builder = _find(name, folder)  # it reads what was written, by whomever
    if not (path / "dataset_info.json").is_file():
        raise ToolkitError(
            f"{path} holds '{name}' only in part (dataset_info.json is missing): remove that folder and prepare the "
            "dataset again, or let TFDS_DATA_DIR point to a complete one."
        )
    return builder


def _refuse_foreign_features(dataset: Path) -> None:
    """TFDS imports whatever module a `features.json` names: only its own may stand there.

    Raises:
        ToolkitError: another one does, or the file cannot be read.
    """
    for path in dataset.rglob("features.json"):
        try:
            if not path.is_file() or path.stat().st_size > _MAX_FEATURES:
                raise ValueError("it is no file, or too long")
            classes = list(_classes(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, RecursionError) as error:
            raise ToolkitError(f"{path} cannot be read ({error}): prepare the dataset again.") from error
        foreign = [name for name in classes if not name.startswith("tensorflow_datasets.")]
        if foreign:
            raise ToolkitError(
                f"{path} names the class {foreign[0][:100]!a}, which is none of TFDS, and TFDS would import its "
                "module: use a dataset whose features are those of TFDS."
            )


_MAX_FEATURES = 2**20  # bytes


def _classes(value: Any) -> Iterator[str]:
    """The classes that the JSON of a feature names, at any depth; both spellings that protobuf reads."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("pythonClassName", "python_class_name", "type") and isinstance(inner, str):
                yield inner
            else:
                yield from _classes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _classes(inner)


def _find(name: str, folder: Path) -> Any:
    import tensorflow_datasets

    try:
        return tensorflow_datasets.builder(name, data_dir=str(folder))
    except tensorflow_datasets.core.registered.DatasetNotFoundError as error:
        known = tensorflow_datasets.list_builders(with_community_datasets=False)
        near = did_you_mean(re.split(r"[/:]", name)[0], [*known, *(p.name for p in folder.glob("[!.]*") if p.is_dir())])
        raise ToolkitError(
            f"data.name: TFDS has no dataset '{name}'{near} and {folder} holds none of that name: use a name of "
            "https://www.tensorflow.org/datasets/catalog, or the source folder or csv for files of your own."
        ) from error
    # What TFDS raises is open: for versions and configurations, for packages that are missing, for damaged files.
    except Exception as error:
        present = folder / re.split(r"[/:]", name)[0]
        again = f", or remove {present} and prepare the dataset again" if present.is_dir() else ""
        text = f"TFDS cannot open '{name}' ({_first_line(error)}){_other_configs(name)}"
        raise ToolkitError(f"data.name: {text}: correct the name{again}.") from error


def _other_configs(name: str) -> str:
    """The configurations there are, where the dataset has some."""
    import tensorflow_datasets

    dataset, _, config = name.partition("/")
    if not config:
        return ""
    try:
        configs = tensorflow_datasets.builder_cls(dataset).builder_configs
    except (ImportError, ValueError):  # the first error says it already
        return ""
    return (
        f"{did_you_mean(config.partition(':')[0], configs)}; there are {', '.join(list(configs)[:20]) or 'no configs'}"
    )


def _offline(builder: Any) -> bool:
    """Whether a download is sure to fail: TFDS itself would retry for minutes before it says so."""
    import socket

    # A dataset from elsewhere, or one that is put together from files on disk, may need no network.
    if not type(builder).__module__.startswith("tensorflow_datasets.") or builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        return False
    if any(os.environ.get(key) for key in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY")):
        return False
    try:
        socket.getaddrinfo("storage.googleapis.com", 443)
    except OSError:
        return True
    return False


def _prepare(builder: Any, name: str, folder: Path) -> None:
    """Download and prepare the dataset, or wait for another process that does.

    TFDS writes into a folder of another name and renames it at the end, so nothing half prepared is ever found.
    """
    others = sorted(path.parent.name for path in Path(builder.data_path).parent.glob("*/dataset_info.json"))
    current = os.environ.get("TFDS_DATA_DIR")
    versions = f" (there is version {', '.join(others)}: name it as '{builder.name}:{others[-1]}')" if others else ""
    done = Path(builder.data_path) / "dataset_info.json"
    try:
        if _offline(builder):
            raise OSError("there is no network")
        folder.mkdir(parents=True, exist_ok=True)
        with _turn(folder / f".{builder.name}.lock", name), _stalled_downloads_fail():
            if not done.is_file():
                builder.download_and_prepare()
    # What a download can raise is open: connection, checksum, disk, manual steps, packages that are missing.
    except Exception as error:
        if done.is_file():  # somebody who does not know our lock was faster
            return
        raise ToolkitError(
            f"'{name}' is not prepared in {folder}{versions} and could not be downloaded ({_why(error)}): "
            f"let TFDS_DATA_DIR ({f'now {current}' if current else 'now not set'}) or data.data_dir point to a folder "
            "that holds it, or use the source folder or csv."
        ) from error


@contextlib.contextmanager
def _turn(path: Path, name: str) -> Iterator[None]:
    """Hold the lock that says that a dataset is being prepared; the system frees that of a process that died."""
    import filelock

    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"another process prepares '{name}' in {path.parent}: waiting for it", file=sys.stderr)  # noqa: T201
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _stalled_downloads_fail() -> Iterator[None]:
    """Let a download end once nothing came for `STALLED_SECONDS`: TFDS itself sets no limit and waits for ever."""
    from requests.adapters import HTTPAdapter

    send = HTTPAdapter.send

    def limited(self: Any, request: Any, *positional: Any, **named: Any) -> Any:
        if len(positional) < 2:  # stream, timeout, …
            named["timeout"] = named.get("timeout") or STALLED_SECONDS
        return send(self, request, *positional, **named)

    with unittest.mock.patch.object(HTTPAdapter, "send", limited):
        yield


def _why(error: Exception) -> str:
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    if isinstance(error, NonMatchingChecksumError):  # its own text begins with two long names
        return "what came has the wrong checksum: it was changed on the way, or its publisher changed it"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    text = re.sub(r"^Failed to construct dataset .*?\}\": ", "", text).partition(" Here are ")[0]
    return text[:200].rstrip(" .:")


def _is_text(feature: Any) -> bool:
    import numpy as np

    return bool(feature.shape == () and feature.np_dtype == np.object_)  # Text, or a plain string


def _class_names(feature: Any, key: str, origin: str) -> tuple[str, ...]:
    """Names of the classes; none for labels that are plain integers.

    Raises:
        ToolkitError: the feature is neither.
    """
    import numpy as np
    from tensorflow_datasets import features

    if isinstance(feature, features.ClassLabel) and feature.num_classes:
        return tuple(feature.int2str(i) for i in range(feature.num_classes))
    if feature.shape == () and np.issubdtype(feature.np_dtype, np.integer):
        return ()
    raise ToolkitError(
        f"{origin}: the feature '{key}' is {type(feature).__name__} {feature.shape} {feature.np_dtype}, not one class "
        "or whole number per example: name another one in data.label, or use another dataset."
    )


def _keys(info: Any, input: str | None, label: str | None, origin: str) -> tuple[str, str]:
    """The features that are input and label."""
    if not hasattr(info.features, "keys"):
        raise ToolkitError(f"{origin} has no named features ({info.features!r}): use another dataset.")
    names = list(info.features.keys())
    supervised = info.supervised_keys
    plain = isinstance(supervised, tuple) and all(isinstance(key, str) for key in supervised)
    defaults = supervised[:2] if plain else (None, None)
    chosen: list[str] = []
    for key, given, default in zip(("input", "label"), (input, label), defaults, strict=True):
        feature = given or default
        if feature is None:
            raise ToolkitError(
                f"{origin} does not say which feature is the {key}: name it in data.{key} (one of {', '.join(names)})."
            )
        if feature not in names:
            near = did_you_mean(feature, names)
            raise ToolkitError(f"data.{key}: {origin} has no feature '{feature}'{near}: use one of {', '.join(names)}.")
        chosen.append(feature)
    return chosen[0], chosen[1]


def _kind(feature: Any, key: str, origin: str, source_rate: int | None) -> tuple[Any, int | None, int | None]:
    """Kind, sample rate and channels of the input."""
    import numpy as np
    from tensorflow_datasets import features

    if source_rate is not None and not isinstance(feature, features.Audio):
        raise ToolkitError(f"data.source_rate: the feature '{key}' of {origin} is no sound: leave the key out.")
    if isinstance(feature, features.Image) and feature.np_dtype == np.uint8:
        return "image", None, feature.shape[-1] or 3
    if isinstance(feature, features.Audio):
        rate = source_rate or feature.sample_rate or KNOWN_RATES.get(origin.split()[1])
        if rate is None:
            raise ToolkitError(
                f"{origin} does not state the sample rate of '{key}': give it in data.source_rate, in Hz."
            )
        if feature.sample_rate not in (None, rate):
            raise ToolkitError(
                f"data.source_rate: {origin} states {feature.sample_rate} Hz, not {rate}: leave the key out."
            )
        return "audio", int(rate), None
    if _is_text(feature):
        return "text", None, None
    raise ToolkitError(
        f"{origin}: the feature '{key}' is {type(feature).__name__} {feature.shape} {feature.np_dtype}, which is "
        "neither an 8-bit image nor audio nor text: name another one in data.input, or use another dataset."
    )
