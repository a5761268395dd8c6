import json
import random
import shutil

import ml_dtypes
import numpy as np
import pytest

from toolkit.errors import RunFailed, ToolkitError
from toolkit.runs import checkpoints


def tensors(value, size=64):
    return {
        "weights/kernel": np.full((size, 3), value, dtype="float32"),
        "weights/half": np.full(5, value, dtype=ml_dtypes.bfloat16),
        "seeds/0": np.array([value, 1], dtype="uint32"),
        "optimizer/iterations": np.array(value, dtype="int64"),
    }


def save(folder, value, keep=2):
    return checkpoints.save(folder, f"step-{value:08d}", tensors(value), {"step": value, "loss": 1 / 3}, keep=keep)


def newest(folder):
    said = []
    return checkpoints.newest(folder, report=said.append), said


def test_what_was_saved_comes_back(tmp_path):
    save(tmp_path / "c", 7)
    found, said = newest(tmp_path / "c")
    assert (found.path.name, said) == ("step-00000007", [])
    assert found.state == {"step": 7, "loss": 1 / 3}
    assert found.arrays.keys() == tensors(7).keys()
    for name, value in tensors(7).items():
        assert found.arrays[name].dtype == value.dtype
        np.testing.assert_array_equal(found.arrays[name], value)


def test_the_last_ones_are_kept(tmp_path):
    for step in (1, 2, 10, 300):
        save(tmp_path, step)
    assert checkpoints.names(tmp_path) == ["step-00000010", "step-00000300"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["step-00000010", "step-00000300"]


def test_the_same_name_is_replaced(tmp_path):
    save(tmp_path, 5, keep=1)
    checkpoints.save(tmp_path, "step-00000005", tensors(6), {"step": 6}, keep=1)
    assert newest(tmp_path)[0].state == {"step": 6}


def test_where_there_never_was_one_there_is_none(tmp_path):
    assert newest(tmp_path / "nowhere") == (None, [])


def test_a_failed_save_says_what_it_needs_and_leaves_the_one_before(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "_write", full)
    needed = sum(value.nbytes for value in tensors(2).values())
    with pytest.raises(RunFailed, match=rf"No space left on device\): it needs {needed:,} bytes, and [\d,]+ are free"):
        save(tmp_path, 2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000001"]
    assert newest(tmp_path)[0].state["step"] == 1


@pytest.mark.parametrize("file", [checkpoints.ARRAYS, checkpoints.MANIFEST])
def test_a_checkpoint_cut_short_is_set_aside_for_the_one_before(tmp_path, file):
    sample = save(tmp_path / "sample", 2) / file
    whole = sample.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 25).astype(int):
        folder = tmp_path / f"{file}-{length}"
        save(folder, 1)
        (save(folder, 2) / file).write_bytes(whole[:length])
        found, said = newest(folder)
        assert found.state["step"] == 1, length
        assert len(said) == 1
        assert "step-00000002 is damaged" in said[0]
        assert (folder / "damaged-step-00000002").is_dir()
        shutil.rmtree(folder)


def test_every_flipped_bit_is_found(tmp_path):
    rng = random.Random(20261121)
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    for i in range(200):
        file = path / (checkpoints.ARRAYS if i % 2 else checkpoints.MANIFEST)
        whole = file.read_bytes()
        bit = rng.randrange(8 * len(whole))
        spoilt = bytearray(whole)
        spoilt[bit // 8] ^= 1 << bit % 8
        file.write_bytes(spoilt)
        with pytest.raises(checkpoints.DamagedError):
            checkpoints.load(path)
        file.write_bytes(whole)
    assert checkpoints.load(path).state["step"] == 2


def test_where_all_are_damaged_nothing_begins_anew(tmp_path):
    for step in (1, 2):
        (save(tmp_path, step) / checkpoints.MANIFEST).write_text("{}")
    with pytest.raises(ToolkitError, match="every checkpoint in .* is damaged"):
        newest(tmp_path)
    # nor the next time, when they have been set aside already
    with pytest.raises(ToolkitError, match="every checkpoint in .* is damaged"):
        newest(tmp_path)


def test_a_manifest_that_fits_to_itself_but_not_to_the_tensors_is_damaged(tmp_path):
    path = save(tmp_path, 1)
    other = checkpoints.save(tmp_path / "other", "x", {**tensors(1), "more": np.zeros(2)}, {}, keep=1)
    shutil.copy(other / checkpoints.MANIFEST, path / checkpoints.MANIFEST)
    with pytest.raises(checkpoints.DamagedError, match="header"):
        checkpoints.load(path)


def test_another_format_is_not_guessed_at(tmp_path):
    path = save(tmp_path, 1)
    manifest = json.loads((path / checkpoints.MANIFEST).read_text())
    del manifest["sha256"]
    manifest["format"] = 99
    manifest["sha256"] = checkpoints._sum(manifest)
    (path / checkpoints.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(checkpoints.DamagedError, match="format 99, this version reads 1"):
        checkpoints.load(path)


def test_links_are_not_followed(tmp_path):
    path = save(tmp_path / "c", 1)
    elsewhere = tmp_path / "elsewhere"
    (path / checkpoints.ARRAYS).rename(elsewhere)
    (path / checkpoints.ARRAYS).symlink_to(elsewhere)
    with pytest.raises(checkpoints.DamagedError, match="no plain file"):
        checkpoints.load(path)
