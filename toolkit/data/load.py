"""From a source's name to decoded splits and the DataSpec."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from toolkit import registry
from toolkit.data import reading, text
from toolkit.data.examples import BadExample, Examples, Source, shown
from toolkit.data.labels import NEEDS_FRAMES, Frames, TranscriptLabels
from toolkit.data.reading import Reading, Report
from toolkit.data.spec import SPLITS, DataSpec
from toolkit.data.tables import MEMORY_SHARE, ImageTable, RaggedTable, available_memory
from toolkit.data.transcripts import Units
from toolkit.errors import RunFailed, ToolkitError

DEFAULT_BUCKETS = 4
DEFAULT_MAX_TOKENS = 256
DEFAULT_VOCABULARY_SIZE = 20_000

_OPTIONS_OF = {
    "image": {"image_size"},
    "audio": {"sample_rate", "buckets"},
    "text": {"vocabulary_size", "max_tokens", "buckets"},
}
# Edges stand where the longest of this many random examples falls: each then serves as many batches as the next.
# (Quantiles of single examples would leave every edge but the last unused, since some example of a batch is long.)
_EXPECTED_BATCH = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One split, decoded: row i of the table, `labels[i]` and `ids[i]` belong together.

    Attributes:
        name: train, validation or test.
        table: the rows.
        labels: int32 `(examples,)`; for transcription `(examples, longest label)`, padded with 0.
        ids: stable names.
        fingerprint: sha256 over id, label (for transcription the transcript) and content of every example, in this
            order.
        digests: sha256 of each example's content, as the source has it.
        texts: the transcripts, normalised, with what the vocabulary lacks. None but for transcription.
    """

    name: str
    table: ImageTable | RaggedTable
    labels: np.ndarray[Any, Any]
    ids: Sequence[str]
    fingerprint: str
    digests: Sequence[bytes]
    texts: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """What training and evaluation take.

    Attributes:
        spec: what a model must know.
        splits: those that were asked for.
        duplicates: per pair of splits, the ids of the examples of the second whose content stands in the first, too.
        bad: (split, example) left out, because it cannot be read.
    """

    spec: DataSpec
    splits: Mapping[str, Split]
    duplicates: Mapping[tuple[str, str], tuple[str, ...]]
    bad: tuple[tuple[str, BadExample], ...]


class TooManyBadExamples(RunFailed):
    """A split has more unreadable examples than `data.max_bad_fraction` allows; `bad` lists them."""

    def __init__(self, message: str, bad: tuple[tuple[str, BadExample], ...]) -> None:
        super().__init__(message)
        self.bad = bad


def load(
    source: str,
    arguments: Mapping[str, Any],
    *,
    image_size: tuple[int, int] | None = None,
    sample_rate: int | None = None,
    vocabulary_size: int | None = None,
    max_tokens: int | None = None,
    buckets: int | None = None,
    transcript_units: Units | None = None,
    max_bad_fraction: float = 0.01,
    cache: Literal["auto", "memory", "disk"] = "auto",
    splits: Sequence[str] = SPLITS,
    spec: DataSpec | None = None,
    frames: Frames | None = None,
    fastest: float = 1.0,
    report: Report = lambda line: None,
) -> Data:
    """Read, check and decode every example of `splits`, once.

    Args:
        source: a name of the registry.
        arguments: its keywords.
        image_size: (height, width) that pictures are resized to; without it all must have one size.
        sample_rate: in Hz, that sounds are resampled to; without it all must have one rate.
        vocabulary_size: words kept, padding and the unknown word among them (20,000).
        max_tokens: texts are cut after so many (256).
        buckets: to how many lengths batches of sounds or texts are padded (4).
        transcript_units: what transcripts are written in (characters).
        max_bad_fraction: of each split, that may be unreadable.
        cache: where decoded pictures and sounds are kept; `auto` is memory while a quarter of it suffices.
        splits: which to decode.
        spec: of a trained model: sizes, rate, vocabulary and lengths are then its own, the options above are not used.
        frames: how many frames the model makes of (samples, rate in Hz); a sound with fewer than CTC needs to write its
            transcript is then a bad example.
        fastest: how many times as fast a sound of train may be played, which leaves it fewer frames.
        report: called with lines that tell the progress.

    Raises:
        ToolkitError: an option does not fit the kind of data, the data does not fit `spec`, a split is left empty or
            train with a single class, or train's transcripts hold too many different words.
        TooManyBadExamples: more than `max_bad_fraction` of a split cannot be read.
    """
    made: Source = registry.resolve("sources", source)(**arguments)
    options = {
        "image_size": image_size,
        "sample_rate": sample_rate,
        "vocabulary_size": vocabulary_size,
        "max_tokens": max_tokens,
        "buckets": buckets,
        "transcript_units": transcript_units,
    }
    _check_options(made, options, cache)
    if spec is not None:
        _check_spec(made, spec)
    wanted = {name: made.splits[name] for name in SPLITS if name in splits}
    check = functools.partial(_check_budget, made, max_bad_fraction)
    labels = _transcript_labels(made, spec, options, frames)
    if spec is None and "train" not in wanted and (labels or made.kind == "text"):
        raise ToolkitError("the vocabulary comes from the train split, which is not among those to load: load it, too.")
    if made.kind == "text":
        readings, draft = _read_texts(made, wanted, spec, options, check, report)
    else:
        readings, draft = _read_tables(made, wanted, spec, options, cache, labels, fastest, check, report)
    loaded = {name: _split(name, wanted[name], readings[name], labels) for name in wanted}
    for name, split in loaded.items():
        if labels and split.texts is not None and (note := labels.note(name, split.texts)):
            report(note)
    if not labels and "train" in loaded and len(set(loaded["train"].labels.tolist())) < 2:
        only = made.class_names[int(loaded["train"].labels[0])]
        raise ToolkitError(
            f"the train split of {made.origin} holds a single class, {only!r}: "
            "a classifier needs examples of two or more, so give it other data or another split."
        )
    return Data(
        spec=draft if spec is not None else dataclasses.replace(draft, examples={n: len(s) for n, s in loaded.items()}),
        splits=loaded,
        duplicates=_duplicates(loaded, readings),
        bad=tuple((name, bad) for name in wanted for bad in _bad(wanted[name], readings[name])),
    )


def _transcript_labels(
    made: Source, spec: DataSpec | None, options: Mapping[str, Any], frames: Frames | None
) -> TranscriptLabels | None:
    """None but for transcription."""
    if made.task != "transcription":
        return None
    if spec is not None and spec.units is not None:
        return TranscriptLabels(spec.units, spec.vocabulary, frames)
    return TranscriptLabels(options["transcript_units"] or "characters", None, frames)


def _read_tables(
    made: Source,
    wanted: Mapping[str, Examples],
    spec: DataSpec | None,
    options: Mapping[str, Any],
    cache: str,
    labels: TranscriptLabels | None,
    fastest: float,
    check: Callable[[str, Examples, Reading], None],
    report: Report,
) -> tuple[dict[str, Reading], DataSpec]:
    """Pictures and sounds."""
    shape: tuple[int | None, ...]
    rate: int | None = None
    if made.kind == "image":
        size, channels = options["image_size"], made.channels or 3
        if spec is not None:
            size, channels = reading.image_shape(spec)
        decoding = reading.image_decoding(wanted.values(), size, channels)
        shape, dtype = decoding.row_shape or (), "uint8"
    else:
        rate = options["sample_rate"] if spec is None else spec.sample_rate
        decoding, rate = reading.audio_decoding(wanted.values(), rate, made.sample_rate)
        shape, dtype = (None,), "float32"
    to_disk = cache == "disk" or (
        cache == "auto" and reading.estimate_bytes(wanted.values(), decoding) > MEMORY_SHARE * available_memory()
    )
    limit = int(available_memory() * (1 if cache == "memory" else MEMORY_SHARE))
    readings: dict[str, Reading] = {}
    for name, examples in wanted.items():
        own = name == "train"
        left = limit - sum(read.table.nbytes for read in readings.values())
        readings[name] = reading.read_table(
            name,
            examples,
            labels.decoding(examples, decoding, rate, own=own, fastest=fastest if own else 1.0)
            if labels and rate
            else decoding,
            to_disk=to_disk,
            report=report,
            memory_limit=left,
            spill=cache == "auto",
        )
        check(name, examples, readings[name])
        if labels:  # train is the first
            labels.learn(examples, readings[name])
    if spec is not None:
        return readings, spec
    lengths: tuple[int, ...] = ()
    if rate is not None:
        tables = [r.table for r in readings.values() if isinstance(r.table, RaggedTable)]
        longest = max(int(table.lengths.max()) for table in tables)
        # An edge every 50 ms at most: the frames of a spectrogram are coarser than that anyway.
        lengths = bucket_edges(tables[0].lengths, options["buckets"] or DEFAULT_BUCKETS, longest, max(rate // 20, 1))
    return readings, DataSpec(
        kind=made.kind,
        task=made.task,
        shape=shape,
        dtype=dtype,
        class_names=made.class_names,
        vocabulary=(labels.vocabulary or ()) if labels else (),
        units=labels.units if labels else None,
        sample_rate=rate,
        lengths=lengths,
    )


def _read_texts(
    made: Source,
    wanted: Mapping[str, Examples],
    spec: DataSpec | None,
    options: Mapping[str, Any],
    check: Callable[[str, Examples, Reading], None],
    report: Report,
) -> tuple[dict[str, Reading], DataSpec]:
    """Texts: the vocabulary comes from train alone, or from `spec`."""
    readings: dict[str, Reading] = {}
    vocabulary = spec.vocabulary if spec is not None else ()
    lengths: tuple[int, ...] = ()
    limit = spec.lengths[-1] if spec is not None else options["max_tokens"] or DEFAULT_MAX_TOKENS

    def encode(texts: Any) -> list[np.ndarray[Any, Any]]:
        return text.encode(texts, vocabulary, limit)

    def learn(texts: Any) -> list[np.ndarray[Any, Any]]:
        nonlocal vocabulary
        vocabulary, rows = text.learn(texts, options["vocabulary_size"] or DEFAULT_VOCABULARY_SIZE, limit)
        return rows

    for name, examples in wanted.items():  # train is the first
        how = learn if spec is None and name == "train" else encode
        readings[name] = reading.read_texts(name, examples, how, report)
        check(name, examples, readings[name])
        if spec is None and name == "train":
            lengths = _text_edges(readings[name], options["buckets"] or DEFAULT_BUCKETS, limit)
            limit = lengths[-1]  # no longer text can be read, since positions beyond were never learnt
    if spec is not None:
        return readings, spec
    return readings, DataSpec(
        kind="text",
        shape=(None,),
        dtype="int32",
        class_names=made.class_names,
        vocabulary=vocabulary,
        lengths=lengths,
    )


def _text_edges(train: Reading, buckets: int, limit: int) -> tuple[int, ...]:
    table = train.table
    assert isinstance(table, RaggedTable)
    return bucket_edges(table.lengths, buckets, int(table.lengths.max()), 8, limit)


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Full batches in one epoch; the partial one is left out, another one each epoch.

    Raises:
        ToolkitError: there is not even one.
    """
    if batch_size > len(split):
        raise ToolkitError(
            f"data.batch_size is {batch_size}, but the {split.name} split holds {len(split):,} examples: "
            f"set it to {len(split)} or less."
        )
    return len(split) // batch_size


def bucket_edges(
    lengths: np.ndarray[Any, Any], buckets: int, longest: int, multiple: int, limit: int | None = None
) -> tuple[int, ...]:
    """Up to `buckets` rising lengths to pad batches to: multiples of `multiple`, none above `limit`.

    The last holds `longest`; the others are chosen so that each serves an equal share of random batches of 32.
    """
    shares = (np.arange(1, buckets) / buckets) ** (1 / _EXPECTED_BATCH)
    wanted = [*np.quantile(lengths, shares, method="higher").astype(int).tolist(), longest]
    edges = [-(-length // multiple) * multiple for length in wanted]
    return tuple(sorted({min(edge, limit or edge, edges[-1]) for edge in edges}))


def _split(name: str, examples: Examples, read: Reading, transcripts: TranscriptLabels | None) -> Split:
    ids = [examples.ids[i] for i in read.kept]
    if transcripts:
        texts = transcripts.texts(examples, read)
        return Split(
            name, read.table, transcripts.matrix(texts), ids, _fingerprint(ids, texts, read), read.digests, texts
        )
    labels = np.asarray(examples.labels)[np.asarray(read.kept, np.int64)].astype(np.int32)
    return Split(name, read.table, labels, ids, _fingerprint(ids, labels.tolist(), read), read.digests)


def _fingerprint(ids: Sequence[str], labels: Sequence[int] | Sequence[str], read: Reading) -> str:
    sha = hashlib.sha256()
    for id, label, content in zip(ids, labels, read.digests, strict=True):
        sha.update(f"{id}\0{label}\0".encode("utf-8", "surrogateescape") + content)
    return sha.hexdigest()


def _duplicates(splits: Mapping[str, Split], readings: Mapping[str, Reading]) -> dict[tuple[str, str], tuple[str, ...]]:
    known = {name: set(read.digests) for name, read in readings.items()}

    def shared(first: str, second: str) -> tuple[str, ...]:
        pairs = zip(splits[second].ids, readings[second].digests, strict=True)
        return tuple(id for id, digest in pairs if digest in known[first])

    return {(first, second): shared(first, second) for first, second in itertools.combinations(readings, 2)}


def _bad(examples: Examples, read: Reading) -> list[BadExample]:
    """What the source and the decoder could not use, with names that may be printed."""
    return [BadExample(shown(bad.id), shown(bad.reason)) for bad in (*examples.bad, *read.bad)]


def _check_budget(made: Source, max_bad_fraction: float, name: str, examples: Examples, read: Reading) -> None:
    bad = _bad(examples, read)
    total = len(examples) + len(examples.bad)
    if len(bad) > max_bad_fraction * total:
        named = "; ".join(f"{example.id} ({example.reason})" for example in bad[:5])
        more = f"; and {len(bad) - 5:,} more" if len(bad) > 5 else ""
        few = any(example.reason.startswith(NEEDS_FRAMES) for example in bad)
        frames = ", let the model make more frames (model.convolutions, model.hop_ms)" if few else ""
        raise TooManyBadExamples(
            f"{len(bad):,} of {total:,} examples ({len(bad) / total:.1%}) in the {name} split of {made.origin} "
            f"cannot be used, and data.max_bad_fraction allows {max_bad_fraction:.1%}: {named}{more}. "
            f"Mend or remove them{frames}, or raise data.max_bad_fraction.",
            tuple((name, example) for example in bad),
        )
    if not len(read.kept):
        raise ToolkitError(f"the {name} split of {made.origin} is empty: give it examples, or choose another split.")


def _check_options(made: Source, options: Mapping[str, Any], cache: str) -> None:
    spoken = made.task == "transcription"
    if spoken and made.kind != "audio":
        raise ToolkitError(f"{made.origin} has transcripts of {made.kind} data: only audio can be transcribed.")
    known = _OPTIONS_OF[made.kind] | ({"transcript_units"} if spoken else set())
    for name, value in options.items():
        if value is not None and name not in known:
            holds = f"{made.kind} data" + (" without transcripts" if name == "transcript_units" else "")
            raise ToolkitError(
                f"data.{name} is set to {value!r}, but {made.origin} holds {holds}, which has no such option: "
                f"remove it (options of {made.kind}: {', '.join(sorted(known))})."
            )
    if cache == "disk" and made.kind == "text":
        raise ToolkitError("data.cache is 'disk', but tables of text are small and always held in memory: remove it.")
    if options["vocabulary_size"] is not None and options["vocabulary_size"] < 3:
        raise ToolkitError(
            f"data.vocabulary_size is {options['vocabulary_size']}, but padding and the unknown word take two entries: "
            "set it to 3 or more."
        )
    if not spoken and len(set(made.class_names)) < 2:
        raise ToolkitError(
            f"{made.origin} has {len(made.class_names)} class ({', '.join(made.class_names)}): "
            "a classifier needs two or more, so give it data with more classes."
        )


def _check_spec(made: Source, spec: DataSpec) -> None:
    if made.kind != spec.kind:
        raise ToolkitError(f"{made.origin} holds {made.kind} data, but the model takes {spec.kind}: give it such data.")
    if made.task != spec.task:
        has, wants = ("transcripts" if task == "transcription" else "classes" for task in (made.task, spec.task))
        raise ToolkitError(
            f"{made.origin} has {has} for labels, but the model was trained on {wants}: give it data with {wants}."
        )
    if made.class_names != spec.class_names:
        lost, new = Counter(spec.class_names), Counter(made.class_names)
        differing = sorted((lost - new) + (new - lost)) or ["their order"]
        raise ToolkitError(
            f"the classes of {made.origin} are not those of the model (differing: {', '.join(differing[:5])}): "
            "evaluate it on data with the same classes."
        )
