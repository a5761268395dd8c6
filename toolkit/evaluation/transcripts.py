"""How well a model writes down one split: word and character error rates, and each recording's answer."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import ToolkitError
from toolkit.evaluation.files import csv_text, encode, remove_file, replace_file, strict_json
from toolkit.evaluation.predict import numpy_batches, require_finite
from toolkit.tasks.objective import Objective

FORMAT = 1
RESAMPLES = 2000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ErrorRate:
    """Errors per unit (word or character) of the reference: substitutions, deletions and insertions, fewest possible.

    Attributes:
        rate: of all recordings together; above 1 where more is inserted than was said.
        interval: 95 %, by drawing recordings with replacement (the bootstrap of Bisani & Ney 2004); where all have the
            same rate, from the exact bound on the share of others (Clopper & Pearson 1934).
    """

    rate: float
    interval: tuple[float, float]
    substitutions: int
    deletions: int
    insertions: int
    reference: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Confusion:
    """Words that were said, what was written in their place, and how often; one of the two may be empty."""

    said: str
    written: str
    times: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transcription:
    """Figures of one split.

    Attributes:
        decoding: "greedy", or "beam search, width …".
        loss: mean over recordings of −log of the transcript's probability, in nats.
        right: share of recordings without any error.
        confusions: of words, most frequent first.
        seconds: of the pass over the decoded examples, with decoding and a backend's compilation.
    """

    split: str
    examples: int
    seconds: float
    decoding: str
    loss: float
    words: ErrorRate
    characters: ErrorRate
    right: float
    confusions: tuple[Confusion, ...]

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `evaluation.json`: plain values, format and task first."""
        fields = dataclasses.asdict(self)
        fields["confusions"] = list(fields["confusions"])
        return {"format": FORMAT, "task": "transcription", **fields}


@dataclasses.dataclass(frozen=True)
class Transcripts:
    """What is said in recordings without labels.

    Attributes:
        ids: what was read, in order.
        texts: one per recording, in the same order.
        bad: what could not be read, with the reason.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    bad: Sequence[tuple[str, str]] = ()

    def to_csv(self) -> str:
        """`file` and `text`."""
        return csv_text({"file": self.ids, "text": self.texts})


def evaluate(
    model: Any,
    objective: Objective,
    batches: Iterable[Any],
    *,
    texts: Sequence[str],
    ids: Sequence[str],
    directory: Path,
    split: str,
    weights: str = "best",
    beam_width: int = 1,
) -> Transcription:
    """Measure `model` in one pass and leave `evaluation.json` and `predictions.csv` in `directory`.

    Files of another split than `test`, of other weights than the `best`, or of a beam search carry their names
    (`evaluation-beam16.json`). The JSON is written last: where it stands, the table is of the same evaluation.

    Args:
        batches: `(inputs, labels)` of the whole split in the order of `texts` and `ids`, nothing left out.
        texts: what was said in each recording.
        beam_width: what `objective` decodes with, for the record.

    Raises:
        ToolkitError: the split is empty.
        RunFailed: an output is NaN or infinite, or a file cannot be written.
    """
    if not texts:
        raise ToolkitError(f"the split {split!r} has no example, so there is nothing to evaluate: use another split.")
    start = time.perf_counter()
    answers: list[str] = []
    losses: list[np.ndarray] = []
    for logits, labels in _outputs(model, batches, ids):
        answers += objective.decode(logits)
        losses.append(objective.losses(logits, labels))
    seconds = time.perf_counter() - start
    evaluation = measure(
        answers,
        texts,
        losses=np.concatenate(losses),
        split=split,
        seconds=seconds,
        decoding="greedy" if beam_width == 1 else f"beam search, width {beam_width}",
    )
    names = (name for name in (split, weights, f"beam{beam_width}") if name not in ("test", "best", "beam1"))
    suffix = "".join(f"-{name}" for name in names)
    figures = directory / f"evaluation{suffix}.json"
    remove_file(figures)  # it stands only beside the table of the same evaluation
    table = csv_text({"id": ids, "text": texts, "answer": answers})
    replace_file(directory / f"predictions{suffix}.csv", encode(table))
    replace_file(figures, encode(strict_json(evaluation.to_dict())))
    return evaluation


def measure(
    answers: Sequence[str], texts: Sequence[str], *, losses: np.ndarray, split: str, seconds: float, decoding: str
) -> Transcription:
    """The figures alone; no text may be empty, an answer may."""
    words = _words(answers, texts)
    characters = _Edits.of(texts, answers)
    return Transcription(
        split=split,
        examples=len(texts),
        seconds=seconds,
        decoding=decoding,
        loss=float(losses.mean()),
        words=words.error_rate(),
        characters=characters.error_rate(),
        right=float(np.mean([text == answer for text, answer in zip(texts, answers, strict=True)])),
        confusions=words.confusions(),
    )


def measure_words(answers: Sequence[str], texts: Sequence[str]) -> ErrorRate:
    """The word error rate with its interval; no text may be empty, an answer may."""
    return _words(answers, texts).error_rate()


def word_error_rate(answers: Sequence[str], texts: Sequence[str]) -> float:
    """Word errors ÷ words that were said, of all recordings together; no text may be empty."""
    from rapidfuzz.distance import Levenshtein

    said = [text.split() for text in texts]
    errors = sum(Levenshtein.distance(one, answer.split()) for one, answer in zip(said, answers, strict=True))
    return errors / sum(map(len, said))


def transcribe(model: Any, objective: Objective, batches: Iterable[Any], *, ids: Sequence[str]) -> list[str]:
    """What is said in each recording, in the order of `batches`, which hold inputs only.

    Raises:
        RunFailed: an output is NaN or infinite.
    """
    return [answer for logits, _ in _outputs(model, batches, ids) for answer in objective.decode(logits)]


def _outputs(model: Any, batches: Iterable[Any], ids: Sequence[str]) -> Iterator[tuple[np.ndarray, Any]]:
    """Logits of each batch, (batch, frames, labels), and its labels or None; only one batch is held at a time."""
    done = 0
    for batch in numpy_batches(batches):
        inputs, labels = batch if isinstance(batch, tuple) else (batch, None)
        logits = np.asarray(model.predict_on_batch(inputs), np.float32)
        require_finite(logits, ids[done : done + len(logits)])
        done += len(logits)
        yield logits, labels
    if done != len(ids):
        raise ValueError(f"the batches hold {done} recordings, not the {len(ids)} that are named")


def _words(answers: Sequence[str], texts: Sequence[str]) -> _Edits:
    return _Edits.of([text.split() for text in texts], [answer.split() for answer in answers])


@dataclasses.dataclass(frozen=True)
class _Edits:
    """The fewest edits from what was said to what was written: per recording pairs of units, one of which may be ""."""

    pairs: list[list[tuple[str, str]]]
    lengths: list[int]

    @classmethod
    def of(cls, said: Sequence[Sequence[str]], written: Sequence[Sequence[str]]) -> _Edits:
        from rapidfuzz.distance import Editop, Levenshtein

        def pair(edit: Editop, one: Sequence[str], other: Sequence[str]) -> tuple[str, str]:
            return (
                "" if edit.tag == "insert" else one[edit.src_pos],
                "" if edit.tag == "delete" else other[edit.dest_pos],
            )

        pairs = [
            [pair(edit, one, other) for edit in Levenshtein.editops(one, other)]
            for one, other in zip(said, written, strict=True)
        ]
        return cls(pairs, [len(one) for one in said])

    def error_rate(self) -> ErrorRate:
        errors, lengths = np.array([len(pairs) for pairs in self.pairs]), np.array(self.lengths)
        random, rates = np.random.default_rng(0), []
        for _ in range(RESAMPLES):  # one by one: all at once would take gigabytes for a large split
            draw = random.integers(len(errors), size=len(errors))
            rates.append(errors[draw].sum() / lengths[draw].sum())
        rate = float(errors.sum() / lengths.sum())
        low, high = map(float, np.quantile(rates, (0.025, 0.975)))
        if low == high:
            low, high = _bounds_of_equal(rate, len(errors))
        flat = [pair for pairs in self.pairs for pair in pairs]
        return ErrorRate(
            rate=rate,
            interval=(low, high),
            substitutions=sum(1 for said, written in flat if said and written),
            deletions=sum(1 for _, written in flat if not written),
            insertions=sum(1 for said, _ in flat if not said),
            reference=int(lengths.sum()),
        )

    def confusions(self) -> tuple[Confusion, ...]:
        counts = Counter(pair for pairs in self.pairs for pair in pairs)
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return tuple(Confusion(said=said, written=written, times=times) for (said, written), times in ordered)


def _bounds_of_equal(rate: float, recordings: int) -> tuple[float, float]:
    """The interval where all recordings have the same rate, no errors mostly: whatever is drawn, nothing differs.

    Among further ones at most a share u has another rate, the exact bound of 0 in so many (Clopper & Pearson 1934,
    Biometrika 26). At best these are without errors, at worst every unit is wrong.
    """
    u = 1 - 0.025 ** (1 / recordings)
    return (1 - u) * rate, rate + u * max(0.0, 1 - rate)
