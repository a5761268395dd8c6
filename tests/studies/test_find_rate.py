"""The range test suggests a rate that learns, shows how it was found, and leaves no trace in what is trained next."""

import json
import os
import types

import numpy as np
import pytest
from PIL import Image

from toolkit import cli, workflow
from toolkit.config import load
from toolkit.errors import RunFailed, ToolkitError
from toolkit.studies.find_rate import Suggestion, chance, find_rate, judge, rising, smooth

CONFIG = """
seed: 3
data: {source: synthetic_images, classes: 3, examples: 150, height: 12, width: 12, batch_size: 16}
model: {name: simple_cnn, filters: [4, 4], dropout: 0.1}
optimizer: {name: adam, learning_rate: 1e-2, schedule: {name: cosine, warmup_steps: 2}, use_ema: true}
training: {epochs: 4, backend: %s}
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG % os.environ["KERAS_BACKEND"])
    return path


def rise(losses):
    return types.SimpleNamespace(losses=tuple(losses), ended="highest")


@pytest.mark.every_backend
def test_a_training_after_it_is_the_one_without_it(small, tmp_path):
    before = workflow.train(load(small), run_dir=tmp_path / "before", steps=8)
    find_rate(load(small), run_dir=tmp_path / "rate", steps=40)
    after = workflow.train(load(small), run_dir=tmp_path / "after", steps=8)
    for name in ("weights.safetensors", "last.safetensors"):
        assert (after / name).read_bytes() == (before / name).read_bytes()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("found")
    (folder / "small.yaml").write_text(CONFIG % os.environ["KERAS_BACKEND"])
    return find_rate(load(folder / "small.yaml"), run_dir=folder / "rate")


def test_what_is_suggested_learns_and_much_less_or_more_does_not(found, small, tmp_path):
    losses = {}
    for factor in (0.01, 1, 100):
        rate = found.suggestion.rate * factor
        overrides = [f"optimizer.learning_rate={rate}", "optimizer.use_ema=false", "training.epochs=12"]
        run = workflow.train(load(small, overrides), run_dir=tmp_path / str(factor))
        losses[factor] = json.loads((run / "record.json").read_text())["best"]["value"]
    assert losses[1] < 0.7 * min(losses[0.01], losses[100])


def test_the_figures_are_those_of_the_picture_and_of_the_terminal(found):
    figures = json.loads((found.directory / "rate.json").read_text())
    assert {path.name for path in found.directory.iterdir()} == {"rate.png", "rate.json", "log.txt"}
    assert figures["suggested"] == found.suggestion.rate
    assert figures["steepest_descent"] == found.suggestion.steepest
    rates, smoothed = np.array(figures["rates"]), np.array(figures["smoothed"])
    assert figures["minimum"]["rate"] == rates[smoothed.argmin()]
    assert figures["minimum"]["tenth"] == pytest.approx(rates[smoothed.argmin()] / 10)
    falls = np.diff(smoothed)[: smoothed.argmin()]
    assert rates[falls.argmin()] / 1.2 < figures["steepest_descent"] < rates[falls.argmin() + 1] * 1.2
    np.testing.assert_allclose(np.diff(np.log(rates)), np.log(1e6) / 99)  # 1e-5 to 10 in 100 steps
    assert len(figures["losses"]) == len(rates)
    log = (found.directory / "log.txt").read_text()
    assert f"steepest descent        {found.suggestion.steepest:.2e}" in log
    assert f"a tenth of the minimum  {found.suggestion.tenth:.2e}" in log
    assert f"suggested: --set optimizer.learning_rate={found.suggestion.rate:g}" in log
    assert "reading test" not in log
    with Image.open(found.directory / "rate.png") as picture:
        assert picture.size == (900, 528)


def test_the_rules_find_what_is_planted():
    rates = rising(1e-5, 10, 121)  # 20 steps to the decade
    x = np.log10(rates)
    noise = 0.02 * np.random.default_rng(0).normal(size=121)
    # The fall is steepest at 10^-2.5; from 10^-1 on the loss explodes.
    curve = 2 - 1.5 / (1 + np.exp(-6 * (x + 2.5))) + np.where(x > -1, 50 * (x + 1), 0) + noise
    told = judge(rates, rise(curve), None).suggestion
    assert abs(np.log10(told.steepest) + 2.5) < 0.15
    assert -1.7 < np.log10(told.lowest) < -0.9
    assert told.tenth == told.lowest / 10
    assert told.rate == pytest.approx(min(told.steepest, told.tenth), rel=0.05)


def test_smoothing_shifts_nothing():
    step = np.where(np.arange(100) < 50, 2.0, 1.0)
    smoothed = smooth(step, 3.0)
    assert np.argmin(np.gradient(smoothed)) in (49, 50)
    np.testing.assert_allclose(smoothed + smoothed[::-1], 3.0)


def test_the_smooth_line_scatters_as_is_reckoned():
    noise = np.random.default_rng(0).normal(size=100_000)
    noise[:4] = 100  # what is above the first counts as the first
    assert np.std(smooth(noise, 4.0)[100:]) == pytest.approx(chance(noise[100:], 4.0), rel=0.1)


def test_the_lower_rule_is_suggested_in_two_digits():
    assert Suggestion(steepest=1.2345e-3, lowest=0.5, loss=1.0).rate == 1.2e-3
    assert Suggestion(steepest=1.2345e-1, lowest=0.0678, loss=1.0).rate == 6.8e-3


@pytest.mark.parametrize("losses", [[], [1.0], [2.0] * 50, 2 + 0.3 * np.random.default_rng(1).normal(size=60)])
def test_without_a_fall_nothing_is_suggested(losses):
    assert judge(rising(1e-5, 1, 60), rise(losses), None).suggestion is None


def test_a_loss_that_does_not_fall_is_told_beside_the_picture(small, tmp_path):
    with pytest.raises(
        RunFailed, match=r"between the rates 1e-12 and 1e-11 the loss did not fall .*rate.png: give it more"
    ):
        find_rate(load(small), lowest=1e-12, highest=1e-11, steps=20, run_dir=tmp_path / "rate")
    assert json.loads((tmp_path / "rate" / "rate.json").read_text())["suggested"] is None
    assert (tmp_path / "rate" / "rate.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lowest", "0"], "--lowest is 0 and --highest is 10, but the rate is multiplied from step to step"),
        (["--lowest", "1", "--highest", "0.1"], "--lowest is 1 and --highest is 0.1"),
        (["--highest", "inf"], "--highest is inf"),
        (["--lowest", "nan"], "--lowest is nan"),
        (["--steps", "3"], "--steps is 3, too few to tell noise from learning"),
        (["--set", "optimizer.name=adom"], "optimizer.name: found 'adom' (did you mean 'adam'?)"),
        (["--set", "data.batch_size=1000"], "data.batch_size is 1000, but the train split holds 105 examples"),
    ],
)
def test_a_wrong_request_writes_nothing(small, tmp_path, capsys, arguments, message):
    before = set(tmp_path.iterdir())
    assert cli._run(["find-rate", str(small), "--run-dir", str(tmp_path / "rate"), *arguments]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert set(tmp_path.iterdir()) == before


def test_a_folder_that_holds_a_run_is_left_alone(small, tmp_path):
    run = workflow.train(load(small), run_dir=tmp_path / "run", steps=2)
    with pytest.raises(ToolkitError, match="holds a run already"):
        find_rate(load(small), run_dir=run)
