"""Reproducing trains what is missing, goes on where it was stopped, and judges what is trained anew."""

import csv
import dataclasses
import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from toolkit import cli, workflow
from toolkit.config import load
from toolkit.errors import RunFailed, ToolkitError
from toolkit.studies import processes, results
from toolkit.studies import reproduce as module
from toolkit.studies.reproduce import Quick, reproduce, reproduce_quickly

CONFIG = """
seed: 5
data: {source: synthetic_images, classes: 3, examples: 150, height: 12, width: 12, batch_size: 16}
model: {name: simple_cnn, filters: [4, 4]}
optimizer: {name: adam, learning_rate: 1e-2}
training: {epochs: 3}
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "small.yaml").write_text(CONFIG)
    return str(tmp_path / "small.yaml")


@pytest.fixture
def commands(monkeypatch):
    """What is asked of the command line, done within this process."""
    asked = []

    def run(*arguments, **_):
        asked.append([str(argument) for argument in arguments])
        if code := cli._run(asked[-1]):
            raise RunFailed(f"exit code {code}")

    monkeypatch.setattr(module, "_toolkit", run)
    return asked


def verbs(commands):
    return [command[0] for command in commands]


def run_directories(root):
    return sorted(path for path in (root / "runs").iterdir() if path.is_dir())


def test_each_seed_is_trained_once(recipe, commands, tmp_path):
    said = []
    rows = reproduce([recipe], seeds=(0, 1), say=said.append)
    assert verbs(commands) == ["train", "evaluate", "train", "evaluate"]
    assert [row.seed for row in rows] == [0, 1]
    assert results.read(tmp_path / "results" / "results.json") == rows
    for row, directory in zip(rows, run_directories(tmp_path), strict=True):
        evaluation = json.loads((directory / "evaluation.json").read_text())
        last = json.loads((directory / "evaluation-last.json").read_text())
        assert json.loads((directory / "record.json").read_text())["seed"] == row.seed
        assert (row.best.accuracy, row.best.examples) == (pytest.approx(evaluation["accuracy"]), 30)
        assert row.last.accuracy == pytest.approx(last["accuracy"])
        assert row.best.right - row.baseline_right == row.only_ours - row.only_baseline
        assert row.epochs[1] == 3
        assert (row.validation[0] - row.validation[1]) * (row.epochs[1] - row.epochs[0]) >= 0 or row.epochs[0] < 3
    assert rows[0].config == rows[1].config and rows[0].fingerprints == rows[1].fingerprints
    assert "**" in (tmp_path / "docs" / "results.md").read_text()

    commands.clear()
    assert reproduce([recipe], seeds=(1, 0), say=said.append) == [rows[1], rows[0]]
    assert commands == []
    assert "stands in results/results.json already" in said[-1]


def test_variants_are_trained_with_the_first_seed_and_kept_beside_the_recipe(recipe, commands, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "VARIANTS", {"small": {"fewer": ("data.classes=2",), "wide": ("model.units=9",)}})
    said = []
    rows = reproduce([recipe], seeds=(3, 1), say=said.append)
    assert [(row.variant, row.seed) for row in rows] == [("", 3), ("", 1), ("fewer", 3), ("wide", 3)]
    assert verbs(commands) == ["train", "evaluate"] * 4
    assert commands[4][-4:] == ["--set", "data.classes=2", "--set", "seed=3"]
    file = tmp_path / "results" / "results.json"
    assert sorted(results.read(file), key=repr) == sorted(rows, key=repr)
    assert len({row.config for row in rows}) == 3
    assert any(line.startswith("small, fewer, seed 3: ") for line in said)

    commands.clear()
    assert reproduce([recipe], seeds=(3, 1), say=said.append) == rows
    assert commands == []
    # A variant that is measured in another way leaves the rows of the others where they are.
    monkeypatch.setattr(module, "VARIANTS", {"small": {"fewer": ("data.classes=4",), "wide": ("model.units=9",)}})
    again = reproduce([recipe], seeds=(3, 1), say=said.append)
    assert verbs(commands) == ["train", "evaluate"]
    assert [new == old for new, old in zip(again, rows, strict=True)] == [True, True, False, True]
    assert len(results.read(file)) == 4


def test_precisions_are_compared_and_what_was_trained_is_not_trained_again(recipe, commands, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "find_config", lambda name: tmp_path / f"{Path(name).stem}.yaml")
    monkeypatch.setattr(module, "WHOLE", ("small",))
    monkeypatch.setattr(module, "QUICK", {"small": Quick(("training.epochs=1",), 0.0)})
    own = reproduce([recipe], seeds=(0, 1), say=lambda line: None)
    commands.clear()
    rows = reproduce(["small"], seeds=(0, 1), precision=True, say=lambda line: None)
    assert [(row.variant, row.seed) for row in rows] == [(v, s) for v in ("float32", "bfloat16") for s in (0, 1)]
    assert rows[:2] == [dataclasses.replace(row, variant="float32") for row in own]
    assert verbs(commands) == ["train", "evaluate"] * 2  # the recipe's own are in float32
    assert commands[0][-4:] == ["--set", "training.precision=mixed_bfloat16", "--set", "seed=0"]
    kept = results.read(tmp_path / "results" / "results.json")
    assert sorted(kept, key=repr) == sorted([*own, *rows], key=repr)
    monkeypatch.setattr(module, "WHOLE", ())
    short = reproduce(["small"], seeds=(0, 1), precision=True, say=lambda line: None)
    assert [(row.variant, row.seed, row.epochs) for row in short] == [
        ("float32, shortened", 0, (1, 1)),
        ("bfloat16, shortened", 0, (1, 1)),
    ]
    with pytest.raises(ToolkitError, match="precisions of other are not compared: use one of small"):
        reproduce(["other"], precision=True)


def test_variants_are_of_recipes_and_valid():
    from toolkit.config.shipped import find_config

    assert set(module.VARIANTS) <= set(module.RECIPES)
    for recipe, variants in module.VARIANTS.items():
        for overrides in variants.values():
            load(find_config(recipe), overrides)
    assert set(module.WHOLE) <= set(module.RECIPES)
    for recipe in module.RECIPES:
        found = [load(find_config(recipe), each).training.precision for each in module.precisions(recipe).values()]
        assert found == ["float32", "mixed_bfloat16"]


def test_examples_that_stand_in_two_parts_are_left_out(recipe, commands, monkeypatch):
    run = module._toolkit

    def shares_two(*arguments):
        run(*arguments)
        if arguments[0] == "train":
            directory = Path(arguments[arguments.index("--run-dir") + 1])
            with (directory / "predictions.csv").open(newline="") as file:
                answers.extend(csv.DictReader(file))
            shared = [
                f"{split},{answers[i]['id']},train\n" for i, split in ((0, "test"), (4, "test"), (1, "validation"))
            ]
            (directory / "duplicates.csv").write_text("split,id,also_in\n" + "".join(shared))

    answers = []
    monkeypatch.setattr(module, "_toolkit", shares_two)
    [row] = reproduce([recipe], say=lambda line: None)
    right = [answer["label"] == answer["answer"] for answer in answers]
    assert (row.best.right, row.best.examples) == (sum(right), 30)
    assert (row.apart.right, row.apart.examples) == (sum(right) - right[0] - right[4], 28)


def test_what_another_process_writes_during_a_training_stays(recipe, commands, monkeypatch, tmp_path):
    [row] = reproduce([recipe], say=lambda line: None)
    file, run = tmp_path / "results" / "results.json", module._toolkit
    other = dataclasses.replace(row, recipe="other", config="another")

    def while_training(*arguments):
        run(*arguments)
        if arguments[0] == "train":
            results.write(file, [*results.read(file), other])

    monkeypatch.setattr(module, "_toolkit", while_training)
    [second] = reproduce([recipe], seeds=(1,), say=lambda line: None)
    assert sorted(results.read(file), key=repr) == sorted([row, second, other], key=repr)


def test_a_copy_of_a_recipe_has_one_row_of_its_own(recipe, commands, monkeypatch, tmp_path):
    [row] = reproduce([recipe], say=lambda line: None)
    copy, file = tmp_path / "copy.yaml", tmp_path / "results" / "results.json"
    copy.write_text(CONFIG)
    commands.clear()
    for _ in range(2):
        assert reproduce([str(copy)], say=lambda line: None) == [dataclasses.replace(row, recipe="copy")]
        assert results.read(file) == [dataclasses.replace(row, recipe="copy"), row]
    assert commands == []
    assert "| `copy` |" in (tmp_path / "docs" / "results.md").read_text()
    # Trained anew, it is judged by the original.
    copy.rename(tmp_path / "third.yaml")
    monkeypatch.setattr(module.Case, "row", lambda case, *_, **__: dataclasses.replace(row, recipe=case.recipe))
    said = []
    reproduce([str(tmp_path / "third.yaml")], again=True, say=said.append)
    assert said[-1].endswith("same to the digit")


def test_all_of_a_request_is_checked_before_anything_is_trained(recipe, commands, monkeypatch, tmp_path):
    (tmp_path / "wrong.yaml").write_text(CONFIG.replace("epochs", "epoch"))
    monkeypatch.setattr(module, "VARIANTS", {"varied": {"wide": ("model.width=9",)}})
    (tmp_path / "varied.yaml").write_text(CONFIG)
    for wrong, told in (("mnist_cn", "did you mean 'mnist_cnn'"), ("wrong.yaml", "epoch"), ("varied.yaml", "width")):
        with pytest.raises(ToolkitError, match=told):
            reproduce([recipe, wrong], seeds=(0, 1), say=lambda line: None)
        assert commands == []
    with pytest.raises(ToolkitError, match="seed"):
        reproduce([recipe], seeds=(0, 10**30), say=lambda line: None)
    monkeypatch.setattr(module, "find_config", lambda name: tmp_path / f"{name}.yaml")
    monkeypatch.setattr(module, "QUICK", {"small": Quick(("training.epochs=1",), 0.0)})
    with pytest.raises(ToolkitError, match="precisions of other are not compared"):
        reproduce(["small", "other"], precision=True, say=lambda line: None)
    assert commands == []


@pytest.mark.parametrize("option", [["--again"], ["--precision"], ["--seeds", "0"]])
def test_quick_forms_have_no_such_options(option, commands, capsys):
    assert cli._run(["reproduce", "mnist_dense", "--quick", *option]) == 2
    assert "leave --again, --precision and --seeds out" in capsys.readouterr().err
    assert commands == []


def test_another_config_takes_the_place_of_the_row(recipe, commands, tmp_path):
    reproduce([recipe], say=lambda line: None)
    Path(recipe).write_text(CONFIG.replace("1e-2", "5e-3"))
    commands.clear()
    rows = reproduce([recipe], say=lambda line: None)
    assert verbs(commands) == ["train", "evaluate"]
    assert results.read(tmp_path / "results" / "results.json") == rows


def test_an_interrupted_training_goes_on(recipe, commands, monkeypatch):
    case = module.Case(Path(recipe), lambda line: None)
    directory = Path("runs") / f"small-seed0-{case.hash[:8]}"
    original = workflow._write_training

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(workflow, "_write_training", killed)
    with pytest.raises(KeyboardInterrupt):
        workflow.train(load(recipe, ["seed=0"]), run_dir=directory)
    monkeypatch.setattr(workflow, "_write_training", original)
    reproduce([recipe], say=lambda line: None)
    assert commands == [["train", "--resume", str(directory)], ["evaluate", str(directory), "--weights", "last"]]


# Stands in for a training: it saves when it is asked to stop.
TRAINING = """
import os, signal, sys
from pathlib import Path

def save(*_):
    Path("saved").write_text("in a session of its own" if os.getsid(0) == os.getpid() else "")
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
Path("begun").touch()
while True:
    signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("quick", "then"), [([], "goes on with it"), (["--quick"], "trains it anew")])
def test_a_signal_lets_the_training_save(number, quick, then, recipe, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(processes, "COMMAND", (sys.executable, "-c", TRAINING))
    monkeypatch.setattr(module, "QUICK", {recipe: Quick((), 0.0)})
    monkeypatch.setattr(processes, "POLL", 0.01)
    heard = signal.signal(number, signal.default_int_handler)  # SIGINT is ignored where tests run in the background

    def ask():
        end = time.monotonic() + 60
        while not (tmp_path / "begun").exists() and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        code = cli._run(["reproduce", recipe, *quick])
    finally:
        thread.join()
        signal.signal(number, heard)
    assert (tmp_path / "saved").read_text() == "in a session of its own"
    assert code == 128 + number
    told = rf"^stopped by {number.name} in `toolkit train .*`; the same call of reproduce {then}\.$"
    assert re.search(told, capsys.readouterr().err, re.MULTILINE)


def test_a_training_anew_that_was_interrupted_goes_on(recipe, commands, monkeypatch, tmp_path):
    reproduce([recipe], say=lambda line: None)

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(RunFailed, match="exit code 130"):
        patch.setattr(workflow, "_write_training", killed)
        reproduce([recipe], again=True, say=lambda line: None)
    _, directory = run_directories(tmp_path)
    directory = str(directory.relative_to(tmp_path))
    evaluation = ["evaluate", directory, "--weights", "last"]
    commands.clear()
    said = []
    reproduce([recipe], again=True, say=said.append)
    assert commands == [["train", "--resume", directory], evaluation]
    assert said[-1].endswith("same to the digit")
    # So does one that was trained and not measured; what is finished is no part of another call.
    Path(directory, "evaluation-last.json").unlink()
    commands.clear()
    reproduce([recipe], again=True, say=said.append)
    assert commands == [evaluation]
    with monkeypatch.context() as patch, pytest.raises(RunFailed, match="exit code 130"):
        patch.setattr(workflow, "_write_training", killed)
        reproduce([recipe], again=True, say=lambda line: None)
    assert commands[1][:2] == ["train", recipe] and commands[1][3] != directory


def test_again_tells_whether_it_is_the_same_and_keeps_the_results(recipe, commands, tmp_path):
    [row] = reproduce([recipe], say=lambda line: None)
    said = []
    assert reproduce([recipe], again=True, say=said.append)[0].best == row.best
    assert said[-1].endswith("same to the digit")
    file = tmp_path / "results" / "results.json"
    forged = json.loads(file.read_text())
    forged["rows"][0]["best"]["right"] = 1
    file.write_text(json.dumps(forged))
    with pytest.raises(RunFailed, match="not reproduced: small, seed 0"):
        reproduce([recipe], again=True, say=said.append)
    assert results.read(file)[0].best.right == 1


def test_a_training_that_fails_is_told(recipe, monkeypatch):
    monkeypatch.setattr(processes, "COMMAND", ("false",))
    with pytest.raises(
        RunFailed, match=r"`toolkit train .*` ended with exit code 1; the same call of reproduce goes on"
    ):
        reproduce([recipe], say=lambda line: None)
    monkeypatch.setattr(module, "QUICK", {recipe: Quick((), 0.0)})
    with pytest.raises(RunFailed, match="ended with exit code 1; the same call of reproduce trains it anew"):
        reproduce_quickly([recipe], say=lambda line: None)


def test_quick_forms_have_floors(recipe, commands, monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr(module, "QUICK", {recipe: Quick(("training.epochs=1",), 0.0)})
    reproduce_quickly([recipe], say=said.append)
    assert said[-1].startswith(f"{recipe}: ")
    assert not (tmp_path / "results").exists()
    monkeypatch.setattr(module, "QUICK", {recipe: Quick(("training.epochs=1",), 1.01)})
    with pytest.raises(RunFailed, match="below the floor"):
        reproduce_quickly([recipe], say=said.append)
    with pytest.raises(ToolkitError, match="there is no quick form of other"):
        reproduce_quickly(["other"])


def test_quick_forms_are_of_recipes_and_valid():
    from toolkit.config.shipped import find_config

    assert set(module.QUICK) == set(module.RECIPES)
    for recipe, quick in module.QUICK.items():
        load(find_config(recipe), quick.overrides)


def test_speech_to_text_is_measured_by_its_errors(commands, tmp_path):
    path = tmp_path / "spoken.yaml"
    path.write_text(
        "data: {source: synthetic_speech, examples: 60, transcript_units: words, batch_size: 8, buckets: 1}\n"
        "model: {name: speech_ctc, convolutions: [8], layers: 1, units: 8, mels: 8}\n"
        "optimizer: {name: adam, learning_rate: 1e-2}\n"
        "training: {epochs: 2}\n"
    )
    (row,) = reproduce([str(path)], say=lambda line: None)
    assert verbs(commands) == ["train", "evaluate", "evaluate"]
    (directory,) = run_directories(tmp_path)
    figures = json.loads((directory / "evaluation.json").read_text())
    assert (row.score, row.interval) == (figures["words"]["rate"], tuple(figures["words"]["interval"]))
    searched = json.loads((directory / f"evaluation-beam{results.BEAM_WIDTH}.json").read_text())
    assert row.beam.rate == searched["words"]["rate"]
    assert row.recordings == 12
    file = tmp_path / "results" / "results.json"
    assert results.read(file) == [row]
    assert row.baseline_words.rate == pytest.approx(sum(row.baseline_interval) / 2, abs=0.2)
    results.write(file, [dataclasses.replace(row, baseline="", baseline_words=None, baseline_interval=None)])
    assert reproduce([str(path)], say=lambda line: None) == results.read(file) == [row]
    assert len(commands) == 3  # the baseline was added, nothing was trained
