"""State of Adam from and to torch and optax: a run that changes sides ends where one that stays does."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from toolkit.optimizers import Adam
from toolkit.optimizers.convert import load_optax_state, load_torch_state, optax_state, torch_state

pytestmark = pytest.mark.every_backend
RATE = 0.01
# As ours are (5,), (3, 5), (2, 1, 4) and (), torch's are (5,), (5, 3), (1, 4, 2) and (); the third is no swap of two.
AXES = [None, (1, 0), (2, 0, 1), None]
DECAY = 0.1


def assert_within_rounding(weights, expected, times=1):
    """1e-6 · rate · steps + √steps · ulp(θ) for the 20 steps that every run here has."""
    for w, e in zip(weights, expected, strict=True):
        ulp = np.spacing(np.maximum(np.abs(w), np.abs(e)).astype("float32"))
        np.testing.assert_array_less(
            np.abs(np.float64(w) - e),
            times * (1e-6 * RATE * 20 + np.sqrt(20) * ulp),
        )


class Ours:
    def __init__(self, weights, **options):
        self.variables = [keras.Variable(w, dtype="float32", name=f"w{i}") for i, w in enumerate(weights)]
        self.optimizer = Adam(RATE, **options)
        self.optimizer.build(self.variables)

    def run(self, rows):
        for row in rows:
            self.optimizer.apply([ops.convert_to_tensor(g) for g in row], self.variables)
        return self

    @property
    def weights(self):
        return [np.array(ops.convert_to_numpy(v)) for v in self.variables]

    @property
    def state(self):
        return [np.array(ops.convert_to_numpy(v)) for v in [*self.optimizer.variables, *self.variables]]


class Torch:
    """torch's optimizer over the same weights with axes in its own order; the first `split` parameters decay."""

    def __init__(self, weights, kind="Adam", order=(0, 1, 2, 3), split=None, **options):
        self.torch = pytest.importorskip("torch")
        self.order = order
        self.parameters = [self.torch.nn.Parameter(self.tensor(i, weights[i])) for i in order]
        groups = [{"params": self.parameters}]
        if split:
            groups = [{"params": self.parameters[:split]}, {"params": self.parameters[split:], "weight_decay": 0.0}]
        self.optimizer = getattr(self.torch.optim, kind)(groups, lr=RATE, **options)

    def tensor(self, i, array):
        return self.torch.tensor(np.transpose(array, AXES[i] and np.argsort(AXES[i])).copy())

    def run(self, rows):
        for row in rows:
            for p, i in zip(self.parameters, self.order, strict=True):
                p.grad = self.tensor(i, row[i])
            self.optimizer.step()
        return self

    @property
    def weights(self):
        by_variable = dict(zip(self.order, self.parameters, strict=True))
        return [np.transpose(by_variable[i].detach().numpy(), AXES[i]) for i in range(4)]


class Optax:
    """An optax transformation over the same weights, which `tree` puts into a structure and `flat` takes out of it."""

    def __init__(self, weights, make, dtype="float32", tree=list, flat=list):
        self.optax, self.jax = pytest.importorskip("optax"), pytest.importorskip("jax")
        self.dtype, self.tree, self.flat = dtype, tree, flat
        self.transformation = make(self.optax)
        with self.jax.enable_x64(True):
            self.values = self.arrays(weights)
            self.state = self.transformation.init(self.values)

    def arrays(self, values):
        return self.tree([self.jax.numpy.asarray(value, self.dtype) for value in values])

    def run(self, rows):
        with self.jax.enable_x64(True):
            update = self.jax.jit(self.transformation.update)
            for row in rows:
                updates, self.state = update(self.arrays(row), self.state, self.values)
                self.values = self.optax.apply_updates(self.values, updates)
        return self

    @property
    def weights(self):
        return [np.asarray(w) for w in self.flat(self.values)]


TORCH = {
    "adam": ("Adam", {}, {}),
    "other betas": ("Adam", {"betas": (0.5, 0.99), "eps": 1e-4}, {"beta_1": 0.5, "beta_2": 0.99, "epsilon": 1e-4}),
    "fused": ("Adam", {"fused": True}, {}),
    "coupled decay": (
        "Adam",
        {"weight_decay": DECAY},
        {"weight_decay": DECAY, "weight_decay_mode": "coupled"},
    ),
    "adamw": ("AdamW", {"weight_decay": DECAY}, {"weight_decay": DECAY}),
    "amsgrad": ("Adam", {"amsgrad": True}, {"amsgrad": True}),
}


@pytest.mark.parametrize(("kind", "theirs", "ours"), TORCH.values(), ids=TORCH)
def test_from_torch(kind, theirs, ours, gradients, start):
    rows = gradients(20)
    first = Torch(start, kind, **theirs).run(rows[:10])
    second = Ours(first.weights, **ours)
    load_torch_state(second.optimizer, first.optimizer.state_dict(), axes=AXES)
    second.run(rows[10:])
    assert int(second.optimizer.iterations) == 20
    assert_within_rounding(second.weights, Torch(start, kind, **theirs).run(rows).weights)


@pytest.mark.parametrize(("kind", "theirs", "ours"), TORCH.values(), ids=TORCH)
def test_to_torch(kind, theirs, ours, gradients, start):
    rows = gradients(20)
    first = Ours(start, **ours).run(rows[:10])
    second = Torch(first.weights)  # its hyperparameters come with the state
    second.optimizer.load_state_dict(torch_state(first.optimizer, axes=AXES))
    second.run(rows[10:])
    assert_within_rounding(second.weights, Torch(start, kind, **theirs).run(rows).weights)


def test_groups_of_torch_that_decay_and_that_do_not(gradients, start):
    rows = gradients(20)
    there = {"kind": "AdamW", "order": (1, 2, 0, 3), "split": 2, "weight_decay": DECAY}
    here = {"weight_decay": DECAY, "decay_biases_and_norms": False}
    expected = Torch(start, **there).run(rows).weights
    # Variable 0 is torch's parameter 2, and so on.
    numbers = {"axes": AXES, "order": [2, 0, 1, 3]}

    first = Torch(start, **there).run(rows[:10])
    second = Ours(first.weights, **here)
    load_torch_state(second.optimizer, first.optimizer.state_dict(), **numbers)
    assert_within_rounding(second.run(rows[10:]).weights, expected)

    first = Ours(start, **here).run(rows[:10])
    state = torch_state(first.optimizer, **numbers)
    assert [(group["params"], group["weight_decay"]) for group in state["param_groups"]] == [
        ([0, 1], DECAY),
        ([2, 3], 0.0),
    ]
    second = Torch(first.weights, **there)
    second.optimizer.load_state_dict(state)
    assert_within_rounding(second.run(rows[10:]).weights, expected)


def test_there_and_back_through_torch_changes_no_bit(gradients, start):
    first = Ours(start, amsgrad=True).run(gradients(5))
    second = Ours(first.weights, amsgrad=True)
    load_torch_state(second.optimizer, torch_state(first.optimizer, axes=AXES), axes=AXES)
    for a, b in zip(first.state, second.state, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_state_is_a_copy(gradients, start):
    """What is loaded stays as it is while the other side trains on, and what is given likewise."""
    rows = gradients(20)
    theirs = Torch(start).run(rows[:10])
    ours = Ours(start)
    load_torch_state(ours.optimizer, theirs.optimizer.state_dict(), axes=AXES)
    before = ours.state
    theirs.run(rows[10:])
    for a, b in zip(before, ours.state, strict=True):
        np.testing.assert_array_equal(a, b)

    given = torch_state(ours.optimizer)["state"][0]["exp_avg"]
    kept = given.clone()
    ours.run(rows[10:])
    np.testing.assert_array_equal(given.numpy(), kept.numpy())


def test_half_precision_state_of_torch_becomes_float32(start):
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    theirs = torch.optim.Adam([parameter])
    parameter.grad = torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16)
    theirs.step()
    variable = keras.Variable(np.ones(3), dtype="bfloat16")
    ours = Adam()
    ours.build([variable])
    load_torch_state(ours, theirs.state_dict())
    [m] = [v for v in ours.variables if "first_moment" in v.path]
    np.testing.assert_array_equal(ops.convert_to_numpy(m), theirs.state[parameter]["exp_avg"].float().numpy())


# What flax calls a dense layer and a bias: sorted by key, so leaf 0 is variable 3, and so on.
def nested(weights):
    return {"out": {"kernel": weights[1], "bias": weights[0]}, "conv": weights[2], "a": weights[3]}


def from_nested(tree):
    return [tree["out"]["bias"], tree["out"]["kernel"], tree["conv"], tree["a"]]


def by_path(weights):
    return {f"w{i}": weights[i] for i in (2, 0, 3, 1)}


OPTAX = {
    "adam": (lambda optax: optax.adam(RATE), {}),
    "other betas": (
        lambda optax: optax.adam(RATE, b1=0.5, b2=0.99, eps=1e-4),
        {"beta_1": 0.5, "beta_2": 0.99, "epsilon": 1e-4},
    ),
    "adamw": (lambda optax: optax.adamw(RATE, weight_decay=DECAY), {"weight_decay": DECAY}),
    "clipped": (
        lambda optax: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(lambda step: RATE)),
        {"global_clipnorm": 1.0},
    ),
}
# optax forms 1 − 0.999ᵗ in float32: by itself it ends up to 3.8 times the bound away from what it does in float64.
PRECISIONS = {"float64": 1, "float32": 4}


@pytest.mark.parametrize(("dtype", "times"), PRECISIONS.items())
@pytest.mark.parametrize(("make", "ours"), OPTAX.values(), ids=OPTAX)
def test_from_optax(make, ours, dtype, times, gradients, start):
    rows = gradients(20)
    first = Optax(start, make, dtype).run(rows[:10])
    second = Ours(first.weights, **ours)
    load_optax_state(second.optimizer, first.state)
    second.run(rows[10:])
    assert int(second.optimizer.iterations) == 20
    assert_within_rounding(second.weights, Optax(start, make, dtype).run(rows).weights, times)


@pytest.mark.parametrize(("dtype", "times"), PRECISIONS.items())
@pytest.mark.parametrize(("make", "ours"), OPTAX.values(), ids=OPTAX)
def test_to_optax(make, ours, dtype, times, gradients, start):
    rows = gradients(20)
    first = Ours(start, **ours).run(rows[:10])
    second = Optax(first.weights, make, dtype)
    new = optax_state(first.optimizer)
    tree = second.jax.tree.structure(second.values).unflatten
    second.state = second.optax.tree.set(second.state, count=new.count, mu=tree(new.mu), nu=tree(new.nu))
    assert_within_rounding(second.run(rows[10:]).weights, Optax(start, make, dtype).run(rows).weights, times)


@pytest.mark.parametrize(
    ("tree", "flat", "order"),
    [(nested, from_nested, [2, 3, 1, 0]), (by_path, lambda tree: [tree[f"w{i}"] for i in range(4)], None)],
    ids=["nested", "by path"],
)
def test_dictionaries_of_optax(tree, flat, order, gradients, start):
    first = Optax(start, lambda optax: optax.adam(RATE), tree=tree, flat=flat).run(gradients(3))
    ours = Ours(first.weights)
    load_optax_state(ours.optimizer, first.state, order=order)
    moments = [v for v in ours.optimizer.variables if "moment" in v.path]
    for i, (m, v) in enumerate(zip(flat(first.state[0].mu), flat(first.state[0].nu), strict=True)):
        mine = [np.asarray(ops.convert_to_numpy(x)) for x in moments if x.path.split("/")[-1].startswith(f"w{i}_")]
        np.testing.assert_array_equal(mine[0], m)
        np.testing.assert_array_equal(mine[1], v)
    new = optax_state(ours.optimizer, order=order)
    # Sorted paths are the order of the variables here.
    for mine, theirs in zip(new.nu, first.jax.tree.leaves(first.state[0].nu), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_averages_start_at_the_weights(gradients, start):
    first = Torch(start).run(gradients(3))
    ours = Ours(first.weights, use_ema=True, ema_momentum=0.5)
    load_torch_state(ours.optimizer, first.optimizer.state_dict(), axes=AXES)
    before = ours.weights
    after = ours.run([[np.ones_like(w) for w in start]]).weights
    ours.optimizer.finalize_variable_values(ours.variables)
    for w, a, b in zip(ours.weights, before, after, strict=True):
        np.testing.assert_allclose(w, (a + b) / 2, rtol=1e-6, atol=1e-7)


def drop(*keys):
    def change(state):
        inner = state["state"]
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]

    return change


def put(value, *keys):
    def change(state):
        inner = state["state"]
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda state: state.pop("state"), {}, "no mapping 'state'"),
        (drop(1), {}, "parameter 1, variable w1, has nothing, but"),
        (put({}, 4), {}, r"parameter 4, which is none of the 4 variables \(w0, w1, w2, …\)"),
        (
            drop(2, "exp_avg_sq"),
            {},
            "variable w2, has step, exp_avg, but Adam with amsgrad=False needs step, exp_avg, ",
        ),
        (put(np.zeros(()), 3, "max_exp_avg_sq"), {}, "variable w3, has step, exp_avg, exp_avg_sq, max_exp_avg_sq, but"),
        (put(np.zeros((5, 4), "float32"), 1, "exp_avg"), {}, r"exp_avg of variable w1 has shape \(4, 5\) .* \(3, 5\)"),
        (put(np.zeros(15, "float32"), 1, "exp_avg_sq"), {}, r"exp_avg_sq of variable w1 has shape \(15,\)"),
        (put(4.0, 2, "step"), {}, "3 steps for variable w0 and 4 for w2"),
        (put(2.5, 0, "step"), {}, "step of variable w0 must be a whole number, 0 or more, but it is 2.5"),
        (put(float("nan"), 0, "step"), {}, "step of variable w0 must be a whole number"),
        (None, {"axes": [None]}, r"axes must have an entry for each of the 4 variables .* has 1"),
        (None, {"axes": [None, (1, 1), None, None]}, r"axes of variable w1 must be .* are \(1, 1\)"),
        (None, {"axes": None}, r"exp_avg of variable w1 has shape \(5, 3\)"),
        (None, {"order": [0, 1, 2]}, "order must have a number of its own for each of the 4 variables"),
        (None, {"order": [0, 1, 2, 2]}, "order must have a number of its own for each of the 4 variables"),
        (None, {"order": [0, 1, 2, 7]}, "parameter 3, which is none of the 4 variables"),
    ],
)
def test_faults_of_torchs_state(change, options, message, gradients, start):
    state = Torch(start).run(gradients(3)).optimizer.state_dict()
    if change:
        change(state)
    ours = Ours(start, use_ema=True).run(gradients(1))
    before = ours.state
    with pytest.raises(ValueError, match=message):
        load_torch_state(ours.optimizer, state, **{"axes": AXES, **options})
    for a, b in zip(ours.state, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_amsgrad_needs_amsgrad(gradients, start):
    state = Torch(start).run(gradients(3)).optimizer.state_dict()
    with pytest.raises(ValueError, match="variable w0, has .* but Adam with amsgrad=True needs .*max_exp_avg_sq"):
        load_torch_state(Ours(start, amsgrad=True).optimizer, state, axes=AXES)


def with_leaves(name, change):
    """A chain's state whose Adam has other leaves."""

    def make(optax, state):
        [adam, *others] = state
        return (adam._replace(**{name: change(list(getattr(adam, name)))}), *others)

    return make


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda optax, state: state[1:], {}, r"0 of ScaleByAdamState, but the 4 variables \(w0, w1, w2, …\)"),
        (lambda optax, state: (state, {"other": state}), {}, "2 of ScaleByAdamState"),
        (with_leaves("mu", lambda leaves: leaves[:3]), {}, r"mu has 3 leaves, but the 4 variables \(w0, w1, w2, …\)"),
        (with_leaves("nu", lambda leaves: [*leaves, leaves[0]]), {}, "nu has 5 leaves, but the 4 variables"),
        (with_leaves("nu", lambda leaves: leaves[::-1]), {}, r"nu of variable w0 has shape \(\)"),
        (with_leaves("mu", lambda leaves: {"w0": leaves[0], "w1": leaves[1]}), {}, "mu lacks 'w2'"),
        (with_leaves("mu", lambda leaves: {**by_path(leaves), "w4": leaves[0]}), {}, "mu has, beside .*, 'w4'"),
        (lambda optax, state: state[0]._replace(count=-1), {}, "count must be a whole number, 0 or more, but it is -1"),
        (lambda optax, state: state, {"order": [0, 1, 2, 4]}, "order must hold every number from 0 to 3"),
        (lambda optax, state: optax.amsgrad(RATE).init([0.0]), {}, "neither follows from the other: its state cannot"),
    ],
)
def test_faults_of_optaxs_state(make, options, message, gradients, start):
    theirs = Optax(start, lambda optax: optax.adam(RATE)).run(gradients(3))
    state = make(theirs.optax, theirs.state)
    ours = Ours(start).run(gradients(1))
    before = ours.state
    with pytest.raises(ValueError, match=message):
        load_optax_state(ours.optimizer, state, **options)
    for a, b in zip(ours.state, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_amsgrad_has_no_counterpart_in_optax(start):
    state = Optax(start, lambda optax: optax.adam(RATE)).state
    optimizer = Ours(start, amsgrad=True).optimizer
    with pytest.raises(ValueError, match="with amsgrad=True nothing can be loaded from optax"):
        load_optax_state(optimizer, state)
    with pytest.raises(ValueError, match="with amsgrad=True there is no state for optax"):
        optax_state(optimizer)


def test_gradients_that_are_held_are_not_dropped(gradients, start):
    ours = Ours(start, gradient_accumulation_steps=3).run(gradients(4))
    for convert in (torch_state, optax_state):
        with pytest.raises(ValueError, match="holds gradients of 1 micro-batches"):
            convert(ours.optimizer)
    ours.optimizer.flush()
    assert optax_state(ours.optimizer).count == 2

    theirs = Optax(start, lambda optax: optax.MultiSteps(optax.adam(RATE), 3).gradient_transformation())
    theirs.run(gradients(4))
    with pytest.raises(ValueError, match="MultiSteps holds gradients of 1 micro-batches"):
        load_optax_state(ours.optimizer, theirs.state)
    theirs.run(gradients(2))
    load_optax_state(ours.optimizer, theirs.state)
    assert int(ours.optimizer.iterations) == 2


def test_epsilon_hat_is_not_torchs(start):
    optimizer = Ours(start, epsilon_placement="hat").optimizer
    with pytest.raises(ValueError, match="epsilon_placement is 'hat', but torch"):
        torch_state(optimizer)


def test_optimizers_that_cannot_be_converted():
    with pytest.raises(ValueError, match="has no variables yet: call build"):
        torch_state(Adam())
    with pytest.raises(TypeError, match="LossScaleOptimizer; a LossScaleOptimizer has its Adam as inner_optimizer"):
        optax_state(keras.optimizers.LossScaleOptimizer(Adam()))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="other backends are torch and JAX themselves")
def test_the_module_needs_neither_torch_nor_jax_nor_optax():
    code = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "jax", "optax"):
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
import toolkit.optimizers.convert
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
