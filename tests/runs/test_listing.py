"""A folder of runs, made by hand: what is listed, what differs, what may be removed."""

import fcntl
import json
import shutil

import pytest

from toolkit import cli
from toolkit.config import load, load_run
from toolkit.errors import ToolkitError
from toolkit.runs import listing

CONFIG = """
data: {source: mnist_sample}
model: {name: mnist_dense}
optimizer: {name: adam, learning_rate: %s}
"""


def config(directory):
    return load_run(directory).to_dict()


@pytest.fixture
def make(tmp_path):
    def run(name, *, rate="1e-3", state="finished", accuracy=0.9, started="2026-11-21T14:47:39+00:00"):
        (tmp_path / "small.yaml").write_text(CONFIG % rate)
        directory = tmp_path / "runs" / name
        (directory / "checkpoints" / "step-1").mkdir(parents=True)
        (directory / "checkpoints" / "step-1" / "arrays.safetensors").write_bytes(bytes(5000))
        (directory / "config.yaml").write_text(load(tmp_path / "small.yaml").to_yaml())
        (directory / "data_spec.json").write_text("{}")
        record = {"fingerprints": {"train": "abc"}, "state": state, "started": started, "epochs": 3}
        record["best"] = {"epoch": 2, "metric": "val_loss", "value": 0.25}
        (directory / "record.json").write_text(json.dumps(record))
        (directory / "evaluation.json").write_text(json.dumps({"accuracy": accuracy, "loss": 0.5}))
        return directory

    return run


def test_runs_are_listed_from_the_oldest_with_their_figures(make, tmp_path):
    make("later", started="2026-11-22T08:00:00+00:00", accuracy=0.75)
    make("first", state="training")
    (tmp_path / "runs" / "notes").mkdir()  # no run
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "runs" / "first")
    first, later = listing.summaries(tmp_path / "runs", config)
    assert (first.directory.name, first.state, first.config) == ("first", "interrupted", "small")
    assert (later.directory.name, later.state, later.started) == ("later", "finished", "2026-11-22 08:00")
    assert later.figures == {"val_loss": 0.25, "test accuracy": 0.75, "test loss": 0.5}
    assert later.size == sum(path.stat().st_size for path in later.directory.rglob("*") if path.is_file()) > 5000


def test_a_run_with_many_classes_is_listed_with_its_figures(make, tmp_path):
    matrix = [[0] * 1700] * 1700
    (make("one") / "evaluation.json").write_text(json.dumps({"accuracy": 0.5, "confusion": matrix}))  # 8.7 MB
    (one,) = listing.summaries(tmp_path / "runs", config)
    assert one.figures["test accuracy"] == 0.5


def test_a_damaged_run_is_listed_with_its_fault(make, tmp_path, capsys):
    make("whole")
    (make("broken") / "record.json").write_text("{")
    assert cli._run(["runs", "ls", str(tmp_path / "runs")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "damaged" in out and "finished" in out and "val_loss 0.2500" in out and "accuracy 90.00 %" in out


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ToolkitError, match="there is no folder .*nowhere"):
        listing.summaries(tmp_path / "nowhere", config)


def test_what_differs_between_two_runs_is_told_and_nothing_else(make):
    one, other = make("one"), make("other", rate="3e-4", accuracy=0.95)
    assert listing.differences(one, other, config) == [
        ("optimizer.learning_rate", "0.001", "0.0003"),
        ("test accuracy", "90.00 %", "95.00 %"),
    ]
    assert listing.differences(one, one, config) == []


def test_what_is_removed_is_said_and_asked_for_first(make, capsys, monkeypatch, tmp_path):
    keep, lose = make("keep"), make("lose")
    (lose / "notes.txt").write_text("mine")
    said = []

    def refuse(question):
        assert any("lose" in line and "small, finished" in line for line in said)
        assert any("notes.txt (4 B)" in line for line in said)
        assert any("checkpoints (5.0 kB, 1 file)" in line for line in said)
        return False

    assert listing.remove([lose, lose], config, confirm=refuse, say=said.append) == []
    assert (lose / "notes.txt").exists()
    assert cli._run(["runs", "rm", "--yes", str(lose)]) == 0
    assert "removed" in capsys.readouterr().out
    assert not lose.exists()
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {keep.name}


def refused(directories, match):
    with pytest.raises(ToolkitError, match=match):
        listing.remove(directories, config, confirm=lambda question: True, say=lambda line: None)


def test_a_run_that_is_running_is_not_removed_nor_its_lock_touched(make):
    whole, running = make("whole"), make("running", state="training")
    lock = running / "lock"
    lock.write_text("process 1 on here: toolkit train\n")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert listing.summarize(running, config).state == "running"
        refused([whole, running], "is running: stop it first")
    assert whole.exists()  # all or nothing
    assert lock.read_text() == "process 1 on here: toolkit train\n"
    assert listing.summarize(running, config).state == "interrupted"  # its owner is gone


def test_only_run_directories_are_removed(make, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "cat.jpg").write_bytes(b"cat")
    refused([tmp_path / "pictures"], "holds no run that began to train")
    refused([tmp_path / "absent"], "there is no run directory")
    assert (tmp_path / "pictures" / "cat.jpg").exists()


def test_links_lead_nobody_out_of_a_run(make, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.txt").write_text("mine")
    run = make("run")
    (run / "more").symlink_to(outside)
    refused([run], "symbolic link")
    (tmp_path / "alias").symlink_to(run)
    (run / "more").unlink()
    refused([tmp_path / "alias"], "is a link")
    assert run.exists() and (outside / "precious.txt").read_text() == "mine"


def test_a_size_is_told_with_three_digits():
    sizes = [0, 999, 5000, 123_456, 1_500_000_000]
    assert [listing.size_text(size) for size in sizes] == ["0 B", "999 B", "5.0 kB", "123 kB", "1.5 GB"]


def test_names_of_others_do_not_speak_to_the_terminal(make, tmp_path, capsys):
    shutil.move(make("evil"), tmp_path / "runs" / "e\x1b[31mvil")
    assert cli._run(["runs", "ls", str(tmp_path / "runs")]) == 0
    assert "\x1b" not in capsys.readouterr().out
