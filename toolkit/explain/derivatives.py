"""Derivatives by an input, on each backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

Array = np.ndarray[Any, Any]


def value_and_gradient(
    function: Callable[..., Any], variables: Sequence[Any] = ()
) -> Callable[..., tuple[Array, Array]]:
    """What computes `function` and its gradient by the first argument; the other arguments are held fixed.

    Args:
        function: of a float tensor, and of any others, written in `keras.ops` and layers. It gives one number, or one
            for each row, `(n,)`, that depends on its own row alone: the gradient is that of their sum.
        variables: what it reads beside its arguments. On JAX others are constants of the compiled function, and what
            they were when it was made may be gone after a `predict`.

    Returns:
        A function of arrays that gives the values of `function` and a gradient of the first argument's shape. JAX
        compiles it once for each shape, so call the same one again rather than making another.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        compute = _jax(function, variables)
    else:
        compute = (_tensorflow if backend == "tensorflow" else _torch)(function)

    def on_arrays(*arguments: Any) -> tuple[Array, Array]:
        values, gradient = compute(*map(ops.convert_to_tensor, arguments))
        return ops.convert_to_numpy(values), ops.convert_to_numpy(gradient)

    return on_arrays


def _tensorflow(function: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    import tensorflow as tf

    def compute(at: Any, *others: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(at)
            values = function(at, *others)
        # Of values of any shape TensorFlow gives the gradient of their sum.
        return values, tape.gradient(values, at, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    traced: Callable[..., tuple[Any, Any]] = tf.function(compute, reduce_retracing=True)
    return traced


def _jax(function: Callable[..., Any], variables: Sequence[Any]) -> Callable[..., tuple[Any, Any]]:
    import jax

    def total(at: Any, known: Sequence[Any], *others: Any) -> tuple[Any, Any]:
        with keras.StatelessScope(state_mapping=list(zip(variables, known, strict=True))):
            values = function(at, *others)
        return ops.sum(values), values

    differentiated = jax.jit(jax.value_and_grad(total, has_aux=True))

    def compute(at: Any, *others: Any) -> tuple[Any, Any]:
        (_, values), gradient = differentiated(at, [variable.value for variable in variables], *others)
        return values, gradient

    return compute


def _torch(function: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    import torch

    def compute(at: Any, *others: Any) -> tuple[Any, Any]:
        at = at.detach().requires_grad_(True)
        with torch.enable_grad():
            values = function(at, *others)
        if not values.requires_grad:  # nothing in it depends on `at`, nor on any weight
            return values, torch.zeros_like(at)
        (gradient,) = torch.autograd.grad(values.sum(), at, allow_unused=True)
        return values.detach(), torch.zeros_like(at) if gradient is None else gradient

    return compute
