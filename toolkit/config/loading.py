"""Reading configs: from a file, from a run directory."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.config.check import check
from toolkit.config.compose import compose
from toolkit.config.nodes import Node, Place, Problems
from toolkit.config.reader import MAX_BYTES, MAX_VALUES, Unreadable, is_regular
from toolkit.config.run_config import RunConfig
from toolkit.config.shipped import find_config
from toolkit.errors import ToolkitError

CONFIG_FILE = "config.yaml"


def load(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), values: Mapping[str, Node] | None = None
) -> RunConfig:
    """The config of a YAML file, checked and complete.

    Args:
        path: of the file.
        overrides: values that win over it, `optimizer.learning_rate=3e-4`, in the order given.
        values: of another file, by their dotted keys; they win over both, and a message names their place there.

    Raises:
        ToolkitError: everything that is wrong with file and overrides, one line per problem.
    """
    path = Path(path)
    problems = Problems()
    try:
        root = compose(path, overrides, problems, values)
    except Unreadable:
        problems.raise_if_any()
        raise  # never: an Unreadable has noted its problem
    config = check(root, _name(path), problems)
    if len(config.to_yaml().encode()) > MAX_BYTES or _values(config.to_dict()) > MAX_VALUES:
        found = f"with every default the config has more than {MAX_BYTES // 1024} KiB or {MAX_VALUES} values"
        problems.add(Place(os.fspath(path)), "", f"{found}: make its lists and texts shorter")
        problems.raise_if_any()
    return config


def valid_configs(given: Sequence[str]) -> Iterator[Path]:
    """Each of `given`, paths or names of shipped configs, that is valid; then the problems of the others.

    Raises:
        ToolkitError: all problems of all files, once the valid ones have been given.
    """
    errors = []
    for text in given:
        try:
            path = find_config(text)
            load(path)
        except ToolkitError as error:
            errors.append(str(error))
        else:
            yield path
    if errors:
        raise ToolkitError("\n".join(errors))


def load_run(run_dir: str | os.PathLike[str]) -> RunConfig:
    """The config that a run was started with.

    Raises:
        ToolkitError: `run_dir` holds no run, or its config has been damaged.
    """
    path = Path(run_dir) / CONFIG_FILE
    if not is_regular(path):  # a pipe would never end
        raise ToolkitError(f"{os.fspath(run_dir)} holds no run ({CONFIG_FILE} is missing): give a run directory.")
    return load(path)


def _values(tree: Any) -> int:
    """How many `reader` counts: a run's own config must be read back, and it has more of them than its source."""
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return 1 + sum(map(_values, inner))


def _name(path: Path) -> str:
    """The stem of `path` as a name that directories can carry too."""
    return re.sub(r"[^\w.-]+", "-", path.stem).lstrip(".-")[:200] or "config"
