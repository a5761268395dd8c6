"""Adam and all options of Keras's base class, transcribed into NumPy float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest


class ByHand(NamedTuple):
    weights: list[np.ndarray]
    averages: list[np.ndarray]


def _clip(gs: list[np.ndarray], clipnorm: float | None, clipvalue: float | None, global_clipnorm: float | None):
    if clipvalue:
        gs = [np.clip(g, -clipvalue, clipvalue) for g in gs]
    if clipnorm:
        gs = [g * min(1, clipnorm / max(np.linalg.norm(g), 1e-300)) for g in gs]
    if global_clipnorm:
        norm = np.sqrt(sum(np.sum(g**2) for g in gs))
        gs = [g * min(1, global_clipnorm / max(norm, 1e-300)) for g in gs]
    return gs


@pytest.fixture
def by_hand() -> Callable[..., ByHand]:
    def run(
        weights: Sequence[Any],
        gradients: Sequence[Sequence[Any]],
        *,
        learning_rate: Any = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        amsgrad: bool = False,
        weight_decay: float = 0.0,
        weight_decay_mode: str = "decoupled",
        epsilon_placement: str = "paper",
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float = 1.0,
        gradient_accumulation_steps: int = 1,
    ) -> ByHand:
        """Kingma & Ba 2015, Algorithm 1; `gradients` has a row per micro-batch, the last window may be incomplete."""
        w = [np.asarray(x, "float64") for x in weights]
        m, v, largest, averages = ([np.zeros_like(x) for x in w] for _ in range(4))
        n = gradient_accumulation_steps
        windows = [gradients[i : i + n] for i in range(0, len(gradients), n)]
        for t, window in enumerate(windows, start=1):
            rate = learning_rate(t - 1) if callable(learning_rate) else learning_rate
            gs = [np.mean([np.asarray(micro[i], "float64") for micro in window], axis=0) for i in range(len(w))]
            gs = _clip([g / loss_scale_factor for g in gs], clipnorm, clipvalue, global_clipnorm)
            for i, g in enumerate(gs):
                if weight_decay_mode == "coupled":
                    g = g + weight_decay * w[i]
                else:
                    w[i] = w[i] - rate * weight_decay * w[i]
                m[i] = beta_1 * m[i] + (1 - beta_1) * g
                v[i] = beta_2 * v[i] + (1 - beta_2) * g**2
                largest[i] = np.maximum(largest[i], v[i])
                v_hat = (largest[i] if amsgrad else v[i]) / (1 - beta_2**t)
                e = epsilon if epsilon_placement == "paper" else epsilon / np.sqrt(1 - beta_2**t)
                w[i] = w[i] - rate * (m[i] / (1 - beta_1**t)) / (np.sqrt(v_hat) + e)
                momentum = ema_momentum if t > 1 else 0
                averages[i] = momentum * averages[i] + (1 - momentum) * w[i]
                if use_ema and ema_overwrite_frequency and t % ema_overwrite_frequency == 0:
                    w[i] = averages[i]
        return ByHand(w, averages)

    return run


@pytest.fixture
def apply_all() -> Callable[..., list[np.ndarray]]:
    """The weights after `optimizer` was given each row of gradients, and flushed."""
    import keras
    from keras import ops

    def run(optimizer: Any, weights: Sequence[Any], gradients: Sequence[Sequence[Any]], dtype: str = "float32"):
        variables = [keras.Variable(w, dtype=dtype, name=f"w{i}") for i, w in enumerate(weights)]
        optimizer.build(variables)
        rows = ([ops.convert_to_tensor(g, dtype) for g in row] for row in gradients)
        if keras.backend.backend() == "jax":
            import jax

            step = jax.jit(optimizer.stateless_apply)
            state, values = [v.value for v in optimizer.variables], [v.value for v in variables]
            for row in rows:
                values, state = step(state, row, values)
            for variable, value in zip([*variables, *optimizer.variables], [*values, *state], strict=True):
                variable.assign(value)
        else:
            step = lambda row: optimizer.apply(row, variables)  # noqa: E731
            if keras.backend.backend() == "tensorflow":
                import tensorflow as tf

                step = tf.function(step)
            for row in rows:
                step(row)
        optimizer.flush()
        precise = "float64" if dtype == "float64" else "float32"
        return [np.asarray(ops.convert_to_numpy(ops.cast(v, precise))) for v in variables]

    return run


@pytest.fixture
def gradients() -> Callable[..., list[list[np.ndarray]]]:
    """Rows of float32 gradients for variables of four shapes, from ordinary size to 1e-9 and 0.

    Each row is smaller than the one before, which tells AMSGrad from Adam.
    """

    def make(steps: int, seed: int = 0) -> list[list[np.ndarray]]:
        rng = np.random.default_rng(seed)
        columns = np.array([1, 1e-3, 1e-8, 1e-9, 0])
        shrink = np.geomspace(10, 0.1, steps)
        return [
            [
                (s * rng.normal(size=5) * columns).astype("float32"),
                (s * rng.normal(size=(3, 5)) * columns).astype("float32"),
                (s * rng.normal(size=(2, 1, 4))).astype("float32"),
                np.float32(s * rng.normal()),
            ]
            for s in shrink
        ]

    return make


@pytest.fixture
def start() -> list[np.ndarray]:
    """Weights that fit to `gradients`."""
    rng = np.random.default_rng(7)
    return [rng.normal(size=shape).astype("float32") for shape in [(5,), (3, 5), (2, 1, 4), ()]]
