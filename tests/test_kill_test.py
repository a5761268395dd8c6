"""scripts/kill_test.py kills real trainings; here, that it counts right, spreads its kills, and goes on."""

import collections
import json
import sys
from pathlib import Path

import pytest

from scripts import kill_test
from toolkit.config import load


@pytest.fixture
def count(monkeypatch, capsys):
    """Calls the script with runs that only pretend; its exit code, last line and results."""

    def call(kills, outcome="exact"):
        def pretend(backend, config, number, seed):
            about = {"backend": backend, "config": config, "seed": seed, "within": "step"}
            return [{**about, "outcome": outcome, "step": step} for step in range(number)]

        monkeypatch.setattr(kill_test, "run", pretend)
        monkeypatch.setattr(sys, "argv", ["kill_test.py", "--kills", str(kills), "--results", "results.json"])
        monkeypatch.delenv("KERAS_BACKEND", raising=False)  # as the script does; put back for the tests after this one
        with pytest.raises(SystemExit) as left:
            kill_test.main()
        return left.value.code, capsys.readouterr().out.splitlines()[-1], json.loads(Path("results.json").read_text())

    return call


def test_100_kills_are_spread_evenly(count):
    code, said, results = count(100)
    assert code == 0
    assert said.startswith("passed / attempted: 100 / 100 (")
    assert (results["passed"], results["attempted"], len(results["kills"])) == (100, 100, 100)
    by_backend = collections.Counter(kill["backend"] for kill in results["kills"])
    assert set(by_backend) == set(kill_test.BACKENDS) and max(by_backend.values()) - min(by_backend.values()) <= 4
    runs = collections.Counter((kill["backend"], kill["config"], kill["seed"]) for kill in results["kills"])
    assert {(backend, config) for backend, config, _ in runs} == {
        (backend, config) for backend in kill_test.BACKENDS for config in kill_test.CONFIGS
    }
    assert {number for (_, config, _), number in runs.items() if config == "stopping"} == {10}
    assert len({seed for _, _, seed in runs}) == len(runs)


def test_a_later_call_goes_on(count):
    at_once = count(34)[2]
    Path("results.json").unlink()
    count(10)
    assert count(34)[2] == at_once
    assert count(34)[2] == at_once  # nothing is left to do


def test_what_is_not_exact_is_counted_and_fails(count):
    count(10)
    code, said, results = count(20, outcome="metrics.jsonl differs")
    assert code == 1
    assert said.startswith("passed / attempted: 10 / 20 (")
    assert results["passed"] == 10


@pytest.mark.parametrize("config", kill_test.CONFIGS)
def test_its_configs_are_valid(config):
    Path("small.yaml").write_text(kill_test.CONFIGS[config])
    for backend in kill_test.BACKENDS:
        load("small.yaml", [f"training.backend={backend}"])
