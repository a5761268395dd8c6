"""What a checked config is: frozen, complete, every default filled in."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from toolkit import registry
from toolkit.config.options import DataOptions, OptimizerOptions, TrainingOptions
from toolkit.config.writer import to_text


@dataclasses.dataclass(frozen=True)
class Component:
    """A registered function by name, with all its keyword arguments; lists are tuples, mappings read-only."""

    name: str
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", _frozen(self.arguments))

    def __reduce__(self) -> tuple[type[Component], tuple[str, Any]]:
        return Component, (self.name, _plain(self.arguments))  # read-only mappings cannot be pickled themselves


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The section `data`."""

    source: Component
    options: DataOptions


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The section `optimizer`."""

    optimizer: Component
    schedule: Component | None
    options: OptimizerOptions


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole config. `name` is the stem of its file, or what the file's own key `name` says."""

    name: str
    seed: int
    data: DataConfig
    model: Component
    optimizer: OptimizerConfig
    training: TrainingOptions

    def to_dict(self, *, defaults: bool = True) -> dict[str, Any]:
        """The layout of the YAML file, complete, in plain values (no tuples: what JSON knows).

        Without `defaults` what is as the signatures and options have it by default is left out.
        """

        def options(section: BaseModel) -> dict[str, Any]:
            return section.model_dump(mode="json", exclude_defaults=not defaults)

        def arguments(kind: str, component: Component) -> dict[str, Any]:
            given: dict[str, Any] = _plain(component.arguments)
            if defaults:
                return given
            signature = inspect.signature(registry.resolve(kind, component.name)).parameters
            usual = {name: _plain(one.default) for name, one in signature.items()}
            return {name: value for name, value in given.items() if name not in usual or usual[name] != value}

        schedule = self.optimizer.schedule
        return {
            "name": self.name,
            "seed": self.seed,
            "data": {
                "source": self.data.source.name,
                **arguments("sources", self.data.source),
                **options(self.data.options),
            },
            "model": {"name": self.model.name, **arguments("models", self.model)},
            "optimizer": {
                "name": self.optimizer.optimizer.name,
                **arguments("optimizers", self.optimizer.optimizer),
                "schedule": schedule and {"name": schedule.name, **arguments("schedules", schedule)},
                **options(self.optimizer.options),
            },
            "training": options(self.training),
        }

    def to_yaml(self) -> str:
        """YAML that `load` reads back to an equal config, whatever the environment variables."""
        return to_text(self.to_dict())


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return MappingProxyType({key: _frozen(entry) for key, entry in value.items()})
    return tuple(_frozen(entry) for entry in value) if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
