"""Which example stands in which split, by selections or by shares of each class.

Nothing here reads data: a source brings counts, ids and labels, and gets positions back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolkit.data.selections import Slice, matches, parse_slices, shown, tokens
from toolkit.errors import ToolkitError, did_you_mean

if TYPE_CHECKING:
    import numpy as np

    Positions = np.ndarray[Any, np.dtype[np.int64]]


def refuse(problems: Sequence[tuple[str, str]]) -> None:
    """Raise what a source's `check` found, for callers that come without a config.

    Raises:
        ToolkitError: there is a problem.
    """
    if problems:
        raise ToolkitError("; ".join(f"data.{key}: {text}" for key, text in problems) + ".")


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Different names, sorted: by value where all are whole numbers, else by text."""
    unique = set(names)
    if all(name.isascii() and name.isdecimal() for name in unique):
        return tuple(sorted(unique, key=lambda name: (int(name), name)))
    return tuple(sorted(unique))


# Selections ---------------------------------------------------------------------------------------------------------


def select(selector: Mapping[str, Any], records: Sequence[Mapping[str, str]], where: str) -> Positions:
    """Positions of the records whose fields have the wanted values, all of them.

    Raises:
        ToolkitError: there is no such field, or a value that no record has.
    """
    import numpy as np

    known = records[0].keys()
    chosen = np.ones(len(records), bool)
    for field, wanted in selector.items():
        if field not in known:
            near = did_you_mean(field, known)
            raise ToolkitError(f"{where}: there is no field '{field}'{near}: use {', '.join(known)}.")
        texts = [record[field] for record in records]
        found = in_order(texts)
        accepted: set[str] = set()
        for token in tokens(field, wanted):
            matching = {text for text in found if matches(token, text)}
            if not matching:
                value = f"{token.start}-{token.stop - 1}" if isinstance(token, range) else str(token)
                listed = ", ".join(found[:20]) + (", …" if len(found) > 20 else "")
                near = did_you_mean(value, found)
                raise ToolkitError(f"{where}: no example has {field} '{value}'{near}: there are {listed}.")
            accepted |= matching
        chosen &= np.array([text in accepted for text in texts])
    if not chosen.any():
        raise ToolkitError(
            f"{where}: no example has all of {shown(selector)}: choose fields and values that occur together."
        )
    return np.flatnonzero(chosen)


def assign(
    selections: Mapping[str, Any],
    counts: Mapping[str, int],
    records: Mapping[str, Sequence[Mapping[str, str]]],
    where: str,
) -> dict[str, dict[str, Positions]]:
    """Positions of each of our splits in the splits of the dataset: selectors first, slices cut what they leave.

    Args:
        selections: per split of ours, an expression or a selector.
        counts: examples in each split of the dataset.
        records: fields of each example, of the one split that selectors choose from; empty without selectors.
        where: the dataset, for messages.

    Raises:
        ToolkitError: an unknown split, bounds outside, an empty part, or two that share examples.
    """
    import numpy as np

    taken: dict[str, dict[str, Positions]] = {}
    left = {split: np.arange(count) for split, count in counts.items()}
    for name, selection in selections.items():
        if isinstance(selection, Mapping):
            ((split, rows),) = records.items()
            taken[name] = {split: select(selection, rows, f"data.{name} of {where}")}
    for parts in taken.values():
        for split, positions in parts.items():
            left[split] = np.setdiff1d(left[split], positions, assume_unique=True)
    for name, selection in selections.items():
        if isinstance(selection, str):
            taken[name] = _cut(selection, left, f"data.{name}: '{selection}' of {where}")
    _refuse_overlaps(taken, selections, where)
    return {name: taken[name] for name in selections}


def _cut(expression: str, left: Mapping[str, Positions], where: str) -> dict[str, Positions]:
    import numpy as np

    parts: dict[str, list[Positions]] = {}
    for part in _without_all(parse_slices(expression), left):
        if part.split not in left:
            raise ToolkitError(
                f"{where}: there is no split '{part.split}'{did_you_mean(part.split, left)}: it has {', '.join(left)}; "
                f"cut other parts from them, for instance '{next(iter(left))}[90%:]'."
            )
        try:
            start, stop = part.bounds(len(left[part.split]))
        except ValueError as error:
            raise ToolkitError(f"{where}: {error}: move the bounds inside, or write them in percents.") from error
        if start >= stop:
            raise ToolkitError(f"{where} holds no example (of {len(left[part.split])}): widen it.")
        parts.setdefault(part.split, []).append(left[part.split][start:stop])
    return {split: np.sort(np.concatenate(pieces)) for split, pieces in parts.items()}


def _without_all(parts: Sequence[Slice], splits: Mapping[str, Any]) -> list[Slice]:
    """`all`, TFDS's word for every split, spelled out."""
    spelled: list[Slice] = []
    for part in parts:
        every = part == Slice("all") and "all" not in splits
        spelled += [Slice(split) for split in splits] if every else [part]
    return spelled


def _refuse_overlaps(taken: Mapping[str, Mapping[str, Positions]], selections: Mapping[str, Any], where: str) -> None:
    import numpy as np

    names = [name for name in selections if name in taken]
    for i, name in enumerate(names):
        for split, positions in taken[name].items():
            if len(np.unique(positions)) < len(positions):
                raise ToolkitError(
                    f"data.{name}: '{selections[name]}' of {where} takes examples of '{split}' twice: cut it anew."
                )
            for earlier in names[:i]:
                shared = len(np.intersect1d(positions, taken[earlier].get(split, []), assume_unique=True))
                if shared:
                    both = " and ".join(f"data.{part} ({shown(selections[part])})" for part in (earlier, name))
                    raise ToolkitError(
                        f"{both} share {shared} examples of '{split}' of {where}: cut them so that none is in both."
                    )


# Shares -------------------------------------------------------------------------------------------------------------


SHARES = {"validation": 0.1, "test": 0.2}
"""What is cut from the examples where nothing else is said."""


def check_shares(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with `validation` and `test` of a source that splits by shares: (key, what is wrong)."""
    shares = {key: SHARES[key] if arguments[key] is None else arguments[key] for key in SHARES}
    found = [
        (key, f"{key} is 0, so there would be no {key} split: write a share above 0, for instance 0.1")
        for key, share in shares.items()
        if share == 0
    ]
    if sum(shares.values()) >= 1:
        both = f"validation {shares['validation']} and test {shares['test']}"
        found.append(("test", f"{both} together leave nothing to train with: their sum must be below 1"))
    return found


def by_share(
    ids: Sequence[str],
    labels: Positions,
    shares: Mapping[str, float],
    *,
    split_seed: int,
    class_names: Sequence[str],
    where: str,
) -> dict[str, Positions]:
    """A stratified split by hash: within each class, examples are ranked by sha256 of seed and id and dealt out.

    Without `class_names` all examples are one stratum, and `labels` are all 0.

    The first of `shares` gets the first ranks, the next the following, "train" the rest; so the split of an example
    depends neither on the order of the examples nor on other classes. Each share is rounded per class to whole
    examples (a half up), one at least.

    Raises:
        ToolkitError: a class, or the whole, has fewer examples than there are splits.
    """
    import numpy as np

    parts: dict[str, list[Positions]] = {name: [] for name in ("train", *shares)}
    strata = max(len(class_names), 1)
    counts = np.bincount(labels, minlength=strata)
    if not class_names and len(ids) < len(parts):
        raise ToolkitError(
            f"{where} holds {len(ids)} examples that can be used, but needs at least {len(parts)}, one for each of "
            f"{', '.join(parts)}: add some."
        )
    few = [f"'{name}' ({count})" for name, count in zip(class_names, counts, strict=False) if count < len(parts)]
    if few:
        raise ToolkitError(
            f"{where}: each class needs at least {len(parts)} examples, one for each of {', '.join(parts)}, but "
            f"{', '.join(few[:10])}{' …' if len(few) > 10 else ''} has fewer: add examples or take the class out."
        )
    ranks = np.array([hashlib.sha256(f"{split_seed}\0{name}".encode()).hexdigest() for name in ids])
    for label in range(strata):
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(ranks[members], kind="stable")]
        done = 0
        for name, size in _sizes(len(members), shares).items():
            parts[name].append(members[done : done + size])
            done += size
        parts["train"].append(members[done:])
    return {name: np.sort(np.concatenate(pieces)) for name, pieces in parts.items()}


def _sizes(count: int, shares: Mapping[str, float]) -> dict[str, int]:
    sizes = {name: max(1, int(count * share + 0.5)) for name, share in shares.items()}
    while sum(sizes.values()) >= count:  # rounding up left nothing to train with: only in classes of a few examples
        sizes[max(sizes, key=lambda name: sizes[name])] -= 1
    return sizes
