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
    from keras import ops

    from toolkit.explain.derivatives import value_and_gradient

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
    compute = value_and_gradient(
        lambda images, labels: ops.sparse_categorical_crossentropy(
            labels, ops.cast(floats(images, training=False), "float32"), from_logits=True
        ),
        floats.variables,
    )
    return lambda images, labels: compute(images, labels)[1]
