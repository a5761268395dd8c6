import json
import struct
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from toolkit.errors import ToolkitError
from toolkit.runs import arrays


def test_every_type_comes_back_as_it_went(tmp_path):
    rng = np.random.default_rng(0)
    written = {
        "dense.kernel": rng.normal(size=(3, 4)).astype("float32"),
        "dense.bias": rng.normal(size=4),
        "embedding": rng.normal(size=(2, 5)).astype(ml_dtypes.bfloat16),
        "seen": np.array(7, dtype="int64"),
        "transposed": rng.normal(size=(4, 3)).astype("float32").T,
        "empty": np.zeros((0, 2), dtype="uint8"),
    }
    arrays.save(tmp_path / "a.safetensors", written, about={"step": "12"})
    read, about = arrays.load(tmp_path / "a.safetensors")
    assert about == {"step": "12"}
    assert read.keys() == written.keys()
    for key, value in written.items():
        assert read[key].dtype == value.dtype
        np.testing.assert_array_equal(read[key], value)


def test_the_same_arrays_give_the_same_bytes(tmp_path):
    arrays_, about = {"b": np.ones(2), "a": np.zeros(3, ml_dtypes.bfloat16)}, {"step": "12", "epoch": "3"}
    code = (
        "import sys, ml_dtypes, numpy as np; from pathlib import Path; from toolkit.runs import arrays; "
        "arrays.save(Path(sys.argv[1]), {'a': np.zeros(3, ml_dtypes.bfloat16), 'b': np.ones(2)}, "
        "about={'epoch': '3', 'step': '12'})"
    )
    arrays.save(tmp_path / "one.safetensors", arrays_, about=about)
    for name in ("two", "three"):  # another process has another order of what is hashed
        subprocess.run([sys.executable, "-c", code, str(tmp_path / f"{name}.safetensors")], check=True)
        assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / f"{name}.safetensors").read_bytes()


def test_a_failed_save_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.safetensors"
    arrays.save(path, {"a": np.ones(2)})
    with pytest.raises(Exception, match="object"):
        arrays.save(path, {"a": np.array([object()])})
    np.testing.assert_array_equal(arrays.load(path)[0]["a"], np.ones(2))
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def _with_header(header):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04K\x01.",  # a pickle
        struct.pack("<Q", 2**60) + b"{}",
        _with_header({"a": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}}),
        _with_header({"__metadata__": {"notes": "no json"}}),
        _with_header({"__metadata__": {"notes": '{"types": {"a": "bfloat16"}}'}}),
        _with_header({"__metadata__": {"notes": "[1]"}}),
        _with_header({"__metadata__": {"notes": '{"about": {"epoch": 1}}'}}),
    ],
    ids=[
        "empty",
        "pickle",
        "huge header",
        "claims more than it holds",
        "bad notes",
        "type of a missing tensor",
        "notes that are a list",
        "a text that is a number",
    ],
)
def test_a_file_that_is_not_ours_is_told(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ToolkitError, match="weights that train wrote"):
        arrays.load(path)


def test_missing_file_is_told(tmp_path):
    with pytest.raises(ToolkitError, match="is missing"):
        arrays.load(tmp_path / "a.safetensors")
