"""Errors that speak to the person at the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ToolkitError(Exception):
    """A wrong request, told in one sentence: what is wrong, where, and what to do.

    The command line prints the text without a traceback and exits with `exit_code`.
    Any other exception is a bug of the toolkit and keeps its traceback.
    """

    exit_code = 2


class RunFailed(ToolkitError):
    """The request was right, but the run could not be finished (a non-finite loss, a full disk …)."""

    exit_code = 1


class Diverged(RunFailed):
    """A loss or gradient became NaN or infinite, or the validation loss did."""


def did_you_mean(wrong: str, valid: Iterable[str]) -> str:
    """The phrase " (did you mean 'x'?)" for a near miss of one of `valid`, else an empty string."""
    near = difflib.get_close_matches(str(wrong), list(valid), n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""
