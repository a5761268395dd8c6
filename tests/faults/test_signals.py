"""Real processes that are told to stop, that meet each other, and whose surroundings go away."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toolkit import cli
from toolkit.runs import checkpoints
from toolkit.studies.verify_resume import compare

pytestmark = pytest.mark.long

CONFIG = """
data: {source: synthetic_images, classes: 3, examples: 300, height: 8, width: 8, batch_size: 4}
model: {name: simple_cnn, filters: [2, 2]}
optimizer: {name: adam, learning_rate: 1e-3}
training: {epochs: %d, backend: %s, log_every: 1, checkpoint: {every_steps: 20}}
"""
PER_EPOCH = 52
ENDLESS = 10_000


def toolkit(*arguments, before=""):
    """The console command, after some Python; heeding what `nohup` and a shell's background jobs ignore."""
    heed = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    heed += "; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heed}\n{before}\nfrom toolkit.cli import main\nmain()"
    return [sys.executable, "-P", "-c", code, *map(str, arguments)]


def start(*arguments, before="", **options):
    """In a session of its own: without a terminal."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(toolkit(*arguments, before=before), start_new_session=True, **{**pipes, **options})


def finish(*arguments, **options):
    """Its exit code and what it said."""
    process = start(*arguments, **options)
    said, _ = process.communicate()
    return process.returncode, said


def wait_for(process, condition):
    """Until the condition holds; the process must not end before."""
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)


def make_config(folder, epochs):
    folder.mkdir(exist_ok=True)
    path = folder / f"epochs-{epochs}.yaml"
    path.write_text(CONFIG % (epochs, os.environ["KERAS_BACKEND"]))
    return path


def rows(run):
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def steps(run):
    return [row["step"] for row in rows(run) if row["kind"] == "step"]


def newest_step(run):
    found = checkpoints.newest(run / checkpoints.FOLDER, report=pytest.fail)
    return found.state["position"]["trained"]


@pytest.fixture
def running(tmp_path):
    """A training in its second epoch, and its directory; ended with the test."""
    run = tmp_path / "run"
    process = start("train", make_config(tmp_path, ENDLESS), "--run-dir", run)
    try:
        wait_for(process, lambda: len(steps(run)) > PER_EPOCH + 5)
        yield process, run
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def assert_resume_finishes(run):
    """With the end of the epoch that it was in, every step once."""
    epoch = -(-(newest_step(run) + 1) // PER_EPOCH)
    code, said = finish("train", "--resume", run, "--set", f"training.epochs={epoch}")
    assert code == 0, said
    assert json.loads((run / "record.json").read_text())["state"] == "finished"
    assert steps(run) == list(range(1, epoch * PER_EPOCH + 1))
    assert not (run / "lock").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_stops_at_the_end_of_the_batch_with_a_checkpoint(running, number, code):
    process, run = running
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code, said
    last = newest_step(run)
    assert steps(run) == list(range(1, last + 1))  # no row, and so no batch, came after it
    assert f"stopped by {number.name} after step {last:,}" in said.replace("\n", " ")
    assert "Traceback" not in said
    assert json.loads((run / "record.json").read_text())["state"] == "stopped"
    assert_resume_finishes(run)


def test_a_hang_up_is_ignored_under_nohup(tmp_path):
    run = tmp_path / "run"
    ignored = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    process = start("train", make_config(tmp_path, 3), "--run-dir", run, before=ignored)
    try:
        wait_for(process, lambda: steps(run))
        process.send_signal(signal.SIGHUP)
        said, _ = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said


# A disk that never ends a save: what Ctrl-C, pressed a second time, must get out of.
STUCK = """
import sys, time
from pathlib import Path
from toolkit.runs import checkpoints
original = checkpoints._write
def stuck(folder, tensors, state):
    if state["position"]["trained"] % 20:  # only the save that a signal asked for
        (folder / checkpoints.ARRAYS).write_bytes(b"half of it")
        time.sleep(600)
    original(folder, tensors, state)
checkpoints._write = stuck
"""


def test_a_second_ctrl_c_quits_at_once_and_the_last_checkpoint_is_valid(tmp_path):
    run = tmp_path / "run"
    process = start("train", make_config(tmp_path, ENDLESS), "--run-dir", run, before=STUCK)
    wait_for(process, lambda: len(steps(run)) > PER_EPOCH and steps(run)[-1] % 20 in range(3, 10))
    process.send_signal(signal.SIGINT)
    wait_for(process, lambda: list((run / checkpoints.FOLDER).glob(".new-*/arrays.safetensors")))
    begin = time.perf_counter()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert time.perf_counter() - begin < 10
    assert process.returncode == 130
    assert newest_step(run) % 20 == 0 < newest_step(run)
    assert_resume_finishes(run)


def test_one_owner_a_directory_and_a_dead_one_leaves_it(running, capsys):
    process, run = running
    owner = rf"is in use by process {process.pid} on "
    for request in (["--resume", str(run)], [str(run.parent / f"epochs-{ENDLESS}.yaml"), "--run-dir", str(run)]):
        assert cli._run(["train", *request]) == 2
        assert owner in capsys.readouterr().err.replace("\n", " ")
    before = len(steps(run))
    wait_for(process, lambda: len(steps(run)) > before)  # its owner was not disturbed
    process.kill()
    process.wait()
    assert (run / "lock").exists()
    assert_resume_finishes(run)


# --- what a training does not depend on -------------------------------------------------------------------------------

EPOCHS = 2


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run in ordinary surroundings."""
    folder = tmp_path_factory.mktemp("ordinary")
    code, said = finish("train", make_config(folder, EPOCHS), "--run-dir", folder / "run")
    assert code == 0, said
    return folder / "run"


def assert_unaffected(run, whole):
    assert compare(whole, run).differences == ()
    assert json.loads((run / "record.json").read_text())["state"] == "finished"
    assert (run / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    assert "everything is in" in (run / "log.txt").read_text()


def test_the_current_directory_is_removed(tmp_path, whole):
    here, run = tmp_path / "here", tmp_path / "run"
    here.mkdir()
    process = start("train", make_config(tmp_path, EPOCHS), "--run-dir", run, cwd=here)
    wait_for(process, lambda: len(steps(run)) > 5)
    shutil.rmtree(here)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143
    # and the resume starts where there is no current directory any more
    here.mkdir()
    resume = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", *toolkit("train", "--resume", run)],
        cwd=here,
        capture_output=True,
        text=True,
    )
    assert resume.returncode == 0, resume.stderr
    assert not here.exists()
    assert json.loads((run / "record.json").read_text())["resumed"][0]["directory"] is None
    assert_unaffected(run, whole)


@pytest.mark.parametrize(
    "how",
    ['"$@" >&-', '"$@" <&- >&- 2>&-', '{ "$@"; echo $? > code; } | head -1'],
    ids=["closed", "all closed", "broken pipe"],
)
def test_nobody_reads_what_it_says(tmp_path, whole, how):
    run = tmp_path / "run"
    done = subprocess.run(
        ["sh", "-c", how, "sh", *toolkit("train", make_config(tmp_path, EPOCHS), "--run-dir", run)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr
    if "code" in how:
        assert Path("code").read_text() == "0\n", done.stderr
        assert done.stdout.startswith("run directory")
    assert "Error" not in done.stderr
    assert_unaffected(run, whole)


# Hours forth and back from call to call.
JUMPS = """
import itertools, time
real, hours = time.time, itertools.cycle([0, 5, -7, 100, -3000])
time.time = lambda: real() + 3600 * next(hours)
"""


def test_the_clock_jumps(tmp_path, whole):
    run = tmp_path / "run"
    code, said = finish("train", make_config(tmp_path, EPOCHS), "--run-dir", run, before=JUMPS)
    assert code == 0, said
    assert_unaffected(run, whole)
    assert all(0 <= row["seconds"] < 600 for row in rows(run) if row["kind"] == "epoch")
