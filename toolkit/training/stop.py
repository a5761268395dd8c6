"""SIGTERM, Ctrl-C and a terminal that hangs up: a training stops at the end of its call, with a checkpoint."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from toolkit.errors import ToolkitError

_ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Stopped(ToolkitError):
    """A signal stopped the training, and a checkpoint has it all. The exit code is the shell's for that signal."""

    def __init__(self, text: str, received: int) -> None:
        super().__init__(text)
        self.received = received
        self.exit_code = 128 + received


class StopSignal:
    """The signal that came, if one did."""

    def __init__(self) -> None:
        self.received: int | None = None

    def take(self, number: int, frame: Any) -> None:
        """The handler: the first signal is kept for the loop, a second ends the process at once."""
        if self.received is not None:
            os._exit(128 + number)
        self.received = number

    def leave_if_received(self, where: str) -> None:
        """Raises `Stopped` where a signal came: "stopped by SIGTERM", then `where`."""
        if self.received is not None:
            raise Stopped(f"stopped by {signal.Signals(self.received).name} {where}", self.received)


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignal]:
    """Within the block signals that ask to stop are only taken down; in another thread than the main one they are not.

    One that is ignored from the start stays so: `nohup` asks for that.
    """
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    heeded = [number for number in _ASKING if signal.getsignal(number) != signal.SIG_IGN]
    earlier = {number: signal.signal(number, stop.take) for number in heeded}
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
