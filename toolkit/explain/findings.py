"""What is said about a config before its training: a verdict for each thing that was looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from toolkit.runs.trust import shown

if TYPE_CHECKING:
    from toolkit.config import RunConfig
    from toolkit.data.load import Data
    from toolkit.explain.copies import Copies
    from toolkit.explain.trial import ByHeart, Pace, Start

Level = Literal["ok", "note", "wrong"]

MOST_COPIES = 0.02
"""Of a split's examples, those that may stand in an earlier split before its figures are wrong."""
RARE = 0.2
"""A class is rare with less than this part of what it would have if all had the same."""
HIGH_START = 3
"""Times the loss of a model that knows nothing: above it a loss at the start is no chance of small batches."""
MUCH_WAITING = 0.2
"""Of a step's time, that may be spent waiting for data."""
MUCH_MEMORY = 0.8
"""Of the memory there is for this process, that its peak may take."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the verdict.

    Attributes:
        level: `ok`, `note` (true, and worth knowing) or `wrong` (mend it before you train).
        about: what was looked at, in a word or two.
        text: what was found.
        advice: what to do about it; empty where all is well.
    """

    level: Level
    about: str
    text: str
    advice: str = ""


def of_copies(data: Data, found: Sequence[Copies]) -> Iterator[Finding]:
    """Between splits and within each."""
    between = [copies for copies in found if copies.first != copies.second]
    for copies in filter(len, between):
        share = len(copies) / len(data.splits[copies.second])
        text = f"{len(copies):,} of {copies.second} ({100 * share:.2f} %) also stand in {copies.first}{_copied(copies)}"
        advice = f"remove them from {copies.first}, or bear in mind that they flatter the figures of {copies.second}"
        yield Finding("wrong" if share > MOST_COPIES else "note", "copies", text, advice)
    if not any(map(len, between)):
        yield Finding("ok", "copies", "no example of one split stands in another, neither exactly nor nearly")
    within = [copies for copies in found if copies.first == copies.second and len(copies)]
    for copies in within:
        text = f"{len(copies):,} of {copies.first} stand in it before{_copied(copies)}"
        yield Finding("note", "copies", text, "remove them where nothing should count twice")
    if not within:
        yield Finding("ok", "copies", "no example stands in its own split twice")


def _copied(copies: Copies) -> str:
    """How exactly, and which."""
    kinds = {"exactly": len(copies.exact), "nearly": len(copies.near), "with another label": copies.contradicting}
    counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
    named = listed([f"{id} as {earlier}" for id, earlier in (*copies.exact, *copies.near)], most=2)
    return f" ({counts}): {named}"


def of_classes(data: Data) -> Iterator[Finding]:
    """Labels of each split; transcripts have no classes."""
    if data.spec.task != "classification":
        return
    names = data.spec.class_names
    well = True
    for split in data.splits.values():
        counts = np.bincount(split.labels, minlength=len(names))
        missing = [name for name, count in zip(names, counts, strict=True) if not count]
        few = RARE * len(split) / len(names)
        rare = [f"{name} ({count:,})" for name, count in zip(names, counts, strict=True) if 0 < count < few]
        if missing:
            level: Level = "wrong" if split.name == "train" else "note"
            effect = "the model cannot learn it" if split.name == "train" else "nothing is measured of it"
            advice = f"give {split.name} examples of each: {effect} otherwise"
            yield Finding(level, "classes", f"{split.name} has no example of {listed(missing)}", advice)
        if rare:
            advice = "gather more, or try training.class_weights: balanced and read the recall of each class"
            yield Finding("note", "classes", f"{split.name} has few examples of {listed(rare)}", advice)
        well = well and not missing and not rare
    if well:
        yield Finding("ok", "classes", f"all {len(names):,} are in every split, none is rare")


def of_start(data: Data, start: Start) -> Finding:
    """Against the loss of guessing."""
    classes = len(data.spec.class_names)
    blind = f"ln({classes})" if classes else "that of a model which finds all labels alike"
    text = f"the loss is {start.loss:.3g} before the first step; {blind} is {start.blind:.3g}"
    if not start.loss < float("inf"):
        advice = "look at the contact sheet for inputs beyond all measure, and at the model's first layers"
        return Finding("wrong", "start", text, advice)
    if start.loss > HIGH_START * start.blind:
        advice = "scale inputs to about 1, and start the last layer with smaller weights"
        return Finding("note", "start", text, advice)
    return Finding("ok", "start", text)


def of_heart(config: RunConfig, heart: ByHeart) -> Iterator[Finding]:
    """Whether it was learnt, and what got no gradient meanwhile."""
    text = f"in {heart.steps} steps on one batch alone the loss went from {heart.first:.3g} to {heart.last:.3g}"
    if not heart.steps:
        advice = "nothing can be learnt before one does"
        yield Finding("wrong", "one batch", "no step can be made, because no weight gets a gradient", advice)
    elif heart.learnt:
        yield Finding("ok", "one batch", f"learnt by heart: {text}")
    elif heart.ended or not heart.last < float("inf"):
        advice = "the model cannot even learn these by heart: look for what keeps labels or gradients from it"
        yield Finding("wrong", "one batch", text, advice)
    else:
        advice = f"after {heart.seconds:.0f} s the time was up: it may need more steps than could be made"
        yield Finding("note", "one batch", text, advice)
    if heart.unmoved:
        advice = "see what cuts them off: a stop-gradient, a layer that no output depends on, an activation that is 0"
        yield Finding("wrong", "gradients", f"no gradient reaches {listed(heart.unmoved)}", advice)
    else:
        frozen = f", {len(config.training.freeze)} layers are frozen" if config.training.freeze else ""
        yield Finding("ok", "gradients", f"every weight that is trained gets one{frozen}")


def of_pace(config: RunConfig, steps: int, pace: Pace) -> Iterator[Finding]:
    """A step, and from it the whole training, of so many `steps` in an epoch."""
    step = f"{1000 * pace.step:.3g} ms, mean of {pace.steps}"
    if pace.waiting is None:
        yield Finding("ok", "a step", f"{step}; with training.deterministic nothing tells how much of it is waiting")
    else:
        share = min(pace.waiting / pace.step, 1.0)
        text = f"{step}: {100 * share:.0f} % waiting for data, {100 - 100 * share:.0f} % computing"
        if share > MUCH_WAITING:
            advice = "use less data.augmentation, keep decoded examples with data.cache: memory, or take a faster disk"
            yield Finding("note", "a step", text, advice)
        else:
            yield Finding("ok", "a step", text)
    epochs = config.training.epochs
    total = pace.compiling + epochs * (steps * pace.step + pace.validation)
    passes = f"{epochs} epoch{'' if epochs == 1 else 's'} of {steps:,} steps"
    fewer = ", or fewer" if config.training.early_stopping else ""
    text = f"about {_duration(total)}: {passes} and {_duration(pace.validation)} of validation{fewer}"
    yield Finding("ok", "training", text)


def of_memory(peak: int, room: int) -> Finding:
    """Bytes at the peak, and that there are."""
    text = f"{peak / 2**30:.1f} GiB at the peak of this check, of {room / 2**30:.1f} GiB that there are for it"
    if peak > MUCH_MEMORY * room:
        return Finding("note", "memory", text, "set data.cache: disk, or a smaller data.batch_size or data.image_size")
    return Finding("ok", "memory", text)


def listed(names: Sequence[str], *, most: int = 3) -> str:
    """The first of them, and how many there are more."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return shown(", ".join(names[:most])) + more


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "less than a second"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
