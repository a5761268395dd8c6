"""A dataset of TFDS that is downloaded and prepared: broken off, wrong, by two at once. Half of one is never used.

The dataset is a builder that the test writes, the network a server on this machine.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.faults.hostile import tiny_download
from toolkit.data.sources import tfds as source
from toolkit.errors import ToolkitError

pytestmark = pytest.mark.long

SEED = 21
COUNT = 2000
LOAD = """
import hashlib, json, sys
import tiny_download.tiny_download
from toolkit.data.sources.tfds import tfds
from toolkit.errors import ToolkitError
try:
    found = tfds(name="tiny_download", data_dir=sys.argv[1])
except ToolkitError as error:
    print(json.dumps({"error": str(error)}))
else:
    rows = [(id, value, int(label)) for part in found.splits.values()
            for id, value, label in zip(part.ids, part.values, part.labels)]
    print(json.dumps({"rows": len(rows), "digest": hashlib.sha256(repr(sorted(rows)).encode()).hexdigest()}))
"""
BY_TFDS = """
import sys
import tiny_download.tiny_download
import tensorflow_datasets as tfds
tfds.builder("tiny_download", data_dir=sys.argv[1]).download_and_prepare()
"""


@pytest.fixture
def server():
    with tiny_download.serving() as told:
        yield told


@pytest.fixture
def environment(server, tmp_path, monkeypatch):
    """What a process needs to find the builder; the folder of prepared datasets is `tmp_path / "data"`."""
    tiny_download.write_builder(tmp_path / "code", server.url)
    monkeypatch.setenv("TINY_URL", server.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "code"), os.environ["PYTHONPATH"]]))
    (tmp_path / "data").mkdir()


@pytest.fixture
def start(environment, tmp_path):
    """Runs code in a process of its own; all are ended with the test."""
    running = []

    def begin(code=LOAD, **variables):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "data")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables},
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def answer_of(process):
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err[-2000:]
    return json.loads(out.splitlines()[-1])


def prepared(tmp_path):
    """Versions that TFDS would take for whole."""
    return sorted(path.name for path in (tmp_path / "data" / "tiny_download").glob("[0-9]*"))


@pytest.fixture
def here(environment, tmp_path, monkeypatch):
    """The source in this process; `here()` prepares."""
    from tensorflow_datasets.core import registered

    known = dict(registered._DATASET_REGISTRY)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    for name in [name for name in sys.modules if name.startswith("tiny_download")]:
        del sys.modules[name]
    registered._DATASET_REGISTRY.pop("tiny_download", None)
    import tiny_download.tiny_download  # noqa: F401

    yield lambda: source.tfds(name="tiny_download", data_dir=str(tmp_path / "data"))
    registered._DATASET_REGISTRY.clear()
    registered._DATASET_REGISTRY.update(known)


def whole(found):
    assert sum(len(part) for part in found.splits.values()) == 2 * COUNT
    assert all(not part.bad for part in found.splits.values())
    return True


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("cut", "IncompleteRead|Connection broken"),
        ("wrong", "has the wrong checksum"),
        ("missing", "404"),
        ("stall", "timed out"),
    ],
)
@pytest.mark.timeout(180)
def test_a_download_that_fails_is_told_in_one_sentence_and_nothing_is_left(
    here, server, tmp_path, behaviour, reason, monkeypatch
):
    monkeypatch.setattr(source, "STALLED_SECONDS", 1.0)
    server.behaviour = behaviour
    for _ in range(2):  # the second finds nothing that it could take for the data
        with pytest.raises(ToolkitError, match=rf"could not be downloaded \(.*({reason})") as caught:
            here()
        assert "\n" not in str(caught.value)
        assert prepared(tmp_path) == []
    assert server.asked >= 2
    server.release.set()
    server.behaviour = "good"
    assert whole(here())
    asked = server.asked
    assert whole(here())
    assert server.asked == asked  # prepared is prepared


@pytest.mark.timeout(180)
def test_a_server_that_never_answers_is_not_waited_for(here, server, monkeypatch):
    from tensorflow_datasets.core.download import downloader

    monkeypatch.setattr(source, "STALLED_SECONDS", 0.5)
    monkeypatch.setattr(downloader, "MAX_RETRIES", 1)
    server.behaviour = "silent"
    with pytest.raises(ToolkitError, match="could not be downloaded"):
        here()


@pytest.mark.timeout(300)
def test_a_prepared_file_that_is_cut_anywhere_or_missing_is_refused(here, tmp_path):
    assert whole(here())
    (file,) = (tmp_path / "data").rglob("*-train.tfrecord*")
    content = file.read_bytes()
    rng = np.random.default_rng(SEED)
    ends = [0, 1, 11, 12, len(content) - 1, *rng.integers(0, len(content), 15).tolist()]
    passed = 0
    for end in ends:
        file.write_bytes(content[:end])
        with pytest.raises(ToolkitError, match=r"(cannot be read|ends after \d+ examples).*prepare the dataset again"):
            here()
        passed += 1
    assert passed == len(ends), f"seed {SEED}: {passed} / {len(ends)}"
    file.unlink()
    with pytest.raises(ToolkitError, match="is not complete: .* is missing"):
        here()
    file.write_bytes(content)
    assert whole(here())


@pytest.mark.timeout(600)
def test_two_that_prepare_at_once_take_turns(start, server, tmp_path):
    server.behaviour = "slow"
    processes = [start() for _ in range(3)]
    answers = [answer_of(process) for process in processes]
    assert [answer.get("rows") for answer in answers] == [2 * COUNT] * 3, answers
    assert len({answer["digest"] for answer in answers}) == 1
    assert server.asked == 1
    assert prepared(tmp_path) == ["1.0.0"]


@pytest.mark.timeout(600)
def test_one_that_prepares_beside_tfds_itself_gets_whole_data(start, server, tmp_path):
    server.behaviour = "slow"
    other, ours = start(BY_TFDS), start()
    assert answer_of(ours).get("rows") == 2 * COUNT
    other.communicate(timeout=180)
    assert prepared(tmp_path) == ["1.0.0"]


@pytest.mark.parametrize("moment", ["while it downloads", "while it writes"])
@pytest.mark.timeout(600)
def test_a_kill_leaves_nothing_that_is_taken_for_data(start, server, tmp_path, moment):
    said = tmp_path / "said"
    server.behaviour = "stall" if moment == "while it downloads" else "good"
    killed = start(TINY_SAID=str(said))
    until = time.monotonic() + 120
    while not (said.exists() or (server.behaviour == "stall" and server.asked)):
        assert time.monotonic() < until
        assert killed.poll() is None, killed.communicate()[1][-2000:]
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert prepared(tmp_path) == []
    server.release.set()
    server.behaviour = "good"
    assert answer_of(start()).get("rows") == 2 * COUNT  # the lock of the dead is free, what it left is not used
    with contextlib.suppress(FileNotFoundError):
        said.unlink()
