"""Strings of spoken digits, on a small dataset of the same shape; the real one where TFDS_DATA_DIR has it."""

import re
import socket

import numpy as np
import pytest

from toolkit.data.load import load
from toolkit.data.sources import spoken_digit_strings as module
from toolkit.data.sources.spoken_digit_strings import spoken_digit_strings
from toolkit.errors import ToolkitError

SMALL = {"train_strings": 60, "validation_strings": 20, "test_strings": 30}
INDICES = {"train": range(10, 12), "validation": range(5, 10), "test": range(5)}


@pytest.fixture
def strings(speech):
    def make(**arguments):
        return spoken_digit_strings(**{**SMALL, "data_dir": str(speech), **arguments})

    return make


def levels(samples):
    """The values of the recordings that a string holds, in order: each is constant, longer than any run of noise."""
    edges = np.flatnonzero(np.diff(samples)) + 1
    return [int(run[0]) for run in np.split(samples, edges) if len(run) >= 90]


def test_what_it_is(strings):
    source = strings()
    assert (source.kind, source.task, source.class_names) == ("audio", "transcription", ())
    assert source.sample_rate == 8000
    assert source.origin == "spoken_digit_strings of tfds spoken_digit 1.0.9"
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 60, "validation": 20, "test": 30}
    words = dict(zip(map(str, range(10)), module.WORDS, strict=True))
    lengths = set()
    for name, part in source.splits.items():
        for i, (id, text) in enumerate(zip(part.ids, part.labels, strict=True)):
            split, number, speaker, digits = id.split("-")
            assert (split, number, speaker in ("ann", "bob")) == (name, f"{i:06d}", True)
            assert text == " ".join(words[digit] for digit in digits.split("."))
            lengths.add(len(text.split()))
    assert lengths == set(range(1, 8))


def test_each_split_has_recordings_of_its_own_and_a_string_one_speaker(strings):
    for name, part in strings(shortest_pause_ms=1).splits.items():
        seen = set()
        for id, samples in zip(part.ids, part.values, strict=True):
            _, _, speaker, digits = id.split("-")
            found = levels(samples)
            assert [value // 1000 for value in found] == [int(digit) for digit in digits.split(".")]
            assert {value % 10 for value in found} == {int(speaker == "bob")}
            seen |= {value % 1000 // 10 for value in found}
        assert seen == set(INDICES[name])


def test_a_string_is_its_recordings_joined_with_pauses(strings, making):
    sounds = {row["audio"][0]: row["audio"] for row in making.recordings()}
    part = strings(shortest_pause_ms=10, longest_pause_ms=30).splits["train"]
    pauses = []
    for samples in part.values:
        assert samples.dtype == np.int16
        position = 0
        for value in levels(samples):
            recording = sounds[value]
            (start,) = [
                at
                for at in range(position, len(samples) - len(recording) + 1)
                if np.array_equal(samples[at : at + len(recording)], recording)
            ][:1]
            pauses.append(samples[position:start])
            position = start + len(recording)
        pauses.append(samples[position:])
    lengths = [len(pause) for pause in pauses]
    assert 80 <= min(lengths) < 100 and 220 < max(lengths) <= 240  # 10 to 30 ms at 8 kHz
    noise = np.concatenate(pauses)
    assert abs(noise.std() - module.NOISE) < 0.2 and abs(noise.mean()) < 0.2


def test_without_pauses_there_are_only_recordings(strings, making):
    sounds = {row["audio/filename"]: row["audio"] for row in making.recordings(INDICES["test"])}
    part = strings(longest=1, shortest_pause_ms=0, longest_pause_ms=0).splits["test"]
    for samples in part.values:
        assert any(np.array_equal(samples, sound) for sound in sounds.values())


def contents(source):
    return {
        id: (text, value.tobytes())
        for part in source.splits.values()
        for id, text, value in zip(part.ids, part.labels, part.values, strict=True)
    }


def test_strings_are_functions_of_seed_split_and_number(strings):
    first = contents(strings())
    assert contents(strings()) == first
    assert contents(strings(string_seed=1)).keys() != first.keys()
    # Other counts leave what there is as it is.
    longer = contents(strings(train_strings=90))
    assert first.items() <= longer.items() and len(longer) == len(first) + 30
    values = strings().splits["train"].values
    np.testing.assert_array_equal(values[7], values[7])
    np.testing.assert_array_equal(values[-1], values[len(values) - 1])
    assert [part.tolist() for part in values[3:5]] == [values[3].tolist(), values[4].tolist()]
    with pytest.raises(IndexError):
        values[len(values)]


def test_nothing_is_joined_before_it_is_read(strings, monkeypatch):
    joined = []
    join = module._Strings._joined
    monkeypatch.setattr(module._Strings, "_joined", lambda self, plan: joined.append(plan) or join(self, plan))
    part = strings().splits["train"]
    assert len(part.values) == 60 and joined == []
    part.values[3]
    assert len(joined) == 1


def test_it_becomes_data_to_train_on(speech):
    arguments = {**SMALL, "data_dir": str(speech)}
    data = load("spoken_digit_strings", arguments, transcript_units="words")
    assert data.spec.vocabulary == tuple(sorted(module.WORDS))
    assert data.bad == ()
    assert data.splits["test"].texts == list(spoken_digit_strings(**arguments).splits["test"].labels)
    # Where a model makes a frame of 25 ms, strings of short recordings are too long to write.
    frames = lambda samples, rate: samples // 200  # noqa: E731
    short = load("spoken_digit_strings", {**arguments, "longest_pause_ms": 50}, frames=frames, max_bad_fraction=0.9)
    assert short.bad
    for _, bad in short.bad:
        assert re.fullmatch(r"its transcript needs \d+ frames, and its 0\.\d\d s give \d+", bad.reason)


def test_what_is_wrong_is_said_in_one_sentence(strings, tmp_path, monkeypatch):
    def no_network(*_):
        raise socket.gaierror(-2, "Name or service not known")

    for key in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    for arguments, text in (
        ({"longest": 101}, "data.longest: longest is 101: write at most 100 digits"),
        ({"longest_pause_ms": 6000}, "data.longest_pause_ms: longest_pause_ms is 6000: write at most 5,000"),
        ({"longest_pause_ms": 20}, "data.shortest_pause_ms: shortest_pause_ms is 50, longer than .* 20: make it"),
        ({"data_dir": str(tmp_path / "none")}, "'spoken_digit' is not prepared in .*none and could not be downloaded"),
    ):
        with pytest.raises(ToolkitError, match=text) as caught:
            strings(**arguments)
        assert "\n" not in str(caught.value)
    assert module._check({"longest": 7, "shortest_pause_ms": 0, "longest_pause_ms": 0}) == []


def test_a_dataset_that_lacks_recordings_is_told(making, tmp_path):
    making.prepare(tmp_path, "spoken_digit", {"train": making.recordings(range(5))})
    with pytest.raises(ToolkitError, match="no example has index '5-9'"):
        spoken_digit_strings(data_dir=str(tmp_path))


def test_real_recordings(tfds_dir):
    if not any((tfds_dir / "spoken_digit").rglob("dataset_info.json")):
        pytest.skip(f"needs spoken_digit prepared in TFDS_DATA_DIR ({tfds_dir})")
    from toolkit.data.sources.tfds import tfds

    source = spoken_digit_strings(**SMALL)
    recorded = tfds(name="spoken_digit", **module.RECORDINGS)
    assert {name: len(part) for name, part in recorded.splits.items()} == {
        "train": 2000,
        "validation": 250,
        "test": 250,
    }
    starts = {
        name: {value[:200].tobytes() for value in part.values if len(value) >= 200}
        for name, part in recorded.splits.items()
    }
    for name, part in source.splits.items():
        plans = part.values._plans
        for samples, plan, id in zip(part.values, plans, part.ids, strict=True):
            position = 0
            for recording, pause in zip(plan.recordings, plan.pauses, strict=False):
                whole = recorded.splits[name].values[recording]
                np.testing.assert_array_equal(samples[position + pause :][: len(whole)], whole)
                assert not any(whole[:200].tobytes() in starts[other] for other in starts if other != name)
                assert recorded.splits[name].ids[recording].split("_")[1] == id.split("-")[2]
                position += pause + len(whole)
            assert len(samples) == position + plan.pauses[-1]
