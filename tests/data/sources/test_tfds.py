"""TensorFlow Datasets: what is read, against TFDS's own reader, and what is refused."""

import logging
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from toolkit.data.sources.tfds import tfds
from toolkit.errors import ToolkitError

PARTS = {"train": "train[:60%]", "validation": "train[60%:80%]", "test": "train[80%:]"}


def by_tfds(folder, name, split, **arguments):
    """Examples as TFDS itself reads them, decoded, in the order of the files."""
    import tensorflow_datasets

    config = tensorflow_datasets.ReadConfig(interleave_cycle_length=1, try_autocache=False, add_tfds_id=True)
    examples = tensorflow_datasets.load(
        name, split=split, data_dir=str(folder), read_config=config, download=False, **arguments
    )
    return list(examples.as_numpy_iterator())


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


def all_ids(source):
    return [name for part in source.splits.values() for name in part.ids]


def test_images_stay_encoded_and_their_file_names_are_ids(tiny):
    import tensorflow as tf

    before = snapshot(tiny)
    source = tfds(name="tiny_pictures", data_dir=str(tiny))
    assert (source.kind, source.channels, source.sample_rate) == ("image", 3, None)
    assert source.class_names == ("even", "odd")
    assert source.origin == "tfds tiny_pictures 1.2.0"
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 18, "validation": 2, "test": 6}
    for split, expression in (("train", "train[:90%]"), ("validation", "train[90%:]"), ("test", "test")):
        part = source.splits[split]
        expected = by_tfds(tiny, "tiny_pictures", expression)
        assert list(part.ids) == [row["image/filename"].decode() for row in expected]
        assert part.labels.tolist() == [row["label"] for row in expected]
        assert part.labels.dtype == np.int64
        for value, row in zip(part.values, expected, strict=True):
            assert isinstance(value, bytes)
            np.testing.assert_array_equal(tf.io.decode_png(value).numpy(), row["image"])
    assert snapshot(tiny) == before
    assert list(Path.cwd().iterdir()) == []


def test_sounds_are_int16_and_selected_by_their_file_names(tiny):
    arguments = {"name": "tiny_sounds", "data_dir": str(tiny), "fields": "{digit}_{speaker}_{index}.wav"}
    source = tfds(**arguments, train="train[:50%]", validation="train[50%:]", test={"index": "0-1", "speaker": "bob"})
    assert (source.kind, source.sample_rate, source.channels) == ("audio", 4000, None)
    assert source.class_names == ("0", "1", "2")
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 12, "validation": 12, "test": 6}
    expected = {row["audio/filename"].decode(): row for row in by_tfds(tiny, "tiny_sounds", "train")}
    assert sorted(all_ids(source)) == sorted(expected)
    assert all(name[2:5] == "bob" and name[6] in "01" for name in source.splits["test"].ids)
    for part in source.splits.values():
        for name, value, label in zip(part.ids, part.values, part.labels, strict=True):
            assert value.dtype == np.int16
            np.testing.assert_array_equal(value, expected[name]["audio"])
            assert label == expected[name]["label"]
    unseen = tfds(**arguments, train="train[:50%]", validation="train[50%:]", test={"speaker": "ann"})
    assert {name[2:5] for name in unseen.splits["test"].ids} == {"ann"}
    assert {name[2:5] for name in all_ids(unseen)[:15]} == {"bob"}


def test_texts_with_named_features_and_plain_integers_as_labels(tiny):
    source = tfds(name="tiny_texts", data_dir=str(tiny), input="text", label="stars")
    assert (source.kind, source.sample_rate, source.channels) == ("text", None, None)
    assert source.class_names == ("5", "15", "25")
    expected = by_tfds(tiny, "tiny_texts", "test")
    part = source.splits["test"]
    assert list(part.values) == [row["text"].decode() for row in expected]
    assert [int(source.class_names[label]) for label in part.labels] == [row["stars"] for row in expected]
    assert list(part.ids) == [row["tfds_id"].decode() for row in expected]
    (bad,) = [bad for part in source.splits.values() for bad in part.bad]
    (empty,) = [row for row in by_tfds(tiny, "tiny_texts", "train") if not row["text"]]
    assert (bad.id, bad.reason) == (empty["tfds_id"].decode(), "the text is empty")
    assert len(all_ids(source)) == 23


def test_slices_are_those_of_tfds(tiny):
    source = tfds(name="tiny_pictures:1.2.0", data_dir=str(tiny), **PARTS | {"test": "train[-4:-1]+test[1:2]"})
    for split, expression in (PARTS | {"test": "train[-4:-1]+test[1:2]"}).items():
        expected = [row["image/filename"].decode() for row in by_tfds(tiny, "tiny_pictures", expression)]
        assert list(source.splits[split].ids) == expected


def test_the_environment_names_the_folder_and_data_dir_wins(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tiny))
    assert len(tfds(name="tiny_pictures").splits["test"]) == 6
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert len(tfds(name="tiny_pictures", data_dir=str(tiny)).splits["test"]) == 6


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": "tiny_picture"}, r"no dataset 'tiny_picture' \(did you mean 'tiny_pictures'\?\)"),
        ({"name": "mnits"}, r"no dataset 'mnits' \(did you mean 'mnist'\?\).*the source folder or csv"),
        ({"name": "mnist:9.9.9"}, "cannot be loaded at version 9.9.9, only: 3"),
        ({"name": "imdb_reviews/plane_text"}, r"did you mean 'plain_text'\?\); there are"),
        ({"name": " "}, "data.name: name is empty"),
        ({"name": "tiny_pictures", "test": "tset"}, r"no split 'tset' \(did you mean 'test'\?\): it has train, test"),
        ({"name": "tiny_sounds"}, "there is no split 'test': it has train; cut other parts from them, for instance"),
        ({"name": "tiny_pictures", "validation": "train[80%:]"}, r"\(train\[80%:\]\) and train \(train\[:90%\]\)"),
        ({"name": "tiny_pictures", "train": "train[:19]"}, r"data.train \(train\[:19\]\) and .* share 1 examples"),
        ({"name": "tiny_pictures", "input": "imag"}, r"data.input: .*no feature 'imag' \(did you mean 'image'\?\)"),
        ({"name": "tiny_texts"}, "does not say which feature is the input: name it in data.input"),
        ({"name": "tiny_texts", "input": "lengths", "label": "stars"}, "'lengths' is Tensor .* neither an 8-bit image"),
        ({"name": "tiny_texts", "input": "text", "label": "lengths"}, "'lengths' is Tensor .* not one class"),
        ({"name": "tiny_texts", "input": "text", "label": "stars", "fields": "{a}.x", "test": {"a": 1}}, "no file"),
        ({"name": "tiny_sounds", "test": {"speaker": "bob"}}, "give data.fields, a pattern"),
        ({"name": "tiny_sounds", "test": {"who": "bob"}, "fields": "{digit}_{whom}_{i}.wav"}, r"did you mean 'whom'"),
        ({"name": "tiny_sounds", "test": {"b": "bob"}, "fields": "{a}-{b}"}, "'._..._..wav' .* does not fit"),
        ({"name": "tiny_sounds", "source_rate": 8000, **PARTS}, "states 4000 Hz, not 8000"),
        ({"name": "tiny_pictures", "source_rate": 8000, **PARTS}, "source_rate: the feature 'image' of .* is no sound"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence(tiny, arguments, text):
    with pytest.raises(ToolkitError, match=text) as caught:
        tfds(data_dir=str(tiny), **arguments)
    assert "\n" not in str(caught.value)


def test_problems_that_show_in_the_config_alone():
    def problems(**arguments):
        full = {"name": "spoken_digit", **PARTS, "fields": None} | arguments
        return tfds.check(full)

    assert problems() == []
    assert problems(test={"index": "0-4"}, train="train[:90%]", validation="train[90%:]") == []
    ((key, text),) = problems(validation="train[50%:70%]")
    assert key == "validation"
    assert "train[50%:70%]" in text
    assert "train[:60%]" in text
    ((key, text),) = problems(test={"indx": 3})
    assert (key, "did you mean 'index'" in text) == ("test", True)
    ((key, _),) = problems(name="mnist", test={"index": 3})
    assert key == "test"
    ((key, _),) = problems(fields="no fields", test={"index": 3})
    assert key == "fields"


@pytest.fixture
def broken(tiny, tmp_path):
    """A copy of the tiny datasets to damage."""
    shutil.copytree(tiny, tmp_path / "copy")
    return tmp_path / "copy"


def shard(folder: Path, split: str = "train") -> Path:
    (path,) = (folder / "tiny_pictures" / "1.2.0").glob(f"*-{split}.tfrecord*")
    return path


def refused(folder, text):
    with pytest.raises(ToolkitError, match=text) as caught:
        tfds(name="tiny_pictures", data_dir=str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_that_ends_too_early_is_named(broken):
    path = shard(broken)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 + 3])
    assert str(path) in refused(broken, "cannot be read .*prepare the dataset again")


def test_a_file_that_ends_between_two_examples_is_named(broken):
    import tensorflow as tf

    path = shard(broken)
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records[:-1]:
            writer.write(record)
    assert str(path) in refused(broken, "ends after 19 examples")


def test_a_prepared_folder_cannot_have_modules_imported(broken, tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    path = broken / "tiny_pictures" / "1.2.0" / "features.json"
    path.write_text(path.read_text().replace("tensorflow_datasets.core.features.image_feature.Image", "stranger.Image"))
    assert str(path) in refused(broken, "names the class 'stranger.Image', which is none of TFDS")
    assert not (tmp_path / "canary").exists()


def test_a_name_whose_code_would_be_downloaded_is_refused():
    ((key, text),) = tfds.check({"name": "huggingface:mnist", **PARTS, "fields": None})
    assert (key, "namespace" in text) == ("name", True)


def test_a_byte_that_flipped_is_found(broken):
    path = shard(broken)
    before = tfds(name="tiny_pictures", data_dir=str(broken))
    content = bytearray(path.read_bytes())
    content[12 + 50] ^= 1  # within the first record, behind its length
    path.write_bytes(content)
    source = tfds(name="tiny_pictures", data_dir=str(broken))
    (bad,) = source.splits["train"].bad
    assert (bad.id, bad.reason) == (f"{path.name}__0", "its record does not fit its checksum")
    assert list(source.splits["train"].ids) == list(before.splits["train"].ids)[1:]
    assert source.splits["train"].labels.tolist() == before.splits["train"].labels.tolist()[1:]
    assert list(source.splits["validation"].ids) == list(before.splits["validation"].ids)
    content[0] ^= 1  # its length: where the next begins cannot be told
    path.write_bytes(content)
    assert str(path) in refused(broken, "cannot be read .the length of a record is damaged, at byte 0")


def test_half_prepared_data_is_not_used(broken):
    path = shard(broken, "test")
    path.unlink()
    assert str(path) in refused(broken, "is not complete")
    (path.parent / "dataset_info.json").write_text("{half")
    refused(broken, "or remove .*/tiny_pictures and prepare the dataset again")
    (path.parent / "dataset_info.json").unlink()
    refused(broken, "Could not read dataset info .* or remove .*/tiny_pictures and prepare the dataset again")


def test_a_known_dataset_that_is_half_prepared(tmp_path):
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    with pytest.raises(ToolkitError, match=r"mnist/3.0.1 holds 'mnist' only in part .*TFDS_DATA_DIR"):
        tfds(name="mnist", data_dir=str(tmp_path))


def test_without_network_one_sentence_says_what_to_do(monkeypatch, tmp_path):
    def no_network(*_):
        raise socket.gaierror(-2, "Name or service not known")

    for key in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    data = tmp_path / "data"
    text = f"'mnist' is not prepared in {data} and .*no network.* TFDS_DATA_DIR .now {data}.*the source folder or csv"
    with pytest.raises(ToolkitError, match=text):
        tfds(name="mnist")
    assert not (tmp_path / "data").exists()
    (tmp_path / "data" / "mnist" / "2.0.0").mkdir(parents=True)
    (tmp_path / "data" / "mnist" / "2.0.0" / "dataset_info.json").write_text("{}")
    with pytest.raises(ToolkitError, match="there is version 2.0.0: name it as 'mnist:2.0.0'"):
        tfds(name="mnist")


def test_a_download_that_fails_keeps_its_reason(monkeypatch, tmp_path):
    import tensorflow_datasets

    def download_and_prepare(self, **_):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(tensorflow_datasets.core.DatasetBuilder, "download_and_prepare", download_and_prepare)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    with pytest.raises(ToolkitError, match="could not be downloaded .*Permission denied"):
        tfds(name="mnist", data_dir=str(tmp_path))


def test_reading_is_silent_and_leaves_the_loggers_as_they_were(tiny, capfd, caplog):
    for name in ("absl", "tensorflow"):
        caplog.set_level(logging.INFO, logger=name)
    tfds(name="tiny_sounds", data_dir=str(tiny), **PARTS)
    assert caplog.records == []
    assert capfd.readouterr().out == ""
    assert logging.getLogger("absl").level == logging.getLogger("tensorflow").level == logging.INFO


def test_samples_become_one_channel_of_16_bits():
    from toolkit.data.sources.tfds_reader import _one_channel

    for given, expected in (
        (np.array([-32768, 0, 32767]), [-32768, 0, 32767]),
        (np.array([[100, 300], [-1, -3]]), [200, -2]),
        (np.array([-1.0, 0.0, 0.5, 2.0], np.float32), [-32767, 0, 16384, 32767]),
        (np.array([[1.0, 0.0]], np.float32), [16384]),
    ):
        samples, reason = _one_channel(given)
        assert samples.dtype == np.int16
        assert samples.tolist() == expected
        assert reason is None
    assert _one_channel(np.array([40_000, 0]))[1] == "the sound has samples outside 16 bits"
    assert _one_channel(np.array([]))[1] == "the sound is empty"
    assert _one_channel(np.array([np.nan], np.float32))[1] == "the sound has samples that are no numbers"


# Real data: only where TFDS_DATA_DIR has it ------------------------------------------------------------------------


def real(tfds_dir: Path, name: str, **arguments):
    if not any((tfds_dir / name.split(":")[0]).rglob("dataset_info.json")):
        pytest.skip(f"needs {name} prepared in TFDS_DATA_DIR ({tfds_dir})")
    return tfds(name=name, **arguments)


def counts(source):
    return {name: len(part) for name, part in source.splits.items()}


def test_real_mnist(tfds_dir):
    source = real(tfds_dir, "mnist")
    assert counts(source) == {"train": 54_000, "validation": 6_000, "test": 10_000}
    assert source.channels == 1
    # The test set's count of each digit, as LeCun's files have it.
    assert np.bincount(source.splits["test"].labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert len(set(all_ids(source))) == 70_000


def test_real_cats_vs_dogs(tfds_dir):
    slices = {"train": "train[:80%]", "validation": "train[80%:90%]", "test": "train[90%:]"}
    source = real(tfds_dir, "cats_vs_dogs", **slices)
    names = all_ids(source)
    assert len(set(names)) == len(names)
    assert all(name.startswith("PetImages/") for name in names)
    assert counts(source) == {"train": 19_998, "validation": 2_500, "test": 2_500}
    for split in ("validation", "test"):  # of eight files, of unequal length
        expected = by_tfds(tfds_dir, "cats_vs_dogs", slices[split], decoders=_names_only("image/filename", "label"))
        assert list(source.splits[split].ids) == [row["image/filename"].decode() for row in expected]
        assert source.splits[split].labels.tolist() == [row["label"] for row in expected]


def _names_only(*features):
    import tensorflow_datasets

    return tensorflow_datasets.decode.PartialDecoding(dict.fromkeys(features, True))


def test_real_spoken_digit(tfds_dir):
    rest = {"train": "train[:90%]", "validation": "train[90%:]"}
    source = real(tfds_dir, "spoken_digit", **rest, test={"index": "0-4"})
    assert source.sample_rate == 8000
    assert counts(source) == {"train": 2025, "validation": 225, "test": 250}  # 5 speakers × 10 digits × 5
    assert {int(name[:-4].split("_")[2]) for name in source.splits["test"].ids} == {0, 1, 2, 3, 4}
    assert np.bincount(source.splits["test"].labels).tolist() == [25] * 10
    for part in source.splits.values():
        assert [int(name[0]) for name in part.ids] == part.labels.tolist()
    assert len(set(all_ids(source))) == 2500
    unseen = tfds(name="spoken_digit", **rest, test={"speaker": "theo"})
    assert counts(unseen) == {"train": 1800, "validation": 200, "test": 500}
    assert not any("theo" in name for split in ("train", "validation") for name in unseen.splits[split].ids)


def test_real_imdb(tfds_dir):
    source = real(tfds_dir, "imdb_reviews", train="train[:80%]", validation="train[80%:]")
    assert source.class_names == ("neg", "pos")
    assert counts(source) == {"train": 20_000, "validation": 5_000, "test": 25_000}
    assert np.bincount(source.splits["test"].labels).tolist() == [12_500, 12_500]
    assert len(set(all_ids(source))) == 50_000
