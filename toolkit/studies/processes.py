"""A verb in a process of its own, which a signal to this one ends cleanly."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from toolkit.studies import COMMAND
from toolkit.training.stop import StopSignal

POLL = 0.2  # seconds


@contextlib.contextmanager
def running(*arguments: str | Path, output: BinaryIO | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """`toolkit` with `arguments`; at the end of the block it is asked to stop, and waited for.

    Args:
        output: takes what it says; without it that goes where this process speaks.
    """
    # In a session of its own: Ctrl-C reaches this process alone, which then asks for a clean end.
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()


def until_over(process: subprocess.Popen[bytes], stop: StopSignal, where: str) -> Iterator[bool]:
    """False from time to time while the process runs, then True once.

    Raises:
        Stopped: a signal came; `where` follows "stopped by SIGTERM".
    """
    while process.poll() is None:
        yield False
        stop.leave_if_received(where)
        time.sleep(POLL)
    yield True


def sets(overrides: Sequence[str]) -> Iterator[str]:
    """`overrides` of a config as arguments."""
    for override in overrides:
        yield from ("--set", override)
