"""A model's weights as named arrays, and back.

A name is the layer's name, the attributes that lead from the layer to the part that holds the weight, and the weight's
own name: `stem_conv/kernel`, `recurrent1/forward_layer/cell/bias`. It is the same on every backend and whatever the
process built before; Keras's `variable.path` and its numbered default names are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from toolkit.errors import ToolkitError

if TYPE_CHECKING:
    import keras
    import numpy as np

_SHOWN = 5  # faults named in a message


def get_arrays(model: keras.Model) -> dict[str, np.ndarray[Any, Any]]:
    """Every weight of `model`, trained or not (seeds of random layers are none), by name."""
    from keras import ops

    return {name: ops.convert_to_numpy(variable.value) for name, variable in named_variables(model).items()}


def set_arrays(
    model: keras.Model, arrays: Mapping[str, np.ndarray[Any, Any]], *, where: str, partial: bool = False
) -> list[str]:
    """Give `model` the weights that `get_arrays` read.

    Args:
        where: the arrays come from, for messages.
        partial: take what fits in name and shape, leave the rest as it is.

    Returns:
        The names of the model's weights that were left as they are.

    Raises:
        ToolkitError: a weight is missing, left over, of another shape or type, or NaN; with `partial`, if none fits.
            The model is unchanged then.
    """
    shapes = {name: value.shape for name, value in arrays.items()}
    variables, fitting = named_variables(model), fitting_names(model, shapes, where=where, partial=partial)
    for name in fitting:
        _check_numbers(name, arrays[name], variables[name], where)
    for name in fitting:
        variables[name].assign(arrays[name])
    return [name for name in variables if name not in fitting]


def fitting_names(
    model: keras.Model, shapes: Mapping[str, tuple[int, ...]], *, where: str, partial: bool = False
) -> list[str]:
    """The names of `shapes` that `model` has weights of the same shape for: what to read from a file.

    Raises:
        ToolkitError: as `set_arrays`, of names and shapes.
    """
    variables = named_variables(model)
    missing = [name for name in variables if name not in shapes]
    extra = [_shorten(name) for name in shapes if name not in variables]
    fitting = [name for name in variables if name in shapes and tuple(shapes[name]) == tuple(variables[name].shape)]
    misshapen = [
        f"{name} ({_shorten(str(tuple(shapes[name])))} for {tuple(variable.shape)})"
        for name, variable in variables.items()
        if name in shapes and name not in fitting
    ]
    if not partial and (missing or extra or misshapen):
        faults = [("lacks", missing), ("has too much", extra), ("has in another shape", misshapen)]
        told = "; ".join(f"{verb} {_some(names)}" for verb, names in faults if names)
        raise ToolkitError(
            f"the weights in {where} do not fit the model: it {told}; use the config that they were trained with."
        )
    if partial and not fitting:
        raise ToolkitError(
            f"none of the weights in {where} fits the model, which has {_some(list(variables))}: use weights of a "
            f"model with layers of the same names and shapes."
        )
    return fitting


def _check_numbers(name: str, value: np.ndarray[Any, Any], variable: Any, where: str) -> None:
    """Refuse what Keras would cast without a word, and NaN, which spreads to every answer.

    Infinity stays: a mask may hold it, and answers that are not finite are refused where they come up.
    """
    import keras
    import numpy as np

    floating = keras.backend.is_float_dtype(variable.dtype)
    if floating != keras.backend.is_float_dtype(value.dtype.name) or value.dtype.kind == "c":
        raise ToolkitError(
            f"the weights in {where} have {name} as {value.dtype.name}, but it is {variable.dtype} in the model: use "
            "weights that train wrote."
        )
    if floating and np.isnan(value).any():
        raise ToolkitError(f"the weights in {where} hold NaN in {name}: use those of a training that went well.")


def named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """The weights of `model` by name, in the order of its layers."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for name, variable in _walk(model, ""):
        if id(variable) not in seen:  # a shared layer or weight keeps its first name
            seen.add(id(variable))
            found[name] = variable
    return found


def named_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """The layers of a graph by what the names of their weights begin with; none of a model that is no graph."""
    import keras

    if not isinstance(model, (keras.Sequential, keras.Function)):
        return {}
    return dict(zip(_unique(_stable_name(layer) for layer in model.layers), model.layers, strict=True))


def _walk(layer: Any, route: str) -> Iterator[tuple[str, Any]]:
    """Names and variables of a layer: its own (with those of parts that no attribute leads to), then its parts'."""
    parts = list(_parts(layer))
    inner = {id(variable) for _, part in parts for variable in part.weights}
    own = [variable for variable in layer.weights if id(variable) not in inner]
    names = _unique(re.sub(r"^variable_\d+$", "variable", variable.name) for variable in own)
    yield from ((f"{route}{name}", variable) for name, variable in zip(names, own, strict=True))
    for name, part in parts:
        yield from _walk(part, f"{route}{name}/")


def _parts(layer: Any) -> Iterator[tuple[str, Any]]:
    """The layers within a layer, named: in a model by their own names, elsewhere by the attribute they are in."""
    import keras

    seen: set[int] = {id(layer)}
    if isinstance(layer, (keras.Sequential, keras.Function)):  # a functional model is a Function
        yield from named_layers(layer).items()
        seen.update(id(part) for part in layer.layers)
    for name, value in sorted(_attributes(layer).items()):
        for route, part in _layers_in(name, value):
            if id(part) not in seen and part.weights:
                seen.add(id(part))
                yield route, part


def _attributes(layer: Any) -> dict[str, Any]:
    """What the constructor, `build` and the person put into the layer; not what every layer has."""
    import keras

    plain = vars(keras.Model() if isinstance(layer, keras.Model) else keras.layers.Layer())
    own = {**vars(layer), **vars(layer).get("_modules", {})}  # torch keeps a module's modules apart
    # TensorFlow keeps a list of its own of what it tracks, under _self_.
    return {name: value for name, value in own.items() if name not in plain and not name.startswith("_self_")}


def _layers_in(route: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The layers in an attribute: itself, or in lists, tuples and dictionaries."""
    import keras

    if isinstance(value, keras.layers.Layer):
        yield route, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _layers_in(f"{route}/{key}", item)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _layers_in(f"{route}/{i}", item)


def _stable_name(layer: Any) -> str:
    """The layer's name, without the number that Keras appends to a default name: it counts what the process built."""
    # As Keras makes default names: Conv2D is conv2d, BatchNormalization batch_normalization.
    snake = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", type(layer).__name__))
    snake = re.sub(r"([a-z])([A-Z])", r"\1_\2", snake).lower()
    return snake if re.fullmatch(rf"{re.escape(snake)}_\d+", layer.name) else str(layer.name)


def _unique(names: Iterator[str]) -> list[str]:
    """Repeated names get _1, _2 … in order."""
    counts: dict[str, int] = {}
    result = []
    for name in names:
        counts[name] = counts.get(name, -1) + 1
        result.append(f"{name}_{counts[name]}" if counts[name] else name)
    return result


def _shorten(text: str) -> str:
    """What a file says, for a message: nothing in it may speak to a terminal."""
    plain = text if text.isprintable() else ascii(text)[1:-1]
    return plain if len(plain) <= 80 else f"{plain[:79]}…"


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
