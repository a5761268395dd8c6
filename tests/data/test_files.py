from pathlib import Path

import numpy as np
import pytest
import soundfile

from toolkit.data import image
from toolkit.data.files import read_files, read_texts
from toolkit.data.spec import DataSpec
from toolkit.errors import ToolkitError

IMAGES = DataSpec(kind="image", shape=(6, 5, 3), dtype="uint8", class_names=("no", "yes"))
SOUNDS = DataSpec(
    kind="audio", shape=(None,), dtype="float32", class_names=("no", "yes"), sample_rate=8000, lengths=(400, 800)
)
TEXTS = DataSpec(
    kind="text",
    shape=(None,),
    dtype="int32",
    class_names=("no", "yes"),
    vocabulary=("", "[unk]", "good", "film"),
    lengths=(2, 4),
)


def test_a_folder_is_read_sorted_at_any_depth(tmp_path, rng, making):
    encoded = making.pictures(rng, 4)
    for name, data in zip(["b.png", "a/z.PNG", "a/b/c.png", ".hidden.png"], encoded, strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "a" / "broken.jpg").write_bytes(b"nothing")
    (tmp_path / "notes.txt").write_text("not a picture")
    single = tmp_path / "b.png"
    read = read_files(IMAGES, [tmp_path, single])
    assert read.ids == [str(tmp_path / name) for name in ("a/b/c.png", "a/z.PNG", "b.png", "b.png")]
    assert [bad.id for bad in read.bad] == [str(tmp_path / "a/broken.jpg")] and len(read) == 4
    batches = [{name: x.numpy() for name, x in inputs.items()} for inputs in read.batches(3)]
    assert [list(batch) for batch in batches] == [["image"], ["image"]]
    rows = np.concatenate([batch["image"] for batch in batches])
    for row, data in zip(rows, [encoded[2], encoded[1], encoded[0], encoded[0]], strict=True):
        np.testing.assert_array_equal(row, image.decode(data, (6, 5), 3))


def test_sounds_take_the_rate_of_the_model_and_may_be_longer_than_any_before(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.full(2000, 0.5), 16_000)  # 1000 samples at 8000 Hz
    (inputs,) = read_files(SOUNDS, [tmp_path / "long.wav"]).batches(8)
    assert inputs["samples"].shape == (1, 1600) and inputs["lengths"].numpy().tolist() == [1000]
    assert abs(inputs["samples"].numpy()[0, 500] - 0.5) < 1e-3


def test_texts_are_cut_and_padded_with_the_vocabulary_of_the_model(tmp_path):
    read = read_texts(TEXTS, ["Good film", "", "a good film , good"])
    assert read.ids == ["1", "3"] and [(bad.id, bad.reason) for bad in read.bad] == [("2", "no words in it")]
    (inputs,) = read.batches(8)
    assert inputs["tokens"].numpy().tolist() == [[2, 3, 0, 0], [1, 2, 3, 1]]
    (tmp_path / "x.txt").write_text("good", encoding="utf-8")
    (tmp_path / "y.txt").write_bytes(b"\xff\xfe\xff")
    read = read_files(TEXTS, [tmp_path])
    assert read.ids == [str(tmp_path / "x.txt")] and [bad.reason for bad in read.bad] == ["not UTF-8 text"]


def test_what_cannot_be_predicted_is_told(tmp_path):
    with pytest.raises(ToolkitError, match=r"nowhere\.png does not exist"):
        read_files(IMAGES, [tmp_path / "nowhere.png"])
    with pytest.raises(ToolkitError, match=r"^x+.* cannot be read \(File name too long\): give files or folders"):
        read_files(IMAGES, [Path("x" * 300)])
    with pytest.raises(ToolkitError, match=r"holds no image files \(\.jpg"):
        read_files(IMAGES, [tmp_path])
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(ToolkitError, match=r"broken\.png \(not a picture"):
        read_files(IMAGES, [tmp_path])
    with pytest.raises(ToolkitError, match="takes image data, not text"):
        read_texts(IMAGES, ["x"])
    with pytest.raises(ToolkitError, match="nothing to predict"):
        read_texts(TEXTS, [""])
