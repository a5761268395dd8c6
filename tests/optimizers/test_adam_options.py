"""What Keras's base class adds to an optimizer, with Adam, against NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from toolkit.optimizers import Adam
from toolkit.optimizers.schedules import Cosine, Step

pytestmark = pytest.mark.every_backend
BACKEND = keras.backend.backend()
RATE = 0.01


def assert_close(weights, expected, atol=2e-6):
    # A step is about 1e-2; float32 rounds weights of about 1 by 6e-8 a step, over 30 steps and squares of gradients.
    for w, e in zip(weights, expected, strict=True):
        np.testing.assert_allclose(w, e, rtol=0, atol=atol)


@pytest.mark.parametrize(
    "options",
    [
        {"weight_decay": 0.5},
        {"clipnorm": 0.5},
        {"clipvalue": 0.2},
        {"global_clipnorm": 1.0},
        {"loss_scale_factor": 1024.0},
        {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 4},
        {"weight_decay": 0.5, "clipnorm": 0.5, "loss_scale_factor": 8.0},
        {"amsgrad": True},
        {"weight_decay": 0.5, "weight_decay_mode": "coupled"},
        {"weight_decay": 0.5, "weight_decay_mode": "coupled", "clipnorm": 0.5, "amsgrad": True},
        {"epsilon_placement": "hat", "epsilon": 1e-4},
    ],
    ids=str,
)
@pytest.mark.parametrize("accumulation", [None, 4])
def test_option(options, accumulation, by_hand, apply_all, gradients, start):
    rows = gradients(30)
    ours = apply_all(Adam(RATE, gradient_accumulation_steps=accumulation, **options), start, rows)
    expected = by_hand(start, rows, learning_rate=RATE, gradient_accumulation_steps=accumulation or 1, **options)
    assert_close(ours, expected.weights)


def test_averages(by_hand, gradients, start):
    rows = gradients(20)
    optimizer = Adam(RATE, use_ema=True, ema_momentum=0.8)
    variables = [keras.Variable(w, dtype="float32") for w in start]
    for row in rows:
        optimizer.apply([ops.convert_to_tensor(g) for g in row], variables)
    expected = by_hand(start, rows, learning_rate=RATE, use_ema=True, ema_momentum=0.8)
    assert_close([ops.convert_to_numpy(v) for v in variables], expected.weights)
    optimizer.finalize_variable_values(variables)
    assert_close([ops.convert_to_numpy(v) for v in variables], expected.averages)


def test_averages_of_bfloat16_weights_keep_moving():
    # 1 % of the way from 0 to 1 is less than a bfloat16 near 1 can hold.
    weight = keras.Variable(np.zeros(1), dtype="bfloat16")
    optimizer = Adam(0.0, use_ema=True, ema_momentum=0.99)
    optimizer.apply([ops.ones((1,), "bfloat16")], [weight])
    weight.assign([1.0])
    for _ in range(150):
        optimizer.apply([ops.ones((1,), "bfloat16")], [weight])
    optimizer.finalize_variable_values([weight])
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(weight, "float32")), [1 - 0.99**150], atol=2**-8)


def test_weight_decay_leaves_out_what_is_excluded():
    variables = [keras.Variable([1.0], name="kernel"), keras.Variable([1.0], name="bias")]
    optimizer = Adam(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.apply([ops.zeros((1,)), ops.zeros((1,))], variables)
    np.testing.assert_allclose([ops.convert_to_numpy(v)[0] for v in variables], [0.95, 1.0], rtol=1e-7)


def test_constraints_hold_after_every_step():
    variable = keras.Variable([0.05], name="w")
    variable.constraint = keras.constraints.NonNeg()
    optimizer = Adam(0.1, gradient_accumulation_steps=2)
    optimizer.apply([ops.ones((1,))], [variable])
    optimizer.flush()
    np.testing.assert_array_equal(ops.convert_to_numpy(variable), [0.0])


@pytest.mark.parametrize("micro_batches", [12, 10, 1])
def test_everything_at_once_counts_steps(micro_batches, by_hand, apply_all, gradients, start):
    """Micro-batches with schedule, warm-up, average, clipping, decay: rate, bias and average go by steps."""
    schedule = Cosine(RATE, total_steps=5, warmup_steps=2)
    options = {"weight_decay": 0.1, "global_clipnorm": 1.0, "use_ema": True, "ema_momentum": 0.9}
    rows = gradients(micro_batches)
    optimizer = Adam(schedule, gradient_accumulation_steps=3, ema_overwrite_frequency=2, **options)
    ours = apply_all(optimizer, start, rows)
    expected = by_hand(
        start,
        rows,
        learning_rate=lambda step: float(ops.convert_to_numpy(schedule(step))),
        gradient_accumulation_steps=3,
        ema_overwrite_frequency=2,
        **options,
    )
    assert_close(ours, expected.weights)
    assert int(optimizer.iterations) == -(-micro_batches // 3)


def test_micro_batches_make_one_batch(apply_all, gradients, start):
    rows = gradients(12)
    batches = [[np.mean(gs, axis=0) for gs in zip(*rows[i : i + 4], strict=True)] for i in (0, 4, 8)]
    schedule = {"learning_rate": Step(RATE, 3, boundaries=[1, 2], factor=0.5), "weight_decay": 0.1, "clipnorm": 1.0}
    many = apply_all(Adam(gradient_accumulation_steps=4, **schedule), start, rows)
    one = apply_all(Adam(**schedule), start, batches)
    assert_close(many, one, atol=1e-6)


def test_nothing_moves_within_a_window():
    weight = keras.Variable([1.0], dtype="float32")
    optimizer = Adam(0.1, gradient_accumulation_steps=3, weight_decay=0.1, use_ema=True)
    states = []
    for _ in range(3):
        optimizer.apply([ops.ones((1,))], [weight])
        states.append((float(ops.convert_to_numpy(weight)[0]), int(optimizer.iterations)))
    assert states[:2] == [(1.0, 0)] * 2
    assert states[2] == (pytest.approx(0.89), 1)


def test_flush_takes_what_is_held_and_nothing_twice():
    weight = keras.Variable([0.0], dtype="float32")
    optimizer = Adam(0.1, gradient_accumulation_steps=4)
    optimizer.flush()  # before anything is built
    optimizer.apply([ops.ones((1,))], [weight])
    optimizer.flush()
    once = ops.convert_to_numpy(weight).copy()
    np.testing.assert_allclose(once, [-0.1], rtol=1e-6)  # the mean over what is held: 1, not a quarter
    optimizer.flush()
    np.testing.assert_array_equal(ops.convert_to_numpy(weight), once)
    assert int(optimizer.iterations) == 1
    for _ in range(4):  # and the next window starts empty
        optimizer.apply([ops.ones((1,))], [weight])
    np.testing.assert_allclose(ops.convert_to_numpy(weight), [-0.2], rtol=1e-6)


def test_flush_without_accumulation_does_nothing():
    weight = keras.Variable([0.0], dtype="float32")
    optimizer = Adam(0.1)
    optimizer.apply([ops.ones((1,))], [weight])
    optimizer.flush()
    assert int(optimizer.iterations) == 1


def test_variables_without_gradient_stay(recwarn):
    variables = [keras.Variable([1.0]), keras.Variable([1.0])]
    optimizer = Adam(0.1, weight_decay=0.1, gradient_accumulation_steps=2)
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([ops.ones((1,)), None], variables)
    optimizer.flush()
    np.testing.assert_allclose([ops.convert_to_numpy(v)[0] for v in variables], [0.89, 1.0], rtol=1e-6)


# Windows whose micro-batches have gradients for some of the variables only --------------------------------------------

# Of three variables; the third never has one. In windows of two.
GIVEN = [(0, 1), (0,), (0,), (0,), (1,), (0,), (0, 1), (1, 0), (1,), (1,)]


def partly(steps, seed=0):
    """Weights, and per micro-batch the gradients by variable; one that is 0 is a gradient nevertheless."""
    rng = np.random.default_rng(seed)
    start = [rng.normal(size=shape).astype("float32") for shape in [(3, 2), (4,), (2, 2)]]
    rows = [{i: rng.normal(size=start[i].shape).astype("float32") for i in given} for given in steps]
    rows[4][1] *= 0
    return start, rows


def partly_by_hand(start, rows, n, *, rate, weight_decay, clip):
    """Algorithm 1 in float64 with the mean over all micro-batches of a window, for those that had a gradient in it."""
    w = [x.astype("float64") for x in start]
    m, v = ([np.zeros_like(x) for x in w] for _ in range(2))
    for t, window in enumerate((rows[i : i + n] for i in range(0, len(rows), n)), start=1):
        means = {i: sum(row.get(i, 0 * w[i]) for row in window) / len(window) for i in set().union(*window)}
        norm = np.sqrt(sum(np.sum(g.astype("float64") ** 2) for g in means.values()))
        scale = min(1, clip / max(norm, 1e-300))
        for i, g in means.items():
            w[i] -= rate * weight_decay * w[i]
            m[i] = 0.9 * m[i] + 0.1 * scale * g
            v[i] = 0.999 * v[i] + 0.001 * (scale * g) ** 2
            w[i] -= rate * (m[i] / (1 - 0.9**t)) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-8)
    return w


def calls(way, optimizer, variables):
    """`apply`, with gradients by variable, and `flush`; in graphs what Python does runs once a set of variables."""
    known = [*variables, *optimizer.variables]

    def graph_of(function):
        if way == "eager":
            return function
        if BACKEND == "tensorflow":
            import tensorflow as tf

            return tf.function(function, jit_compile=way == "jit")
        import jax

        def pure(values, *arguments):
            with keras.StatelessScope(state_mapping=list(zip(known, values, strict=True))) as scope:
                function(*arguments)
            return [scope.get_current_value(v) for v in known]

        jitted = jax.jit(pure)

        def call(*arguments):
            for variable, value in zip(known, jitted([v.value for v in known], *arguments), strict=True):
                variable.assign(value)

        return call

    graphs = {}

    def apply(row):
        chosen = tuple(row)
        if chosen not in graphs:
            graphs[chosen] = graph_of(lambda gs: optimizer.apply(gs, [variables[i] for i in chosen]))
        graphs[chosen]([ops.convert_to_tensor(g) for g in row.values()])

    return apply, graph_of(optimizer.flush)


WAYS = {"tensorflow": ["eager", "graph", "jit"], "jax": ["eager", "jit"], "torch": ["eager"]}[BACKEND]


@pytest.mark.parametrize("micro_batches", [10, 9, 7, 5, 1])
@pytest.mark.parametrize("way", WAYS)
def test_a_gradient_that_is_held_is_never_lost(way, micro_batches):
    start, rows = partly(GIVEN)
    rows = rows[:micro_batches]
    optimizer = Adam(RATE, gradient_accumulation_steps=2, weight_decay=0.5, global_clipnorm=1.0)
    variables = [keras.Variable(w) for w in start]
    optimizer.build(variables)
    apply, flush = calls(way, optimizer, variables)
    for row in rows:
        apply(row)
    flush()
    expected = partly_by_hand(start, rows, 2, rate=RATE, weight_decay=0.5, clip=1.0)
    # A step is about 1e-2, decay alone 5e-3 of a weight.
    assert_close([ops.convert_to_numpy(v) for v in variables], expected)
    np.testing.assert_array_equal(ops.convert_to_numpy(variables[2]), start[2])


@pytest.mark.parametrize("way", WAYS)
def test_constraints_hold_for_what_only_an_earlier_micro_batch_had(way):
    variables = [keras.Variable([0.05]), keras.Variable([0.05]), keras.Variable([-1.0])]
    for variable in variables:
        variable.constraint = keras.constraints.NonNeg()
    optimizer = Adam(0.1, gradient_accumulation_steps=2)
    optimizer.build(variables)
    apply, _ = calls(way, optimizer, variables)
    one = np.ones(1, "float32")
    apply({0: one, 1: one})
    apply({0: one})
    np.testing.assert_array_equal([ops.convert_to_numpy(v)[0] for v in variables], [0.0, 0.0, -1.0])


def test_a_window_that_is_resumed_knows_what_had_a_gradient():
    """The second variable has none in this window, and a gradient of 0 in the next; the third has a held one of 0."""
    start = [np.ones(2, "float32")] * 3
    ones, zeros = ops.ones((2,)), ops.zeros((2,))

    def fresh():
        optimizer, variables = Adam(0.1, gradient_accumulation_steps=3, weight_decay=0.5), [*map(keras.Variable, start)]
        optimizer.build(variables)
        return optimizer, variables

    first, before = fresh()
    first.apply([ones, zeros], [before[0], before[2]])
    store = {}
    first.save_own_variables(store)
    again, after = fresh()
    again.load_own_variables(store)
    for optimizer, variables in ((first, before), (again, after)):
        optimizer.flush()
        np.testing.assert_allclose(
            [ops.convert_to_numpy(v)[0] for v in variables], [1 - 0.05 - 0.1, 1, 1 - 0.05], rtol=1e-6
        )
        for _ in range(3):
            optimizer.apply([zeros], [variables[1]])
        np.testing.assert_allclose(ops.convert_to_numpy(variables[1]), [0.95, 0.95], rtol=1e-6)
