"""curves.png of every kind of metrics.jsonl that a run can leave."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colors, image

from toolkit.errors import RunFailed, ToolkitError
from toolkit.evaluation.curves import best_epoch, draw_curves
from toolkit.evaluation.picture import BLUE, GREEN, ORANGE


def step_row(step, loss=1.0, **more):
    return {"kind": "step", "epoch": 1, "step": step, "loss": loss, "accuracy": 0.5, "learning_rate": 1e-3, **more}


def epoch_row(epoch, loss=1.0, **more):
    row = {"kind": "epoch", "epoch": epoch, "step": 100 * epoch, "loss": loss, "accuracy": 0.5, "learning_rate": 1e-3}
    return {**row, **more}


def validated(epoch, val_loss, **more):
    return epoch_row(epoch, val_loss=val_loss, val_accuracy=1 - val_loss / 4, **more)


@pytest.fixture
def draw(tmp_path: Path):
    def draw(rows, tail: str = "", **options) -> np.ndarray:
        source = tmp_path / "metrics.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
        draw_curves(source, tmp_path / "curves.png", **options)
        return image.imread(tmp_path / "curves.png")[..., :3]

    return draw


def coloured(picture: np.ndarray, colour: str) -> np.ndarray:
    """Columns and rows of the pixels of one colour, (2, n)."""
    return np.array(np.nonzero(np.abs(picture - colors.to_rgb(colour)).max(axis=-1) < 0.02))[::-1]


FULL = [row for e in (1, 2, 3) for row in (*(step_row(100 * e - 50 + s, 2 / e) for s in (0, 40)), validated(e, 1 / e))]
STRANGE = {
    "whole run": FULL,
    "one epoch": [validated(1, 0.5)],
    "one epoch without steps or validation": [epoch_row(1)],
    "steps only, killed in the first epoch": [step_row(50), step_row(100)],
    "no validation": [row for row in FULL if row["kind"] == "step"] + [epoch_row(1), epoch_row(2)],
    "NaN at the end": [*FULL, step_row(350, math.nan), epoch_row(4, math.nan, val_loss=math.inf)],
    "all losses NaN": [step_row(50, math.nan), epoch_row(1, math.nan, val_loss=math.nan)],
    "null": [step_row(50, None), validated(1, 0.5)],
    "only a loss": [{"kind": "step", "step": 1, "loss": 3.0}, {"kind": "step", "step": 2, "loss": 2.0}],
    "constant": [step_row(s, 0.0) for s in range(1, 60)],
    "huge": [step_row(1, 1e30), step_row(2, 1e-30), validated(1, 1e10)],
    "unknown rows": [{"kind": "note", "step": 3}, *FULL],
}


@pytest.mark.parametrize("name", STRANGE)
def test_every_kind_of_run_gives_a_picture(draw, name):
    picture = draw(STRANGE[name])
    assert 300 < picture.shape[0] < 1300
    assert 900 < picture.shape[1] < 1200
    assert picture.std() > 0.03


def test_a_last_line_that_was_cut_off_is_left_out(draw):
    np.testing.assert_array_equal(draw(FULL, tail='{"kind": "epo'), draw(FULL))


def test_validation_is_drawn_where_there_is_one(draw):
    assert coloured(draw(FULL), ORANGE).shape[1] > 200
    assert coloured(draw(STRANGE["no validation"]), ORANGE).shape[1] == 0
    assert coloured(draw(STRANGE["no validation"]), BLUE).shape[1] > 200


def test_a_lower_loss_is_drawn_lower(draw):
    picture = draw([epoch_row(1, 2.0, accuracy=None), epoch_row(2, 1.0, accuracy=None)])
    columns, rows = coloured(picture, BLUE)
    below_legend = rows > 100
    columns, rows = columns[below_legend], rows[below_legend]
    assert rows[columns.argmax()] > rows[columns.argmin()] + 100


@pytest.mark.parametrize(("losses", "where"), [((0.1, 0.5, 0.9), 1), ((0.9, 0.1, 0.5), 2), ((0.9, 0.5, 0.1), 3)])
def test_the_best_epoch_is_marked_where_it_lies(draw, losses, where):
    picture = draw([validated(e, loss) for e, loss in enumerate(losses, start=1)])
    columns, rows = coloured(picture, GREEN)
    line = np.median(columns[rows > picture.shape[0] / 3])  # below the legend
    ends = coloured(picture, ORANGE)
    # The line from epoch 1 to 3 spans the figures of the three epochs.
    ends = ends[0][ends[1] > 110]
    first, last = ends.min() + 3, ends.max() - 3
    assert line == pytest.approx(first + (where - 1) / 2 * (last - first), abs=6)


def test_not_finite_losses_are_told(draw):
    """A gap alone could be overlooked: a line of text in the colour of a warning."""
    rows = [row for row in FULL if row["kind"] == "step"]
    assert coloured(draw([*rows, step_row(400, math.nan)]), ORANGE).shape[1] > 100
    assert coloured(draw(rows), ORANGE).shape[1] == 0


def test_best_is_lowest_for_a_loss_highest_else_and_the_earlier_of_equals():
    rows = [validated(1, 0.5), validated(2, math.nan), validated(3, 0.2), validated(4, 0.2)]
    assert best_epoch(rows, "val_loss")["epoch"] == 3
    assert best_epoch(rows, "val_accuracy")["epoch"] == 3
    assert best_epoch(rows, "val_f1") is None
    assert best_epoch([], "val_loss") is None


def test_a_run_in_a_folder_with_any_name(tmp_path):
    folder = tmp_path / "run $x^$ 猫 \U0010fffd"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(json.dumps(validated(1, 0.5)) + "\n")
    draw_curves(folder / "metrics.jsonl", folder / "curves.png")
    assert (folder / "curves.png").stat().st_size > 5_000


def test_the_picture_is_replaced_and_nothing_else_is_left(tmp_path, draw):
    (tmp_path / "curves.png").write_text("old")
    draw(FULL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "metrics.jsonl"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"kind": "step"\n{"kind": "step", "step": 1}\n', "metrics.jsonl:1 is not JSON"),
        ('{"kind": "step", "step": 1}\n[1]\n', "metrics.jsonl:2 is no row"),
        ('{"kind": "step", "step": "1"}\n', "metrics.jsonl:1 is no row"),
        ("", "no finite loss"),
        ('{"kind": "epoch", "step": 1}\n', "no finite loss"),
    ],
)
def test_what_is_no_table_of_metrics_is_refused(tmp_path, content, message):
    (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(ToolkitError, match=message):
        draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_missing_input_and_missing_folder(tmp_path):
    with pytest.raises(ToolkitError, match="cannot be read"):
        draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    (tmp_path / "metrics.jsonl").write_text(json.dumps(epoch_row(1)) + "\n")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailed, match="could not be written"):
        draw_curves(tmp_path / "metrics.jsonl", tmp_path / "file" / "curves.png")
