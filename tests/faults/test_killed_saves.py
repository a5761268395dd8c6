"""SIGKILL at every call into the operating system within a save: the old or the new checkpoint is there, and no litter.

The save runs in a forked process, in which a profiler counts calls of C functions of `posix`, of files and of
safetensors, and kills the process before the n-th.
"""

import os
import signal
import sys

import numpy as np
import pytest

from toolkit.runs import arrays, checkpoints  # noqa: F401 - imported before the fork, so that imports are not counted

MODULES = ("posix", "_io", "io", "safetensors_rust", "safetensors._safetensors_rust")


def save(folder, step, keep):
    values = {"kernel": np.full((300, 10), step, dtype="float32"), "iterations": np.array(step)}
    checkpoints.save(folder, f"step-{step:08d}", values, {"step": step}, keep=keep)


def killed(folder, step, keep, at):
    """Save in a process that is killed before its call number `at`; whether it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def profile(frame, event, argument):
            nonlocal count
            if event != "c_call":
                return
            owner = getattr(argument, "__self__", None)
            module = getattr(argument, "__module__", None) or type(owner).__module__
            if module in MODULES:
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(profile)
        save(folder, step, keep)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("step", [2, 3], ids=["same name", "new name"])
def test_a_kill_at_any_call_leaves_a_valid_checkpoint(tmp_path, keep, step):
    passed = attempted = 0
    for at in range(1, 1000):
        folder = tmp_path / str(at)
        for earlier in (1, 2):
            save(folder, earlier, keep)
        was_killed = killed(folder, step, keep, at)
        said = []
        found = checkpoints.newest(folder, report=said.append)
        attempted += 1
        good = found.state["step"] in (2, step) and found.arrays["kernel"][0, 0] == found.state["step"]
        litter = [entry.name for entry in folder.iterdir() if not entry.name.startswith("step-")]
        passed += good and not said and not litter
        save(folder, 4, keep)  # and the run can go on
        assert checkpoints.newest(folder, report=said.append).state["step"] == 4
        if not was_killed:
            break
    assert attempted > 20
    assert passed == attempted, f"{passed} of {attempted} passed"
