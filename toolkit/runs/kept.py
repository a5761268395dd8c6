"""The weights of the best epoch, which may be of a later one than the last checkpoint.

A run that is killed between the two goes on from the checkpoint, so what was best then must still be there: the file
that a new best takes the place of stays under another name until a checkpoint knows the new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.runs import arrays
from toolkit.runs.run import BEFORE, WEIGHTS

_EPOCH = "epoch"


def save(directory: Path, weights: Mapping[str, np.ndarray[Any, Any]], epoch: int) -> None:
    """Keep `weights` as those of the best epoch so far.

    Raises:
        RunFailed: they cannot be written (a full disk).
    """
    if (directory / WEIGHTS).exists() and not (directory / BEFORE).exists():
        (directory / WEIGHTS).rename(directory / BEFORE)
    arrays.save(directory / WEIGHTS, weights, about={_EPOCH: str(epoch)})


def settle(directory: Path) -> None:
    """A checkpoint knows the best epoch: those before are needed no more."""
    (directory / BEFORE).unlink(missing_ok=True)


def go_back(directory: Path, epoch: int | None) -> bool:
    """Bring back the weights of `epoch`, the best that a checkpoint knows; None where it knows none.

    Returns:
        Whether they are there. They are not where the checkpoint is older than the last that was written.
    """
    weights, before = directory / WEIGHTS, directory / BEFORE
    if epoch is None:
        weights.unlink(missing_ok=True)
    elif _epoch(weights) != str(epoch) and _epoch(before) == str(epoch):
        before.replace(weights)
    before.unlink(missing_ok=True)
    return epoch is None or _epoch(weights) == str(epoch)


def _epoch(path: Path) -> str | None:
    return arrays.about(path).get(_EPOCH) if path.exists() else None
