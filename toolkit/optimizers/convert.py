"""The state of Adam to and from `torch.optim.Adam`, `AdamW` and `optax.adam`, `adamw`, in memory.

Both moments and the number of steps mean the same everywhere, so a run continues elsewhere as if it had stayed.
Weights are no part of it: they are carried over beside it.

A function that loads checks everything before it changes anything. It leaves hyperparameters alone, which are the
caller's to give; `docs/adam.md` tells what each is called and where defaults differ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from toolkit.optimizers.adam import Adam

Axes = Sequence[Sequence[int] | None]

_AMSGRAD = (
    "optax.amsgrad keeps the largest second moment after its bias correction, this Adam before it, and neither follows "
    "from the other"
)


@dataclasses.dataclass(frozen=True)
class OptaxState:
    """The fields of optax's `ScaleByAdamState`, with lists of arrays in the place of its trees."""

    count: np.ndarray
    mu: list[np.ndarray]
    nu: list[np.ndarray]


def load_torch_state(
    optimizer: Adam, state_dict: Mapping[str, Any], *, axes: Axes | None = None, order: Sequence[int] | None = None
) -> None:
    """Take moments and steps from the `state_dict()` of `torch.optim.Adam` or `AdamW`.

    Moving averages (`use_ema`), which torch's optimizer does not have, start at the weights as they are now.

    Args:
        optimizer: built, with `amsgrad` as it is there.
        state_dict: what `state_dict()` gave; of `param_groups` nothing is read.
        axes: per variable None, or which of torch's axes stand here one after the other, as for `numpy.transpose`:
            `(1, 0)` for the kernel of a dense layer, `(2, 3, 1, 0)` for that of a 2-D convolution.
        order: per variable the number of its parameter there, counted through all groups; None: the same order.

    Raises:
        ValueError: a parameter or an entry is missing or left over, a shape does not fit, or parameters differ in
            their steps. The optimizer is as before.
    """
    variables = _variables(optimizer)
    numbers = _order(variables, order)
    permutations = _axes(variables, axes)
    names = _torch_names(optimizer)
    entries = state_dict.get("state")
    if not isinstance(entries, Mapping):
        raise ValueError("The state_dict has no mapping 'state': pass what state_dict() of torch's optimizer gives.")
    left_over = [number for number in entries if number not in numbers]
    if left_over:
        raise ValueError(
            f"torch's state has parameter {left_over[0]}, which is none of the {len(variables)} variables "
            f"{_span(variables)}."
        )
    steps, values = [], []
    for i, (variable, number) in enumerate(zip(variables, numbers, strict=True)):
        entry = entries.get(number, {})
        if set(entry) != {"step", *names}:
            raise ValueError(
                f"torch's state of parameter {number}, variable {variable.path}, has {', '.join(entry) or 'nothing'}, "
                f"but Adam with amsgrad={optimizer.amsgrad} needs {', '.join(['step', *names])}."
            )
        steps.append(_count(entry["step"], f"torch's step of variable {variable.path}"))
        if steps[-1] != steps[0]:
            raise ValueError(
                f"torch counts {steps[0]} steps for variable {variables[0].path} and {steps[-1]} for {variable.path}, "
                "but here is one count for all: parameters that missed steps cannot be converted."
            )
        values.append(
            [
                _fitting(entry[name], f"torch's {name}", variable, m, permutations[i])
                for name, m in zip(names, _moments(optimizer, i), strict=True)
            ]
        )
    _fill(optimizer, steps[0], values)


def torch_state(optimizer: Adam, *, axes: Axes | None = None, order: Sequence[int] | None = None) -> dict[str, Any]:
    """Moments, steps and hyperparameters, as `load_state_dict` of `torch.optim.Adam` and `AdamW` takes them.

    The rate is that of the next step. Where only some variables decay there are two groups: those that do, then those
    that do not. Clipping and moving averages lie outside of torch's optimizer and are not in it.

    Args:
        optimizer: built, and with no micro-batches held.
        axes: as for `load_torch_state`.
        order: as for `load_torch_state`.

    Raises:
        ValueError: ε stands where torch has none, or micro-batches are held.
    """
    import torch

    variables = _variables(optimizer)
    numbers = _order(variables, order)
    permutations = _axes(variables, axes)
    if optimizer.epsilon_placement != "paper":
        raise ValueError(
            f"epsilon_placement is {optimizer.epsilon_placement!r}, but torch adds ε after the bias correction, and no "
            "eps there gives the same steps."
        )
    steps = float(_array(optimizer.iterations))
    state: dict[int, Any] = {}
    for i, number in sorted(enumerate(numbers), key=lambda pair: pair[1]):
        back = np.argsort(permutations[i])
        state[number] = {"step": torch.tensor(steps, dtype=torch.float32, device="cpu")}
        for name, moment in zip(_torch_names(optimizer), _moments(optimizer, i), strict=True):
            state[number][name] = torch.from_numpy(np.asarray(np.transpose(_array(moment), back), order="C"))
    common = {
        "lr": float(_array(optimizer.learning_rate)),
        "betas": (optimizer.beta_1, optimizer.beta_2),
        "eps": optimizer.epsilon,
        "amsgrad": optimizer.amsgrad,
        "decoupled_weight_decay": optimizer.weight_decay_mode == "decoupled",
    }
    groups = []
    for decays in (True, False):
        members = sorted(number for i, number in enumerate(numbers) if optimizer._decays(i) == decays)
        if members:
            groups.append({**common, "weight_decay": optimizer.weight_decay if decays else 0.0, "params": members})
    return {"state": state, "param_groups": groups}


def load_optax_state(optimizer: Adam, state: Any, *, order: Sequence[int] | None = None) -> None:
    """Take moments and steps from the state of `optax.adam`, `optax.adamw` or a chain with one of them.

    The leaves of `mu` and `nu` are taken by variable path where they are a dictionary of these, else in the order of
    `jax.tree_util`, which sorts dictionaries by key: `bias` comes before `kernel`.

    Moving averages (`use_ema`), which optax's Adam does not have, start at the weights as they are now.

    Args:
        optimizer: built, without `amsgrad`.
        state: what `init` and `update` give, with one `ScaleByAdamState` somewhere in it.
        order: per variable the number of its leaf; None: by path, or the same order.

    Raises:
        ValueError: there is no such state or more than one, it is that of `optax.amsgrad`, or a leaf is missing, left
            over or of another shape. The optimizer is as before.
    """
    variables = _variables(optimizer)
    if optimizer.amsgrad:
        raise ValueError(f"{_AMSGRAD}: with amsgrad=True nothing can be loaded from optax.")
    found = list(_adam_states(state))
    if len(found) != 1:
        raise ValueError(
            f"optax's state holds {len(found)} of ScaleByAdamState, but the {len(variables)} variables "
            f"{_span(variables)} need one: pass that one."
        )
    [adam] = found
    steps = _count(adam.count, "optax's count")
    mu, nu = (_leaves(name, getattr(adam, name), variables, order) for name in ("mu", "nu"))
    values = []
    for i, variable in enumerate(variables):
        m, v = _moments(optimizer, i)
        values.append([_fitting(mu[i], "optax's mu", variable, m), _fitting(nu[i], "optax's nu", variable, v)])
    _fill(optimizer, steps, values)


def optax_state(optimizer: Adam, *, order: Sequence[int] | None = None) -> OptaxState:
    """Steps and moments for `optax.adam` or `optax.adamw`, to be put into a state that `init` made.

        new = optax_state(optimizer)
        tree = jax.tree.structure(params).unflatten
        state = optax.tree.set(tx.init(params), count=new.count, mu=tree(new.mu), nu=tree(new.nu))

    This sets the count of a schedule as well, which must agree; `_replace` of a `ScaleByAdamState` would not.

    Args:
        optimizer: built, without `amsgrad`, and with no micro-batches held.
        order: as for `load_optax_state`; the lists are in the order of the leaves.

    Raises:
        ValueError: `amsgrad` is on, or micro-batches are held.
    """
    variables = _variables(optimizer)
    if optimizer.amsgrad:
        raise ValueError(f"{_AMSGRAD}: with amsgrad=True there is no state for optax.")
    moments = [_moments(optimizer, i) for i in np.argsort(_leaf_order(variables, order))]
    return OptaxState(
        _array(optimizer.iterations).astype("int32"), [_array(m) for m, _ in moments], [_array(v) for _, v in moments]
    )


# --- our side ---------------------------------------------------------------------------------------------------------


def _variables(optimizer: Adam) -> list[Any]:
    if not isinstance(optimizer, Adam):
        raise TypeError(
            f"Only toolkit.optimizers.Adam can be converted, but this is a {type(optimizer).__name__}; a "
            "LossScaleOptimizer has its Adam as inner_optimizer."
        )
    if not optimizer.built or not optimizer._trainable_variables:
        raise ValueError(f"{optimizer.name!r} has no variables yet: call build(model.trainable_variables) first.")
    if optimizer.gradient_accumulation_steps and (held := int(_array(optimizer._held))):
        raise ValueError(
            f"{optimizer.name!r} holds gradients of {held} micro-batches, which cannot be converted: call flush()."
        )
    return list(optimizer._trainable_variables)


def _moments(optimizer: Adam, index: int) -> list[Any]:
    columns = (optimizer._first_moments, optimizer._second_moments, optimizer._largest_second_moments)
    return [column[index] for column in columns[: 3 if optimizer.amsgrad else 2]]


def _torch_names(optimizer: Adam) -> list[str]:
    return ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"][: 3 if optimizer.amsgrad else 2]


def _fill(optimizer: Adam, steps: int, values: Sequence[Sequence[np.ndarray]]) -> None:
    for i, arrays in enumerate(values):
        for moment, array in zip(_moments(optimizer, i), arrays, strict=True):
            moment.assign(array)
    optimizer.iterations.assign(steps)
    if optimizer.use_ema:
        # An optimizer sets them in its first step, which this one does not take any more.
        averages = optimizer._model_variables_moving_average
        for variable, average in zip(optimizer._trainable_variables, averages, strict=True):
            if average is not None:
                average.assign(_array(ops.cast(variable, average.dtype)))


def _order(variables: Sequence[Any], order: Sequence[int] | None) -> list[int]:
    numbers = list(range(len(variables)) if order is None else order)
    if len(numbers) != len(variables) or len(set(numbers)) != len(numbers):
        raise ValueError(
            f"order must have a number of its own for each of the {len(variables)} variables {_span(variables)}, "
            f"but it is {numbers}."
        )
    return numbers


def _leaf_order(variables: Sequence[Any], order: Sequence[int] | None) -> list[int]:
    numbers = _order(variables, order)
    if set(numbers) != set(range(len(variables))):
        raise ValueError(
            f"order must hold every number from 0 to {len(variables) - 1}, for the variables {_span(variables)}, "
            f"but it is {numbers}."
        )
    return numbers


def _axes(variables: Sequence[Any], axes: Axes | None) -> list[list[int]]:
    entries = [None] * len(variables) if axes is None else list(axes)
    if len(entries) != len(variables):
        raise ValueError(
            f"axes must have an entry for each of the {len(variables)} variables {_span(variables)}, but it has "
            f"{len(entries)}."
        )
    permutations = []
    for variable, entry in zip(variables, entries, strict=True):
        identity = list(range(len(variable.shape)))
        if entry is not None and sorted(entry) != identity:
            raise ValueError(
                f"axes of variable {variable.path} must be None or a permutation of {identity}, but they are {entry!r}."
            )
        permutations.append(identity if entry is None else list(entry))
    return permutations


def _span(variables: Sequence[Any]) -> str:
    return f"({', '.join(v.path for v in variables[:3])}{', …' if len(variables) > 3 else ''})"


# --- their side -------------------------------------------------------------------------------------------------------


def _array(value: Any) -> np.ndarray:
    """A copy: what a backend is given it may keep, and what it gives may be its own memory."""
    if hasattr(value, "detach"):  # a tensor of torch, whichever backend Keras has; NumPy knows no bfloat16
        value = value.detach().cpu()
        value = (value.float() if value.element_size() < 4 else value).numpy()
    return np.array(ops.convert_to_numpy(value))


def _fitting(value: Any, what: str, variable: Any, moment: Any, permutation: Sequence[int] | None = None) -> np.ndarray:
    """An array of the moment's shape and type."""
    array, shape = _array(value), tuple(moment.shape)
    if permutation is not None and array.ndim == len(permutation):
        array = np.transpose(array, permutation)
    if array.shape != shape:
        raise ValueError(
            f"{what} of variable {variable.path} has shape {array.shape} in our order of axes, but {shape} is needed."
        )
    return np.asarray(array, moment.dtype, order="C")


def _count(value: Any, what: str) -> int:
    array = _array(value)
    if array.shape != () or not np.isfinite(array) or array < 0 or array != np.floor(array):
        raise ValueError(f"{what} must be a whole number, 0 or more, but it is {value!r}.")
    return int(array)


def _adam_states(node: Any) -> Iterator[Any]:
    """Every `ScaleByAdamState` in a nested state, known by its name: optax itself is not needed."""
    name = type(node).__name__
    if name == "ScaleByAmsgradState":
        raise ValueError(f"{_AMSGRAD}: its state cannot be loaded.")
    if name == "MultiStepsState" and (held := _count(node.mini_step, "optax's mini_step")):
        raise ValueError(
            f"optax.MultiSteps holds gradients of {held} micro-batches, which cannot be converted: complete its step."
        )
    if name == "ScaleByAdamState":
        yield node
    elif isinstance(node, tuple | list | Mapping):
        for child in node.values() if isinstance(node, Mapping) else node:
            yield from _adam_states(child)


def _leaves(name: str, tree: Any, variables: Sequence[Any], order: Sequence[int] | None) -> list[Any]:
    """The leaf of each variable."""
    paths = [variable.path for variable in variables]
    if order is None and isinstance(tree, Mapping) and len(set(paths)) == len(paths) and set(paths) & set(tree):
        for path in [*paths, *tree]:
            if path not in tree or path not in paths:
                fault = "lacks" if path not in tree else "has, beside the paths of the variables,"
                raise ValueError(f"optax's {name} {fault} {path!r}.")
        return [tree[path] for path in paths]
    import jax

    leaves = jax.tree_util.tree_leaves(tree)
    if len(leaves) != len(variables):
        raise ValueError(
            f"optax's {name} has {len(leaves)} leaves, but the {len(variables)} variables {_span(variables)} need one "
            "each."
        )
    return [leaves[number] for number in _leaf_order(variables, order)]
