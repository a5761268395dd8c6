"""A tree to a `RunConfig`: every section against the signature of the function it names, then the rules across keys."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Collection
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, Field, ValidationError

from toolkit import registry
from toolkit.config.compose import COMPONENTS, Way
from toolkit.config.explain import explain, unknown_key
from toolkit.config.nodes import Node, Problems, dotted
from toolkit.config.options import DataOptions, OptimizerOptions, Options, TrainingOptions
from toolkit.config.run_config import Component, DataConfig, OptimizerConfig, RunConfig
from toolkit.config.schema import arguments, keys, model_of
from toolkit.errors import did_you_mean
from toolkit.types import Seed

M = TypeVar("M", bound=BaseModel)

# Where a component stands, and the kind of its function in the registry.
KINDS: dict[Way, str] = {
    ("data",): "sources",
    ("model",): "models",
    ("optimizer",): "optimizers",
    ("optimizer", "schedule"): "schedules",
}


def _checked_name(name: str | None) -> str | None:
    if name is not None and not re.fullmatch(r"\w[\w.-]{0,199}", name):
        raise ValueError("a name has up to 200 letters, digits, '.', '_' and '-', and begins with a letter or digit")
    return name


class Head(Options):
    """The keys of a config that are no section."""

    name: Annotated[
        str | None,
        AfterValidator(_checked_name),
        Field(description="what runs are called; null: the file's name"),
    ] = None
    seed: Annotated[Seed, Field(description="seed of every random choice of the run")] = 0


TOP = ("extends", *Head.model_fields, "data", "model", "optimizer", "training")


def check(root: Node, name: str, problems: Problems) -> RunConfig:
    """The config that `root` describes, called `name` where it does not name itself.

    Raises:
        ToolkitError: all `problems`, those that were there before and those found here.
    """
    for key, node in root.value.items():
        if key not in TOP:
            unknown_key(node, dotted((key,)), list(TOP), problems)
    head = _validated(Head, root, (), Head.model_fields, problems)
    source, _ = _component(root, ("data",), problems)
    data = _options(DataOptions, root, ("data",), problems)
    model, _ = _component(root, ("model",), problems)
    optimizer, function = _component(root, ("optimizer",), problems)
    options = _options(OptimizerOptions, root, ("optimizer",), problems)
    schedule = _schedule(root, problems)
    training = _training(root, problems)
    if training and training.plateau and schedule:
        text = "the rate follows optimizer.schedule already: remove one of the two"
        problems.add(root.find(("training", "plateau"))[0].place, "training.plateau", text)
    if options is not None:
        _optimizer_rules(root.value["optimizer"], options, optimizer, function, problems)
    problems.raise_if_any()
    if not (head and source and data and model and optimizer and options and training):
        raise RuntimeError("a section could not be built, and no problem was told")
    return RunConfig(
        name=head.name or name,
        seed=head.seed,
        data=DataConfig(source, data),
        model=model,
        optimizer=OptimizerConfig(optimizer, schedule, options),
        training=training,
    )


def _validated(model: type[M], section: Node, way: Way, picked: Collection[str], problems: Problems) -> M | None:
    """The keys `picked` of a section as `model`; None where there is a problem."""
    share = dataclasses.replace(section, value={key: node for key, node in section.value.items() if key in picked})
    try:
        validated = model.model_validate_json(json.dumps(share.plain()), strict=True)
    except ValidationError as error:
        explain(error, model, share, way, problems)
        return None
    return None if any(node.is_broken() for node in share.value.values()) else validated


def _mapping(root: Node, way: Way, problems: Problems) -> Node | None:
    """The section at `way`; None, and a problem, where it is missing or no mapping."""
    node, found = root.find(way)
    if len(found) < len(way):
        wanted = f"the section is missing, needed: a mapping with at least the key {COMPONENTS[way][0]}"
        problems.add(root.place, dotted(way), wanted, missing=True)
        return None
    if node.is_broken():
        return None
    if not isinstance(node.value, dict):
        example = f" with the key {COMPONENTS[way][0]}" if way in COMPONENTS else ""
        problems.add(node.key_place, dotted(way), f"found {node.shown()}, allowed: a mapping{example}")
        return None
    return node


def _component(root: Node, way: Way, problems: Problems) -> tuple[Component | None, Callable[..., Any] | None]:
    """The component at `way` and its function; None for what cannot be had."""
    section = _mapping(root, way, problems)
    if section is None:
        return None, None
    selector, shared = COMPONENTS[way]
    name = _chosen(section, way, problems)
    if name is None:
        return None, None
    function = registry.resolve(KINDS[way], name)
    model = model_of(function)
    own = keys(model)
    clash = {selector, *shared} & set(own)
    if clash:
        raise TypeError(
            f"{function.__qualname__}: {', '.join(sorted(clash))} has a meaning of its own in {dotted(way)}"
        )
    for key, node in section.value.items():
        if key not in own and key not in shared and key != selector:
            unknown_key(node, dotted((*way, key)), [selector, *own, *sorted(shared)], problems)
    validated = _validated(model, section, way, own, problems)
    if validated is None:
        return None, function
    values = arguments(validated)
    for key, message in getattr(function, "check", lambda values: ())(values):
        place = section.find(key.split("."))[0].place
        problems.add(place, dotted((*way, key)), message)
    return Component(name, values), function


def _chosen(section: Node, way: Way, problems: Problems) -> str | None:
    """The name of a component, if it is registered."""
    selector = COMPONENTS[way][0]
    key, names = dotted((*way, selector)), registry.names(KINDS[way])
    node = section.value.get(selector)
    if node is None:
        needed = f"the key is missing, needed: one of {', '.join(names)}"
        problems.add(section.key_place, key, needed, missing=True)
    elif node.is_broken():
        pass
    elif not isinstance(node.value, str) or node.value not in names:
        near = did_you_mean(node.value, names) if isinstance(node.value, str) else ""
        problems.add(node.place, key, f"found {node.shown()}{near}, allowed: one of {', '.join(names)}")
    else:
        return node.value
    return None


def _options(model: type[M], root: Node, way: Way, problems: Problems) -> M | None:
    section = root.value.get(way[0])
    if section is None or not isinstance(section.value, dict):
        return None  # told by _component
    return _validated(model, section, way, model.model_fields, problems)


def _schedule(root: Node, problems: Problems) -> Component | None:
    node, found = root.find(("optimizer", "schedule"))
    if len(found) < 2 or (node.value is None and not node.broken):
        return None
    return _component(root, ("optimizer", "schedule"), problems)[0]


def _training(root: Node, problems: Problems) -> TrainingOptions | None:
    if "training" not in root.value:
        return TrainingOptions()
    section = _mapping(root, ("training",), problems)
    if section is None:
        return None
    return _validated(TrainingOptions, section, ("training",), section.value, problems)


def _optimizer_rules(
    section: Node,
    options: OptimizerOptions,
    component: Component | None,
    function: Callable[..., Any] | None,
    problems: Problems,
) -> None:
    """What no key can say alone."""
    for key in getattr(function, "needs_weight_decay", ()):
        given = (
            component and function and component.arguments[key] != inspect.signature(function).parameters[key].default
        )
        if given and not options.weight_decay:
            text = "has no effect without optimizer.weight_decay: set that, or remove this key"
            problems.add(section.value[key].place, f"optimizer.{key}", text)
    clips = [key for key in ("clipnorm", "clipvalue", "global_clipnorm") if getattr(options, key) is not None]
    for key in clips[1:]:
        text = f"only one way of clipping can be used, and optimizer.{clips[0]} is set already: remove one of the two"
        problems.add(section.value[key].place, f"optimizer.{key}", text)
    if not options.use_ema and options.ema_momentum != OptimizerOptions.model_fields["ema_momentum"].default:
        text = "has no effect without optimizer.use_ema: true; set that, or remove this key"
        problems.add(section.value["ema_momentum"].place, "optimizer.ema_momentum", text)
    steps = options.gradient_accumulation_steps
    if steps and steps > 1 and function and not getattr(function, "supports_accumulation", False):
        able = [name for name in registry.names("optimizers") if _accumulates(name)]
        name = section.value["name"].value
        text = f"{name} cannot finish an incomplete window: remove the key, or use one of {', '.join(able) or 'none'}"
        node = section.value["gradient_accumulation_steps"]
        problems.add(node.place, "optimizer.gradient_accumulation_steps", text)


def _accumulates(name: str) -> bool:
    return bool(getattr(registry.resolve("optimizers", name), "supports_accumulation", False))
