"""Code in a process of its own, with limits: what it used, and what it did that a reader of data must not do."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

_START = """
import json, os, resource, sys, time
import warnings
warnings.simplefilter("error")
if {address_space}:
    resource.setrlimit(resource.RLIMIT_AS, ({address_space}, {address_space}))
answer = {{}}
"""
_WATCH = """
opened, events = set(), []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        opened.add(os.path.realpath(os.fsdecode(arguments[0])))
    elif event.split(".")[0] in ("subprocess", "socket", "ctypes", "pty") or event in (
        "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pickle.find_class",
    ):
        events.append(f"{event} {str(arguments)[:200]}")
sys.addaudithook(watch)
"""
_END = """
answer["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
answer["seconds"] = time.monotonic() - began
print("\\n" + json.dumps(answer))
"""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the code put into `answer`, its highest memory in bytes above that of its imports, and its time."""

    found: dict[str, Any]
    peak: int
    seconds: float


def run(
    before: str, code: str, *, timeout: float, address_space: int = 0, watched: bool = False, folder: Path | None = None
) -> Answer:
    """Run `code`, which fills the dictionary `answer`, after the imports in `before`.

    Args:
        timeout: seconds, after which the process is killed and the test fails.
        address_space: limit in bytes (RLIMIT_AS), 0 for none.
        watched: put files that were opened into `answer["opened"]`, other doings into `answer["events"]`.
    """
    text = "".join(
        [
            _START.format(address_space=address_space),
            textwrap.dedent(before),
            _WATCH if watched else "",
            "\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nbegan = time.monotonic()\n",
            textwrap.dedent(code),
            '\nanswer["opened"], answer["events"] = sorted(opened), events[:]\n' if watched else "",
            '\nanswer["before"] = before * (1 if sys.platform == "darwin" else 1024)\n',
            _END,
        ]
    )
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=timeout, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    return Answer(found, found["peak"] - found["before"], found["seconds"])
