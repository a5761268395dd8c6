"""The rows of metrics.jsonl: none lost, none invented, and a file of somebody else's cannot do harm."""

import json

import pytest

from toolkit.errors import ToolkitError
from toolkit.runs import metrics

ROWS = [{"kind": "step", "step": step, "loss": 1 / step} for step in (1, 2, 3)]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for row in ROWS:
        metrics.append(path, row)
    return path


def test_what_was_appended_is_read_and_counted(path):
    assert list(metrics.read(path)) == ROWS
    assert metrics.sync(path) == 3
    assert metrics.sync(path.with_name("none")) == 0


def test_a_row_that_a_kill_cut_off_is_left_out(path):
    path.write_bytes(path.read_bytes() + b'{"kind": "st')
    assert list(metrics.read(path)) == ROWS


@pytest.mark.parametrize("count", [0, 1, 3])
def test_rows_beyond_a_checkpoint_are_cut(path, count):
    path.write_bytes(path.read_bytes() + b'{"kind": "st')
    metrics.cut(path, count)
    assert list(metrics.read(path)) == ROWS[:count]
    metrics.append(path, {"kind": "epoch", "step": 9})
    assert list(metrics.read(path)) == [*ROWS[:count], {"kind": "epoch", "step": 9}]


def test_missing_rows_are_told(path):
    with pytest.raises(ToolkitError, match=r"has 3 rows, but the checkpoint was written after 4"):
        metrics.cut(path, 4)
    assert list(metrics.read(path)) == ROWS
    with pytest.raises(ToolkitError, match=r"has 0 rows, but the checkpoint was written after 1"):
        metrics.cut(path.with_name("none"), 1)
    metrics.cut(path.with_name("none"), 0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 5000, "is not JSON"),
        (b"9" * 5000, "is not JSON"),
        (b"1", "is no row"),
        (b'{"step": 1}', "is no row"),
        (b'{"kind": "step", "step": -1}', "is no row"),
        (b'{"kind": "step", "step": true}', "is no row"),
        (b'{"kind": "step", "step": 1.0}', "is no row"),
        (b'{"kind": "step", "step": 1, "loss": %d}' % (10**400), "is no row"),
        (json.dumps({"kind": "step", "step": 1, "text": "x" * metrics.MAX_ROW}).encode(), "has more than 65,536 bytes"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_line_that_is_no_row_is_named(path, line, message):
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(ToolkitError, match=rf"metrics\.jsonl:4 {message}"):
        list(metrics.read(path))


def test_a_link_is_not_followed(path):
    link = path.with_name("link")
    link.symlink_to(path)
    with pytest.raises(ToolkitError, match="it is a link"):
        list(metrics.read(link))
    with pytest.raises(ToolkitError, match="it is a link"):
        metrics.cut(link, 1)
    assert list(metrics.read(path)) == ROWS
