"""The update on JAX: the plain formula, which XLA makes one loop of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.experimental.sparse
import keras
from keras import ops

from toolkit.optimizers.kernels import Plans, Rule, Scalars, Slot


def has_float64() -> bool:
    """Whether a scalar can be float64."""
    return bool(jax.config.jax_enable_x64)


def is_distributed(optimizer: Any) -> bool:
    """Whether its variables have a copy per replica: never."""
    return False


def turned(rule: Rule, t: Any, rate: Any) -> None:
    """Nothing: XLA keeps 1−β as it is given."""


def add_moments(optimizer: Any, variables: Sequence[Any], names: Sequence[str]) -> Sequence[list[Any]]:
    """Zeros for each of `names`, one per weight."""
    moments: Sequence[list[Any]] = optimizer.add_optimizer_variables(variables, names)
    return moments


def prepare(gradient: Any, lazy: bool) -> Any:
    """The gradient, dense and at least float32. Autodiff gives none that names rows, but a person may."""
    if isinstance(gradient, jax.experimental.sparse.JAXSparse):
        gradient = gradient.todense()
    half = keras.backend.standardize_dtype(gradient.dtype) in ("float16", "bfloat16")
    return ops.cast(gradient, "float32") if half else gradient


def update(slots: Sequence[Slot], rule: Rule, scalars: Mapping[str, Scalars], plans: Plans) -> None:
    """One step of every slot, in place."""
    for theta, m, v, largest, g, decays in slots:
        s = scalars[m.dtype]
        g, wide = ops.cast(g, m.dtype), ops.cast(theta, m.dtype)
        if decays and rule.coupled:
            g = g + s.decay * wide
        m.assign(_average(m, g, rule.beta_1))
        v.assign(_average(v, ops.square(g), rule.beta_2))
        if largest is not None:
            largest.assign(ops.maximum(largest, v))
        root = ops.sqrt(v if largest is None else largest)
        step = s.step_size * m / (root + s.epsilon)
        if decays and not rule.coupled:
            step = step + s.decay * wide  # together, so that θ is rounded once
        theta.assign(wide - step)


def _average(moment: Any, value: Any, beta: float) -> Any:
    return value + beta * (moment - value) if beta < 0.5 else moment + (1 - beta) * (value - moment)


def call(function: Callable[..., Any], arguments: Sequence[Any], key: Any, plans: Plans) -> Any:
    """The result of `function`."""
    return function(*arguments)


def when(condition: Any, action: Callable[[], None], variables: Sequence[Any]) -> None:
    """Run `action`, which changes nothing but `variables`, if `condition` holds."""
    if not isinstance(condition, jax.core.Tracer):
        if condition:
            action()
        return

    def changed(values: list[Any]) -> list[Any]:
        # A scope of its own: what a branch of `cond` assigns must leave it as a result.
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))) as scope:
            action()
            return [scope.get_current_value(variable) for variable in variables]

    values = [variable.value for variable in variables]
    for variable, value in zip(variables, jax.lax.cond(condition, changed, lambda kept: kept, values), strict=True):
        variable.assign(value)


def known(variable: Any) -> list[Any] | None:
    """The values of one axis as numbers of Python, or None where a graph is being made."""
    value = variable.value
    return None if isinstance(value, jax.core.Tracer) else list(value.tolist())


def overwrite(variables: Sequence[Any], values: Sequence[Any]) -> None:
    """Give each variable a value, never memory that is shared with it."""
    # A copy: Keras's `fit` donates every buffer to the next step, and one that is there twice ends in a crash.
    for variable, value in zip(variables, values, strict=True):
        variable.assign(ops.copy(value.value))
