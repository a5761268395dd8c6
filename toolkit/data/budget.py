"""A bound on what threads hold at the same time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Budget:
    """Lets threads in while what they hold together stays within `limit`; one that needs more goes alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def take(self, amount: int) -> Iterator[None]:
        """Wait until there is room for `amount`, and hold it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + amount <= self._limit)
            self._taken += amount
        try:
            yield
        finally:
            with self._changed:
                self._taken -= amount
                self._changed.notify_all()
