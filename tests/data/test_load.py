import dataclasses
import hashlib
import io

import numpy as np
import pytest
import soundfile

from toolkit.data import image
from toolkit.data.examples import BadExample, Source
from toolkit.data.load import TooManyBadExamples, bucket_edges, load, steps_per_epoch
from toolkit.data.tables import CacheEntry
from toolkit.errors import RunFailed, ToolkitError


def replaced(source, name, **changes):
    """The source with something else in one split."""
    return dataclasses.replace(
        source, splits={**source.splits, name: dataclasses.replace(source.splits[name], **changes)}
    )


def with_bad(source, name, rows):
    values = list(source.splits[name].values)
    for row in rows:
        values[row] = b"no picture at all"
    return replaced(source, name, values=values)


def test_pictures_become_tables(given, image_source):
    given(image_source)
    data = load("x", {})
    assert data.spec.kind == "image" and data.spec.shape == (12, 16, 3) and data.spec.dtype == "uint8"
    assert data.spec.class_names == ("no", "yes") and data.spec.lengths == ()
    assert data.spec.examples == {"train": 40, "validation": 10, "test": 13} and data.bad == ()
    for name, loaded in data.splits.items():
        examples = image_source.splits[name]
        assert list(loaded.ids) == list(examples.ids) and loaded.labels.dtype == np.int32
        for row, value in zip(loaded.table.rows, examples.values, strict=True):
            np.testing.assert_array_equal(row, image.decode(value, None, 3))
    resized = load("x", {}, image_size=(8, 6), splits=("test",))
    assert resized.spec.shape == (8, 6, 3) and list(resized.splits) == ["test"]
    np.testing.assert_array_equal(
        resized.splits["test"].table.rows[5], image.decode(image_source.splits["test"].values[5], (8, 6), 3)
    )


def test_pictures_of_several_sizes_need_image_size(given, image_source, rng, making):
    values = [*image_source.splits["train"].values[:39], *making.pictures(rng, 1, (9, 16))]
    given(replaced(image_source, "train", values=values))
    with pytest.raises(ToolkitError, match=r"train-0 has 12x16 pixels, train-39 has 9x16\): set data.image_size"):
        load("x", {})
    assert load("x", {}, image_size=(12, 16)).spec.examples["train"] == 40


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_bad_examples_leave_table_labels_and_ids_together(given, image_source, cache):
    made = given(with_bad(image_source, "train", [0, 17]))
    for _ in range(2):  # the second time the disk's verdict is a remembered one
        data = load("x", {}, max_bad_fraction=0.05, cache=cache)
        train = data.splits["train"]
        assert [(name, bad.id) for name, bad in data.bad] == [("train", "train-0"), ("train", "train-17")]
        assert "not a picture" in data.bad[0][1].reason
        assert len(train) == len(train.table) == len(train.labels) == data.spec.examples["train"] == 38
        for row, label, id in zip(train.table.rows, train.labels, train.ids, strict=True):
            i = int(id.removeprefix("train-"))
            assert label == made.splits["train"].labels[i]
            np.testing.assert_array_equal(row, image.decode(made.splits["train"].values[i], None, 3))


def test_above_the_budget_the_run_stops_and_names_them(given, image_source):
    made = with_bad(image_source, "train", [3, 4, 5, 6, 7, 8, 9])
    given(replaced(made, "train", bad=(BadExample("gone", "Permission denied"),)))
    with pytest.raises(TooManyBadExamples) as caught:
        load("x", {}, max_bad_fraction=0.1)
    message = str(caught.value)
    assert "8 of 41 examples (19.5%) in the train split of data made here" in message
    assert "gone (Permission denied); train-3 (not a picture" in message and "train-7" not in message
    assert "and 3 more" in message and "data.max_bad_fraction allows 10.0%" in message
    assert caught.value.exit_code == 1 and len(caught.value.bad) == 8
    assert len(load("x", {}, max_bad_fraction=0.2).bad) == 8


def test_each_split_has_its_own_budget(given, image_source):
    given(with_bad(image_source, "validation", [0]))
    with pytest.raises(TooManyBadExamples, match="1 of 10 examples"):
        load("x", {}, max_bad_fraction=0.05)


def test_a_split_without_examples_or_a_single_class_is_refused(given, image_source):
    given(replaced(image_source, "train", labels=np.ones(40, np.int64)))
    with pytest.raises(ToolkitError, match="train split of data made here holds a single class, 'yes'"):
        load("x", {})
    given(with_bad(image_source, "validation", range(10)))
    with pytest.raises(ToolkitError, match="10 of 10"):
        load("x", {}, max_bad_fraction=0.99)
    given(replaced(image_source, "test", values=[], labels=np.zeros(0, np.int64), ids=[]))
    with pytest.raises(ToolkitError, match="the test split of data made here is empty"):
        load("x", {})
    given(dataclasses.replace(image_source, class_names=("only",)))
    with pytest.raises(ToolkitError, match="1 class"):
        load("x", {})


def test_content_in_two_splits_is_counted(given, image_source):
    train, test = image_source.splits["train"].values, list(image_source.splits["test"].values)
    test[3:6] = [train[0], train[0], train[9]]
    given(replaced(image_source, "test", values=test))
    assert load("x", {}).duplicates == {
        ("train", "validation"): (),
        ("train", "test"): tuple(image_source.splits["test"].ids[3:6]),
        ("validation", "test"): (),
    }


def test_a_fingerprint_tells_ids_labels_content_and_order(given, image_source):
    def fingerprint(**changes):
        given(replaced(image_source, "test", **changes))
        return load("x", {}, splits=("test",)).splits["test"].fingerprint

    test = image_source.splits["test"]
    sha = hashlib.sha256()
    for id, label, value in zip(test.ids, test.labels, test.values, strict=True):
        sha.update(f"{id}\0{label}\0".encode() + hashlib.sha256(value).digest())
    assert fingerprint() == sha.hexdigest()
    others = [
        fingerprint(values=[*test.values[:-1], test.values[0]]),
        fingerprint(labels=1 - test.labels),
        fingerprint(ids=[*test.ids[:-1], "other"]),
        fingerprint(values=test.values[::-1], labels=test.labels[::-1], ids=test.ids[::-1]),
    ]
    assert len({fingerprint(), *others}) == 5


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_a_table_on_disk_is_written_once_and_read_again(given, request, tmp_path, monkeypatch, kind):
    made = given(request.getfixturevalue(f"{kind}_source"))
    written = load("x", {}, cache="disk")
    in_memory = load("x", {}, cache="memory")
    folder = tmp_path / "cache" / "toolkit" / "tables"
    assert len(list(folder.iterdir())) == 3  # three splits, no drafts
    monkeypatch.setattr("toolkit.data.image.decode", None)
    monkeypatch.setattr("toolkit.data.audio.decode", None)
    lines = []
    again = load("x", {}, cache="disk", report=lines.append)
    assert any(str(folder) in line for line in lines)
    for name in made.splits:
        tables = [data.splits[name].table for data in (written, again, in_memory)]
        arrays = [table.rows if kind == "image" else table.flat for table in tables]
        assert isinstance(arrays[1], np.memmap) and not isinstance(arrays[2], np.memmap)
        np.testing.assert_array_equal(arrays[0], arrays[2])
        np.testing.assert_array_equal(arrays[1], arrays[2])
        assert again.splits[name].fingerprint == in_memory.splits[name].fingerprint


def test_a_table_on_disk_follows_its_files(given, image_source, rng, tmp_path, making):
    paths = []
    for i, value in enumerate(image_source.splits["test"].values):
        paths.append(tmp_path / f"{i}.png")
        paths[-1].write_bytes(value)
    given(replaced(image_source, "test", values=paths))
    first = load("x", {}, cache="disk", splits=("test",)).splits["test"]
    new = rng.integers(0, 256, (12, 16, 3), np.uint8)
    paths[4].write_bytes(making.png(new))
    second = load("x", {}, cache="disk", splits=("test",)).splits["test"]
    np.testing.assert_array_equal(second.table.rows[4], new)
    assert first.fingerprint != second.fingerprint
    rows = np.array(second.table.rows)  # away from the file
    for folder in (tmp_path / "cache" / "toolkit" / "tables").iterdir():  # cut short, as by a full disk
        (folder / "rows.bin").write_bytes(b"")
    np.testing.assert_array_equal(load("x", {}, cache="disk").splits["test"].table.rows, rows)


def test_what_does_not_fit_into_memory_goes_to_disk(given, image_source, monkeypatch):
    given(image_source)
    monkeypatch.setattr("toolkit.data.load.available_memory", lambda: 40_000)
    assert isinstance(load("x", {}).splits["train"].table.rows, np.memmap)
    monkeypatch.setattr("toolkit.data.load.available_memory", lambda: 4_000_000)
    assert not isinstance(load("x", {}).splits["train"].table.rows, np.memmap)


def test_what_must_stay_in_memory_is_refused_before_it_is_laid_out(given, image_source, monkeypatch):
    given(image_source)
    monkeypatch.setattr("toolkit.data.load.available_memory", lambda: 20_000)
    monkeypatch.setattr("toolkit.data.reading.ImageWriter", None)
    with pytest.raises(RunFailed, match="does not fit into the .* bytes of memory that are free: set data.cache: disk"):
        load("x", {}, cache="memory")


def test_of_two_that_write_one_table_the_later_leaves_it_in_place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    entry = CacheEntry("key")
    writers = [entry.writer((1, 2, 1), np.uint8) for _ in range(2)]
    for value, writer in enumerate(writers):
        writer.add(np.full((1, 2, 1), value, np.uint8))
    writers[0].finish({})
    inode = (entry.folder / "about.json").stat().st_ino
    writers[1].finish({})
    assert (entry.folder / "about.json").stat().st_ino == inode
    assert [path.name for path in entry.folder.parent.iterdir()] == ["key"]  # no draft
    (entry.folder / "about.json").write_text("{")  # cut short
    third = entry.writer((1, 2, 1), np.uint8)
    third.add(np.full((1, 2, 1), 7, np.uint8))
    third.finish({})
    table, _ = entry.read()
    assert table.rows[0, 0, 0, 0] == 7


def test_sounds_become_samples_and_edges(given, audio_source):
    given(audio_source)
    data = load("x", {})
    longest = max(len(value) for examples in audio_source.splits.values() for value in examples.values)
    assert data.spec.sample_rate == 8000 and data.spec.dtype == "float32" and data.spec.shape == (None,)
    assert data.spec.lengths[-1] >= longest > data.spec.lengths[-1] - 400
    assert list(data.spec.lengths) == sorted(set(data.spec.lengths)) and all(n % 400 == 0 for n in data.spec.lengths)
    np.testing.assert_array_equal(data.splits["test"].table.row(5), audio_source.splits["test"].values[5])
    slower = load("x", {}, sample_rate=4000)
    assert slower.spec.sample_rate == 4000
    lengths = [len(value) for value in audio_source.splits["train"].values]
    np.testing.assert_allclose(slower.splits["train"].table.lengths, np.array(lengths) / 2, atol=1)


def test_sound_files_of_several_rates_need_sample_rate(given, rng, making):
    def wav(rate):
        buffer = io.BytesIO()
        soundfile.write(buffer, rng.integers(-99, 99, 800).astype(np.int16), rate, format="WAV")
        return buffer.getvalue()

    splits = {name: making.split(name, [wav(8000), wav(8000), wav(16_000)]) for name in ("train", "validation", "test")}
    given(Source(kind="audio", class_names=("no", "yes"), splits=splits, origin="x"))
    with pytest.raises(ToolkitError, match="train-0 has 8000 Hz, train-2 has 16000 Hz"):
        load("x", {})
    assert load("x", {}, sample_rate=8000).splits["train"].table.lengths.tolist() == [800, 800, 400]


def test_the_vocabulary_comes_from_train_alone(given, text_source):
    made = replaced(text_source, "test", values=["good zebra", *text_source.splits["test"].values[1:]])
    made = replaced(made, "validation", values=["lion"] * 10)
    given(made)
    data = load("x", {})
    words = {word for value in made.splits["train"].values for word in value.split()}
    assert data.spec.vocabulary[:2] == ("", "[unk]") and set(data.spec.vocabulary[2:]) == words
    row = data.splits["test"].table.row(0)
    assert [data.spec.vocabulary[token] for token in row] == ["good", "[unk]"]
    small = load("x", {}, vocabulary_size=4, max_tokens=5)
    assert len(small.spec.vocabulary) == 4 and small.spec.lengths[-1] == 5
    assert small.splits["train"].table.lengths.max() == 5


def test_texts_without_words_and_endless_texts_are_bad(given, text_source):
    values = list(text_source.splits["train"].values)
    values[3], values[7] = " <br /> ", "word " * 200_001
    given(replaced(text_source, "train", values=values))
    data = load("x", {}, max_bad_fraction=0.05)
    assert [(bad.id, bad.reason) for _, bad in data.bad] == [
        ("train-3", "no words in it"),
        ("train-7", "1,000,005 bytes, at most 1,000,000 are read"),
    ]
    assert len(data.splits["train"].table) == 38 and "train-3" not in data.splits["train"].ids
    assert "word" not in data.spec.vocabulary


@pytest.mark.parametrize("kind", ["image", "audio", "text"])
def test_evaluation_takes_everything_from_the_spec(given, request, kind):
    made = given(request.getfixturevalue(f"{kind}_source"))
    options = {"image": {"image_size": (5, 7)}, "audio": {"sample_rate": 4000}, "text": {"vocabulary_size": 5}}[kind]
    trained = load("x", {}, **options)
    again = load("x", {}, splits=("test",), spec=trained.spec)
    assert again.spec == trained.spec
    assert list(again.splits) == ["test"]
    assert again.splits["test"].fingerprint == trained.splits["test"].fingerprint
    pair = [data.splits["test"].table for data in (again, trained)]
    np.testing.assert_array_equal(*[table.rows if kind == "image" else table.flat for table in pair])
    given(dataclasses.replace(made, class_names=("no", "maybe")))
    with pytest.raises(ToolkitError, match="differing: maybe, yes"):
        load("x", {}, splits=("test",), spec=trained.spec)
    with pytest.raises(ToolkitError, match="the model takes"):
        given(request.getfixturevalue("text_source" if kind != "text" else "image_source"))
        load("x", {}, splits=("test",), spec=trained.spec)


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [
        ("image", "sample_rate", 8000),
        ("image", "vocabulary_size", 10),
        ("image", "buckets", 3),
        ("audio", "image_size", (3, 3)),
        ("audio", "max_tokens", 10),
        ("text", "sample_rate", 8000),
        ("text", "cache", "disk"),
    ],
)
def test_an_option_of_another_kind_is_refused(given, request, kind, option, value):
    given(request.getfixturevalue(f"{kind}_source"))
    with pytest.raises(ToolkitError, match=rf"data\.{option} is .*{kind}"):
        load("x", {}, **{option: value})


def test_a_batch_larger_than_the_split_is_a_config_error(given, image_source):
    given(image_source)
    train = load("x", {}).splits["train"]
    assert steps_per_epoch(train, 40) == 1 and steps_per_epoch(train, 13) == 3
    with pytest.raises(ToolkitError, match="data.batch_size is 41, but the train split holds 40 examples"):
        steps_per_epoch(train, 41)


def test_edges_share_random_batches_evenly(rng):
    lengths = np.exp(rng.normal(8, 0.4, 5000)).astype(int)
    edges = bucket_edges(lengths, 4, int(lengths.max()) + 900, 400)
    assert len(edges) == 4 and edges[-1] >= lengths.max() + 900 and all(edge % 400 == 0 for edge in edges)
    longest = rng.choice(lengths, (4000, 32)).max(axis=1)
    shares = np.bincount(np.searchsorted(edges, longest), minlength=4) / 4000
    assert (abs(shares - 0.25) < 0.08).all()  # edges are rounded up, which shifts some batches down
    assert bucket_edges(np.array([3, 3, 3]), 4, 3, 8, limit=256) == (8,)
    assert bucket_edges(np.array([300] * 9), 4, 300, 8, limit=250) == (250,)
