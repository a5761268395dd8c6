"""On TensorFlow the moments of small weights stand side by side; from outside each weight has its own."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from toolkit.optimizers import Adam

if keras.backend.backend() != "tensorflow":
    pytest.skip("only TensorFlow starts operations one by one", allow_module_level=True)

import tensorflow as tf

from toolkit.optimizers.kernels import flat


def build(weights, **options):
    variables = [keras.Variable(w, name=f"w{i}") for i, w in enumerate(weights)]
    optimizer = Adam(0.01, **options)
    optimizer.build(variables)
    return optimizer, variables


def arrays(variables):
    return [np.array(ops.convert_to_numpy(v)) for v in variables]


def moments_by_hand(rows, i):
    m = v = np.zeros_like(rows[0][i], "float64")
    for row in rows:
        g = row[i].astype("float64")
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    return m, v


def test_each_weight_sees_its_own_moments(gradients, start):
    rows = gradients(20)
    optimizer, variables = build(start)
    assert len({id(m.flat) for m in optimizer._first_moments}) == 1
    for row in rows:
        optimizer.apply([tf.constant(g) for g in row], variables)
    for i, w in enumerate(start):
        m, v = moments_by_hand(rows, i)
        assert tuple(optimizer._first_moments[i].shape) == w.shape
        np.testing.assert_allclose(arrays([optimizer._first_moments[i]])[0], m, rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(arrays([optimizer._second_moments[i]])[0], v, rtol=1e-5, atol=1e-20)


def test_variables_are_listed_as_if_each_were_alone(start, monkeypatch):
    def listed():
        optimizer, _ = build(start, amsgrad=True, name="adam")
        return [(v.path, v.name, tuple(v.shape), v.dtype, v.trainable) for v in optimizer.variables]

    together = listed()
    monkeypatch.setattr(flat, "_is_small", lambda variable: False)
    assert together == listed()


def test_a_moment_is_set_without_its_neighbours(start):
    optimizer, _ = build(start)
    before = arrays(optimizer.variables)
    moment = optimizer._first_moments[1]
    moment.assign(np.full((3, 5), 7.0))
    changed = [
        i for i, (a, b) in enumerate(zip(before, arrays(optimizer.variables), strict=True)) if not np.array_equal(a, b)
    ]
    assert [optimizer.variables[i] is moment for i in changed] == [True]
    np.testing.assert_array_equal(moment.numpy(), np.full((3, 5), 7.0))
    with pytest.raises(ValueError, match="shape"):
        moment.assign(np.zeros(15))


@pytest.mark.parametrize("way", ["eager", "graph", "jit"])
@pytest.mark.parametrize(
    "options", [{}, {"amsgrad": True}, {"weight_decay": 0.3, "weight_decay_mode": "coupled"}], ids=str
)
@pytest.mark.parametrize("given", [(0, 2, 3), (1,), (3, 1, 0), (2, 1)], ids=str)
def test_some_weights_alone_and_in_any_order(given, options, way, by_hand, gradients, start):
    rows = gradients(30)
    optimizer, variables = build(start, **options)
    before = arrays(variables)

    def step(gs):
        optimizer.apply(gs, [variables[i] for i in given])

    run = step if way == "eager" else tf.function(step, jit_compile=way == "jit")
    for row in rows:
        run([tf.constant(row[i]) for i in given])
    expected = by_hand(start, rows, learning_rate=0.01, **options).weights
    for i, after in enumerate(arrays(variables)):
        if i in given:
            # A step is 1e-2, and what differs from the formula in float32 below 1e-6.
            np.testing.assert_allclose(after, expected[i], rtol=0, atol=2e-6)
        else:
            np.testing.assert_array_equal(after, before[i])
            assert not arrays([optimizer._first_moments[i]])[0].any()


def test_more_weights_than_one_flat_variable_holds(by_hand, gradients, start, monkeypatch):
    monkeypatch.setattr(flat, "_LONGEST", 20)
    rows = gradients(30)
    optimizer, variables = build(start, weight_decay=0.1)
    assert [m.start for m in optimizer._first_moments] == [0, 5, 0, 8]  # 5 + 15, then 8 + 1
    for row in rows:
        optimizer.apply([tf.constant(g) for g in row], variables)
    expected = by_hand(start, rows, learning_rate=0.01, weight_decay=0.1).weights
    for after, e in zip(arrays(variables), expected, strict=True):
        np.testing.assert_allclose(after, e, rtol=0, atol=2e-6)


def test_neighbours_of_which_one_decays(by_hand, gradients, start):
    rows = gradients(30)
    optimizer, variables = build(start, weight_decay=0.5, exclude_from_decay=["w1"])
    for row in rows:
        optimizer.apply([tf.constant(g) for g in row], variables)
    decayed = by_hand(start, rows, learning_rate=0.01, weight_decay=0.5).weights
    plain = by_hand(start, rows, learning_rate=0.01).weights
    for i, after in enumerate(arrays(variables)):
        np.testing.assert_allclose(after, (plain if i == 1 else decayed)[i], rtol=0, atol=2e-6)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_lazy_rows_of_a_small_table(amsgrad, by_hand, gradients, start):
    rows = gradients(20)
    optimizer, variables = build(start, sparse_updates="lazy", amsgrad=amsgrad)
    for row in rows:
        values = tf.constant(row[1][[2, 0]])
        gradient = tf.IndexedSlices(values, tf.constant([2, 0]), (3, 5))
        optimizer.apply([tf.constant(row[0]), gradient, *map(tf.constant, row[2:])], variables)
    expected = by_hand(start, rows, learning_rate=0.01, amsgrad=amsgrad).weights
    table = arrays(variables)[1]
    np.testing.assert_allclose(table[[0, 2]], expected[1][[0, 2]], rtol=0, atol=2e-6)
    np.testing.assert_array_equal(table[1], start[1][1])
    for i in (0, 2, 3):
        np.testing.assert_allclose(arrays(variables)[i], expected[i], rtol=0, atol=2e-6)


def test_checkpoints_of_tensorflow_hold_each_moment(gradients, start, tmp_path):
    rows = gradients(6)
    optimizer, variables = build(start)
    for row in rows[:3]:
        optimizer.apply([tf.constant(g) for g in row], variables)
    path = tf.train.Checkpoint(optimizer=optimizer, weights=[v.value for v in variables]).save(tmp_path / "state")
    other, others = build([np.zeros_like(w) for w in start])
    tf.train.Checkpoint(optimizer=other, weights=[v.value for v in others]).restore(path).assert_consumed()
    for row in rows[3:]:
        optimizer.apply([tf.constant(g) for g in row], variables)
        other.apply([tf.constant(g) for g in row], others)
    for a, b in zip(arrays([*variables, *optimizer.variables]), arrays([*others, *other.variables]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_does_not_fit_stands_alone():
    weights = [
        keras.Variable(np.zeros((256, 256)), dtype="float32"),  # as large as the fused kernel likes them
        keras.Variable(np.zeros(3), dtype="float64"),
        keras.Variable(np.zeros(3), dtype="bfloat16"),
        keras.Variable(np.zeros(3), dtype="float32"),
    ]
    optimizer = Adam()
    optimizer.build(weights)
    assert [isinstance(m, flat.Stretch) for m in optimizer._first_moments] == [False, False, False, True]
    double = Adam(state_dtype="float64")
    double.build(weights)
    assert not any(isinstance(m, flat.Stretch) for m in double._first_moments)


def test_a_step_of_many_small_weights_starts_few_operations():
    """What it is for: without it this graph starts six operations per weight."""
    rng = np.random.default_rng(0)
    variables = [keras.Variable(rng.normal(size=(9, 3)), dtype="float32") for _ in range(100)]
    optimizer = Adam()
    optimizer.build(variables)
    step = tf.function(lambda gs: optimizer.apply(gs, variables), autograph=False)
    graph = step.get_concrete_function([tf.TensorSpec((9, 3))] * 100).graph
    kinds = [operation.type for operation in graph.get_operations()]
    started = [kind for kind in kinds if kind not in ("Placeholder", "Const", "NoOp", "Identity", "Reshape")]
    assert len(started) < 100 + 100  # one per weight, and what all share
