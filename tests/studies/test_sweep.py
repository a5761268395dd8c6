"""A sweep finds what is planted, prunes what is behind, and goes on: after a stop, a kill, with other processes."""

import contextlib
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import optuna
import pytest

from toolkit import cli
from toolkit.config import load
from toolkit.errors import RunFailed, ToolkitError
from toolkit.studies import sweep as module
from toolkit.studies import trial
from toolkit.studies.sweep import sweep

FAKE = Path(__file__).with_name("fake_train.py")
_spec = importlib.util.spec_from_file_location("fake_train", FAKE)
fake_train = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_train)
CONFIG = """
data: {source: synthetic_images, seed: 1, batch_size: 16}
model: {name: simple_cnn, filters: [4, 4], dropout: 0.1}
optimizer: {name: adam, learning_rate: 1.0}
training: {epochs: 3}
"""
RATES = "optimizer.learning_rate: {log: [1e-4, 1]}\nmodel.dropout: {choice: [0.0, 0.5]}\n"


class AtOnce:
    """What `subprocess.Popen` gives, of a fake training that is over when it begins."""

    def __init__(self, command, *, stdout, **_):
        with contextlib.redirect_stdout(io.TextIOWrapper(stdout, write_through=True)) as text:
            self.returncode = fake_train.main(command[len(trial.COMMAND) :])
            text.detach()

    def poll(self):
        return self.returncode

    wait = poll


@pytest.fixture
def at_once(monkeypatch):
    """Fake trainings within this process."""
    fake = types.SimpleNamespace(Popen=AtOnce, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT)
    monkeypatch.setattr(trial, "subprocess", fake)


@pytest.fixture
def processes(monkeypatch):
    """Fake trainings in processes of their own."""
    monkeypatch.setattr(trial, "COMMAND", (sys.executable, str(FAKE)))
    monkeypatch.setattr(trial, "POLL", 0.01)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "small.yaml").write_text(CONFIG)
    (tmp_path / "space.yaml").write_text(RATES)
    return str(tmp_path / "small.yaml"), tmp_path / "space.yaml"


@pytest.fixture
def behaviour(monkeypatch):
    """What `fake_train.py` is told."""

    def tell(**told):
        monkeypatch.setenv("FAKE_TRAIN", json.dumps(told))

    return tell


def study_of(folder):
    return optuna.load_study(study_name="small", storage=f"sqlite:///{folder / 'sweep.db'}")


def results(folder):
    """State, choices and value of every trial."""
    return [(each.state.name, each.params, each.value) for each in study_of(folder).trials]


def states(folder):
    return [state for state, _, _ in results(folder)]


def record(folder, place):
    return json.loads((folder / f"trial-{place:04d}" / "record.json").read_text())


def test_it_finds_what_is_planted_and_leaves_a_config_to_train(at_once, files, tmp_path):
    said = []
    path = sweep(*files, trials=16, folder=tmp_path / "sweep", pruner="none", say=said.append)
    best = load(path)
    assert best.model.arguments["dropout"] == 0.0
    # The best rate is 1e-2, of four decades; what one of 16 even steps would miss it by is an eighth of a decade.
    assert 10**-2.4 < best.optimizer.optimizer.arguments["learning_rate"] < 10**-1.6
    found = study_of(tmp_path / "sweep")
    assert found.best_value == min(value for _, _, value in results(tmp_path / "sweep"))
    assert best.optimizer.optimizer.arguments["learning_rate"] == found.best_params["optimizer.learning_rate"]
    assert path.read_text().startswith(
        f"# The best of a sweep over small.yaml: trial-{found.best_trial.number:04d}, val_loss"
    )
    trained = load(tmp_path / "sweep" / f"trial-{found.best_trial.number:04d}" / "config.yaml")
    assert trained.to_dict() == best.to_dict()
    assert any(
        line.startswith(f"best: trial-{found.best_trial.number:04d}, val_loss {found.best_value:.4f}") for line in said
    )
    page = (tmp_path / "sweep" / "sweep.html").read_text()
    assert page.count('class="plotly-graph-div"') == 3
    assert "<script src=" not in page  # it needs no network


def test_a_sweep_that_goes_on_draws_what_one_in_a_single_call_draws(at_once, files, tmp_path):
    sweep(*files, trials=14, folder=tmp_path / "whole", say=lambda line: None)
    for count in (3, 12, 14):
        sweep(*files, trials=count, folder=tmp_path / "parts", say=lambda line: None)
        assert len(results(tmp_path / "parts")) == count
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    sweep(*files, trials=2, folder=tmp_path / "other", seed=1, say=lambda line: None)
    assert results(tmp_path / "other") != results(tmp_path / "whole")[:2]


def test_what_is_behind_is_pruned_at_the_end_of_an_epoch(processes, files, tmp_path, behaviour):
    behaviour(seconds=0.1)  # so that there is something to stop
    said = []
    sweep(*files, trials=8, folder=tmp_path / "sweep", overrides=["training.epochs=6"], say=said.append)
    pruned = [each for each in study_of(tmp_path / "sweep").trials if each.state.name == "PRUNED"]
    assert pruned
    for each in pruned:
        assert record(tmp_path / "sweep", each.number)["state"] == "stopped"
        told = f"trial-{each.number:04d}: pruned after epoch {each.last_step}, val_loss {each.value:.4f}"
        assert any(line.startswith(told) for line in said)
    kept = [each for each in study_of(tmp_path / "sweep").trials if each.state.name == "COMPLETE"]
    assert all(record(tmp_path / "sweep", each.number)["state"] == "finished" for each in kept)


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_the_epochs_after_the_one_at_which_a_trial_is_pruned_do_not_count(at_once, files, tmp_path, pruner):
    # These trainings are over before anybody looks.
    more = {"pruner": pruner, "overrides": ["training.epochs=9"]}
    sweep(*files, trials=12, folder=tmp_path / "sweep", **more, say=lambda line: None)
    pruned = [each for each in study_of(tmp_path / "sweep").trials if each.state.name == "PRUNED"]
    assert pruned
    assert all(record(tmp_path / "sweep", each.number)["state"] == "finished" for each in pruned)
    assert any(each.last_step < 9 for each in pruned)


def test_what_does_not_learn_is_pruned_and_what_cannot_be_trained_has_failed(at_once, files, tmp_path, behaviour):
    files[1].write_text("model.dropout: {choice: [0.0, 0.25, 0.5]}")
    behaviour(diverges=0.25, unfit=0.5)
    said = []
    sweep(*files, trials=8, folder=tmp_path / "sweep", say=said.append)
    meant = {"0.0": "COMPLETE", "0.25": "PRUNED", "0.5": "FAIL"}
    found = results(tmp_path / "sweep")
    assert {params["model.dropout"] for _, params, _ in found} == set(meant)
    assert all(state == meant[params["model.dropout"]] for state, params, _ in found)
    assert any(line.endswith("cannot be trained: model.dropout is of no use: take another.") for line in said)
    assert any("pruned: step 1 gave a loss that is not finite." in line for line in said)


def test_three_in_a_row_that_cannot_be_trained_stop_it(at_once, files, tmp_path, behaviour):
    behaviour(unfit=0.1)
    files[1].write_text("training.epochs: {int: [1, 9]}")
    with pytest.raises(ToolkitError, match="3 trials in a row could not be trained"):
        sweep(*files, folder=tmp_path / "sweep", say=lambda line: None)
    assert states(tmp_path / "sweep") == ["FAIL"] * 3


def test_a_training_that_breaks_stops_the_sweep_and_is_taken_up_again(at_once, files, tmp_path, behaviour):
    behaviour(breaks=0.5)

    def sweep_once():
        sweep(*files, trials=6, folder=tmp_path / "parts", say=lambda line: None)

    with pytest.raises(
        RunFailed, match=r"trial-000\d ended with exit code 1 \(the disk is full.\).*the same sweep goes"
    ):
        sweep_once()
    behaviour()
    sweep_once()
    sweep(*files, trials=6, folder=tmp_path / "whole", say=lambda line: None)
    whole = results(tmp_path / "whole")
    assert states(tmp_path / "parts").count("FAIL") == 1
    # The trial that broke was trained to its end, in its own place, and no other was drawn for it.
    assert sorted(map(repr, [each for each in results(tmp_path / "parts") if each[0] != "FAIL"])) == sorted(
        map(repr, whole)
    )
    assert len(list((tmp_path / "parts").glob("trial-*/record.json"))) == 6


def test_another_search_does_not_go_on_with_it(at_once, files, tmp_path):
    once = {"trials": 1, "folder": tmp_path / "sweep", "say": lambda line: None}
    sweep(*files, **once)
    for change, what in (({"seed": 1}, "seed"), ({"pruner": "none"}, "pruner"), ({"overrides": ["seed=3"]}, "config")):
        with pytest.raises(ToolkitError, match=f"the sweep 'small' was begun with another {what}: put that back"):
            sweep(*files, **once, **change)
    files[1].write_text(RATES.replace("1e-4", "1e-3"))
    with pytest.raises(ToolkitError, match="was begun with another space"):
        sweep(*files, **once)
    (tmp_path / "sweep" / "sweep.db").unlink()
    with pytest.raises(ToolkitError, match=r"the run in .*trial-0000 cannot go on with another config"):
        sweep(*files, **{**once, "seed": 1})


def test_trials_on_different_validation_parts_are_not_compared(at_once, files, tmp_path):
    files[1].write_text("data.seed: {choice: [1, 2]}")
    with pytest.raises(
        ToolkitError, match=r"trial-000\d has another validation part .* take what changes the data out"
    ):
        sweep(*files, folder=tmp_path / "sweep", say=lambda line: None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--storage", "nosql://x"], "--storage cannot be used (Can't load plugin"),
        (
            ["--storage", "sqlite:////no/such/folder/x.db"],
            "--storage cannot be used ((sqlite3.OperationalError) unable",
        ),
        (["--set", "optimizer.name=adom"], "optimizer.name: found 'adom' (did you mean 'adam'?)"),
        (["--space", "none.yaml"], "none.yaml: the file cannot be read"),
        (["--trials", "0"], "Invalid value for '--trials'"),
    ],
)
def test_a_wrong_request_writes_nothing(files, tmp_path, capsys, arguments, message):
    before = set(tmp_path.iterdir())
    request = ["sweep", files[0], "--space", str(files[1]), "--folder", str(tmp_path / "sweep"), *arguments]
    assert cli._run(request) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert set(tmp_path.iterdir()) == before


DRIVER = """
import sys
from toolkit import cli
from toolkit.studies import sweep, trial
sweep.HEARTBEAT, sweep.GRACE, sweep.WAIT, trial.POLL = 1, 3, 0.1, 0.02
if len(sys.argv) > 2:
    trial.COMMAND = (sys.executable, sys.argv.pop(1))
cli.main(sys.argv[1].split("|"))
"""


def start(files, folder, *, trials, fake=True):
    """A process of a sweep whose heartbeats follow one another faster."""
    request = "|".join(["sweep", files[0], "--space", str(files[1]), "--folder", str(folder), "--trials", str(trials)])
    return subprocess.Popen([sys.executable, "-c", DRIVER, *([str(FAKE)] if fake else []), request])


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def rows(folder, place):
    path = folder / f"trial-{place:04d}" / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def kill_training(folder, place):
    os.kill(rows(folder, place)[0]["pid"], signal.SIGKILL)


def test_two_processes_share_a_study_and_one_takes_up_what_the_other_left(files, tmp_path, behaviour):
    behaviour(seconds=0.15)
    folder = tmp_path / "sweep"
    first = start(files, folder, trials=7)
    wait_for(lambda: rows(folder, 0))  # in mid-trial
    second = start(files, folder, trials=7)
    wait_for(lambda: rows(folder, 1))
    first.kill()
    first.wait()
    left = next(place for place in range(7) if rows(folder, place) and record(folder, place)["state"] == "training")
    kill_training(folder, left)
    assert second.wait(timeout=60) == 0
    found = [each for each in results(folder) if each[0] != "FAIL"]
    assert len(found) == 7
    assert sorted(path.name for path in folder.glob("trial-????")) == [f"trial-{place:04d}" for place in range(7)]
    taken_up = [each for each in study_of(folder).trials if "failed_trial" in each.system_attrs]
    assert len(taken_up) == 1
    # It went on where it was: its epochs are there once, the first by the process that was killed.
    place = module.places(study_of(folder).trials)[taken_up[0].number]
    epochs = rows(folder, place)
    assert [row["epoch"] for row in epochs] == sorted({row["epoch"] for row in epochs})
    assert len({row["pid"] for row in epochs}) == 2 or taken_up[0].state.name == "PRUNED"


def test_a_signal_stops_it_and_the_same_command_goes_on(files, tmp_path, behaviour, request):
    behaviour(seconds=0.3)
    folder = tmp_path / "parts"
    process = start(files, folder, trials=3)
    wait_for(lambda: rows(folder, 1))
    process.terminate()
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert record(folder, 1)["state"] == "stopped"
    behaviour()
    assert start(files, folder, trials=3).wait(timeout=60) == 0
    request.getfixturevalue("at_once")
    sweep(*files, trials=3, folder=tmp_path / "whole", say=lambda line: None)
    done = [each for each in results(folder) if each[0] != "FAIL"]
    assert sorted(map(repr, done)) == sorted(map(repr, results(tmp_path / "whole")))


@pytest.mark.long
def test_a_real_training_whose_sweep_was_killed_ends_as_if_it_had_not_been(tmp_path):
    from toolkit import workflow

    (tmp_path / "small.yaml").write_text(CONFIG.replace("epochs: 3", "epochs: 40"))
    (tmp_path / "space.yaml").write_text("optimizer.learning_rate: {log: [1e-4, 1e-2]}\n")
    given, folder = (str(tmp_path / "small.yaml"), tmp_path / "space.yaml"), tmp_path / "sweep"
    first = start(given, folder, trials=2, fake=False)
    wait_for(lambda: len(rows(folder, 0)) > 5, seconds=120)
    first.kill()
    first.wait()
    owner = re.match(r"process (\d+) on", (folder / "trial-0000" / "lock").read_text())
    os.kill(int(owner[1]), signal.SIGKILL)
    assert start(given, folder, trials=2, fake=False).wait(timeout=240) == 0
    assert states(folder) == ["FAIL", "COMPLETE", "COMPLETE"] or states(folder) == ["FAIL", "COMPLETE", "PRUNED"]
    assert record(folder, 0)["resumed"]
    assert not list(folder.glob("trial-*/evaluation.json"))  # nothing was measured on the test part
    whole = workflow.train(load(folder / "trial-0000" / "config.yaml"), run_dir=tmp_path / "whole")
    for name in ("weights.safetensors", "last.safetensors"):
        assert (whole / name).read_bytes() == (folder / "trial-0000" / name).read_bytes()
    assert load(folder / "best.yaml").training.epochs == 40
