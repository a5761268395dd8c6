"""The graph of a model's layers: found, read at any tensor, and cut in two."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from toolkit.errors import ToolkitError
from toolkit.models.layers.log_mel import LogMel
from toolkit.models.layers.masked import StridedConvolution, UtteranceNormalization
from toolkit.models.layers.word_pairs import WordPairs

Array = np.ndarray[Any, Any]
Inputs = Mapping[str, Array]

# What makes another number of each of a convolution's numbers, in its place.
_ELEMENTWISE = (layers.BatchNormalization, layers.Activation, layers.ReLU, layers.LeakyReLU, layers.PReLU, layers.ELU)


def check(model: Any) -> None:
    """Refuse what has no graph to look into.

    Raises:
        ToolkitError: the model is a class of its own, not made of layers by Keras's functional API or `Sequential`.
    """
    if not isinstance(model, keras.Sequential | keras.Function):
        raise ToolkitError(
            f"the model is a {type(model).__name__}, whose layers make no graph that can be looked into: build it with "
            "keras.Model(inputs, outputs) or keras.Sequential."
        )


def in_order(model: Any, inputs: Inputs) -> list[Any]:
    """The arrays of a batch as tensors, in the order of `model.inputs`."""
    given = model.inputs if isinstance(model, keras.Sequential) else model.input
    if isinstance(given, dict):
        names = {id(tensor): name for name, tensor in given.items()}
        return [ops.convert_to_tensor(inputs[names[id(tensor)]]) for tensor in model.inputs]
    if len(model.inputs) == 1:
        return [ops.convert_to_tensor(next(iter(inputs.values())))]
    return [ops.convert_to_tensor(inputs[tensor.name]) for tensor in model.inputs]


def reader(model: Any, tensors: Sequence[Any]) -> Callable[[Inputs], list[Array]]:
    """What gives, for a batch, the values of `tensors` of the graph, without dropout."""
    inner = keras.Model(model.inputs, list(tensors))

    def read(inputs: Inputs) -> list[Array]:
        found = inner(in_order(model, inputs), training=False)
        return [ops.convert_to_numpy(value) for value in keras.tree.flatten(found)]

    return read


def rest(model: Any, tensors: Sequence[Any]) -> Callable[..., Any]:
    """The model from tensors of its graph on: (list of their values, *the inputs in order) → the output."""
    inner = keras.Model([*tensors, *model.inputs], model.outputs)
    return lambda values, *inputs: keras.tree.flatten(inner([*values, *inputs], training=False))[0]


def convolutions(model: Any) -> list[Any]:
    """The layers that convolve pictures, from the input on."""
    return [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]


def activated(model: Any, convolution: Any) -> Any:
    """The layer that gives a convolution's maps as later ones see them: after its normalisation and activation."""
    layer = convolution
    while True:
        after = list(_consumers(model, layer.output))
        if len(after) != 1 or not isinstance(after[0], _ELEMENTWISE):
            return layer
        layer = after[0]


def first_float(model: Any) -> Any | None:
    """The first tensor of the graph that is no whole number, and so has a derivative: pixels after their scaling."""
    for layer in model.layers:
        for tensor in keras.tree.flatten(layer.output):
            if not isinstance(layer, layers.InputLayer) and keras.backend.is_float_dtype(tensor.dtype):
                return tensor
    return None


def pixels(model: Any, shape: Sequence[int | None]) -> Any | None:
    """`first_float` where it still has the shape of a picture, else None."""
    tensor = first_float(model)
    if tensor is None or len(tensor.shape[1:]) != len(shape):
        return None
    fits = all(found in (None, side) for found, side in zip(tensor.shape[1:], shape, strict=True))
    return tensor if fits else None


def embedded(model: Any) -> list[Any]:
    """The vectors of the tokens, of each embedding `(batch, time, width)`; those of pairs are not among them."""
    pairs = paired(model)
    return [layer.output for layer in model.layers if isinstance(layer, layers.Embedding) and layer.output is not pairs]


def paired(model: Any) -> Any | None:
    """The vectors of pairs of neighbouring tokens, `(batch, time, width)`."""
    for layer in model.layers:
        if isinstance(layer, WordPairs):
            return next(_consumers(model, layer.output[0])).output
    return None


def attentions(model: Any) -> list[Any]:
    """The layers in which places look at one another."""
    return [layer for layer in model.layers if isinstance(layer, layers.MultiHeadAttention)]


def attention_scores(model: Any, layer: Any) -> Callable[[Inputs], Array]:
    """What gives a batch's attention, `(batch, heads, queries, keys)`, each row of which sums to 1.

    Computed again by the layer itself from the values that go into it, since its output does not hold them.
    """
    call = layer._inbound_nodes[0].arguments  # Keras tells nowhere else which tensor is the mask
    structure = [list(call.args), dict(call.kwargs)]
    tensors = [part for part in keras.tree.flatten(structure) if isinstance(part, keras.KerasTensor)]
    read = reader(model, tensors)

    def scores(inputs: Inputs) -> Array:
        values = iter(read(inputs))
        args, kwargs = keras.tree.map_structure(
            lambda part: ops.convert_to_tensor(next(values)) if isinstance(part, keras.KerasTensor) else part, structure
        )
        _, found = layer(*args, **{**kwargs, "return_attention_scores": True, "training": False})
        return np.asarray(ops.convert_to_numpy(found), np.float32)

    return scores


def log_mel(model: Any) -> Any:
    """The layer that makes frames of a waveform; None where there is none."""
    found = [layer for layer in model.layers if isinstance(layer, LogMel)]
    return found[0] if found else None


def features(model: Any) -> tuple[Any, Any]:
    """Frames `(batch, frames, mels)` as the layers after `log_mel` see them, and their mask `(batch, frames)`."""
    frames, valid = log_mel(model).output
    normalized = [layer for layer in _consumers(model, frames) if isinstance(layer, UtteranceNormalization)]
    return (normalized[0].output if normalized else frames), valid


def stride(model: Any, before: int, after: int) -> int:
    """How many of `before` steps there are to each of `after`, which the model has made of them."""
    known = math.prod(layer.stride for layer in model.layers if isinstance(layer, StridedConvolution))
    return known if -(-before // known) == after else max(1, round(before / after))


def _consumers(model: Any, tensor: Any) -> Iterator[Any]:
    for layer in model.layers:
        if any(given is tensor for given in keras.tree.flatten(layer.input)):
            yield layer
