"""A comparison tunes alike, chooses by validation, goes on where it stopped, and shows what diverged."""

import io
import json
import signal
import statistics

import numpy as np
import pytest

from toolkit import cli, workflow
from toolkit.config import load, load_run
from toolkit.errors import ToolkitError
from toolkit.runs import metrics
from toolkit.studies import compare as module
from toolkit.studies.compare import FURTHER, compare
from toolkit.studies.comparison import Comparison, Curve, Figures, Final, Result, Tried, common_target
from toolkit.studies.comparison_picture import draw
from toolkit.studies.comparison_table import markdown, tables
from toolkit.training.stop import Stopped

CONFIG = """
seed: 5
data: {source: synthetic_images, classes: 3, examples: 100, height: 12, width: 12, batch_size: 16}
model: {name: simple_cnn, filters: [16, 16]}
optimizer:
  name: adam
  learning_rate: 1e-2
  beta_1: 0.8
  global_clipnorm: 5.0
  schedule: {name: cosine, warmup_steps: 2}
training: {epochs: 2, backend: %s}
"""
RATES = (0.001, 1.0, 1e3)


def write(folder, text=CONFIG):
    import keras

    (folder / "small.yaml").write_text(text % keras.config.backend())
    return str(folder / "small.yaml")


def rows_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Adam and SGD with what they said: SGD's highest rate diverges, for without clipping it has no bound."""
    folder = tmp_path_factory.mktemp("compared")
    said = []
    comparison = compare(
        write(folder),
        optimizers=("adam", "sgd"),
        rates=(0.01, 1.0, 1e6),
        seeds=2,
        overrides=("optimizer.global_clipnorm=null",),
        folder=folder / "comparison",
        say=said.append,
    )
    return folder / "comparison", comparison, said


def results_of(folder):
    return json.loads((folder / "comparison.json").read_text())


def test_each_optimizer_is_tried_at_as_many_rates_and_the_best_with_every_seed(compared):
    folder, comparison, _ = compared
    for result, found in zip(comparison.results, results_of(folder)["results"], strict=True):
        assert len(result.tried) == 3 + FURTHER
        assert {0.01, 1.0, 1e6} < {one.rate for one in result.tried}
        assert {one.seed for one in result.tried} == {5}
        assert [final["seed"] for final in found["finals"]] == [5, 6]
        assert {final["rate"] for final in found["finals"]} == {found["best_rate"]}
    assert len(list((folder / "runs").iterdir())) == 2 * (3 + FURTHER + 1)
    adam, sgd = (result.accuracies for result in comparison.results)
    assert sgd != adam  # each trained with its own


def test_the_validation_part_chooses(compared):
    folder, _, _ = compared
    for found in results_of(folder)["results"]:
        accuracies = {}
        for one in found["tried"]:
            epochs = [row for row in rows_of(folder / "runs" / one["run"]) if row["kind"] == "epoch"]
            if one["val_accuracy"] is not None:
                accuracies[one["rate"]] = min(epochs, key=lambda row: row["val_loss"])["val_accuracy"]
                assert one["val_accuracy"] == accuracies[one["rate"]]
        assert accuracies[found["best_rate"]] == max(accuracies.values())


def test_figures_are_those_of_the_runs(compared):
    folder, _, _ = compared
    for found in results_of(folder)["results"]:
        for final in found["finals"]:
            run = folder / "runs" / final["run"]
            for part, name in (("train", "evaluation-train.json"), ("test", "evaluation.json")):
                evaluation = json.loads((run / name).read_text())
                assert evaluation["split"] == part
                assert final[part] == {"accuracy": evaluation["accuracy"], "loss": evaluation["loss"]}


def test_what_diverged_is_shown_and_never_chosen(compared):
    folder, comparison, said = compared
    sgd = comparison.results[1]
    assert sgd.accuracies[1e6] is None
    assert sgd.best < 1e6
    assert any(str(line).endswith("sgd, rate 1e+06, seed 5: diverged") for line in said)
    assert "div.)" in (folder / "comparison.md").read_text()


def test_an_optimizer_takes_what_all_share_and_not_what_was_set_for_another(compared):
    folder, _, _ = compared
    adam, sgd = (load_run(next((folder / "runs").glob(f"{name}-0.01-*"))).optimizer for name in ("adam", "sgd"))
    assert (adam.optimizer.arguments["beta_1"], adam.optimizer.arguments["learning_rate"]) == (0.8, 0.01)
    assert sgd.optimizer.arguments == {"learning_rate": 0.01}
    assert sgd.schedule == adam.schedule
    assert sgd.schedule.arguments["warmup_steps"] == 2
    assert sgd.options == adam.options


@pytest.mark.every_backend
def test_adam_keeps_two_numbers_for_a_parameter_momentum_one_and_sgd_none(tmp_path):
    base = load(write(tmp_path))
    plan = module._plan(base, ("adam", "momentum", "sgd", "adagrad"), RATES)
    assert plan.state_bytes == {"adam": 8.0, "momentum": 4.0, "sgd": 0.0, "adagrad": 4.0}


def test_the_target_is_one_that_every_training_at_a_best_rate_has_reached(compared):
    folder, comparison, _ = compared
    found = results_of(folder)
    assert not found["target_is_given"]
    steps = [final["steps_to_target"] for result in found["results"] for final in result["finals"]]
    assert None not in steps
    lowest = []
    for result in found["results"]:
        for final in result["finals"]:
            losses = [row["loss"] for row in rows_of(folder / "runs" / final["run"]) if row["kind"] == "step"]
            # Trailing means over five rows, by convolution: the first four have fewer.
            means = [*np.cumsum(losses[:4]) / np.arange(1, 5), *np.convolve(losses, np.full(5, 0.2), "valid")]
            lowest.append(min(means))
    assert comparison.target == pytest.approx(max(lowest))


def test_a_second_call_trains_nothing_and_says_the_same(compared, monkeypatch):
    folder, comparison, said = compared
    for name in ("train", "resume", "evaluate"):
        monkeypatch.setattr(workflow, name, lambda *args, **kwargs: pytest.fail("nothing was left to do"))
    before = results_of(folder)
    again = []
    same = compare(
        str(folder.parent / "small.yaml"),
        optimizers=("adam", "sgd"),
        rates=(0.01, 1.0, 1e6),
        seeds=2,
        overrides=("optimizer.global_clipnorm=null",),
        folder=folder,
        say=again.append,
    )
    assert [without_times(one.to_dict()) for one in (same, comparison)] == [without_times(before)] * 2
    lines = [[line for line in lines if isinstance(line, str)] for lines in (said, again)]
    assert lines[0] == lines[1]


def test_an_interrupted_comparison_goes_on_to_what_it_would_have_been(tmp_path, compared, monkeypatch):
    _, whole, _ = compared
    appended = metrics.append
    calls = []

    def interrupting(path, row):
        calls.append(path)
        if len(calls) == 18:  # in the second training
            signal.raise_signal(signal.SIGTERM)
        appended(path, row)

    def call():
        return compare(
            write(tmp_path),
            optimizers=("sgd",),
            rates=(0.01, 1.0, 1e6),
            seeds=2,
            overrides=("optimizer.global_clipnorm=null",),
            folder=tmp_path / "comparison",
            say=lambda line: None,
        )

    monkeypatch.setattr(metrics, "append", interrupting)
    with pytest.raises(Stopped, match="the same command goes on") as caught:
        call()
    assert caught.value.exit_code == 143
    assert not (tmp_path / "comparison" / "comparison.json").exists()
    stopped = list((tmp_path / "comparison" / "runs").iterdir())
    assert len(stopped) == 2
    states = [json.loads((run / "record.json").read_text())["state"] for run in stopped]
    assert sorted(states) == ["finished", "stopped"]
    monkeypatch.setattr(metrics, "append", appended)
    resumed, trained = [], []
    monkeypatch.setattr(workflow, "resume", counted(workflow.resume, resumed))
    monkeypatch.setattr(workflow, "train", counted(workflow.train, trained))
    call()
    assert len(resumed) == 1
    assert len(trained) == 3 + FURTHER + 1 - 2
    sgd = [without_times(found)["results"][-1] for found in (whole.to_dict(), results_of(tmp_path / "comparison"))]
    for found in sgd:
        for one in found["finals"]:
            del one["steps_to_target"]  # to another target, where Adam is with it
    assert sgd[0] == sgd[1]


def test_the_trainings_at_the_best_rates_are_measured_under_changes_once(compared, monkeypatch):
    folder, _, _ = compared

    def call():
        return compare(
            str(folder.parent / "small.yaml"),
            optimizers=("adam",),
            rates=(0.01, 1.0, 1e6),
            seeds=2,
            robustness=True,
            overrides=("optimizer.global_clipnorm=null",),
            folder=folder,
            say=lambda line: None,
        )

    comparison = call()
    errors = {}  # optimizer → change → of each seed the mean over the severities
    for found in results_of(folder)["results"]:
        for final in found["finals"]:
            measured = json.loads((folder / "runs" / final["run"] / "robustness.json").read_text())
            by_change = {}
            for one in measured["passes"]:
                by_change.setdefault(one["change"], []).append(one["figures"])
            attacks = [figures for name in measured["attacks"] for figures in by_change.pop(name)]
            own = {change: np.mean([figures["error"] for figures in all_]) for change, all_ in by_change.items()}
            errors.setdefault(found["optimizer"], []).append(own)
            got = final["robustness"]
            assert got["errors"] == pytest.approx(own)
            assert got["attacked"] == pytest.approx(1 - np.mean([figures["error"] for figures in attacks]))
            flips = [figures["flips"] for all_ in by_change.values() for figures in all_]
            assert got["flips"] == pytest.approx(np.mean(flips))
            assert got["calibration_error"] == measured["clean"]["calibration_error"]
    base = {change: np.mean([one[change] for one in errors["adam"]]) for change in errors["adam"][0]}
    for result in comparison.results:
        for final, own in zip(result.finals, errors[result.optimizer], strict=True):
            expected = np.mean([own[change] / base[change] for change in base]) if all(base.values()) else None
            assert comparison.corruption_error(final) == pytest.approx(expected)
    last = (folder / "comparison.md").read_text().rpartition("under graded changes")[2]
    mean = np.mean([1 - np.mean(list(own.values())) for own in errors["adam"]])
    assert f"{100 * mean:.1f} ±" in last

    monkeypatch.setattr(module.walk, "robustness", lambda *args: pytest.fail("all of it was measured"))
    assert without_times(call().to_dict()) == without_times(comparison.to_dict())
    path = folder / "runs" / comparison.results[0].finals[0].tried.run / "robustness.json"
    whole = path.read_text()
    path.write_text(json.dumps({**json.loads(whole), "passes": json.loads(whole)["passes"][:7]}))
    with pytest.raises(ToolkitError, match="under some of the changes only: remove it"):
        call()
    path.write_text(whole)


def counted(function, calls):
    def call(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs)

    return call


def without_times(found):
    for result in found["results"]:
        assert 0 < result.pop("seconds_per_step") < 10
    return found


def test_a_run_on_other_data_is_not_taken_for_this_one(compared, monkeypatch):
    folder, _, _ = compared
    plan = module._plan
    monkeypatch.setattr(
        module, "_plan", lambda *args: module.dataclasses.replace(plan(*args), fingerprints={"train": "other"})
    )
    with pytest.raises(ToolkitError, match="was trained on other data"):
        compare(
            str(folder.parent / "small.yaml"),
            optimizers=("adam",),
            rates=(0.01, 1.0, 1e6),
            overrides=("optimizer.global_clipnorm=null",),
            folder=folder,
        )


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--optimizers", "adam,agd"], "there is no optimizer 'agd' (did you mean 'sgd'?)"),
        (["--optimizers", ""], "there is no optimizer ''"),
        (["--optimizers", "adam,adam"], "--optimizers names adam more than once"),
        (["--rates", "0:1:5"], "a learning rate must be a number above 0"),
        (["--rates", "1e-3:1e-1:1"], "1 rates for each optimizer"),
        (["--seeds", "0"], "--seeds is 0"),
        (["--seeds", "-1"], "--seeds is -1"),
        (["--target", "0"], "--target is 0.0"),
        (["--target", "nan"], "--target is nan"),
        (["--set", "optimizer.schedule.warmup_steps=1000"], "optimizer.schedule.warmup_steps is 1000"),
        (["--set", "data.batch_size=1000"], "data.batch_size is 1000"),
    ],
)
def test_a_wrong_request_is_told_in_one_sentence_and_nothing_is_written(tmp_path, capsys, options, why):
    config = write(tmp_path)
    assert cli._run(["compare", config, *options]) == 2
    told = capsys.readouterr().err.strip()
    assert why in told
    assert "\n" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def test_speech_to_text_has_no_accuracy_to_rank_by(tmp_path, capsys):
    text = """
data: {source: synthetic_speech, words: 3, examples: 40, transcript_units: words, batch_size: 16, buckets: 1}
model: {name: speech_ctc, convolutions: [16], layers: 1, units: 24, mels: 16}
optimizer: {name: adam}
training: {epochs: 1, backend: %s}
"""
    assert cli._run(["compare", write(tmp_path, text), "--optimizers", "adam"]) == 2
    assert "is for transcription, which has none" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


# --- what is made of figures that are known -------------------------------------------------------------------------


def final(rate, seed, test, losses):
    steps = tuple(range(10, 10 * len(losses) + 10, 10))
    curve = Curve(steps, tuple(losses))
    tried = Tried(rate, seed, f"run{seed}", 0.9, 0.3, curve)
    return Final(tried, curve, Figures(0.99, 0.1), Figures(test, 0.2))


def result(name, accuracies, finals, diverged=0):
    tried = tuple(Tried(rate, 0, "run", value, value and 0.3, None) for rate, value in accuracies.items())
    return Result(name, tried, tuple(finals), diverged, 8.0, 0.01)


def made():
    fast = [final(0.01, seed, 0.95 + seed / 100, (2.0, 0.5, 0.4)) for seed in range(3)]
    slow = [final(1.0, seed, 0.9, (2.0, 1.5, 0.9 + seed / 10)) for seed in range(2)]
    results = (
        result("adam", {0.001: 0.90, 0.01: 0.95, 0.1: None}, fast),
        result("sgd", {0.01: 0.2, 0.1: 0.5, 1.0: 0.92}, slow, diverged=1),
        result("lost", {0.1: None, 1.0: None}, ()),
    )
    return Comparison("made_up", common_target(results), False, results)


def test_the_first_step_that_is_not_above_the_target_counts():
    comparison = made()
    assert comparison.target == 1.0  # the second seed of SGD came no lower
    adam, sgd, lost = comparison.results
    assert adam.reached(1.0) == [20, 20, 20]
    assert sgd.reached(1.0) == [30, 30]
    assert sgd.reached(0.95) == [30]
    assert lost.reached(1.0) == []
    assert common_target((lost,)) is None


def test_the_table_has_means_deviations_and_what_is_missing():
    lines = {
        line.split(" | ")[0].strip("| "): line for line in markdown(made()).split("At the best rate")[1].splitlines()
    }
    spread = statistics.stdev([95, 96, 97])
    assert f"| adam | 3 | 20 ± 0 | 0.20 | 99.00 ± 0.00 | 96.00 ± {spread:.2f} | 0.200 |" in lines["adam"]
    assert lines["sgd"].startswith("| sgd | 3 (1 div.) | 30 ± 0 | 0.30 | 99.00 ± 0.00 | 90.00 ± 0.00 |")
    assert lines["lost"] == "| lost | 0 | – | – | – | – | – |"
    tuning = markdown(made()).split("At the best rate")[0]
    assert "| sgd | 3 | 1 (end) | 92.00 | 0.95–1 | ≥ 1.06 | 8 |" in tuning
    assert "| lost | 2 (2 div.) | – | – | – | – | 8 |" in tuning


def test_the_tables_fit_a_terminal_of_80_columns():
    from rich.console import Console

    console = Console(width=80, file=io.StringIO())
    for table in tables(made()):
        console.print(table)
    lines = console.file.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert any("20 ± 0" in line and "96.00 ± 1.00" in line and "0.200" in line for line in lines)


@pytest.mark.parametrize("results", [made().results, made().results[2:], made().results[:1] * 9])
def test_a_picture_is_drawn_of_whatever_came_out(results):
    comparison = Comparison("made $up^", common_target(results), False, results)
    assert draw(comparison).startswith(b"\x89PNG")
