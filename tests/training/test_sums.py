"""Gradients of several uses of a tensor are added in one order, whatever memory is free (TensorFlow)."""

import keras
import numpy as np
import pytest

from toolkit.training.guard import guarded_steps
from toolkit.training.sums import sums_in_order

tf = pytest.importorskip("tensorflow")

ADDENDS = np.float32([1e8, 1.0, -1e8, 3.0])


@pytest.mark.parametrize("held", [(), (0,), (0, 1), (0, 1, 2), (1, 2, 3)])
@pytest.mark.parametrize("jit", [False, True])
def test_the_sum_does_not_depend_on_which_addend_is_still_held(held, jit):
    with sums_in_order():

        @tf.function(jit_compile=jit)
        def add(values):
            # Computed here, so that their memory may be taken over; what is returned may not.
            parts = [values[i : i + 1] * tf.ones(1000) for i in range(len(ADDENDS))]
            return tf.add_n(parts), [parts[i] for i in held]

        total, _ = add(tf.constant(ADDENDS))

    expected = ADDENDS[0]
    for addend in ADDENDS[1:]:
        expected = np.float32(expected + addend)
    np.testing.assert_array_equal(total, np.full(1000, expected))


def addends(function) -> list[int]:
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for inner in graph.library.function for node in inner.node_def)]
    return [len(node.input) for node in nodes if node.op == "AddN"]


def test_a_guarded_step_adds_in_order_and_leaves_tensorflow_as_it_was():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the other backends add in the order of the graph")
    inputs = keras.Input((6, 8))
    x = keras.layers.LayerNormalization()(keras.layers.Dense(8)(inputs))
    x = x + keras.layers.MultiHeadAttention(2, 4)(x, x)
    x = keras.layers.LSTM(8, return_sequences=True)(x)
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.BatchNormalization()(x)))
    model.compile("sgd", "mse")
    batch = (tf.zeros((4, 6, 8)), tf.zeros((4, 6, 1)))

    def traced():
        return addends(tf.function(model.train_step).get_concrete_function(batch))

    assert max(traced()) > 2
    with guarded_steps(model):
        within = traced()
    assert set(within) == {2}
    assert max(traced()) > 2
