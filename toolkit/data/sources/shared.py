"""What sources have in common: paths that people mistype, class names in order, splits by share."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.data.examples import BadExample, Examples, shown
from toolkit.data.splits import SHARES, by_share
from toolkit.errors import ToolkitError, did_you_mean


def existing(path: str, key: str, *, folder: bool) -> Path:
    """The folder or file that `path` names, resolved.

    Raises:
        ToolkitError: there is none, or it is the other of the two.
    """
    found = Path(path).expanduser()
    word = "folder" if folder else "file"
    try:
        there = found.exists()
    except OSError as error:
        raise ToolkitError(f"{key}: {shown(path)} cannot be looked at ({error.strerror}): correct the path.") from error
    if not there:
        parent = found.parent
        siblings = [p.name for p in parent.iterdir()] if parent.is_dir() else []
        near = did_you_mean(found.name, siblings)
        absolute = "" if found.is_absolute() else f" (looked in {Path.cwd()})"
        raise ToolkitError(f"{key}: there is no {word} {found}{near}{absolute}: correct the path.")
    if found.is_dir() != folder:
        raise ToolkitError(f"{key}: {found} is a {'file' if folder else 'folder'}, not a {word}: give a {word}.")
    if not folder and not found.is_file():  # a pipe would be waited for, a device may never end
        raise ToolkitError(f"{key}: {found} is no regular file: write what it gives into a file, and name that.")
    return found.resolve()


def shares_to_cut(
    given: Mapping[str, float | None], present: Collection[str], *, split_seed: int, where: str
) -> dict[str, float]:
    """Shares of the splits that are not `present` and are cut from train, in the order in which they are dealt out.

    Raises:
        ToolkitError: a share is given for a split that is present, or a `split_seed` where nothing is cut.
    """
    for split, share in given.items():
        if share is not None and split in present:
            raise ToolkitError(f"data.{split} has no effect, since {where} has that split already: remove the key.")
    shares = {split: given[split] or SHARES[split] for split in ("test", "validation") if split not in present}
    if split_seed and not shares:
        raise ToolkitError(f"data.split_seed has no effect, since {where} has all splits already: remove the key.")
    return shares


def at_least_two(class_names: tuple[str, ...], where: str, advice: str) -> None:
    """Refuse a source with nothing to tell apart.

    Raises:
        ToolkitError: there are fewer than two classes.
    """
    if len(class_names) < 2:
        found = f"only the class '{class_names[0]}'" if class_names else "no class"
        raise ToolkitError(f"{where} has {found}, so there is nothing to tell apart: {advice}.")


def share_out(
    values: Sequence[Any],
    labels: Sequence[int] | Sequence[str],
    ids: Sequence[str],
    shares: Mapping[str, float],
    *,
    split_seed: int,
    class_names: Sequence[str],
    where: str,
    bad: tuple[BadExample, ...] = (),
) -> dict[str, Examples]:
    """Examples cut into "train" and one split per entry of `shares`; the bad ones count as train's.

    Without `class_names` the labels are transcripts, and all examples one stratum.

    Raises:
        ToolkitError: a class, or the whole, has too few examples.
    """
    import numpy as np

    numbers = np.asarray(labels, np.int64) if class_names else np.zeros(len(ids), np.int64)
    parts = by_share(ids, numbers, shares, split_seed=split_seed, class_names=class_names, where=where)
    return {
        name: Examples(
            values=[values[i] for i in positions],
            labels=numbers[positions] if class_names else [str(labels[i]) for i in positions],
            ids=[ids[i] for i in positions],
            bad=bad if name == "train" else (),
        )
        for name, positions in parts.items()
    }
