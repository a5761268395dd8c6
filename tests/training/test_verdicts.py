"""Verdicts on measurements made by hand, on both sides of each bound."""

import json

import numpy as np
import pytest

from toolkit.errors import ToolkitError
from toolkit.runs import gradients
from toolkit.runs.gradients import Gradients
from toolkit.training.verdicts import judge, summary


def measured(clipped=False, **values):
    """Layers first, second, … with the given rows; the steps are 1, 101, 201 …"""
    shape = np.shape(values["gradient_norm"])
    return Gradients(
        steps=1 + 100 * np.arange(shape[1]),
        clipped=np.full(shape[1], clipped),
        seconds=np.full(shape[1], 0.5),
        layers=("first", "second", "third", "logits")[-shape[0] :],
        values={name: np.array(values.get(name, np.full(shape, np.nan)), float) for name in gradients.MEASURES},
    )


def told(found):
    return [(verdict.kind, verdict.step, verdict.layers) for verdict in judge(found)]


def test_a_layer_vanishes_below_a_ten_thousandth_of_the_output_layers_gradient():
    above, below = [1.1e-4] * 4, [0.9e-4] * 4
    assert told(measured(gradient_norm=[above, [1.0] * 4])) == []
    assert told(measured(gradient_norm=[below, [1.0] * 4])) == [("vanishing", 1, ("third",))]


def test_vanishing_is_dated_from_where_it_lasts():
    assert told(measured(gradient_norm=[[1e-5, 1, 1e-5, 1e-5, 1e-5], [1.0] * 5])) == [("vanishing", 201, ("third",))]


@pytest.mark.parametrize("norms", [[1e-5, 1e-5, 1e-5, 1.0], [1.0, 1.0, 1e-5, 1e-5]])
def test_what_has_passed_or_only_begun_is_not_told(norms):
    assert told(measured(gradient_norm=[norms, [1.0] * 4])) == []


def test_a_small_gradient_everywhere_is_a_training_near_its_end():
    assert told(measured(gradient_norm=[[1, 0.1, 1e-6, 1e-9], [1, 0.1, 1e-6, 1e-9]])) == []


@pytest.mark.parametrize(("times", "explodes"), [(9e3, False), (1.1e4, True)])
def test_a_gradient_that_grows_on_its_way_back_explodes(times, explodes):
    found = measured(gradient_norm=[[1.0], [times], [1.1 * times], [1.0]])
    assert told(found) == ([("exploding", 1, ("third", "second"))] if explodes else [])


@pytest.mark.parametrize(("last", "explodes"), [(199.0, False), (202.0, True)])
def test_a_gradient_that_jumps_above_all_before_explodes(last, explodes):
    norms = [[2.0, 0.1, 0.1, last], [0.1, 0.1, 0.1, 1.0]]
    assert told(measured(gradient_norm=norms)) == ([("exploding", 301, ("third",))] if explodes else [])


def test_a_jump_in_the_first_steps_is_how_a_layer_of_zeros_begins():
    assert told(measured(gradient_norm=[[0, 1e-3, 1], [1, 1, 1]])) == []


def test_clipping_is_the_remedy_already():
    assert told(measured(gradient_norm=[[1, 1, 1, 1e6], [1, 1, 1, 1]], clipped=True)) == []


@pytest.mark.parametrize(("ratio", "explodes"), [(9.0, False), (11.0, True)])
def test_a_step_that_rewrites_a_layer_explodes_clipped_or_not(ratio, explodes):
    found = measured(gradient_norm=[[1, 1]], update_ratio=[[0.1, ratio]], clipped=True)
    assert told(found) == ([("exploding", 101, ("logits",))] if explodes else [])


def test_only_nothing_but_zeros_is_dead_and_takes_the_blame_for_what_lies_before():
    norms = [[0.0] * 4, [0.0] * 4, [1e-9] * 4, [1.0] * 4]
    nothing = np.nan
    zeros = [[0.5] * 4, [0.9, 1, 1, 1], [nothing] * 4, [nothing] * 4]
    assert told(measured(gradient_norm=norms, zero_share=zeros)) == [
        ("vanishing", 1, ("third",)),
        ("dead", 101, ("second",)),
    ]
    zeros[1][3] = 0.999
    assert told(measured(gradient_norm=[[1.0] * 4] * 4, zero_share=zeros)) == []


def test_sentences_name_layer_step_and_remedy():
    lines = summary(measured(gradient_norm=[[1e-6] * 3, [1e-5] * 3, [1.0] * 3]))
    assert lines == [
        "gradients: measured 3 steps in 1.5 s",
        "  vanishing gradient: since step 1 layer second has 1.0e-06 of the gradient of the output layer logits (so, "
        "too, third); use ReLU for sigmoid or tanh, normalisation, or shortcuts.",
    ]


def test_a_file_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "gradients.jsonl"
    layers = {"a": {"gradient_norm": 1 / 3, "update_ratio": np.nan}, "b": {"zero_share": 1 - 2**-24}}
    rows = [gradients.make_row(epoch=1, step=s, clipped=False, seconds=0.1, layers=layers) for s in (1, 3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = gradients.read(path)
    assert (found.layers, list(found.steps)) == (("a", "b"), [1, 3])
    np.testing.assert_allclose(found.values["gradient_norm"], [[1 / 3] * 2, [np.nan] * 2], rtol=1e-8)
    assert np.isinf(found.values["update_ratio"][0]).all(), "what was no number is told as not finite"
    assert (found.values["zero_share"][1] < 1).all(), "nearly all zeros are not all"


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "step"},
        {"step": 0},
        {"layers": {}},
        {"layers": {"a": 1}},
        {"layers": {"a": {"zero_share": 0.5}}},
        {"layers": {"a": {"gradient_norm": -1.0}}},
        {"layers": {"a": {"gradient_norm": float("nan")}}},
        {"layers": {"a": {"gradient_norm": "1"}}},
        {"layers": {"a": {"gradient_norm": 1.0, "other": 1.0}}},
        {"clipped": 0},
        {"seconds": None},
    ],
)
def test_what_no_training_writes_is_refused(tmp_path, change):
    path = tmp_path / "gradients.jsonl"
    row = gradients.make_row(epoch=1, step=1, clipped=False, seconds=0.1, layers={"a": {"gradient_norm": 1.0}})
    path.write_text(json.dumps({**row, **change}) + "\n")
    with pytest.raises(ToolkitError, match=r"gradients.jsonl:1 is no row of gradients.jsonl: use the file as train le"):
        gradients.read(path)


def test_every_row_has_the_same_layers(tmp_path):
    path = tmp_path / "gradients.jsonl"
    options = {"epoch": 1, "clipped": False, "seconds": 0.1}
    rows = [gradients.make_row(step=s, layers={f"layer{s}": {"gradient_norm": 1.0}}, **options) for s in (1, 2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ToolkitError, match=r"gradients.jsonl:2 is no row"):
        gradients.read(path)
