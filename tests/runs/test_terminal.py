"""What people read, where they may leave."""

import io
import os
import sys

import pytest

from toolkit.runs.terminal import console


def test_what_is_said_is_read(capsys):
    console().print("one", "two")
    assert capsys.readouterr().out == "one two\n"


@pytest.fixture
def replace_stdout(monkeypatch):
    return lambda stream: monkeypatch.setattr(sys, "stdout", stream)


def test_a_closed_pipe_is_no_error(replace_stdout):
    end, other = os.pipe()
    stream = open(other, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - a descriptor, closed below
    replace_stdout(stream)
    talk = console()
    talk.print("first")
    assert os.read(end, 100) == b"first\n"
    os.close(end)
    for _ in range(3):
        talk.print("nobody reads this")
    stream.write("nor this")
    stream.close()  # as Python does at its end, where an error would give another exit code


def test_no_standard_output_is_no_error(replace_stdout):
    replace_stdout(None)
    talk = console()
    talk.print("nobody reads this")
    assert not talk.is_terminal


class HungUp(io.StringIO):
    """A terminal whose window was closed."""

    def isatty(self):
        return True

    def flush(self):
        raise OSError(5, "Input/output error")


def test_a_terminal_that_hung_up_is_none(replace_stdout, tmp_path):
    stream = HungUp()
    replace_stdout(stream)
    talk = console()
    assert talk.is_terminal
    talk.print("nobody reads this")
    assert not talk.is_terminal


def test_under_a_progress_bar_prints_go_above_it(replace_stdout):
    """rich leads `sys.stdout` to the bar's console meanwhile, which must not come back to itself."""
    from rich.progress import Progress

    stream = io.StringIO()
    stream.isatty = lambda: True
    replace_stdout(stream)
    with Progress(console=console()):
        print("above")
    assert "above" in stream.getvalue()
