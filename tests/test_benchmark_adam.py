"""`scripts/benchmark_adam.py` over tiny tensors: every mode runs and its figures hold together; no time is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def benchmark(repository: Path, tmp_path: Path):
    """Runs the script on tiny tensors; gives its JSON and what it printed."""

    def run(*arguments: str) -> tuple[dict[str, Any], str]:
        script = str(repository / "scripts" / "benchmark_adam.py")
        written = tmp_path / "written.json"
        command = [
            sys.executable,
            script,
            "--tiny",
            "--rounds",
            "1",
            "--backends",
            "tensorflow",
            "--json",
            str(written),
        ]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(written.read_text("utf-8")), done.stdout

    return run


@pytest.mark.long
def test_every_contender_of_every_case_takes_adams_steps(benchmark, tmp_path: Path):
    results, printed = benchmark("--plot", str(tmp_path / "plot.png"))
    assert results["mode"] == "cases"
    assert {"commit", "cpu", "processors", "versions", "devices"} <= results["machine"].keys()
    assert list(results["cases"]) == ["big", "bert", "small", "rows of 1 M", "rows of 20 k"]

    dense = {("eager", "toolkit"), ("eager", "keras"), ("graph", "toolkit"), ("graph", "keras")}
    of_rows = {(way, "toolkit lazy" if name == "toolkit" else name) for way, name in dense}
    for case in results["cases"]:
        rows = [row for row in results["measurements"] if row["case"] == case]
        extra = "toolkit exact" if case.startswith("rows") else "ResourceApplyAdam"
        assert {(row["way"], row["name"]) for row in rows} == (of_rows if case.startswith("rows") else dense) | {
            ("graph", extra)
        }
        for row in rows:
            assert row["times"] == 5
            assert row["quartiles"][0] <= row["ms"] <= row["quartiles"][1]
            # Of the way that the weights went: eight steps, of which one left out would make 1/8.
            assert row["distance"] < 5e-3

    assert {(row["way"], row["against"]) for row in results["ratios"]} == {
        ("eager", "keras"),
        ("graph", "keras"),
        ("eager", "rows of 20 k"),
        ("graph", "rows of 20 k"),
    }
    for row in results["ratios"]:
        assert row["ratio"] == pytest.approx(_ms(results, row, row["name"]) / _ms(results, row, row["against"]))

    assert results["machine"]["commit"] in printed
    assert "ResourceApplyAdam" in printed
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def _ms(results: dict[str, Any], where: dict[str, Any], name: str) -> float:
    case = where["case"]
    if name in results["cases"]:
        case, name = name, where["name"]
    wanted = {"case": case, "backend": where["backend"], "way": where["way"], "name": name}
    (row,) = (row for row in results["measurements"] if all(row[key] == wanted[key] for key in wanted))
    return float(row["ms"])


@pytest.mark.long
def test_sweep_fits_an_exponent_to_each_line(benchmark, tmp_path: Path):
    results, _ = benchmark("--sweep", "--plot", str(tmp_path / "plot.png"))
    assert [(row["name"], row["parameters"]) for row in results["measurements"]] == [
        ("toolkit", 100),
        ("keras", 100),
        ("toolkit", 1000),
        ("keras", 1000),
    ]
    for line in results["exponents"]:
        low, high = (row["ms"] for row in results["measurements"] if row["name"] == line["name"])
        # Through two points, ten times apart, the line is exact.
        assert 10 ** line["all"] == pytest.approx(high / low)
        assert line["large"] is None
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from Linux's /proc")
def test_memory_counts_two_floats_of_state_per_parameter_and_three_with_amsgrad(benchmark):
    results, _ = benchmark("--memory")
    state = {(row["way"], row["name"]): row["state"] for row in results["measurements"]}
    assert state == {
        ("graph", "toolkit"): 2,
        ("graph", "toolkit amsgrad"): 3,
        ("graph", "keras"): 2,
        ("graph", "ResourceApplyAdam"): 2,
    }
    for row in results["measurements"]:
        assert row["temporary"] == pytest.approx(row["growth"] - row["state"])


@pytest.mark.long
def test_fit_times_the_model_of_a_recipe(benchmark):
    results, _ = benchmark("--fit", "--cases", "mnist_cnn")
    assert [(row["case"], row["name"], row["distance"]) for row in results["measurements"]] == [
        ("mnist_cnn", "toolkit", 0),
        ("mnist_cnn", "keras", 0),
    ]
    (ratio,) = results["ratios"]
    ours, keras = (row["ms"] for row in results["measurements"])
    assert ratio["ratio"] == pytest.approx(ours / keras)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "huge"], "'huge' is not one of big, bert, small, rows"),
        (["--fit", "--cases", "big"], "'big' is not one of mnist_cnn, cats_vs_dogs_cnn"),
        (["--rounds", "0"], "--rounds is 0"),
        (["--memory", "--plot", "x.png"], "--memory has no plot"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_measured(
    repository: Path, arguments: list[str], message: str
):
    script = str(repository / "scripts" / "benchmark_adam.py")
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert message in done.stderr
