"""Encoded examples come back as they were, from memory and from a file."""

import errno
import gc
import tempfile

import numpy as np
import pytest

from toolkit.data.sources import spool as module
from toolkit.data.sources.spool import Spool, Spooled
from toolkit.errors import RunFailed

VALUES = [b"\xff\xd8picture", np.array([1, -32768, 32767], np.int16), b"", "a text", None, np.zeros(0, np.int16)]


@pytest.fixture(params=["memory", "file"])
def limit(request, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if request.param == "file":
        monkeypatch.setattr(module, "IN_MEMORY", 4)
    return request.param


def test_values_come_back_in_any_order(limit, tmp_path):
    spool = Spool()
    values = Spooled(spool, [spool.add(value) for value in VALUES])
    assert len(values) == 6
    for i in (3, 0, 1, 2, 5, 4):
        assert type(values[i]) is type(VALUES[i])
        np.testing.assert_array_equal(values[i], VALUES[i])
    assert values[1].dtype == np.int16
    assert list(values[2:4]) == VALUES[2:4]
    assert values[0] == VALUES[0]
    later = Spooled(spool, [spool.add(b"after reading")])  # the file stood behind the first
    assert later[0] == b"after reading"
    np.testing.assert_array_equal(values[1], VALUES[1])
    del spool, values, later
    gc.collect()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_full_disk_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    class Full(tempfile.SpooledTemporaryFile):
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.tempfile, "SpooledTemporaryFile", Full)
    with pytest.raises(RunFailed, match="cannot keep encoded examples in .* free some space"):
        Spool().add(b"content")


def test_a_folder_that_cannot_be_made_matters_only_to_what_memory_does_not_hold(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "IN_MEMORY", 7)
    (tmp_path / "toolkit").write_text("in the way")
    spool = Spool()
    assert spool.get(spool.add(b"content")) == b"content"
    with pytest.raises(RunFailed, match="cannot keep encoded examples in"):
        spool.add(b"more")
