"""Changes of pictures that are made against the model: by the gradient of its loss at the picture.

ε is in grey levels, 1/255 of full brightness: no value of the picture moves by more. It is a whole number, and so is
every value of a picture, so what comes out can be rounded to a real picture without leaving the ball of radius ε. FGSM
needs no rounding; of PGD each value moves by half a level at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from toolkit.errors import ToolkitError
from toolkit.explain.robustness.change import Array

Gradient = Callable[[Array, Array], Array]
"""From pictures, float32 in 0..255, and their labels to how the sum of the losses changes with each value."""

NAMES = ("fgsm", "pgd")
PGD_STEPS = 10
_REACH = 2.5
"""How many ε all steps of PGD go together: enough to get from one side of the ball to the other."""


def fgsm(gradient: Gradient, images: Array, labels: Array, epsilon: int) -> Array:
    """Fast gradient sign method: ε in the direction in which the loss rises (Goodfellow et al., arXiv:1412.6572)."""
    start = images.astype(np.float32)
    changed: Array = np.clip(start + epsilon * np.sign(gradient(start, labels)), 0, 255)
    return changed.astype(np.uint8)


def pgd(
    gradient: Gradient, images: Array, labels: Array, epsilon: int, randoms: Sequence[np.random.Generator]
) -> Array:
    """Projected gradient descent from a random point of the ball (Madry et al., arXiv:1706.06083), ten steps of ε/4."""
    start = images.astype(np.float32)
    low, high = np.maximum(start - epsilon, 0), np.minimum(start + epsilon, 255)
    away = [random.uniform(-epsilon, epsilon, images.shape[1:]) for random in randoms]
    changed = np.clip(start + np.stack(away).astype(np.float32), low, high)
    step = _REACH * epsilon / PGD_STEPS
    for _ in range(PGD_STEPS):
        changed = np.clip(changed + step * np.sign(gradient(changed, labels)), low, high)
    return np.rint(changed).astype(np.uint8)


def gradient_of(model: Any) -> Gradient:
    """The gradient of the cross-entropy at pictures in floats; the model's weights stay as they are.

    Raises:
        ToolkitError: the model is no graph of layers, so that its input cannot be made one of floats.
    """
    import keras

    if not isinstance(model, keras.Function):
        raise ToolkitError(
            f"--changes has {' and '.join(NAMES)}, but {type(model).__name__} is no functional Keras model, whose "
            "input could take floats: name other changes."
        )
    entry = keras.Input(model.inputs[0].shape[1:], dtype="float32", name=model.inputs[0].name)
    # The layers are the model's own: only what stands before the first of them, the cast to uint8, is gone.
    cloned = keras.models.clone_model(
        model, input_tensors=keras.tree.pack_sequence_as(model.input, [entry]), clone_function=lambda layer: layer
    )
    floats = keras.Model(entry, cloned.output)
    return {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()](floats)


def _loss(logits: Any, labels: Any) -> Any:
    from keras import ops

    losses = ops.sparse_categorical_crossentropy(labels, ops.cast(logits, "float32"), from_logits=True)
    return ops.sum(losses)


def _tensorflow(model: Any) -> Gradient:
    import tensorflow as tf

    def compute(images: Any, labels: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            loss = _loss(model(images, training=False), labels)
        return tape.gradient(loss, images)

    compiled = tf.function(compute)
    return lambda images, labels: np.asarray(compiled(tf.constant(images), tf.constant(labels)))


def _jax(model: Any) -> Gradient:
    import jax

    def compute(images: Any, states: Any, labels: Any) -> Any:
        logits, _ = model.stateless_call(*states, images, training=False)
        return _loss(logits, labels)

    def values() -> Any:  # read at each call: a prediction between two gives the variables other buffers
        return tuple([v.value for v in group] for group in (model.trainable_variables, model.non_trainable_variables))

    compiled = jax.jit(jax.grad(compute))
    return lambda images, labels: np.asarray(compiled(images, values(), labels))


def _torch(model: Any) -> Gradient:
    import torch
    from keras import ops

    def compute(images: Array, labels: Array) -> Array:
        values = ops.convert_to_tensor(images).requires_grad_(True)
        loss = _loss(model(values, training=False), ops.convert_to_tensor(labels))
        (gradient,) = torch.autograd.grad(loss, values)
        array: Array = ops.convert_to_numpy(gradient)
        return array

    return compute
