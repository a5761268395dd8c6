"""`toolkit verify-resume`: that it kills and resumes, and that it sees every kind of difference.

The long tests train on each backend. The others kill a trainer of a few lines, which leaves what a run leaves.
"""

import importlib.util
import json
import random
import shutil
import sys

import numpy as np
import pytest

from toolkit import cli
from toolkit.errors import RunFailed
from toolkit.runs import arrays, checkpoints
from toolkit.studies import verify_resume
from toolkit.studies.verify_resume import Moment, Trial, Whole, compare

pytestmark = pytest.mark.long

CONFIG = """
seed: 3
data:
  {source: synthetic_images, classes: 3, examples: 150, height: 12, width: 12, batch_size: 16,
   augmentation: {shift: 0.1, flip: horizontal}}
model: {name: simple_cnn, filters: [4, 4], dropout: 0.3}
optimizer: {name: adam, learning_rate: 1e-2, gradient_accumulation_steps: 4}
training: {epochs: 4, plateau: {patience: 1}}
"""
# 20 steps, an epoch every 10, a checkpoint every 4 and after an epoch. Arguments as those of `toolkit`.
TRAINER = """
import json, sys, time
from pathlib import Path
import numpy as np
from toolkit.runs import arrays, checkpoints
resumed = "--resume" in sys.argv
run = Path(sys.argv[sys.argv.index("--resume" if resumed else "--run-dir") + 1])
folder, metrics, record = run / "checkpoints", run / "metrics.jsonl", run / "record.json"
known, step, rows, value = {"state": "training", "resumed": []}, 0, 0, np.zeros(5)
if resumed:
    known, saved = json.loads(record.read_text()), checkpoints.newest(folder, report=print)
    step, rows, value = saved.state["position"]["trained"], saved.state["position"]["rows"], saved.arrays["w"]
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:rows]))
    known["resumed"].append({"step": step})
    FAULT
else:
    run.mkdir()
def save():
    state = {"position": {"trained": step, "rows": rows, "seconds": time.time()}}
    name = f"step-{step:08d}" + ("-epoch" if step and step % 10 == 0 else "")
    checkpoints.save(folder, name, {"w": value}, state, keep=2)
def write(kind):
    global rows
    rows += 1
    with metrics.open("a") as file:
        file.write(json.dumps({"kind": kind, "step": step, "loss": value[0], "seconds": time.time()}) + "\\n")
def tell(state):
    record.with_suffix(".new").write_text(json.dumps({**known, "state": state}))
    record.with_suffix(".new").replace(record)
tell("training")
resumed or save()
while step < 20:
    time.sleep(0.01)
    step, value = step + 1, np.random.default_rng(step).normal(size=5) + value / 2
    write("step")
    if step % 10 == 0:
        write("epoch")
    if step % 4 == 0 or step % 10 == 0:
        save()
tell("trained")
arrays.save(run / "weights.safetensors", {"w": value})
time.sleep(0.3)
tell("finished")
"""


@pytest.fixture
def use_trainer(monkeypatch):
    """Makes every sitting run TRAINER, with a statement that spoils what a resume brings back."""

    def use(fault="pass"):
        command = (sys.executable, "-c", TRAINER.replace("FAULT", fault))
        monkeypatch.setattr(verify_resume, "COMMAND", command)

    return use


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


def test_kills_hit_the_training_and_the_runs_are_equal(tmp_path, use_trainer, small, capsys):
    use_trainer()
    trial = Trial(small, tmp_path)
    whole = trial.whole()
    assert len(whole.marks) == 1 + 20 + 2 + 1  # beginning, steps, epochs, end
    run, sittings = trial.killed(whole, 4, random.Random(0))
    assert compare(whole.directory, run).differences == ()
    assert (compare(whole.directory, run).tensors, compare(whole.directory, run).rows) == (2, 22)
    assert [sitting.moment is None for sitting in sittings] == [False] * 4 + [True]
    assert [sitting.start for sitting in sittings[1:]] == [
        sitting["step"] for sitting in json.loads((run / "record.json").read_text())["resumed"]
    ]
    assert sittings[0].start == 0 < max(sitting.end for sitting in sittings[:-1])
    assert all(sitting.start <= sitting.end for sitting in sittings)
    assert {sitting.within for sitting in sittings[:-1]} <= {"step", "save", "validation", "end"}
    assert len(capsys.readouterr().out.splitlines()) == 6


def test_the_verb_says_exact_and_removes_the_runs(tmp_path, use_trainer, small, capsys, monkeypatch):
    use_trainer()
    monkeypatch.setattr(verify_resume.tempfile, "tempdir", str(tmp_path))
    assert cli._run(["verify-resume", str(small), "--kills", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "exact: 2 kills, 2 tensors, 22 rows equal to the bit"
    assert [path.name for path in tmp_path.iterdir()] == [small.name]


def test_keep_keeps_the_runs(tmp_path, use_trainer, small):
    use_trainer()
    assert cli._run(["verify-resume", str(small), "--kills", "1", "--keep", "kept"]) == 0
    assert {"whole", "killed"} <= {path.name for path in (tmp_path / "kept").iterdir()}
    assert cli._run(["verify-resume", str(small), "--keep", "kept"]) == 2


def test_a_resume_that_forgets_is_told(tmp_path, use_trainer, small, capsys, monkeypatch):
    use_trainer("value[0] += 1e-9")
    monkeypatch.setattr(verify_resume.tempfile, "tempdir", str(tmp_path))
    # Seed 1 kills so early that the loss of a later row, in float64, still has the difference.
    assert cli._run(["verify-resume", str(small), "--kills", "2", "--seed", "1"]) == 1
    said = capsys.readouterr().err.replace("\n", " ")
    assert "not exact: metrics.jsonl differs from row" in said
    assert "loss is" in said
    folder = next(path for path in tmp_path.iterdir() if path.is_dir())
    assert str(folder) in said and {"whole", "killed"} <= {path.name for path in folder.iterdir()}


def test_a_sitting_that_fails_is_told_with_its_last_words(use_trainer, small, capsys):
    use_trainer("raise SystemExit('the moon was full')")
    assert cli._run(["verify-resume", str(small), "--kills", "1"]) == 1
    said = capsys.readouterr().err.replace("\n", " ")
    assert "exit code 1 (the moon was full): see" in said
    shutil.rmtree(next(part for part in said.split() if "verify-resume-" in part).partition("/killed")[0])


def test_a_run_that_ends_before_its_kill_is_made_anew(tmp_path, use_trainer, small, monkeypatch):
    use_trainer()
    trial = Trial(small, tmp_path)
    whole = trial.whole()
    drawn = iter(([Moment(5, 3)], [Moment(5, 0.001)]))
    monkeypatch.setattr(Whole, "moments", lambda *_: next(drawn))
    run, sittings = trial.killed(whole, 1, random.Random(0))
    assert run.name == "killed-2"
    assert [sitting.moment for sitting in sittings] == [Moment(5, 0.001), None]
    assert compare(whole.directory, run).differences == ()


def test_a_wrong_config_is_told_before_anything_starts(tmp_path, capsys):
    (tmp_path / "wrong.yaml").write_text(CONFIG.replace("epochs: 4", "epochs: none"))
    assert cli._run(["verify-resume", "wrong.yaml"]) == 2
    assert "training.epochs" in capsys.readouterr().err


def test_moments_are_seeded_sorted_and_within_their_stretch(tmp_path):
    marks = (0.0, 1.0, 1.5, 4.0)
    moments = Whole(tmp_path, marks).moments(200, random.Random(1))
    assert moments == sorted(Whole(tmp_path, marks).moments(200, random.Random(1)), key=lambda m: (m.row, m.delay))
    assert moments != Whole(tmp_path, marks).moments(200, random.Random(2))
    assert {moment.row for moment in moments} == {0, 1, 2}
    assert all(0 <= moment.delay <= marks[moment.row + 1] - marks[moment.row] for moment in moments)


# --- comparing -------------------------------------------------------------------------------------------------------

POSITION = {"trained": 2, "seconds": 1.5, "best": {"value": 0.25, "epoch": 1}}
TENSORS = {"optimizer/m/kernel": np.arange(6, dtype="float32").reshape(2, 3), "weights/kernel": np.ones(4, "float32")}
ROWS = ({"kind": "step", "step": 1, "loss": 0.5, "seconds": 1.0}, {"kind": "epoch", "step": 2, "loss": float("nan")})


def leave(run, *, position=POSITION, tensors=TENSORS, rows=ROWS, weights=TENSORS, name="step-00000002"):
    run.mkdir()
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arrays.save(run / "weights.safetensors", weights)
    checkpoints.save(run / "checkpoints", "step-00000001", {}, {}, keep=2)
    checkpoints.save(run / "checkpoints", name, tensors, {"position": position}, keep=2)
    return run


def changed(name, at, value):
    copy = TENSORS[name].copy()
    copy.reshape(-1)[at] = value
    return {**TENSORS, name: copy}


def test_runs_that_differ_in_times_alone_are_equal(tmp_path):
    position = {**POSITION, "seconds": 99.0}
    other = leave(tmp_path / "other", position=position, rows=({**ROWS[0], "seconds": 7.0}, ROWS[1]))
    assert compare(leave(tmp_path / "whole"), other) == verify_resume.Comparison(4, 2, ())


@pytest.mark.parametrize(
    ("difference", "text"),
    [
        (
            {"rows": ({**ROWS[0], "loss": np.nextafter(0.5, 1)}, ROWS[1])},
            "metrics.jsonl differs from row 1, step 1, on: loss is 0.5, then 0.5000000000000001",
        ),
        ({"rows": ROWS[:1]}, "metrics.jsonl has 2 rows, then 1"),
        ({"rows": (ROWS[0], {"kind": "epoch", "step": 2})}, "row 2, step 2, on: loss is nan, then None"),
        ({"position": {**POSITION, "best": {"value": 0.25, "epoch": 2}}}, "position.best.epoch is 1, then 2"),
        (
            {"tensors": changed("optimizer/m/kernel", [1, 4], 9)},
            "1 tensors of the last checkpoint differ, of which optimizer/m/kernel differs in 2 of 6 values",
        ),
        # Equal as numbers, not to the bit.
        ({"tensors": changed("optimizer/m/kernel", 0, -0.0)}, "optimizer/m/kernel differs in 1 of 6 values"),
        ({"tensors": {"weights/kernel": np.ones(4, "float32")}}, "optimizer/m/kernel is missing in one run"),
        (
            {"tensors": {**TENSORS, "weights/kernel": np.ones(4, "float64")}},
            "weights/kernel is float32 (4,), then float64 (4,)",
        ),
        (
            {"weights": changed("weights/kernel", 3, 2)},
            "1 tensors of weights.safetensors differ, of which weights/kernel differs in 1 of 4 values",
        ),
        ({"name": "step-00000003"}, "the last checkpoint is step-00000002, then step-00000003"),
    ],
)
def test_a_difference_is_named(tmp_path, difference, text):
    comparison = compare(leave(tmp_path / "whole"), leave(tmp_path / "other", **difference))
    assert len(comparison.differences) == 1
    assert text in comparison.differences[0]


def test_a_damaged_checkpoint_is_told(tmp_path):
    whole, other = leave(tmp_path / "whole"), leave(tmp_path / "other")
    (other / "checkpoints" / "step-00000002" / "manifest.json").write_text("{}")
    with pytest.raises(RunFailed, match="the checkpoint step-00000002 of .*other is damaged"):
        compare(whole, other)


# --- on the backends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_three_kills(backend, small, capsys, monkeypatch):
    if not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    monkeypatch.delenv("KERAS_BACKEND")  # the config says it
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")  # a person's processes compile each for itself
    assert cli._run(["verify-resume", str(small), "--steps", "24", "--set", f"training.backend={backend}"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said] == ["whole", *(f"sitting {i}" for i in (1, 2, 3, 4)), "exact"]
    assert said[-1].startswith("exact: 3 kills, ") and said[-1].endswith(" rows equal to the bit")
