"""Whether a run may go on: what must be as it was, and what is only told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from toolkit.errors import ToolkitError
from toolkit.runs import trust
from toolkit.runs.run import RECORD

# Keys of a config that may change without changing what was trained so far.
FREE = (
    "name",
    "data.cache",
    "training.epochs",
    "training.checkpoint",
    "training.on_non_finite",
    "training.max_skipped",
    "optimizer.schedule.total_steps",
)
# Those whose `auto` the run has settled.
SETTLED = ("training.precision", "training.jit")
# Those that may change the last digits.
TOLD = ("training.threads",)


def identity(config: Mapping[str, Any], fingerprints: Mapping[str, str]) -> str:
    """A hash of all that must stay: the config but for what is `FREE` or `TOLD`, and the data."""
    fixed = {key: value for key, value in flat(config).items() if not _is(key, FREE + TOLD)}
    return hashlib.sha256(json.dumps([fixed, dict(fingerprints)], sort_keys=True).encode()).hexdigest()


def refuse_other_config(before: Mapping[str, Any], now: Mapping[str, Any], directory: Path) -> list[str]:
    """What differs and is only told.

    Raises:
        ToolkitError: something differs that must not; it names each key with both values.
    """
    was, is_ = flat(before), flat(now)
    is_ |= {key: was.get(key) for key in SETTLED if is_.get(key) == "auto"}
    keys = [key for key in {**was, **is_} if was.get(key) != is_.get(key) and not _is(key, FREE)]
    told = [f"{key} was {was.get(key)!r}, is {is_.get(key)!r}" for key in keys if _is(key, TOLD)]
    refused = [f"{key} was {was.get(key)!r}, is {is_.get(key)!r}" for key in keys if not _is(key, TOLD)]
    if refused:
        raise ToolkitError(
            f"the run in {directory} cannot go on with another config ({'; '.join(refused)}): put it back, or start a "
            "run of its own without --resume."
        )
    return told


def refuse_other_data(before: Mapping[str, str], now: Mapping[str, str], directory: Path) -> None:
    """Raises ToolkitError where a split has another fingerprint than it had."""
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed:
        parts = "; ".join(f"{name} was {before.get(name, '')[:12]}, is {now.get(name, '')[:12]}" for name in changed)
        raise ToolkitError(
            f"the run in {directory} cannot go on with other data (fingerprints: {parts}): bring back the data as it "
            "was, or start a run of its own without --resume."
        )


def refuse_nothing_to_do(epochs: int, record: Mapping[str, Any], directory: Path) -> None:
    """Raises ToolkitError where the run is finished and `epochs` adds nothing to it."""
    if record.get("state") != "finished":
        return
    done = f"the run in {directory} is finished"
    if record.get("limit") is not None:
        raise ToolkitError(f"{done}, a smoke run of {record['limit']} steps: start one without --steps.")
    if record.get("stopped_early"):
        raise ToolkitError(
            f"{done}, stopped early after {record['epochs']} epochs: start a run of its own with another "
            "training.early_stopping."
        )
    if epochs <= int(record["epochs"]):
        raise ToolkitError(f"{done}, after {record['epochs']} epochs: to train more, raise training.epochs.")


def other_environment(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs in versions, commit and machine, each in a few words."""
    names = ("commit", "python", "versions", "machine")
    was, is_ = (flat({name: record.get(name) for name in names}) for record in (before, now))
    return [
        f"{key} was {was.get(key)}, is {is_.get(key)}"
        for key in {**was, **is_}
        if was.get(key) != is_.get(key) and key != "machine.memory_gib"
    ]


def newest_unfinished(folder: Path, is_same: Callable[[Path], bool]) -> Path | None:
    """The run in `folder` that began last among those that `is_same` and are not finished; None without one."""
    found = []
    for path in folder.glob(f"*/{RECORD}"):
        try:
            record = trust.read_record(path)
        except ToolkitError:
            continue  # of a run that cannot go on
        is_smoke = record.get("limit") is not None  # whoever asks for the config's training does not mean it
        if record.get("state") != "finished" and not is_smoke and is_same(path.parent):
            found.append((str(record.get("started")), path.parent))
    return max(found)[1] if found else None


def _is(key: str, keys: tuple[str, ...]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in keys)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of nested mappings by their path: `training.checkpoint.keep`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value
    return found
