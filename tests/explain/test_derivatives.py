"""Gradients by an input against those that calculus gives."""

import numpy as np
import pytest

from toolkit.explain.derivatives import value_and_gradient

every_backend = pytest.mark.every_backend


@every_backend
def test_rows_get_their_own_gradients_and_what_is_fixed_gets_none():
    from keras import ops

    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(4, 3)).astype("float32"), rng.normal(size=(4, 3)).astype("float32")
    compute = value_and_gradient(lambda at, weights, numbers: ops.sum(weights * at**3, axis=1) + numbers)
    values, gradient = compute(x, w, np.arange(4, dtype="float32"))
    np.testing.assert_allclose(values, (w.astype("float64") * x**3).sum(axis=1) + np.arange(4), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient, 3 * w.astype("float64") * x**2, rtol=1e-5)


@every_backend
def test_a_single_number_and_one_that_the_input_does_not_change():
    from keras import ops

    x = np.array([1.0, -2.0], "float32")
    value, gradient = value_and_gradient(lambda at: ops.sum(at**2))(x)
    assert value == pytest.approx(5)
    np.testing.assert_allclose(gradient, 2 * x)
    _, gradient = value_and_gradient(lambda at, other: ops.sum(other, axis=1))(x[None], x[None])
    np.testing.assert_array_equal(gradient, np.zeros((1, 2)))
