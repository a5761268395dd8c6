"""Strings of digits, joined from TFDS's recordings of single ones: a small task for transcription."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.data.examples import Examples, Source
from toolkit.data.selections import field_pattern
from toolkit.data.sources.tfds import KNOWN_FIELDS, tfds
from toolkit.data.splits import refuse
from toolkit.errors import ToolkitError
from toolkit.types import NonNegative, Seed, Size

if TYPE_CHECKING:
    import numpy as np

    Samples = np.ndarray[Any, np.dtype[np.int16]]

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# The test recordings are those that the dataset's authors set aside.
RECORDINGS = {"train": "train", "validation": {"index": "5-9"}, "test": {"index": "0-4"}}
MAX_DIGITS = 100
MAX_PAUSE_MS = 5000
NOISE = 4.0
"""Standard deviation in a pause, of int16: quieter than the ends of nearly all recordings. Plain zeros, which no
microphone gives, would mark the joins."""


def spoken_digit_strings(
    *,
    train_strings: Size = 4000,
    validation_strings: Size = 400,
    test_strings: Size = 500,
    longest: Size = 7,
    shortest_pause_ms: NonNegative = 50.0,
    longest_pause_ms: NonNegative = 300.0,
    string_seed: Seed = 0,
    data_dir: str | None = None,
) -> Source:
    """One to `longest` digits of one speaker, joined with pauses, and their words: "seven zero two".

    The recordings are those of TFDS's `spoken_digit`, int16 at 8 kHz: indices 0 to 4 stand in strings of test alone, 5
    to 9 in strings of validation alone, the others in strings of train. A string is a function of seed, split and
    number; it is joined when it is read.

    Args:
        train_strings: how many strings train holds.
        validation_strings: how many validation holds.
        test_strings: how many test holds.
        longest: digits in the longest string; all lengths are equally frequent.
        shortest_pause_ms: before, between and after the digits, in ms.
        longest_pause_ms: the same; each pause is drawn anew.
        string_seed: of the strings.
        data_dir: folder of prepared datasets; before the environment's TFDS_DATA_DIR, before ~/tensorflow_datasets.

    Raises:
        ToolkitError: the dataset is not prepared and cannot be downloaded, or holds other recordings.

    Source: Jackson et al., Free Spoken Digit Dataset v1.0.9, github.com/Jakobovski/free-spoken-digit-dataset.
    """
    counts = {"train": train_strings, "validation": validation_strings, "test": test_strings}
    pauses = {"shortest_pause_ms": shortest_pause_ms, "longest_pause_ms": longest_pause_ms}
    refuse(_check({"longest": longest, **pauses}))
    recorded = tfds(name="spoken_digit", **RECORDINGS, data_dir=data_dir)  # type: ignore[arg-type]
    assert recorded.sample_rate is not None  # sounds that are arrays have one
    shortest, widest = (round(ms * recorded.sample_rate / 1000) for ms in pauses.values())
    splits = {
        split: _strings(split, number, counts[split], recorded.splits[split], longest, (shortest, widest), string_seed)
        for number, split in enumerate(RECORDINGS)
    }
    return Source(
        "audio",
        (),
        splits,
        sample_rate=recorded.sample_rate,
        origin=f"spoken_digit_strings of {recorded.origin}",
        task="transcription",
    )


def _check(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    problems = []
    if arguments["longest"] > MAX_DIGITS:
        problems.append(("longest", f"longest is {arguments['longest']:,}: write at most {MAX_DIGITS} digits"))
    shortest, longest = arguments["shortest_pause_ms"], arguments["longest_pause_ms"]
    if longest > MAX_PAUSE_MS:
        problems.append(("longest_pause_ms", f"longest_pause_ms is {longest:g}: write at most {MAX_PAUSE_MS:,}"))
    if shortest > longest:
        text = f"shortest_pause_ms is {shortest:g}, longer than longest_pause_ms, {longest:g}: make it the smaller one"
        problems.append(("shortest_pause_ms", text))
    return problems


spoken_digit_strings.check = _check  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What a string is joined from: positions of recordings, and the samples of the pauses around them."""

    recordings: tuple[int, ...]
    pauses: tuple[int, ...]
    seed: tuple[int, ...]


class _Strings(Sequence[Any]):
    """Joins a string whenever it is asked for: 4,000 of them take ten times the memory of the recordings."""

    def __init__(self, recordings: Sequence[Samples], plans: Sequence[_Plan]) -> None:
        self._recordings = recordings
        self._plans = plans

    def __len__(self) -> int:
        return len(self._plans)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._joined(self._plans[index])

    def _joined(self, plan: _Plan) -> Samples:
        import numpy as np

        noise = np.random.default_rng(plan.seed).normal(0, NOISE, sum(plan.pauses)).round().astype(np.int16)
        first, *others = np.split(noise, np.cumsum(plan.pauses)[:-1])
        pieces = [first]
        for recording, pause in zip(plan.recordings, others, strict=True):
            pieces += [self._recordings[recording], pause]
        return np.concatenate(pieces)


def _strings(
    split: str, number: int, count: int, recorded: Examples, longest: int, pauses: tuple[int, int], seed: int
) -> Examples:
    """`count` strings of one split, from its recordings."""
    import numpy as np

    said = _recordings(recorded, split)
    speakers = sorted(said)
    plans, labels, ids = [], [], []
    for i in range(count):
        rng = np.random.default_rng([seed, number, i])
        speaker = speakers[int(rng.integers(len(speakers)))]
        digits = sorted(said[speaker])
        chosen = [digits[k] for k in rng.integers(len(digits), size=int(rng.integers(1, longest + 1)))]
        takes = [said[speaker][digit][int(rng.integers(len(said[speaker][digit])))] for digit in chosen]
        lengths = rng.integers(pauses[0], pauses[1] + 1, len(takes) + 1)
        plans.append(_Plan(tuple(takes), tuple(lengths.tolist()), (seed, number, i, 1)))
        labels.append(" ".join(WORDS[digit] for digit in chosen))
        ids.append(f"{split}-{i:06d}-{speaker}-{'.'.join(map(str, chosen))}")
    return Examples(_Strings(recorded.values, plans), labels, ids, recorded.bad)


def _recordings(recorded: Examples, split: str) -> dict[str, dict[int, list[int]]]:
    """Positions of the recordings of each speaker and digit, by index."""
    pattern = field_pattern(KNOWN_FIELDS["spoken_digit"])
    found: dict[str, dict[int, dict[int, int]]] = {}
    for position, name in enumerate(recorded.ids):
        match = pattern.fullmatch(name.rpartition("/")[2])
        if match is None or match["digit"] not in map(str, range(10)) or not match["index"].isdecimal():
            raise ToolkitError(f"spoken_digit holds '{name}', which is no recording of a digit: prepare it again.")
        by_digit = found.setdefault(match["speaker"], {}).setdefault(int(match["digit"]), {})
        by_digit[int(match["index"])] = position
    if not found:
        raise ToolkitError(f"spoken_digit holds no recording for strings of {split}: prepare it again.")
    return {
        speaker: {digit: [takes[index] for index in sorted(takes)] for digit, takes in by_digit.items()}
        for speaker, by_digit in found.items()
    }
