"""What a sweep may choose from: a YAML file of config keys and ranges, every bound of it checked against the config."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.config import RunConfig, load
from toolkit.config.explain import unknown_key
from toolkit.config.nodes import Node, Problems
from toolkit.config.reader import Unreadable, read_file
from toolkit.config.writer import inline
from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    from optuna.trial import Trial

KINDS = ("log", "uniform", "int", "choice")
_WANTED = (
    "a mapping from keys of the config to ranges, as in optimizer.learning_rate: {log: [1e-4, 1e-1]}, "
    "{uniform: [low, high]}, {int: [low, high]} or {choice: [one, other]}"
)
_RATE = "optimizer.learning_rate"


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One key of a space.

    Attributes:
        kind: one of `KINDS`; log and uniform draw numbers, int whole ones, both bounds among them.
        nodes: the two bounds, or the choices, with their places in the file.
    """

    key: str
    kind: str
    nodes: tuple[Node, ...]

    @property
    def values(self) -> list[Any]:
        """The bounds; of a choice the texts, in YAML, since a choice may also be a list."""
        plain = [node.plain() for node in self.nodes]
        return [inline(value) for value in plain] if self.kind == "choice" else plain

    def draw(self, trial: Trial) -> None:
        """Let the sampler choose, or take what was chosen for `trial` before."""
        if self.kind == "choice":
            trial.suggest_categorical(self.key, self.values)
        elif self.kind == "int":
            trial.suggest_int(self.key, *self.values)
        else:
            trial.suggest_float(self.key, *self.values, log=self.kind == "log")

    def override(self, value: Any) -> str:
        """`KEY=VALUE`, as `--set` takes it, of a value that was drawn."""
        return f"{self.key}={value if self.kind == 'choice' else inline(value)}"

    def samples(self) -> Iterator[Node]:
        """What is checked: each choice, or the bounds in the type that is drawn (8.0 is no whole number)."""
        for node in self.nodes:
            is_number = self.kind in ("log", "uniform")
            yield dataclasses.replace(node, value=float(node.value), text=str(float(node.value))) if is_number else node


@dataclasses.dataclass(frozen=True)
class Space:
    """A config and what is chosen for it.

    Attributes:
        config: its file.
        overrides: of the config, as `--set` takes them.
        base: the config without what is chosen.
        epochs: the most that a trial may have.
    """

    config: Path
    overrides: tuple[str, ...]
    base: RunConfig
    dimensions: tuple[Dimension, ...]
    epochs: int

    @property
    def metric(self) -> str:
        """What chooses."""
        return self.base.training.best_metric

    def settings(self, params: Mapping[str, Any]) -> list[str]:
        """All overrides of the trial for which `params` were drawn."""
        return [*self.overrides, *(dim.override(params[dim.key]) for dim in self.dimensions)]

    def plain(self) -> dict[str, Any]:
        """The ranges in plain values."""
        return {dim.key: {dim.kind: dim.values} for dim in self.dimensions}


def read_space(path: Path, config: Path, overrides: Sequence[str] = ()) -> Space:
    """The space of a file, for a config that is valid with every value that is checked.

    Raises:
        ToolkitError: everything that is wrong with the config or with the space, one line per problem.
    """
    base = load(config, overrides)
    if not base.training.best_metric.startswith("val_"):
        raise ToolkitError(
            f"training.best_metric is {base.training.best_metric}, which is measured on the training part, but the "
            "validation part chooses: use val_loss or val_accuracy."
        )
    problems = Problems()
    try:
        root = read_file(path, problems, wanted=_WANTED)
    except Unreadable:
        problems.raise_if_any()
        raise  # never: an Unreadable has noted its problem
    if not root.value:
        problems.add(root.place, "", f"the space is empty, needed: {_WANTED}")
    found = [_dimension(key, node, base, problems) for key, node in root.value.items()]
    problems.raise_if_any()
    dimensions = tuple(dim for dim in found if dim)
    configs = _checked(config, overrides, dimensions)
    return Space(config, tuple(overrides), base, dimensions, max(each.training.epochs for each in configs))


def _dimension(key: str, node: Node, base: RunConfig, problems: Problems) -> Dimension | None:
    """One entry of the file; None where there is a problem."""
    if node.is_broken():
        return None
    if key == "extends":
        problems.add(node.key_place, key, "only a config can extend a file: remove it")
        return None
    metric = base.training.best_metric
    if key == "training.best_metric" or (key == "training.label_smoothing" and metric == "val_loss"):
        other = "it stays the same" if key == "training.best_metric" else "use training.best_metric=val_accuracy"
        problems.add(node.key_place, key, f"the trials are compared by {metric}, whose meaning this changes: {other}")
        return None
    if not isinstance(node.value, dict) or len(node.value) != 1:
        allowed = "one of {log: [low, high]}, {uniform: [low, high]}, {int: [low, high]}, {choice: [one, other]}"
        problems.add(node.place, key, f"found {node.shown()}, allowed: {allowed}")
        return None
    ((kind, given),) = node.value.items()
    if given.is_broken():
        return None
    if kind not in KINDS:
        unknown_key(given, f"{key}.{kind}", list(KINDS), problems)
        return None
    entries = given.value if isinstance(given.value, list) else []
    fault = _choice_fault(entries) if kind == "choice" else _range_fault(kind, entries)
    zero = [entry for entry in entries if key == _RATE and entry.value == 0]
    if fault:
        problems.add(given.place, f"{key}.{kind}", f"found {given.shown()}, allowed: {fault}")
    elif zero:
        problems.add(zero[0].place, key, "found a rate of 0, at which nothing is learnt, allowed: a number above 0")
    else:
        return Dimension(key, kind, tuple(entries))
    return None


def _choice_fault(entries: Sequence[Node]) -> str:
    """What a choice should be, where it is not; else empty."""
    different = {inline(entry.plain()) for entry in entries}
    return "" if len(different) == len(entries) >= 2 else "a list of two or more different values"


def _range_fault(kind: str, entries: Sequence[Node]) -> str:
    """What a range should be, where it is not; else empty."""
    values = [entry.value for entry in entries]
    type_ = int if kind == "int" else int | float
    if (
        len(values) != 2
        or any(isinstance(value, bool) or not isinstance(value, type_) or not math.isfinite(value) for value in values)
        or not values[0] < values[1]
    ):
        return f"two {'whole ' if kind == 'int' else ''}numbers, [low, high], the first below the second"
    return "two numbers above 0: there is no logarithm of others" if kind == "log" and values[0] <= 0 else ""


def _checked(config: Path, overrides: Sequence[str], dimensions: Sequence[Dimension]) -> list[RunConfig]:
    """The config with each value that is checked, the other keys at their first.

    Raises:
        ToolkitError: it cannot have one of them.
    """
    first = {dim.key: next(dim.samples()) for dim in dimensions}
    configs, lines = [], []
    for dim in dimensions:
        for node in dim.samples():
            try:
                configs.append(load(config, overrides, {**first, dim.key: node}))
            except ToolkitError as error:
                lines += str(error).splitlines()
    if lines:
        raise ToolkitError("\n".join(dict.fromkeys(lines)))
    return configs
