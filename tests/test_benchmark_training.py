"""`scripts/benchmark_training.py` for two short epochs: every side trains, the figures fit; no time is judged."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.long
def test_every_side_learns_the_same_examples(repository: Path, tmp_path: Path):
    pytest.importorskip("torch")
    written = tmp_path / "written.json"
    script = repository / "scripts" / "benchmark_training.py"
    small = ["--epochs", "2", "--set", "model.filters=[8]", "--set", "model.units=16", "--output", str(written)]
    done = subprocess.run(
        [sys.executable, str(script), "quickstart", *small], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    sides = json.loads(written.read_text("utf-8"))["recipes"]["quickstart"]
    assert list(sides) == ["toolkit", "keras", "keras, no XLA", "torch", "recipe", "recipe, cached"]
    for name, side in sides.items():
        assert side["examples"] == 3488, name  # 3,500 in whole batches of 32
        assert side["examples_per_second"] == pytest.approx(side["examples"] / statistics.median(side["seconds"]))
        assert side["bytes"] == 3500 * 28 * 28
        assert side["memory"] > 0
        assert side["losses"][1] < side["losses"][0] < 0.9 * math.log(10), name
    # The same batches, whatever way of computing each side has found faster.
    assert sides["recipe, cached"]["losses"] == pytest.approx(sides["recipe"]["losses"], rel=5e-3)
    fastest = max(sides[name]["examples_per_second"] for name in ("keras", "keras, no XLA", "torch"))
    ratio = sides["toolkit"]["examples_per_second"] / fastest
    assert f"toolkit over the best of them: {ratio:.2f}" in done.stdout
