"""Speech of TensorFlow Datasets, on small data that TFDS's own builders of librispeech and ljspeech prepared."""

import io

import numpy as np
import pytest
import soundfile

from toolkit.data.load import load
from toolkit.data.sources.tfds import tfds
from toolkit.errors import ToolkitError

LIBRISPEECH = {"train": "train_clean100", "validation": "dev_clean", "test": "test_clean"}
LJSPEECH = {
    "input": "speech",
    "label": "text_normalized",
    "train": "train[:60%]",
    "validation": "train[60%:80%]",
    "test": "train[80%:]",
}


def by_id(part):
    return {id: (value, text) for id, value, text in zip(part.ids, part.values, part.labels, strict=True)}


@pytest.mark.parametrize("config", ["", "/lazy_decode"])
def test_librispeech(speech, making, config):
    source = tfds(name=f"librispeech{config}", data_dir=str(speech), **LIBRISPEECH)
    assert (source.kind, source.task, source.class_names) == ("audio", "transcription", ())
    assert source.sample_rate == 16_000
    for name, split in LIBRISPEECH.items():
        expected = {row["id"]: row for row in making.utterances("librispeech", split) if row["text"]}
        found = by_id(source.splits[name])
        assert found.keys() == expected.keys()  # the dataset's own names
        for id, (value, text) in found.items():
            assert text == expected[id]["text"]
            if config:  # as it is stored: a FLAC file
                value, rate = soundfile.read(io.BytesIO(value), dtype="int16")
                assert rate == 16_000
            assert value.dtype == np.int16
            np.testing.assert_array_equal(value, expected[id]["speech"])
        (bad,) = source.splits[name].bad
        assert (bad.id[-9:], bad.reason) == ("-198-0004", "the transcript is empty")


def test_both_forms_of_librispeech_give_the_same_data(speech):
    arguments = {"data_dir": str(speech), **LIBRISPEECH}
    arrays, files = (
        load("tfds", {"name": f"librispeech{config}", **arguments}, max_bad_fraction=0.2)
        for config in ("", "/lazy_decode")
    )
    assert arrays.spec == files.spec
    said = "mister quilter is nor he tells us has grave doubts linnell's pictures"
    assert arrays.spec.vocabulary == tuple(sorted(set(said)))
    for name, split in arrays.splits.items():
        np.testing.assert_array_equal(split.table.flat, files.splits[name].table.flat)
        assert split.texts == files.splits[name].texts
        assert "linnell's pictures" in split.texts


def test_ljspeech_has_its_supervised_keys_the_other_way_round(speech, making):
    source = tfds(name="ljspeech", data_dir=str(speech), **LJSPEECH)
    assert (source.kind, source.task, source.sample_rate) == ("audio", "transcription", 22_050)
    found = {id: pair for part in source.splits.values() for id, pair in by_id(part).items()}
    expected = {row["id"]: row for row in making.utterances("ljspeech", "train") if row["text"]}
    assert found.keys() == expected.keys()
    for id, (value, text) in found.items():
        np.testing.assert_array_equal(value, expected[id]["speech"])
        assert text == expected[id]["text_normalized"]
    raw = tfds(name="ljspeech", data_dir=str(speech), **LJSPEECH | {"label": "text"})
    assert "1 is mister" in {text for part in raw.splits.values() for text in part.labels}
    with pytest.raises(ToolkitError, match="the feature 'speech' is Audio .* not one class or whole number"):
        tfds(
            name="ljspeech", data_dir=str(speech), train="train[:80%]", validation="train[80%:90%]", test="train[90%:]"
        )


def test_names_of_utterances_can_be_selected_by_their_fields(speech):
    source = tfds(
        name="ljspeech",
        data_dir=str(speech),
        fields="{book}-{number}",
        **LJSPEECH | {"train": "train[:50%]", "validation": "train[50%:]", "test": {"number": "0-1"}},
    )
    assert sorted(source.splits["test"].ids) == ["LJ001-0000", "LJ001-0001"]


def test_a_text_beside_anything_but_a_sound_is_no_transcript(tiny):
    with pytest.raises(ToolkitError, match="'image/filename' is Text .* not one class or whole number"):
        tfds(name="tiny_pictures", data_dir=str(tiny), label="image/filename")
    # Beside a sound it is one.
    assert (
        tfds(
            name="tiny_sounds",
            data_dir=str(tiny),
            label="audio/filename",
            train="train[:50%]",
            validation="train[50%:70%]",
            test="train[70%:]",
        )
        .splits["test"]
        .labels[0]
        .endswith(".wav")
    )


def test_a_transcript_that_is_not_utf_8_is_bad(making, tmp_path):
    rows = making.utterances("ljspeech", "train")
    rows[2]["text_normalized"] = b"caf\xe9"
    making.prepare(tmp_path, "ljspeech", {"train": rows})
    source = tfds(name="ljspeech", data_dir=str(tmp_path), **LJSPEECH)
    bad = {bad.id: bad.reason for part in source.splits.values() for bad in part.bad}
    assert bad.pop("LJ001-0002").startswith("the transcript is not UTF-8 (")
    assert list(bad) == ["LJ001-0004"]
