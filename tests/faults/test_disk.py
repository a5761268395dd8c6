"""Disks that are full or may not be written, and folders with unusual names."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from toolkit import workflow
from toolkit.config import load
from toolkit.errors import RunFailed
from toolkit.runs import checkpoints

pytestmark = pytest.mark.long

CONFIG = """
seed: 1
data: {source: synthetic_images, classes: 3, examples: 150, height: 8, width: 8, batch_size: 8}
model: {name: simple_cnn, filters: [2, 2], dropout: 0.2}
optimizer: {name: adam, learning_rate: 1e-2}
training: {epochs: 2, backend: %s, log_every: 1, checkpoint: {every_steps: 5}}
"""


@pytest.fixture
def place():
    """A folder that another user may read; pytest's own are for one user."""
    folder = Path(tempfile.mkdtemp(prefix="toolkit-disk-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def config(place):
    path = place / "small.yaml"
    path.write_text(CONFIG % os.environ["KERAS_BACKEND"])
    return path


@pytest.fixture
def small_disk(place):
    """A file system of its own of two megabytes."""
    disk = place / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=2m", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(place):
    """Leave no byte free; the file that does so."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass  # full
    return filler


def test_a_full_disk_ends_the_run_with_what_it_needs_and_loses_nothing(config, small_disk, monkeypatch, capsys):
    save = checkpoints.save
    whole = workflow.train(load(config), run_dir="whole")

    def save_on_a_full_disk(folder, name, *rest, **options):
        if name == "step-00000010":
            fill(small_disk)
        return save(folder, name, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", save_on_a_full_disk)
        with pytest.raises(
            RunFailed, match=r"step-00000010 could not be written \(.*\): it needs [\d,]+ bytes, and \d"
        ):
            workflow.train(load(config), run_dir=small_disk / "run")
    assert checkpoints.names(small_disk / "run" / "checkpoints") == ["step-00000000", "step-00000005"]
    (small_disk / "filler").unlink()
    workflow.resume(small_disk / "run")
    assert (small_disk / "run/weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


# What is needed is imported first: the packages may lie where another user cannot read.
AS_ANOTHER_USER = """
import os, sys
import rich.console, rich.text, toolkit.workflow
from toolkit.cli import _run
_run(["configs", "validate", sys.argv[1]])
if os.geteuid() == 0:
    os.setuid(65534)
sys.exit(_run(["train", sys.argv[1], "--run-dir", sys.argv[2]]))
"""


def test_a_full_disk_is_told_where_scalars_cannot_be_written(small_disk):
    from toolkit.training.recorder import TensorBoard

    row = {"kind": "step", "step": 3, "loss": 0.5}
    with contextlib.closing(TensorBoard(small_disk / "tensorboard")) as board:
        board.write(row)
        fill(small_disk)
        with pytest.raises(RunFailed, match=r"tensorboard/events\S+ could not be written .*make room"):
            for _ in range(1000):  # until the block that the file has already is full, too
                board.write(row)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(RunFailed, match=r"other/events\S+ could not be written .*[Rr]ead-only"):
        TensorBoard(small_disk / "other")


def assert_told_before_data_is_read(config, run):
    code = [sys.executable, "-c", AS_ANOTHER_USER, str(config), str(run)]
    done = subprocess.run(code, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    assert f"the run directory {run} cannot be written (" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert "examples" not in done.stdout


def test_a_folder_of_another_user_is_told_before_data_is_read(config, place):
    (place / "theirs").mkdir(mode=0o555)
    assert_told_before_data_is_read(config, place / "theirs" / "run")


def test_a_file_system_that_is_read_only_is_told_before_data_is_read(config, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert_told_before_data_is_read(config, small_disk / "run")


def test_a_folder_with_spaces_and_other_scripts(config, tmp_path):
    run = workflow.train(load(config), run_dir=tmp_path / "my runs" / "猫と犬 [1] %s")
    workflow.resume(run, overrides=["training.epochs=3"])
    workflow.evaluate(run, split="validation")
    answers = workflow.predict(run, files=[picture(tmp_path / "gato ñ 猫.png")])
    assert len(answers.ids) == 1


def picture(path: Path) -> Path:
    from PIL import Image

    Image.new("L", (8, 8), 7).save(path)
    return path
