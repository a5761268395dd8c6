import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.text import Text

from toolkit.errors import RunFailed, ToolkitError
from toolkit.runs import metrics, record, run
from toolkit.runs.run import Run


def test_a_folder_of_its_own_is_made_for_each_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Run.create("mnist_cnn") as first, Run.create("mnist_cnn") as second:
        assert first.directory != second.directory
        assert first.directory.parent == tmp_path / "runs"
        assert re.fullmatch(r"mnist_cnn-\d{8}-\d{6}-[0-9a-f]{4}", first.directory.name)


def test_a_run_is_never_overwritten(tmp_path):
    with Run.create("x", tmp_path / "run") as first:
        first.write(run.CONFIG, "seed: 0\n")
        first.write(run.RECORD, "{}")
    with pytest.raises(ToolkitError, match=r"holds a run already \(config\.yaml"):
        Run.create("x", tmp_path / "run")
    assert (tmp_path / "run" / run.CONFIG).read_text() == "seed: 0\n"


def test_a_run_that_never_began_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), Run.create("x", tmp_path / "run") as started:
        started.say("about to fail")
        raise ZeroDivisionError
    assert not (tmp_path / "run").exists()


def test_a_run_that_never_began_leaves_what_was_there_before(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ZeroDivisionError), Run.create("x", tmp_path):
        raise ZeroDivisionError
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_that_broke_off_keeps_what_it_had(tmp_path):
    with pytest.raises(ZeroDivisionError), Run.create("x", tmp_path / "run") as started:
        started.write(run.RECORD, "{}")
        metrics.append(started.path("metrics.jsonl"), {"kind": "step", "loss": 1.5})
        raise ZeroDivisionError
    assert json.loads((tmp_path / "run" / run.METRICS).read_text()) == {"kind": "step", "loss": 1.5}


def test_what_a_start_left_that_was_killed_is_no_run(tmp_path):
    for name in (run.SPEC, run.DUPLICATES, run.BAD_EXAMPLES, run.CONFIG, run.LOG):
        (tmp_path / name).write_text("left")
    with Run.create("x", tmp_path) as started:
        assert {path.name for path in tmp_path.iterdir()} == {run.LOG, run.LOCK}
        started.write(run.RECORD, "{}")


@pytest.mark.parametrize(
    "names", [(run.CONFIG,), (run.SPEC, run.RECORD), (run.SPEC, run.WEIGHTS), (run.SPEC, "curves.png")]
)
def test_what_may_be_a_persons_own_or_a_run_is_left_alone(tmp_path, names):
    for name in names:
        (tmp_path / name).write_text("mine")
    with pytest.raises(ToolkitError, match="holds a run already"):
        Run.create("x", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names)


def test_lists_of_an_attempt_before_do_not_stay(tmp_path):
    (tmp_path / run.BAD_EXAMPLES).write_text("of an attempt above the budget")
    with Run.create("x", tmp_path) as started:
        started.write_bad_examples([])
        started.write_duplicates({("train", "test"): ()})
        assert not (tmp_path / run.BAD_EXAMPLES).exists()
        started.write_duplicates({("train", "test"): ("a,\x1b.png",)})
        assert (tmp_path / run.DUPLICATES).read_text().splitlines()[1] == r'test,"a,\x1b.png",train'
        started.write(run.RECORD, "{}")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
def test_a_full_disk_silences_the_log_and_is_told_by_what_must_be_written(tmp_path, capsys):
    with Run.create("x", tmp_path / "run") as started:
        started.write(run.RECORD, "{}")
        started._log.close()
        started._log = started._log_console.file = Path("/dev/full").open("w")  # noqa: SIM115 - the run closes it
        started.say("a line")
        with pytest.raises(
            RunFailed, match=r"none/x could not be written .*: it needs 4 bytes, and .* are free; make room"
        ):
            started.write("none/x", "text")
    assert "a line" in capsys.readouterr().out


def test_one_owner_at_a_time_across_processes(tmp_path):
    code = f"""
from pathlib import Path
from toolkit.errors import RunFailed, ToolkitError
from toolkit.runs.run import Run
try:
    Run.create("x", Path({str(tmp_path / "run")!r}))
except ToolkitError as error:
    print(error)
"""
    with Run.create("x", tmp_path / "run"):
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert "is in use by process" in told
    assert not (tmp_path / "run" / run.LOCK).exists()


def test_a_dead_owners_lock_is_taken_over(tmp_path):
    (tmp_path / run.LOCK).write_text("process 1 on nowhere")  # the file stayed, the lock on it died with its owner
    with Run.create("x", tmp_path) as taken:
        assert taken.directory == tmp_path


def test_what_is_said_stands_in_the_log_as_it_was_said(tmp_path, capsys):
    with Run.create("x", tmp_path / "run") as started:
        started.write(run.RECORD, "{}")
        started.say("class [red] of /a/very/long/" + "path/" * 40, Text("styled"))
    log = (tmp_path / "run" / run.LOG).read_text()
    assert log == "class [red] of /a/very/long/" + "path/" * 40 + "\nstyled\n"
    assert "[red]" in capsys.readouterr().out


def test_what_speaks_to_terminals_is_shown_as_text(tmp_path, capsys):
    with Run.create("x", tmp_path / "run") as started:
        started.write(run.RECORD, "{}")
        started.say("left out: \x1b]0;title\x07.png\nnext line")
    for shown in (capsys.readouterr().out, (tmp_path / "run" / run.LOG).read_text()):
        assert shown.splitlines()[-2:] == [r"left out: \x1b]0;title\x07.png", "next line"]


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ToolkitError, match="cannot be written"):
        Run.create("x", tmp_path / "file" / "run")


@pytest.mark.parametrize("missing", [run.CONFIG, run.SPEC, run.WEIGHTS])
def test_only_a_trained_run_passes_the_check(tmp_path, missing):
    for name in {run.CONFIG, run.SPEC, run.WEIGHTS} - {missing}:
        (tmp_path / name).write_text("")
    with pytest.raises(ToolkitError, match=f"{missing} is missing"):
        run.check(tmp_path)
    with pytest.raises(ToolkitError, match="there is no run directory"):
        run.check(tmp_path / "nowhere")


def test_the_record_tells_versions_command_and_machine():
    told = record.environment()
    assert told["versions"]["keras"].startswith("3.")
    assert told["command"] == sys.argv
    assert told["machine"]["cores"] >= 1
    json.dumps(told)


def test_a_commit_is_dirty_where_code_was_changed_and_not_where_documents_were(tmp_path):
    def git(*arguments):
        who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
        return subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    assert record.commit(tmp_path) is None
    git("init", "--quiet")
    assert record.commit(tmp_path) is None
    for name in ("toolkit/a.py", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("one")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    clean = record.commit(tmp_path)
    assert clean == git("rev-parse", "HEAD")[:12]
    (tmp_path / "README.md").write_text("two")
    (tmp_path / "notes.md").write_text("")
    assert record.commit(tmp_path) == clean
    (tmp_path / "toolkit" / "b.py").write_text("")
    assert record.commit(tmp_path) == f"{clean}-dirty"


def test_runs_starts_without_keras():
    code = (
        "import sys, toolkit.runs.run, toolkit.runs.arrays, toolkit.runs.record; "
        "print('keras' in sys.modules or 'tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
