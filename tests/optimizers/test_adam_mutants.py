"""Faults that no other test saw when `scripts/mutate_adam.py` put them into Adam."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from toolkit.optimizers import Adam

BACKEND = keras.backend.backend()


def row_gradient(indices, values, count):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.IndexedSlices(tf.constant(values), tf.constant(indices), dense_shape=(count, values.shape[1]))
    import torch

    return torch.sparse_coo_tensor(
        torch.tensor(indices)[None], torch.tensor(values), (count, values.shape[1]), check_invariants=True
    )


@pytest.mark.every_backend
@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no gradients that name rows")
@pytest.mark.parametrize(
    "options",
    [{}, {"epsilon_placement": "hat", "epsilon": 1e-6}, {"beta_1": 0.0, "beta_2": 0.0}, {"beta_1": 0.3, "beta_2": 0.4}],
    ids=str,
)
def test_lazy_rows_of_every_size(options, by_hand):
    """Gradients near ε, where its place matters, and sizes that fall a hundred millionfold, which a small β forgets."""
    rng = np.random.default_rng(0)
    start = rng.normal(size=(6, 4)).astype("float32")
    optimizer, variable = Adam(0.01, sparse_updates="lazy", **options), keras.Variable(start)
    rows = []
    for scale in [1e3, 1e-5, 1.0, 1e-6] * 4:
        values = (scale * rng.normal(size=(6, 4)) * [1, 1e-3, 1e-8, 0]).astype("float32")
        indices = rng.permutation(6)
        optimizer.apply([row_gradient(indices, values, 6)], [variable])
        rows.append([values[np.argsort(indices)]])
    expected = by_hand([start], rows, learning_rate=0.01, **options).weights[0]
    # A step is about 1e-2; the wrong places of ε and the forgotten digits are 1e-3 and more away.
    np.testing.assert_allclose(ops.convert_to_numpy(variable), expected, rtol=0, atol=3e-6)
