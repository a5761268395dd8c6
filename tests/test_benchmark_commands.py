"""`scripts/benchmark_commands.py` on one small run: every command runs and is measured; no time is judged."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import benchmark_commands


@pytest.mark.long
def test_every_command_runs_on_a_run(repository: Path, tmp_path: Path):
    run = tmp_path / "run"
    small = ["--set", "training.epochs=1"]
    trained = benchmark_commands.call(["train", "quickstart", "--run-dir", str(run), *small], tmp_path / "printed.txt")
    assert trained.code == 0, (tmp_path / "printed.txt").read_text("utf-8")
    assert trained.processor_seconds > 0 and trained.memory > 2**27  # TensorFlow alone takes more

    script = repository / "scripts" / "benchmark_commands.py"
    command = [sys.executable, str(script), str(run), "--limit", "10", "--output", str(tmp_path / "said")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("| run |") and "check" not in line)
    assert len(re.findall(r"\d+\.\d \(\d+\.\d\), \d+\.\d", row)) == len(benchmark_commands.COMMANDS)
    for name, what in (("check", "one batch"), ("find-rate", "simple_cnn"), ("robustness", "fgsm")):
        assert what in (tmp_path / "said" / f"run-{name}.txt").read_text("utf-8")
    assert (run / "report.html").exists() and (run / "look" / "filters.png").exists()

    command = [sys.executable, str(script), str(run / "config.yaml"), "--commands", "train,sweep,compare"]
    short = ["--set", "training.epochs=1", "--set", "data.batch_size=64"]
    done = subprocess.run([*command, "--output", str(tmp_path), *short], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = (line for line in done.stdout.splitlines() if re.match(r"\| config \| \d", line))
    assert len(re.findall(r"\d+\.\d \(\d+\.\d\), \d+\.\d", row)) == 3
    assert "epoch 1/1" in (tmp_path / "config-train.txt").read_text("utf-8")
    assert "2 trained to the end" in (tmp_path / "config-sweep.txt").read_text("utf-8")


def test_a_folder_that_is_no_finished_run_is_refused(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark_commands.py", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        benchmark_commands.main()
    assert left.value.code == 2
    assert "no run directory of a training that ended" in capsys.readouterr().err


def test_a_command_that_is_not_measured_is_refused(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark_commands.py", str(tmp_path), "--commands", "check,predict"])
    with pytest.raises(SystemExit) as left:
        benchmark_commands.main()
    assert left.value.code == 2
    assert "--commands names predict: choose from check, find-rate" in capsys.readouterr().err
