"""`auto` for precision and compiling: the fastest way, measured once, and a run that knows what it was."""

import os
from types import SimpleNamespace

import pytest

from toolkit import auto, stages, workflow
from toolkit.config import load, load_run
from toolkit.data.tables import cache_folder
from toolkit.errors import ToolkitError
from toolkit.runs import arrays

every_backend = pytest.mark.every_backend
CONFIG = """
seed: 3
data: {source: synthetic_images, classes: 3, examples: 90, height: 12, width: 12, batch_size: 16}
model: {name: simple_cnn, filters: [4, 4], dropout: 0.2}
optimizer: {name: adam, learning_rate: 1e-2}
training: {epochs: 2, backend: %s, precision: auto, jit: auto}
"""


@pytest.fixture
def config(tmp_path):
    def make(*overrides):
        path = tmp_path / "small.yaml"
        path.write_text(CONFIG % os.environ["KERAS_BACKEND"])
        return load(path, overrides)

    return make


@pytest.fixture
def native(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # what other tests measured is not remembered
    monkeypatch.setattr(auto, "computes_bfloat16", lambda backend: True)
    monkeypatch.setattr(auto, "SECONDS", 0.0)


@pytest.fixture
def measured(monkeypatch, native):
    """Times that are given in place of measured ones; the ways that were asked for."""
    asked = []

    def give(times):
        def milliseconds(configs, data):
            asked.extend((config.training.precision, config.training.jit) for config in configs.values())
            return {way: times[way] for way in configs}

        monkeypatch.setattr(auto, "milliseconds", milliseconds)
        return asked

    return give


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ([10, 9.4, 30, 30], ("float32", True)),
        ([10, 9.6, 9.6, 30], ("float32", False)),  # no gain that shows
        ([10, 8, 7, 6], ("mixed_bfloat16", True)),
        ([10, 8, 5, 6], ("mixed_bfloat16", False)),
        ([10, 8, 9.9, 7.9], ("float32", True)),  # compiled there is nothing to gain from bfloat16
    ],
)
def test_the_fastest_is_taken_where_that_is_a_gain(times, chosen):
    ways = [("float32", False), ("float32", True), ("mixed_bfloat16", False), ("mixed_bfloat16", True)]
    assert auto.choose(ways, dict(zip(ways, times, strict=True))) == chosen


def test_each_way_is_measured_once(config, measured):
    asked = measured({("float32", False): 10.0, ("mixed_bfloat16", False): 5.0, ("float32", True): 8.0})
    wanted = config("training.jit=false")
    stages.set_up(wanted)
    data = stages.read_data(wanted, lambda line: None)
    said = []
    settled = auto.settle(wanted, data, said.append)
    assert (settled.training.precision, settled.training.jit) == ("mixed_bfloat16", False)
    assert said == ["auto: mixed_bfloat16 (a step: float32 10.0 ms, mixed_bfloat16 5.0 ms)"]
    assert asked == [("float32", False), ("mixed_bfloat16", False)]
    auto.settle(wanted, data, said.append)
    assert len(asked) == 2
    (file,) = (cache_folder() / "steps").glob("*.json")
    file.write_text("[[")  # damaged
    auto.settle(wanted, data, said.append)
    assert len(asked) == 4
    other = config("training.jit=false", "data.batch_size=8")
    auto.settle(other, stages.read_data(other, lambda line: None), said.append)
    assert len(asked) == 6
    for same in ("optimizer.learning_rate=0.5", "optimizer.schedule={name: cosine}"):
        auto.settle(config("training.jit=false", same), data, said.append)
    assert len(asked) == 6
    auto.settle(config("training.jit=false", "training.freeze=[conv1]"), data, said.append)
    assert len(asked) == 8


def test_what_was_measured_of_other_ways_is_kept(config, measured):
    asked = measured({(precision, jit): 10.0 for precision in ("float32", "mixed_bfloat16") for jit in (False, True)})
    for _ in range(2):
        for jit in ("true", "false"):
            wanted = config(f"training.jit={jit}")
            stages.set_up(wanted)
            auto.settle(wanted, stages.read_data(wanted, lambda line: None), lambda line: None)
    assert len(asked) == 4


def test_frozen_layers_are_frozen_where_steps_are_measured(config, native):
    wanted = config("training.freeze=[nonsense]")
    stages.set_up(wanted)
    with pytest.raises(ToolkitError, match="freeze names 'nonsense'"):
        auto.settle(wanted, stages.read_data(wanted, lambda line: None), lambda line: None)


def test_nothing_is_measured_where_there_is_one_way(config, measured, monkeypatch):
    asked = measured({})
    monkeypatch.setattr(auto, "computes_bfloat16", lambda backend: False)
    wanted = config("training.jit=false")
    stages.set_up(wanted)
    data = stages.read_data(wanted, lambda line: None)
    said = []
    assert auto.settle(wanted, data, said.append).training.precision == "float32"
    assert said == ["auto: float32, the only way here"]
    own = auto.settle(config(), data, said.append, model=SimpleNamespace(compute_dtype="bfloat16")).training
    assert (own.precision, own.jit) == ("mixed_bfloat16", False)
    assert said[-1] == "auto: mixed_bfloat16, as the model is one of your own"
    plain = config("training.precision=float32", "training.jit=false")
    assert auto.settle(plain, data, said.append) is plain
    assert asked == []


@every_backend
def test_a_run_measures_trains_and_knows_what_it_chose(config, native, tmp_path, capsys):
    """The measurement draws no random number of the training: the second run, which remembers, ends the same."""
    wanted = config()
    runs = [workflow.train(wanted, run_dir=tmp_path / name) for name in ("first", "second")]
    assert "auto: " in capsys.readouterr().out
    chosen = [load_run(run).training for run in runs]
    assert chosen[0] == chosen[1]
    assert chosen[0].precision in ("float32", "mixed_bfloat16")
    assert isinstance(chosen[0].jit, bool)
    first, second = (arrays.load(run / "weights.safetensors")[0] for run in runs)
    assert all((first[name] == second[name]).all() for name in first)


def test_a_run_goes_on_as_it_began(config, measured, tmp_path):
    asked = measured({("float32", False): 10.0, ("mixed_bfloat16", False): 5.0})
    run = workflow.train(config("training.jit=false"), run_dir=tmp_path / "run")
    assert load_run(run).training.precision == "mixed_bfloat16"
    done = len(asked)
    workflow.resume(run, config("training.jit=false", "training.epochs=3"))
    assert len(asked) == done
    assert load_run(run).training.precision == "mixed_bfloat16"


def test_a_cache_that_cannot_be_written_is_told_and_nothing_else(config, measured, monkeypatch, tmp_path):
    measured({("float32", False): 10.0, ("mixed_bfloat16", False): 5.0})
    wanted = config("training.jit=false")
    stages.set_up(wanted)
    data = stages.read_data(wanted, lambda line: None)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    said = []
    assert auto.settle(wanted, data, said.append).training.precision == "mixed_bfloat16"
    assert "not remembered" in said[0]
