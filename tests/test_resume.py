"""Interrupted and resumed runs against the same run without interruption: bit for bit."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from toolkit import cli, workflow
from toolkit.config import load
from toolkit.errors import ToolkitError
from toolkit.runs import arrays, checkpoints
from toolkit.training import calls, keeper, loop
from toolkit.training.stop import Stopped

every_backend = pytest.mark.every_backend

# What could go wrong together: dropout, batch norm, augmentation, a schedule, averages, windows of micro-batches that
# do not come out even, rows across an interruption, early stopping.
IMAGES = """
seed: 3
data:
  {source: synthetic_images, classes: 3, examples: 150, height: 12, width: 12, batch_size: 16,
   augmentation: {shift: 0.1, flip: horizontal}}
model: {name: simple_cnn, filters: [4, 4], dropout: 0.3, batch_norm: true}
optimizer:
  {name: adam, learning_rate: 1e-2, schedule: {name: cosine, warmup_steps: 2}, use_ema: true, ema_momentum: 0.8,
   gradient_accumulation_steps: 4}
training: {epochs: 3, backend: %s, log_every: 4, early_stopping: {patience: 2}}
"""
AUDIO = """
data: {source: synthetic_audio, classes: 2, examples: 60, seconds: 0.1, batch_size: 8}
model: {name: speech_lstm, units: 8, mels: 8, dropout: 0.3}
optimizer: {name: adam, learning_rate: 1e-2, amsgrad: true, weight_decay: 1e-3}
training: {epochs: 3, backend: %s, log_every: 3, plateau: {patience: 1, factor: 0.5}}
"""
SPEECH = """
data: {source: synthetic_speech, examples: 40, transcript_units: characters, batch_size: 8}
model: {name: speech_ctc, convolutions: [8], layers: 1, units: 8, mels: 8, dropout: 0.3}
optimizer: {name: adam, learning_rate: 1e-2}
training: {epochs: 3, backend: %s, log_every: 3}
"""
PER_EPOCH = 6  # batches of IMAGES: 105 examples for training
TIMES = {"seconds", "examples_per_second", "data_wait_share"}


def make_config(folder, text, *overrides):
    folder.mkdir(exist_ok=True)
    path = folder / "small.yaml"
    path.write_text(text % os.environ["KERAS_BACKEND"])
    return load(path, overrides)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The runs without interruption, with calls of as many steps as may be."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "LENGTH", 1e9)
        return {
            text: workflow.train(make_config(folder / str(i), text), run_dir=folder / f"run{i}")
            for i, text in enumerate((IMAGES, AUDIO, SPEECH))
        }


@pytest.fixture
def step_by_step(monkeypatch):
    """A call makes one step, so that there is an end of a call at each."""
    monkeypatch.setattr(calls, "LENGTH", 0)


@pytest.fixture
def stop_after(monkeypatch, step_by_step):
    """Makes the training receive SIGTERM within its n-th batch, once."""

    def at(*steps):
        original = keeper.Keep.on_train_batch_end
        to_come = set(steps)

        def patched(self, batch, logs=None):
            step = self.keeper.position.trained + 1
            if step in to_come:
                to_come.remove(step)
                signal.raise_signal(signal.SIGTERM)
            original(self, batch, logs)

        monkeypatch.setattr(keeper.Keep, "on_train_batch_end", patched)

    return at


def rows(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]


def assert_same(run, reference):
    """All that a run leaves, but for times and names of folders."""
    assert rows(run) == rows(reference)
    ours, theirs = (checkpoints.newest(folder / checkpoints.FOLDER, report=pytest.fail) for folder in (run, reference))
    assert ours.path.name == theirs.path.name
    assert ours.arrays.keys() == theirs.arrays.keys()
    for name, value in theirs.arrays.items():
        assert ours.arrays[name].dtype == value.dtype, name
        np.testing.assert_array_equal(ours.arrays[name], value, err_msg=name)
    for state in (ours.state, theirs.state):
        del state["position"]["seconds"]
    assert ours.state == theirs.state
    for file in ("weights.safetensors", "predictions.csv"):
        assert (run / file).read_bytes() == (reference / file).read_bytes()


@every_backend
@pytest.mark.parametrize(
    ("text", "steps"),
    # in the first epoch, at the end of one, in the middle of a window, after the last batch
    [
        (IMAGES, (1, 4)),
        (IMAGES, (PER_EPOCH, 9)),
        (IMAGES, (3 * PER_EPOCH,)),
        (AUDIO, (1, 5, 8)),
        (AUDIO, (10, 13)),
        (SPEECH, (2, 6)),
    ],
)
def test_a_resumed_run_ends_as_if_it_had_not_been_interrupted(tmp_path, whole, stop_after, text, steps):
    stop_after(*steps)
    config = make_config(tmp_path, text)
    with pytest.raises(Stopped, match=rf"SIGTERM after step {steps[0]}; .*--resume {tmp_path}/run"):
        workflow.train(config, run_dir=tmp_path / "run")
    for step in steps[1:]:
        with pytest.raises(Stopped, match=f"after step {step};"):
            workflow.resume(tmp_path / "run")
    workflow.resume(tmp_path / "run")
    assert_same(tmp_path / "run", whole[text])


@every_backend
def test_two_runs_of_a_config_are_equal_to_the_bit(tmp_path, whole):
    workflow.train(make_config(tmp_path, AUDIO), run_dir=tmp_path / "run")
    assert_same(tmp_path / "run", whole[AUDIO])


@every_backend
def test_deterministic_operations_are_enough_for_training(tmp_path):
    """In a process of its own, since it cannot be taken back."""
    make_config(tmp_path, IMAGES, "training.deterministic=true")
    code = "from toolkit.cli import main; main(['train', 'small.yaml', '--set', 'training.deterministic=true'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@every_backend
@pytest.mark.usefixtures("step_by_step")
def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(tmp_path, whole, monkeypatch):
    """As a SIGKILL leaves it: rows and TensorBoard are further than the checkpoint."""
    config = make_config(tmp_path, IMAGES, "training.checkpoint.every_steps=3")
    original = keeper.Keep.on_train_batch_end

    class Killed(BaseException):
        pass

    def patched(self, batch, logs=None):
        original(self, batch, logs)
        if self.keeper.position.trained == 8:  # the checkpoint is of step 6, a row of step 8
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(keeper.Keep, "on_train_batch_end", patched)
        workflow.train(config, run_dir=tmp_path / "run")
    assert [row["step"] for row in rows(tmp_path / "run")] == [4, 6, 8]
    workflow.resume(tmp_path / "run")
    assert_same(tmp_path / "run", whole[IMAGES])


@every_backend
@pytest.mark.parametrize("text", [IMAGES, AUDIO])
def test_a_run_that_was_killed_after_an_epoch(tmp_path, whole, monkeypatch, text):
    """That checkpoint comes after the validation, whose metrics must not become part of the next epoch's."""
    original = keeper.Keeper.after_epoch

    class Killed(BaseException):
        pass

    def patched(self, *, last):
        original(self, last=last)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(keeper, "_WORTH", 0)  # a save after every epoch
        patch.setattr(keeper.Keeper, "after_epoch", patched)
        workflow.train(make_config(tmp_path, text), run_dir=tmp_path / "run")
    assert checkpoints.names(tmp_path / "run" / checkpoints.FOLDER)[-1].endswith("-epoch-00001")
    workflow.resume(tmp_path / "run")
    assert_same(tmp_path / "run", whole[text])


@every_backend
def test_a_signal_within_the_validation(tmp_path, whole, monkeypatch):
    original = loop._Training._validate

    def patched(self):
        if self.at.epoch == 2:
            signal.raise_signal(signal.SIGINT)
        return original(self)

    config = make_config(tmp_path, IMAGES)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with monkeypatch.context() as patch, pytest.raises(Stopped, match="SIGINT after step 12") as stopped:
            patch.setattr(loop._Training, "_validate", patched)
            workflow.train(config, run_dir=tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.value.exit_code == 130
    workflow.resume(tmp_path / "run")
    assert_same(tmp_path / "run", whole[IMAGES])


@pytest.fixture
def stopped(tmp_path, stop_after):
    """A run that was stopped after its eighth batch."""
    stop_after(8)
    with pytest.raises(Stopped):
        workflow.train(make_config(tmp_path, IMAGES), run_dir=tmp_path / "run")
    return tmp_path / "run"


def test_the_record_tells_of_each_sitting(stopped):
    assert json.loads((stopped / "record.json").read_text())["state"] == "stopped"
    workflow.resume(stopped)
    record = json.loads((stopped / "record.json").read_text())
    assert (record["state"], record["epochs"], record["error"]) == ("finished", 3, None)
    assert [sitting["step"] for sitting in record["resumed"]] == [8]


def test_tensorboard_holds_each_row_once(stopped):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    workflow.resume(stopped)
    events = EventAccumulator(str(stopped / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Tensors("step/loss")] == [
        row["step"] for row in rows(stopped) if row["kind"] == "step"
    ]


@pytest.mark.parametrize(
    "override",
    [
        "seed=4",
        "data.batch_size=8",
        "model.dropout=0.1",
        "optimizer.learning_rate=1e-3",
        "training.precision=mixed_bfloat16",
        f"training.backend={'torch' if os.environ['KERAS_BACKEND'] == 'jax' else 'jax'}",
    ],
)
def test_another_config_is_refused_with_what_differs(stopped, override):
    key = override.partition("=")[0]
    with pytest.raises(ToolkitError, match=rf"cannot go on with another config \({key} was .*, is ") as refused:
        workflow.resume(stopped, overrides=[override])
    assert ";" not in str(refused.value).partition("):")[0], "only what differs is told"


def test_other_data_is_refused(stopped):
    record = json.loads((stopped / "record.json").read_text())
    record["fingerprints"]["train"] = "0" * 64
    (stopped / "record.json").write_text(json.dumps(record))
    with pytest.raises(ToolkitError, match=r"cannot go on with other data \(fingerprints: train was 000000000000, is "):
        workflow.resume(stopped)


def test_another_version_is_told(stopped, capsys):
    record = json.loads((stopped / "record.json").read_text())
    record["versions"]["numpy"] = "1.0"
    (stopped / "record.json").write_text(json.dumps(record))
    workflow.resume(stopped)
    assert "versions.numpy was 1.0, is " in capsys.readouterr().out


def test_more_epochs_hold_the_last_rate(whole, tmp_path, capsys):
    run = shutil.copytree(whole[IMAGES], tmp_path / "run")
    with pytest.raises(ToolkitError, match="is finished, after 3 epochs: to train more, raise training.epochs"):
        workflow.resume(run)
    workflow.resume(run, overrides=["training.epochs=5", "training.early_stopping.patience=2"])
    assert "the schedule ends at step 6, and the rate stays there" in capsys.readouterr().out
    epochs = [row for row in rows(run) if row["kind"] == "epoch"]
    assert [row["epoch"] for row in epochs] == [1, 2, 3, 4, 5]
    assert epochs[3]["learning_rate"] == epochs[4]["learning_rate"] <= epochs[2]["learning_rate"]


def test_an_interrupted_run_may_end_earlier_but_not_before_where_it_is(tmp_path, stop_after, capsys):
    stop_after(PER_EPOCH + 2)
    with pytest.raises(Stopped):
        workflow.train(make_config(tmp_path, IMAGES), run_dir=tmp_path / "run")
    with pytest.raises(ToolkitError, match=r"training.epochs is 1, but the run in .* has trained in epoch 2 already"):
        workflow.resume(tmp_path / "run", overrides=["training.epochs=1"])
    workflow.resume(tmp_path / "run", overrides=["training.epochs=2"])
    assert [row["epoch"] for row in rows(tmp_path / "run") if row["kind"] == "epoch"] == [1, 2]


@pytest.mark.usefixtures("step_by_step")
def test_ending_earlier_brings_back_the_weights_that_the_checkpoint_knows(tmp_path, monkeypatch):
    """Killed in the third epoch, after a second that was the best and left no checkpoint."""
    config = make_config(tmp_path, IMAGES, "training.early_stopping=null")
    monkeypatch.setattr(
        loop._Training,
        "_validate",
        lambda self, validate=loop._Training._validate: {**validate(self), "val_loss": 1 / self.at.epoch},
    )
    monkeypatch.setattr(keeper, "_WORTH", 0)
    original = keeper.Keep.on_train_batch_end

    def killed(self, batch, logs=None):
        original(self, batch, logs)
        if self.keeper.position.trained == PER_EPOCH + 1:
            monkeypatch.setattr(keeper, "_WORTH", math.inf)  # the end of an epoch leaves no checkpoint any more
        if self.keeper.position.trained == 2 * PER_EPOCH + 1:
            raise ZeroDivisionError

    monkeypatch.setattr(keeper.Keep, "on_train_batch_end", killed)
    with pytest.raises(ZeroDivisionError):
        workflow.train(config, run_dir=tmp_path / "run")
    monkeypatch.setattr(keeper.Keep, "on_train_batch_end", original)
    assert arrays.about(tmp_path / "run" / "weights.safetensors") == {"epoch": "2"}
    workflow.resume(tmp_path / "run", overrides=["training.epochs=1"])
    assert arrays.about(tmp_path / "run" / "weights.safetensors") == {"epoch": "1"}
    assert json.loads((tmp_path / "run" / "record.json").read_text())["best"]["epoch"] == 1


def test_a_run_with_nothing_to_do_is_refused_with_the_reason(tmp_path):
    config = make_config(tmp_path, IMAGES, "training.early_stopping.min_delta=9", "training.epochs=9")
    run = workflow.train(config, run_dir=tmp_path / "early")  # no epoch is better by 9
    with pytest.raises(ToolkitError, match="is finished, stopped early after 3 epochs: start a run of its own"):
        workflow.resume(run, overrides=["training.epochs=12"])
    smoke = workflow.train(make_config(tmp_path, IMAGES), run_dir=tmp_path / "smoke", steps=2)
    with pytest.raises(ToolkitError, match="is finished, a smoke run of 2 steps: start one without --steps"):
        workflow.resume(smoke, overrides=["training.epochs=4"])


def test_without_checkpoints_a_run_that_has_trained_does_not_begin_anew(stopped):
    shutil.rmtree(stopped / "checkpoints")
    with pytest.raises(ToolkitError, match="holds no checkpoint, though the run has trained"):
        workflow.resume(stopped)


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(tmp_path, whole, stop_after, capsys):
    stop_after(8)
    with pytest.raises(Stopped):
        workflow.train(make_config(tmp_path, IMAGES, "training.checkpoint.every_steps=5"), run_dir=tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    newest = checkpoints.names(folder)[-1]
    with (folder / newest / checkpoints.ARRAYS).open("r+b") as file:
        file.truncate(1000)
    workflow.resume(tmp_path / "run")
    assert f"warning: the checkpoint {newest} is damaged" in capsys.readouterr().out
    shutil.rmtree(folder / f"damaged-{newest}")
    assert_same(tmp_path / "run", whole[IMAGES])


def test_auto_goes_on_with_the_newest_unfinished_run_of_the_config(stopped, tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    shutil.copytree(stopped, tmp_path / "runs" / "one")
    smoke = shutil.copytree(stopped, tmp_path / "runs" / "smoke")  # of a few steps only, begun later
    record = json.loads((smoke / "record.json").read_text())
    (smoke / "record.json").write_text(json.dumps({**record, "limit": 10, "started": "9999"}))
    assert cli._run(["train", str(tmp_path / "small.yaml"), "--resume", "auto"]) == 0
    assert "going on with runs/one" in capsys.readouterr().out.replace("\n", "")
    assert json.loads((tmp_path / "runs" / "one" / "record.json").read_text())["state"] == "finished"
    # now none is left, and a new one begins
    assert cli._run(["train", str(tmp_path / "small.yaml"), "--resume", "auto", "--set", "training.epochs=2"]) == 0
    assert "a new one begins" in capsys.readouterr().out
    assert len(list((tmp_path / "runs").iterdir())) == 3


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["train", "--resume", "auto"], "CONFIG is missing"),
        (["train"], "CONFIG is missing"),
        (["train", "--resume", "x", "--run-dir", "y"], "leave --run-dir and --steps out"),
        (["train", "--resume", "nowhere"], "there is no run directory"),
    ],
)
def test_wrong_requests(arguments, text, capsys):
    assert cli._run(arguments) == 2
    assert text in capsys.readouterr().err.replace("\n", " ")
