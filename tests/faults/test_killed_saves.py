"""SIGKILL within a save: the old or the new checkpoint is there, and no litter after the next start."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("step", [2, 3], ids=["same name", "new name"])
def test_a_kill_at_any_call_leaves_a_valid_checkpoint(tmp_path, keep, step):
    # In a process of its own: forking one in which TensorFlow runs would copy its threads' locks.
    command = [sys.executable, str(Path(__file__).parent / "kill_saves.py"), str(tmp_path), str(keep), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    passed, attempted = map(int, re.fullmatch(r"(\d+) of (\d+) passed\n", done.stdout).groups())
    assert attempted > 100
    assert passed == attempted
