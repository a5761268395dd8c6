"""Folders of pictures and sounds, made here: which files become which examples, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from toolkit.data.sources.folder import folder
from toolkit.errors import ToolkitError


def picture(path: Path, brightness: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6, 3), brightness, np.uint8)).save(path)


def classes(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        for i in range(count):
            picture(root / name / f"{i:03d}.png", i)
    return root


def ids(source) -> dict[str, list[str]]:
    return {name: list(part.ids) for name, part in source.splits.items()}


def every_id(source) -> list[str]:
    return [name for part in source.splits.values() for name in part.ids]


def test_classes_are_cut_by_share(tmp_path):
    source = folder(path=str(classes(tmp_path / "pets", {"dog": 20, "cat": 10})))
    assert source.kind == "image"
    assert source.channels == 3
    assert source.class_names == ("cat", "dog")
    assert source.origin == f"folder {tmp_path / 'pets'}"
    counts = {name: np.bincount(part.labels).tolist() for name, part in source.splits.items()}
    assert counts == {"train": [7, 14], "validation": [1, 2], "test": [2, 4]}
    train = source.splits["train"]
    assert train.labels.dtype == np.int64
    assert sorted(every_id(source)) == sorted(
        f"{name}/{i:03d}.png" for name, count in (("cat", 10), ("dog", 20)) for i in range(count)
    )
    for name, file, label in zip(train.ids, train.values, train.labels, strict=True):
        assert file == tmp_path / "pets" / name
        assert source.class_names[label] == name.split("/")[0]
        assert np.asarray(Image.open(file))[0, 0, 0] == int(name[-7:-4])  # the file that was written under this name


def test_the_split_seed_gives_other_splits_and_a_copy_elsewhere_the_same(tmp_path):
    root = classes(tmp_path / "a", {"cat": 20, "dog": 20})
    shutil.copytree(root, tmp_path / "b")
    assert ids(folder(path=str(root))) == ids(folder(path=str(tmp_path / "b")))
    assert ids(folder(path=str(root))) != ids(folder(path=str(root), split_seed=1))


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".bmp", ".GIF", ".webp"])
def test_every_format_of_picture(tmp_path, suffix):
    for name in ("a", "b"):
        for i in range(3):
            picture(tmp_path / name / f"{i}{suffix}")
    source = folder(path=str(tmp_path))
    assert source.kind == "image"
    assert sum(len(part) for part in source.splits.values()) == 6


@pytest.mark.parametrize("suffix", [".wav", ".FLAC", ".ogg"])
def test_every_format_of_sound(tmp_path, suffix):
    for name in ("no", "yes"):
        (tmp_path / name).mkdir()
        for i in range(3):
            soundfile.write(tmp_path / name / f"{i}{suffix}", np.zeros(80), 8000)
    source = folder(path=str(tmp_path))
    assert (source.kind, source.channels, source.sample_rate) == ("audio", None, None)
    assert source.class_names == ("no", "yes")
    assert sum(len(part) for part in source.splits.values()) == 6


def test_classes_that_are_numbers_are_in_their_order(tmp_path):
    assert folder(path=str(classes(tmp_path, {"10": 3, "9": 3, "0": 3}))).class_names == ("0", "9", "10")


def test_folders_for_the_splits_are_taken_as_they_lie(tmp_path):
    classes(tmp_path / "train", {"cat": 4, "dog": 3})
    classes(tmp_path / "validation", {"cat": 1})
    classes(tmp_path / "test", {"cat": 1, "dog": 2})
    source = folder(path=str(tmp_path))
    assert list(source.splits) == ["train", "validation", "test"]
    assert ids(source)["validation"] == ["validation/cat/000.png"]
    assert ids(source)["test"] == ["test/cat/000.png", "test/dog/000.png", "test/dog/001.png"]
    assert source.splits["test"].labels.tolist() == [0, 1, 1]
    assert len(source.splits["train"]) == 7
    with pytest.raises(ToolkitError, match="data.test has no effect, since folder .* has that split already: remove"):
        folder(path=str(tmp_path), test=0.3)
    with pytest.raises(ToolkitError, match="data.split_seed has no effect"):
        folder(path=str(tmp_path), split_seed=1)


def test_without_a_folder_for_it_validation_is_cut_from_train(tmp_path):
    classes(tmp_path / "train", {"cat": 10, "dog": 10})
    classes(tmp_path / "test", {"cat": 1, "dog": 1})
    source = folder(path=str(tmp_path), validation=0.2)
    assert np.bincount(source.splits["validation"].labels).tolist() == [2, 2]
    assert len(source.splits["train"]) == 16
    assert all(name.startswith("train/") for name in source.splits["validation"].ids)


def test_a_class_of_trains_is_a_class(tmp_path):
    assert folder(path=str(classes(tmp_path, {"train": 3, "tram": 3}))).class_names == ("train", "tram")


def test_hidden_files_and_other_suffixes_are_left_out_and_folders_in_classes_entered(tmp_path):
    classes(tmp_path, {"cat": 3, "dog": 3, ".thumbs": 3})
    picture(tmp_path / "cat" / "old" / "900.png")
    picture(tmp_path / "cat" / ".cache" / "901.png")
    picture(tmp_path / "cat" / "._902.png")
    (tmp_path / "cat" / "notes.txt").write_text("x")
    source = folder(path=str(tmp_path))
    found = every_id(source)
    assert source.class_names == ("cat", "dog")
    assert len(found) == 7
    assert "cat/old/900.png" in found
    assert all(not part.bad for part in source.splits.values())


def test_links_out_of_the_folder_and_stray_files_are_listed_as_bad(tmp_path):
    root = classes(tmp_path / "pets", {"cat": 4, "dog": 4})
    picture(tmp_path / "secret.png")
    picture(tmp_path / "more" / "1.png")
    (root / "cat" / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "cat" / "gone.png").symlink_to(tmp_path / "nothing.png")
    (root / "dog" / "more").symlink_to(tmp_path / "more")
    (root / "dog" / "same.png").symlink_to(root / "dog" / "001.png")
    (root / "dog" / "pipe.png").mkdir()
    picture(root / "stray.png")
    source = folder(path=str(root))
    assert {bad.id: bad.reason for bad in source.splits["train"].bad} == {
        "cat/out.png": f"a symbolic link out of {root}",
        "cat/gone.png": "a symbolic link to nothing",
        "dog/more": f"a symbolic link out of {root}",
        "stray.png": "lies beside the folders of classes, not in one",
    }
    assert "dog/same.png" in every_id(source)


def test_a_name_that_is_not_utf_8_is_listed_as_bad(tmp_path):
    classes(tmp_path, {"cat": 3, "dog": 3})
    target = bytes(tmp_path / "cat") + b"/\xff.png"
    try:
        shutil.copy(tmp_path / "cat" / "000.png", target.decode(errors="surrogateescape"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (bad,) = folder(path=str(tmp_path)).splits["train"].bad
    assert (bad.id, bad.reason) == ("cat/\\xff.png", "its name is not UTF-8")


def test_what_is_wrong_is_said_in_one_sentence(tmp_path):
    pets = classes(tmp_path / "pets", {"cat": 3, "dog": 3})

    def refused(text, path, **arguments):
        with pytest.raises(ToolkitError, match=text) as caught:
            folder(path=str(path), **arguments)
        assert "\n" not in str(caught.value)

    refused(r"data.path: there is no folder .*pest \(did you mean 'pets'\?\)", tmp_path / "pest")
    refused("is a file, not a folder", pets / "cat" / "000.png")
    refused(r"only the class '001'|has only the class|holds no picture", classes(tmp_path / "one", {"cat": 5}) / "cat")
    refused("has only the class 'cat', so there is nothing to tell apart", tmp_path / "one")
    (tmp_path / "empty").mkdir()
    refused(r"holds no picture .* and no sound .*no file at all", tmp_path / "empty")
    (tmp_path / "texts" / "a").mkdir(parents=True)
    (tmp_path / "texts" / "a" / "1.txt").write_text("x")
    (tmp_path / "texts" / "a" / "LICENSE").write_text("x")
    refused(r"only 1 × .txt, 1 × \(no suffix\)", tmp_path / "texts")
    mixed = classes(tmp_path / "mixed", {"cat": 3, "dog": 3})
    soundfile.write(mixed / "cat" / "meow.wav", np.zeros(8), 8000)
    refused(r"mixes 6 pictures \('cat/000.png'\) and 1 sounds \('cat/meow.wav'\)", mixed)
    refused(r"at least 3 examples.*'dog' \(2\)", classes(tmp_path / "few", {"cat": 5, "dog": 2}))
    refused("leave nothing to train with", pets, validation=0.5, test=0.5)
    refused("data.test: test is 0", pets, test=0.0)


def test_split_folders_that_do_not_fit_are_refused(tmp_path):
    classes(tmp_path / "a" / "train", {"cat": 3, "dog": 3})
    classes(tmp_path / "a" / "test", {"cat": 3, "dogs": 3})
    with pytest.raises(
        ToolkitError, match=r"test has the class 'dogs' \(did you mean 'dog'\?\), which .*train has not"
    ):
        folder(path=str(tmp_path / "a"))
    classes(tmp_path / "b" / "train", {"cat": 3, "dog": 3})
    classes(tmp_path / "b" / "val", {"cat": 3, "dog": 3})
    with pytest.raises(ToolkitError, match="has 'train' beside 'val'"):
        folder(path=str(tmp_path / "b"))
    classes(tmp_path / "c" / "training", {"cat": 3, "dog": 3})
    classes(tmp_path / "c" / "testing", {"cat": 3, "dog": 3})
    with pytest.raises(ToolkitError, match="call the folders of splits train, validation and test"):
        folder(path=str(tmp_path / "c"))
    classes(tmp_path / "d" / "train", {"cat": 5, "dog": 5})
    (tmp_path / "d" / "test" / "cat").mkdir(parents=True)
    with pytest.raises(ToolkitError, match="the folder 'test' holds no example"):
        folder(path=str(tmp_path / "d"))
