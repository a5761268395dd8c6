"""The console command, as a person meets it: what it prints where, its exit codes, and how fast it answers."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from toolkit import cli, workflow
from toolkit.config import RunConfig, load
from toolkit.errors import RunFailed, ToolkitError

HEAVY = {"keras", "tensorflow", "tensorflow_datasets", "jax", "torch", "sklearn", "matplotlib", "scipy"}


class Answer:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]):
    """Runs the command in this process."""

    def run(*arguments: str) -> Answer:
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        captured = capsys.readouterr()
        return Answer(caught.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """What the verbs asked of `workflow`, which does nothing here."""
    seen: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
    for verb in ("train", "evaluate", "predict"):
        monkeypatch.setattr(workflow, verb, lambda *args, _verb=verb, **kwargs: seen.append((_verb, args, kwargs)))
    return seen


# Verbs ----------------------------------------------------------------------------------------------------------------


def test_train_passes_the_checked_config_on(ask, calls):
    answer = ask(
        "train",
        "mnist_cnn",
        "--run-dir",
        "out",
        "--steps",
        "3",
        "--evaluate",
        "validation",
        "--set",
        "training.epochs=2",
        "--set",
        "seed=9",
    )

    assert answer.code == 0
    ((verb, (config,), options),) = calls
    assert verb == "train"
    assert isinstance(config, RunConfig)
    assert (config.name, config.training.epochs, config.seed) == ("mnist_cnn", 2, 9)
    assert options == {"run_dir": Path("out"), "steps": 3, "split": "validation"}


def test_train_leaves_open_what_is_not_given(ask, calls):
    assert ask("train", "quickstart").code == 0
    assert calls[0][2] == {"run_dir": None, "steps": None, "split": "test"}


def test_evaluate_passes_its_options_on(ask, calls):
    assert ask("evaluate", "runs/one").code == 0
    options = ("--split", "validation", "--weights", "last", "--backend", "jax", "--beam-width", "8")
    assert ask("evaluate", "runs/one", *options).code == 0
    assert calls == [
        ("evaluate", (Path("runs/one"),), {"split": "test", "weights": "best", "backend": None, "beam_width": 1}),
        (
            "evaluate",
            (Path("runs/one"),),
            {"split": "validation", "weights": "last", "backend": "jax", "beam_width": 8},
        ),
    ]


def test_predict_passes_files_and_texts_on(ask, calls):
    assert ask("predict", "run", "a.png", "folder", "--output", "t.csv").code == 0
    assert ask("predict", "run", "--text", "good", "--text", "-bad", "--backend", "torch").code == 0
    nothing = {"files": [], "texts": [], "output": None, "backend": None, "beam_width": 1}
    assert calls == [
        ("predict", (Path("run"),), {**nothing, "files": [Path("a.png"), Path("folder")], "output": Path("t.csv")}),
        ("predict", (Path("run"),), {**nothing, "texts": ["good", "-bad"], "backend": "torch"}),
    ]


# Errors ---------------------------------------------------------------------------------------------------------------


def test_wrong_config_is_told_on_stderr_without_a_traceback(ask, calls):
    Path("mine.yaml").write_text("seed: -1\nmodle: {}\n")

    answer = ask("train", "mine.yaml", "--set", "training.epoch=3")

    assert answer.code == 2
    assert answer.out == ""
    lines = answer.err.splitlines()
    assert lines[0] == "mine.yaml:1: seed: found -1, allowed: a whole number from 0 to 2147483647"
    assert lines[1].startswith("mine.yaml:2: modle: there is no such key (did you mean 'model'?)")
    assert lines[2].startswith("--set training.epoch=3: training.epoch: there is no such key (did you mean 'epochs'?)")
    assert len(lines) == 6, "and three missing sections; long lines stay lines"
    assert calls == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ToolkitError("no [bold]such[/bold] \x1b[31mthing\nhere"), 2),
        (RunFailed("no [bold]such[/bold] \x1b[31mthing\nhere"), 1),
    ],
)
def test_error_becomes_its_exit_code(ask, monkeypatch: pytest.MonkeyPatch, error: ToolkitError, code: int):
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(workflow, "evaluate", fail)
    answer = ask("evaluate", "run")

    assert answer.code == code
    assert answer.err == "no [bold]such[/bold] \\x1b[31mthing\nhere\n"


def test_interrupt_is_130(ask, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(workflow, "evaluate", interrupted)
    answer = ask("evaluate", "run")

    assert answer.code == 130
    assert "Traceback" not in answer.err


def test_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    def bug(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(workflow, "evaluate", bug)
    with pytest.raises(ZeroDivisionError):
        cli.main(["evaluate", "run"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["train", "quickstart", "--steps", "0"],
        ["train", "quickstart", "--nonsense"],
        ["evaluate", "run", "--split", "all"],
        ["predict", "run", "--backend", "numpy"],
        ["configs", "validate"],
        ["configs", "show", "quickstart", "--set", "seed=1"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_2(ask, calls, arguments: Sequence[str]):
    answer = ask(*arguments)

    assert answer.code == 2
    assert answer.err.startswith("Usage: toolkit")
    assert calls == []


# configs --------------------------------------------------------------------------------------------------------------


def test_list_names_every_config_with_what_it_is(ask, repository: Path):
    answer = ask("configs", "ls")

    names = [line.split()[0] for line in answer.out.splitlines()]
    assert answer.code == 0
    assert names == sorted(path.stem for path in (repository / "configs").glob("*.yaml"))
    assert "MNIST" in next(line for line in answer.out.splitlines() if line.startswith("mnist_cnn "))


def test_show_prints_the_file_and_resolved_the_whole_config(ask, repository: Path):
    path = repository / "configs/mnist_cnn.yaml"
    assert ask("configs", "show", "mnist_cnn").out == path.read_text()

    answer = ask("configs", "show", str(path), "--resolved", "--set", "training.epochs=77")
    Path("resolved.yaml").write_text(answer.out)

    assert answer.code == 0
    assert load("resolved.yaml") == load(path, ["training.epochs=77"])
    assert "\n  evaluation_batch_size: 64\n" in answer.out


def test_copy_says_what_it_wrote_and_refuses_to_overwrite(ask):
    assert ask("configs", "copy", "mnist_cnn", "mine.yaml").out == "mine.yaml\n"
    answer = ask("configs", "copy", "mnist_cnn", "mine.yaml")
    assert (answer.code, answer.err) == (
        2,
        "mine.yaml exists already and is never overwritten: give another destination.\n",
    )


def test_validate_judges_every_file(ask):
    Path("good.yaml").write_text(ask("configs", "show", "mnist_cnn").out)
    Path("bad.yaml").write_text("seed: x\nseed: y\n")
    assert ask("configs", "validate", "good.yaml", "mnist_cnn").code == 0

    answer = ask("configs", "validate", "bad.yaml", "good.yaml", "nowhere.yaml")

    assert answer.code == 2
    assert answer.out == "good.yaml: valid\n"
    assert "bad.yaml:1: seed: found 'x'" in answer.err
    assert "'nowhere.yaml' is neither a file" in answer.err


def test_schema_is_json(ask):
    assert json.loads(ask("configs", "schema").out)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


# Speed ----------------------------------------------------------------------------------------------------------------


def run_fresh(*arguments: str) -> tuple[float, set[str]]:
    """CPU seconds of the command in a process of its own, and the modules in memory at its end."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('MODULES', *{name.partition('.')[0] for name in sys.modules}))\n"
        "from toolkit.cli import main\n"
        f"main({list(arguments)!r})"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode in (0, 2), done.stderr
    assert "Traceback" not in done.stderr
    modules = done.stdout.rpartition("MODULES ")[2].split()
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, set(modules)


# CPU time, not the clock's, so that other jobs on the machine do not count.
@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [
        (["--help"], 0.5),
        (["--version"], 0.5),
        (["train", "--help"], 0.5),
        (["configs", "ls"], 2),
        (["configs", "show", "mnist_cnn", "--resolved"], 2),
        (["configs", "validate", "mnist_cnn", "spoken_digit_lstm", "imdb_transformer"], 2),
        (["configs", "schema"], 2),
        (["train", "mnist_cnn", "--set", "model.wrong=1"], 2),
    ],
)
def test_answers_at_once_without_anything_heavy(arguments: Sequence[str], seconds: float):
    used, modules = min((run_fresh(*arguments) for _ in range(2)), key=lambda pair: pair[0])

    assert not modules & HEAVY
    assert used < seconds


def test_config_room_is_light():
    code = "import sys, toolkit.config; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not set(done.stdout.split()) & (HEAVY | {"numpy", "rich", "click"})
