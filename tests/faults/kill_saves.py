"""Kill a process at every call into the operating system within a save. Run by `test_killed_saves.py`, without Keras.

python tests/faults/kill_saves.py FOLDER KEEP STEP
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np

from toolkit.runs import arrays, checkpoints

MODULES = ("posix", "_io", "io", "safetensors_rust", "safetensors._safetensors_rust")


def save(folder: Path, step: int, keep: int) -> None:
    values = {"kernel": np.full((300, 10), step, dtype="float32"), "iterations": np.array(step)}
    checkpoints.save(folder, f"step-{step:08d}", values, {"step": step}, keep=keep)


def killed(folder: Path, step: int, keep: int, at: int) -> bool:
    """Save in a forked process that is killed before its call number `at`; whether it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def profile(frame: object, event: str, argument: object) -> None:
            nonlocal count
            module = getattr(argument, "__module__", None) or type(getattr(argument, "__self__", None)).__module__
            if event == "c_call" and module in MODULES:
                count += 1
                if count == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(profile)
        save(folder, step, keep)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"the save failed before call {at}")
    return False


def is_whole(folder: Path, step: int) -> bool:
    """Whether the old or the new checkpoint is found, without a complaint and without litter."""
    said: list[str] = []
    found = checkpoints.newest(folder, report=said.append)
    assert found is not None
    right = found.state["step"] in (2, step) and found.arrays["kernel"][0, 0] == found.state["step"]
    litter = [entry.name for entry in folder.iterdir() if not entry.name.startswith("step-")]
    return bool(right and not said and not litter)


def main() -> None:
    place, keep, step = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    arrays.unwritable()  # imports what a save needs, so that imports are not counted
    passed = attempted = 0
    was_killed = True
    while was_killed:
        attempted += 1
        folder = place / str(attempted)
        for earlier in (1, 2):
            save(folder, earlier, keep)
        was_killed = killed(folder, step, keep, attempted)
        whole = is_whole(folder, step)
        save(folder, 4, keep)  # and the run can go on
        passed += whole and checkpoints.names(folder)[-1] == "step-00000004"
    print(f"{passed} of {attempted} passed")


if __name__ == "__main__":
    main()
