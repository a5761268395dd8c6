"""Norms of the gradients and shares of zero activations in one training step, without taking it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from toolkit.models.weights import named_layers
from toolkit.optimizers.kernels import Rows, kernel

Probe = Callable[[Any, Any], tuple[np.ndarray[Any, Any], dict[str, float]]]


def make_probe(model: keras.Model, class_weights: Mapping[int, float] | None, element_spec: Any) -> Probe:
    """A function of inputs and labels, as tf.data gives them in batches of `element_spec`.

    It gives the norm of the loss's gradient in each trainable weight, and for each layer that ends in ReLU the share of
    zeros in what it gives. Weights and seeds are those that the model has; whatever a step changes (statistics, seeds,
    metrics, torch's generator) stays as it is. Layers are found where the model is a graph, on its first level.
    """
    made: Any = {"tensorflow": _TensorFlow, "jax": _Jax, "torch": _Torch}[keras.backend.backend()](model, element_spec)

    def probe(inputs: Any, labels: Any) -> tuple[np.ndarray[Any, Any], dict[str, float]]:
        batch = [inputs, labels]
        if class_weights:
            batch.append(np.array([class_weights.get(label, 1.0) for label in labels.numpy().tolist()], "float32"))
        norms, zeros = made(*made.convert(batch))
        shares = zip(made.names, ops.convert_to_numpy(zeros), strict=True)
        return ops.convert_to_numpy(norms), {name: float(share) for name, share in shares}

    return probe


class _Probe:
    """What the backends share: the way from a batch to loss and zeros."""

    def __init__(self, model: keras.Model, element_spec: Any) -> None:
        self.model, self.weights = model, model.trainable_variables
        layers = {name: layer for name, layer in named_layers(model).items() if _ends_in_relu(layer)}
        self.names = list(layers)
        self.run = model
        if layers:
            start = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
            self.run = keras.Model(start, [model.outputs[0], *(layer.output for layer in layers.values())])

    def convert(self, batch: Any) -> Any:
        """As this backend takes it."""
        return keras.tree.map_structure(lambda value: ops.convert_to_tensor(np.asarray(value)), batch)

    def forward(self, inputs: Any, labels: Any, weights: Any = None) -> tuple[Any, Any]:
        """Loss and shares of zeros; to be called in a scope that discards what it changes."""
        outputs = self.run(inputs, training=True)
        outputs, activations = (outputs[0], outputs[1:]) if self.names else (outputs, [])
        loss = self.model.compute_loss(x=inputs, y=labels, y_pred=outputs, sample_weight=weights, training=True)
        # Of all zeros this is 1 to the last digit; a mean of the zeros might round.
        zeros = [1 - ops.mean(ops.cast(ops.not_equal(values, 0), "float32")) for values in activations]
        return loss, ops.stack(zeros) if zeros else ops.zeros((0,))


class _TensorFlow(_Probe):
    def __init__(self, model: keras.Model, element_spec: Any) -> None:
        import tensorflow as tf

        super().__init__(model, element_spec)
        # Traced once, whatever lengths the batches have; a trace takes as long as several steps.
        self._compiled = tf.function(self._measure, input_signature=element_spec)

    def convert(self, batch: Any) -> Any:
        return batch

    def __call__(self, *batch: Any) -> tuple[Any, Any]:
        result: tuple[Any, Any] = self._compiled(*batch)
        return result

    def _measure(self, *batch: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        with keras.StatelessScope(collect_losses=True), tf.GradientTape() as tape:
            loss, zeros = self.forward(*batch)
        return _norms(tape.gradient(loss, [weight.value for weight in self.weights])), zeros


class _Jax(_Probe):
    def __init__(self, model: keras.Model, element_spec: Any) -> None:
        import jax

        super().__init__(model, element_spec)
        self.others = model.non_trainable_variables
        self._compiled = jax.jit(self._measure)

    def __call__(self, *batch: Any) -> tuple[Any, Any]:
        values = [variable.value for variable in self.weights], [variable.value for variable in self.others]
        result: tuple[Any, Any] = self._compiled(*values, *batch)
        return result

    def _measure(self, values: Any, others: Any, *batch: Any) -> tuple[Any, Any]:
        import jax

        def loss(values: Any) -> tuple[Any, Any]:
            given = [*zip(self.weights, values, strict=True), *zip(self.others, others, strict=True)]
            with keras.StatelessScope(given, collect_losses=True):
                return self.forward(*batch)

        gradients, zeros = jax.grad(loss, has_aux=True)(values)
        return _norms(gradients), zeros


class _Torch(_Probe):
    def __call__(self, *batch: Any) -> tuple[Any, Any]:
        import torch

        with torch.random.fork_rng(), keras.StatelessScope(collect_losses=True):
            loss, zeros = self.forward(*batch)
        gradients = torch.autograd.grad(loss, [weight.value for weight in self.weights], allow_unused=True)
        return _norms(gradients), zeros


def _ends_in_relu(layer: Any) -> bool:
    if isinstance(layer, keras.layers.ReLU):
        return not layer.negative_slope
    return getattr(layer, "activation", None) in (keras.activations.relu, keras.activations.relu6)


def _norms(gradients: Any) -> Any:
    """One per weight; 0 where the loss does not depend on it."""
    return ops.stack([ops.zeros(()) if gradient is None else _norm(gradient) for gradient in gradients])


def _norm(gradient: Any) -> Any:
    """Of its largest part 1, so that no square overflows."""
    prepared = kernel().prepare(gradient, True)
    values = ops.cast(prepared.values if isinstance(prepared, Rows) else prepared, "float32")
    largest = ops.max(ops.abs(values))
    scale = ops.where(largest > 0, largest, 1.0)
    return scale * ops.sqrt(ops.sum(ops.square(values / scale)))
