"""Sounds with transcripts, from a source to batches: labels, what is left out, fingerprints."""

import dataclasses
import hashlib

import numpy as np
import pytest

from toolkit.data import reading
from toolkit.data.batches import TrainingBatches, evaluation_batches
from toolkit.data.examples import BadExample, Examples, Source
from toolkit.data.labels import TranscriptLabels
from toolkit.data.load import TooManyBadExamples, load
from toolkit.data.spec import DataSpec
from toolkit.errors import ToolkitError

RATE = 8000
SAID = {
    "train": ["One two", "two one", "TWO, two!", "one", "two", "one one one", "two", "one"],
    "validation": ["two", "one two one"],
    "test": ["one", "two zulu", "zulu xray"],
}


def frames(samples, rate):
    """One per 10 ms, as a model's front end makes them."""
    return samples // (rate // 100)


def sounds(rng, count, shortest=4000, longest=8000):
    return [rng.integers(-999, 999, n).astype(np.int16) for n in rng.integers(shortest, longest, count)]


@pytest.fixture
def spoken(rng):
    """A source of sounds of 0.5 to 1 s: 50 to 100 of the frames above."""
    splits = {
        name: Examples(sounds(rng, len(said)), said, [f"{name}-{i}" for i in range(len(said))])
        for name, said in SAID.items()
    }
    return Source("audio", (), splits, sample_rate=RATE, origin="speech made here", task="transcription")


def replaced(source, name, **changes):
    """The source with something else in one split."""
    return dataclasses.replace(
        source, splits={**source.splits, name: dataclasses.replace(source.splits[name], **changes)}
    )


def with_values(source, name, values):
    """The source with other sounds at some places of a split."""
    changed = list(source.splits[name].values)
    for i, value in values.items():
        changed[i] = value
    return replaced(source, name, values=changed)


def listed(batches):
    return [({name: np.array(x) for name, x in inputs.items()}, np.array(y)) for inputs, y in batches]


def test_the_spec_describes_a_transcription(given, spoken):
    given(spoken)
    spec = load("x", {}, transcript_units="words").spec
    assert (spec.kind, spec.task, spec.class_names, spec.units) == ("audio", "transcription", (), "words")
    assert spec.vocabulary == ("one", "two")  # of train alone
    assert spec.outputs == 3
    assert spec.sample_rate == RATE and spec.lengths[-1] >= 7000
    assert spec.examples == {"train": 8, "validation": 2, "test": 3}
    assert DataSpec.from_json(spec.to_json()) == spec
    characters = load("x", {}).spec
    assert characters.units == "characters"
    assert characters.vocabulary == (" ", "e", "n", "o", "t", "w")


def test_labels_are_a_matrix_padded_with_blanks_and_texts_are_whole(given, spoken):
    given(spoken)
    splits = load("x", {}, transcript_units="words").splits
    assert splits["train"].labels.dtype == np.int32
    assert splits["train"].labels.tolist() == [
        [1, 2, 0], [2, 1, 0], [2, 2, 0], [1, 0, 0], [2, 0, 0], [1, 1, 1], [2, 0, 0], [1, 0, 0]
    ]  # fmt: skip
    assert splits["train"].texts[2] == "two two"
    assert splits["validation"].labels.tolist() == [[2, 0, 0], [1, 2, 1]]
    # What train does not hold has no label, but stands in the reference.
    assert splits["test"].labels.tolist() == [[1], [2], [0]]
    assert splits["test"].texts == ["one", "two zulu", "zulu xray"]


def test_what_train_does_not_hold_is_said_in_a_line_for_each_split(given, spoken):
    given(spoken)
    lines = []
    data = load("x", {}, transcript_units="words", report=lines.append)
    notes = [line for line in lines if line.startswith("note: ")]
    said = "hold words that train does not ('xray', 'zulu'): they cannot be written right"
    assert notes == [f"note: 2 transcripts of test {said}"]
    lines.clear()
    load("x", {}, splits=("test",), spec=data.spec, report=lines.append)
    assert [line for line in lines if line.startswith("note: ")] == notes
    lines.clear()
    given(replaced(spoken, "test", labels=["one", "one\x1bü", "two"]))
    load("x", {}, report=lines.append)
    (note,) = [line for line in lines if line.startswith("note: ")]
    assert note == "note: 1 transcript of test holds characters that train does not ('ü'): it cannot be written right"


def test_a_class_of_labels_is_not_asked_for(given, spoken):
    given(replaced(spoken, "train", labels=["one"] * 8))
    assert load("x", {}, transcript_units="words").spec.vocabulary == ("one",)


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_sound_too_short_for_its_transcript_is_left_out_and_named(given, spoken, rng, cache):
    # "two, two" needs 2 + 1 frames of 10 ms, "one one one" 3 + 2; "one two" 2.
    short = {0: 160, 2: 239, 5: 399}
    values = {i: rng.integers(-9, 9, n).astype(np.int16) for i, n in short.items()}
    given(with_values(spoken, "train", values))
    for _ in range(2):  # the second time the disk's verdict is a remembered one
        data = load("x", {}, transcript_units="words", frames=frames, max_bad_fraction=0.3, cache=cache)
        assert [(name, bad.id, bad.reason) for name, bad in data.bad] == [
            ("train", "train-2", "its transcript needs 3 frames, and its 0.03 s give 2"),
            ("train", "train-5", "its transcript needs 5 frames, and its 0.05 s give 4"),
        ]
        train = data.splits["train"]
        assert list(train.ids) == ["train-0", "train-1", "train-3", "train-4", "train-6", "train-7"]
        assert len(train.table) == len(train.labels) == len(train.texts) == data.spec.examples["train"] == 6
        assert train.labels.tolist() == [[1, 2], [2, 1], [1, 0], [2, 0], [2, 0], [1, 0]]
        np.testing.assert_array_equal(train.table.row(0), values[0])
    assert load("x", {}, transcript_units="words", cache=cache).bad == ()  # nobody asks for frames


def test_a_second_reading_with_the_vocabulary_leaves_out_the_same(given, spoken, rng):
    """Also where the only example with a unit was left out, so that the vocabulary lacks it."""
    values = {0: rng.integers(-9, 9, 100).astype(np.int16)}
    given(
        with_values(
            replaced(spoken, "train", labels=["xray xray", *spoken.splits["train"].labels[1:]]), "train", values
        )
    )
    asked = {"transcript_units": "words", "frames": frames, "max_bad_fraction": 0.3}
    first = load("x", {}, **asked)
    assert [bad.id for _, bad in first.bad] == ["train-0"]
    assert "xray" not in first.spec.vocabulary
    second = load("x", {}, **asked, spec=first.spec)
    assert second.splits["train"].fingerprint == first.splits["train"].fingerprint
    assert second.bad == first.bad


def test_a_training_sound_must_be_long_enough_when_it_is_played_faster(given, spoken, rng):
    values = {0: rng.integers(-9, 9, 199).astype(np.int16)}  # "one two" needs 160 samples, 200 at 1.25 times the speed
    given(with_values(with_values(spoken, "train", values), "test", values))
    data = load("x", {}, transcript_units="words", frames=frames, fastest=1.25, max_bad_fraction=0.3)
    assert [(name, bad.id, bad.reason) for name, bad in data.bad] == [
        ("train", "train-0", "its transcript needs 2 frames, and its 0.02 s, played 1.25 times as fast, give 1")
    ]
    values[0] = np.resize(values[0], 200)
    given(with_values(spoken, "train", values))
    assert load("x", {}, transcript_units="words", frames=frames, fastest=1.25).bad == ()


def test_a_table_on_disk_knows_transcripts_units_and_frames(given, spoken, rng, monkeypatch):
    """A verdict is remembered for what it was made with, and for nothing else."""
    values = {0: rng.integers(-9, 9, 400).astype(np.int16)}  # 5 frames for "One two"
    made = given(with_values(spoken, "train", values))
    decoded = []
    decode = reading.audio.decode
    monkeypatch.setattr(reading.audio, "decode", lambda *a, **k: decoded.append(1) or decode(*a, **k))

    def bad(**options):
        decoded.clear()
        data = load("x", {}, max_bad_fraction=0.3, cache="disk", **options)
        return [bad.id for _, bad in data.bad], len(decoded)

    assert bad(transcript_units="words", frames=frames) == ([], 13)
    assert bad(transcript_units="words", frames=frames) == ([], 0)
    # Another function that decides alike: the tables are found again.
    assert bad(transcript_units="words", frames=lambda samples, rate: samples // 80) == ([], 0)
    assert bad(transcript_units="characters", frames=frames) == (["train-0"], 13)
    assert bad(transcript_units="words", frames=lambda samples, rate: samples // 400) == (["train-0"], 13)
    given(replaced(made, "train", labels=["two two two two", *SAID["train"][1:]]))
    found, _ = bad(transcript_units="words", frames=frames)
    assert found == ["train-0"]


def test_what_the_vocabulary_lacks_needs_no_frame(given, spoken, rng):
    given(with_values(spoken, "test", {1: rng.integers(-9, 9, 100).astype(np.int16)}))  # "two zulu", 1 frame
    assert load("x", {}, transcript_units="words", frames=frames).bad == ()


def test_frames_are_those_at_the_rate_of_the_table(given, spoken):
    asked = set()

    def noting(samples, rate):
        asked.add(rate)
        return 10_000

    given(spoken)
    load("x", {}, sample_rate=4000, frames=noting)
    assert asked == {4000}


def test_transcripts_without_a_letter_are_bad_and_teach_nothing(given, spoken):
    labels = ["One two", "?!", "two", "one", "two", "so " * 7000, "one", "two"]
    given(replaced(spoken, "train", labels=labels))
    data = load("x", {}, transcript_units="words", max_bad_fraction=0.3)
    assert [(bad.id, bad.reason) for _, bad in data.bad] == [
        ("train-1", "its transcript holds no letter and no digit"),
        ("train-5", "its transcript has 21,000 characters, at most 20,000 are read"),
    ]
    assert data.spec.vocabulary == ("one", "two")


def test_the_vocabulary_is_that_of_what_could_be_read(given, spoken):
    labels = ["mumbled", *SAID["train"][1:]]
    given(with_values(replaced(spoken, "train", labels=labels), "train", {0: b"no sound"}))
    data = load("x", {}, transcript_units="words", max_bad_fraction=0.3)
    assert data.bad[0][1] == BadExample("train-0", "not a sound in a known format (WAV, FLAC, OGG)")
    assert data.spec.vocabulary == ("one", "two")


def test_above_the_budget_the_run_stops(given, spoken, rng):
    values = {i: rng.integers(-9, 9, 80).astype(np.int16) for i in (0, 1, 2)}
    given(with_values(spoken, "train", values))
    with pytest.raises(TooManyBadExamples, match=r"3 of 8 examples .*train-0 \(its transcript needs 2 frames"):
        load("x", {}, transcript_units="words", frames=frames, max_bad_fraction=0.3)
    assert len(load("x", {}, transcript_units="words", frames=frames, max_bad_fraction=0.4).bad) == 3


def test_a_fingerprint_covers_the_transcript(given, spoken):
    def fingerprint(**changes):
        given(replaced(spoken, "test", **changes))
        return load("x", {}).splits["test"].fingerprint

    test = spoken.splits["test"]
    sha = hashlib.sha256()
    for id, text, value in zip(test.ids, ["one", "two zulu", "zulu xray"], test.values, strict=True):
        sha.update(f"{id}\0{text}\0".encode() + reading.digest(value))
    assert fingerprint() == sha.hexdigest()
    assert fingerprint(labels=["one", "two, ZULU", "zulu xray"]) == sha.hexdigest()  # the same words
    others = [fingerprint(labels=["one", "two zulus", "zulu xray"]), fingerprint(values=test.values[::-1])]
    assert len({sha.hexdigest(), *others}) == 3


def test_evaluation_takes_vocabulary_and_units_from_the_spec(given, spoken):
    given(spoken)
    trained = load("x", {}, transcript_units="words")
    again = load("x", {}, splits=("test",), spec=trained.spec)
    assert again.spec == trained.spec and list(again.splits) == ["test"]
    assert again.splits["test"].fingerprint == trained.splits["test"].fingerprint
    np.testing.assert_array_equal(again.splits["test"].labels, trained.splits["test"].labels)
    with pytest.raises(ToolkitError, match="the vocabulary comes from the train split"):
        load("x", {}, splits=("test",))


def test_a_source_of_another_task_is_refused(given, spoken, audio_source):
    given(spoken)
    transcribing = load("x", {}).spec
    given(audio_source)
    classifying = load("x", {}).spec
    with pytest.raises(ToolkitError, match="data made here has classes for labels, but the model was trained on tra"):
        load("x", {}, splits=("test",), spec=transcribing)
    given(spoken)
    with pytest.raises(ToolkitError, match="speech made here has transcripts for labels, but .* on classes"):
        load("x", {}, splits=("test",), spec=classifying)
    given(dataclasses.replace(spoken, kind="text"))
    with pytest.raises(ToolkitError, match="has transcripts of text data: only audio can be transcribed"):
        load("x", {})


@pytest.mark.parametrize("kind", ["image", "audio", "text"])
def test_units_are_an_option_of_transcripts_alone(given, request, kind):
    given(request.getfixturevalue(f"{kind}_source"))
    with pytest.raises(ToolkitError, match=rf"data\.transcript_units is set to 'words', but .* {kind} data without"):
        load("x", {}, transcript_units="words")


def test_options_of_other_kinds_are_refused(given, spoken):
    given(spoken)
    with pytest.raises(ToolkitError, match=r"data\.vocabulary_size .*options of audio: buckets, .*transcript_units\)"):
        load("x", {}, vocabulary_size=10)


def test_too_many_words_are_told_before_anything_is_decoded(given, spoken, monkeypatch):
    given(spoken)
    monkeypatch.setattr("toolkit.data.transcripts.MAX_WORDS", 1)
    monkeypatch.setattr("toolkit.data.audio.decode", None)
    with pytest.raises(ToolkitError, match=r"more than 1 different words.*data.transcript_units: characters"):
        load("x", {}, transcript_units="words")


def test_batches_hold_rows_of_labels(given, spoken):
    given(spoken)
    data = load("x", {}, transcript_units="words")
    train = data.splits["train"]
    batches = TrainingBatches(train, data.spec, batch_size=3, seed=0).batches(0, 0, len(train) // 3)
    inputs, labels = batches.element_spec
    assert {name: tuple(x.shape) for name, x in inputs.items()} == {"samples": (3, None), "lengths": (3,)}
    assert labels.dtype.name == "int32" and labels.shape == (3, 3)
    rows = {tuple(row) for _, labels in listed(batches) for row in labels}
    assert rows <= {tuple(row) for row in train.labels.tolist()}
    for inputs, labels in listed(batches):
        for samples, length, label in zip(inputs["samples"], inputs["lengths"], labels, strict=True):
            (i,) = [i for i in range(8) if np.array_equal(train.table.row(i) / np.float32(32768), samples[:length])]
            np.testing.assert_array_equal(label, train.labels[i])
    for name, count in (("validation", 2), ("test", 3)):
        split = data.splits[name]
        (_, last), *_ = listed(evaluation_batches(split, data.spec, batch_size=count))
        np.testing.assert_array_equal(last, split.labels)


def test_a_split_of_one_example_and_one_without_labels_still_have_two_axes(given, spoken):
    one = {"values": spoken.splits["test"].values[:1], "labels": ["one two"], "ids": ["test-0"]}
    given(replaced(spoken, "test", **one))
    test = load("x", {}, transcript_units="words").splits["test"]
    assert test.labels.tolist() == [[1, 2]]
    data = load("x", {}, transcript_units="words")
    assert evaluation_batches(data.splits["test"], data.spec, batch_size=5).element_spec[1].shape.rank == 2
    given(replaced(spoken, "test", **one | {"labels": ["zulu"]}))
    data = load("x", {}, transcript_units="words")
    ((_, labels),) = listed(evaluation_batches(data.splits["test"], data.spec, batch_size=5))
    assert labels.tolist() == [[0]]


def test_the_fewest_samples_are_found_whatever_the_frames(rng):
    """Against counting them one by one."""
    from toolkit.data.labels import _shortest

    for _ in range(20):
        window, hop, stride = (int(n) for n in rng.integers(1, 50, 3))

        def made(samples, rate, window=window, hop=hop, stride=stride):
            return -(-(max(0, (samples - window) // hop + 1)) // stride)

        for needed in (1, 2, 7):
            expected = next(n for n in range(1, 100_000) if made(n, RATE) >= needed)
            assert _shortest(needed, RATE, made) == expected
    assert _shortest(5, RATE, lambda samples, rate: 4) > 64_000_000
    assert _shortest(0, RATE, frames) == _shortest(9, RATE, None) == 0


def test_labels_know_their_vocabulary_once_train_was_read(spoken):
    labels = TranscriptLabels("words", ("one", "two"), None)
    assert labels.matrix([]).shape == (0, 1)
    assert labels.note("test", ["one", "two one"]) is None
