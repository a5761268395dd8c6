"""The update on TensorFlow: its fused kernel for large weights, a few operations for many small ones together.

`ResourceApplyAdam` goes through θ, m, v and g once, in as many threads as there are. It forms 1−β in float32, so β is
given in turns (see `Turns`). Its bias correction is switched off (powers of β given as 0): α_t and ε_t hold ours. It
ends the process where weights are bfloat16 and moments float32, and on some hundred elements it takes longer
than six simple operations, because it splits them among threads. The moments of small weights stand side by side, see
`flat`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from toolkit.optimizers.kernels import Plans, Rows, Rule, Scalars, Slot, Turns, flat
from toolkit.optimizers.kernels.flat import Stretch


class Turned(NamedTuple):
    """Numbers of a step for the fused kernel: float32 tensors."""

    beta_1: Any
    beta_2: Any
    step_size: Any
    epsilon: Any


def turned(rule: Rule, t: Any, rate: Any) -> Turned | None:
    """See `Turns`. In float64, since the product of all β so far is near 1."""
    turns = Turns.of(rule.beta_1), Turns.of(rule.beta_2)
    if None in turns:
        return None
    t = tf.cast(t, tf.float64)
    beta_1, beta_2 = (turn.beta(t, tf.floor) for turn in turns if turn)
    first, second = (turn.one_minus_product(t, tf.floor, tf.math.expm1) for turn in turns if turn)
    root = tf.sqrt(second)
    epsilon = rule.epsilon * (tf.ones_like(root) if rule.hat else root)
    numbers = beta_1, beta_2, tf.cast(rate, tf.float64) * root / first, epsilon
    return Turned(*(tf.cast(number, tf.float32) for number in numbers))


def has_float64() -> bool:
    """Whether a scalar can be float64."""
    return True


def is_distributed(optimizer: Any) -> bool:
    """Whether its variables have a copy per replica: where it was made, or is called, within a strategy."""
    return tf.distribute.has_strategy() or optimizer._distribution_strategy is not tf.distribute.get_strategy()


def add_moments(optimizer: Any, variables: Sequence[Any], names: Sequence[str]) -> Sequence[list[Any]]:
    """Zeros for each of `names`, one per weight; of small weights side by side, unless replicas have their own."""
    if is_distributed(optimizer):
        moments: Sequence[list[Any]] = optimizer.add_optimizer_variables(variables, names)
        return moments
    return flat.add_moments(optimizer, variables, names)


def prepare(gradient: Any, lazy: bool) -> Any:
    """The gradient, at least float32. Of `tf.IndexedSlices` repeated rows are summed; all others are 0 or left out."""
    if isinstance(gradient, tf.IndexedSlices) and lazy:
        indices, places = tf.unique(gradient.indices)
        return Rows(indices, tf.math.unsorted_segment_sum(_widen(gradient.values), places, tf.size(indices)))
    return _widen(tf.convert_to_tensor(gradient))


def _widen(values: Any) -> Any:
    return tf.cast(values, tf.float32) if values.dtype in (tf.float16, tf.bfloat16) else values


def update(slots: Sequence[Slot], rule: Rule, scalars: Mapping[str, Scalars], plans: Plans) -> None:
    """One step of every slot, in place."""
    for slot in slots:
        if isinstance(slot.gradient, Rows):
            _update_rows(slot, rule, scalars[slot.m.dtype])
    dense = [slot for slot in slots if not isinstance(slot.gradient, Rows)]
    fixed = [slot._replace(gradient=None) for slot in dense]

    def step(gradients: list[Any], scalars: dict[str, Scalars]) -> None:
        slots = [slot._replace(gradient=g) for slot, g in zip(fixed, gradients, strict=True)]
        _update_dense(slots, rule, scalars)

    # Weights and moments are captured; the rest is given.
    key = (rule, *((id(slot.m), slot.decays) for slot in dense))
    call(step, ([slot.gradient for slot in dense], dict(scalars)), key, plans)


def call(function: Callable[..., Any], arguments: Sequence[Any], key: Any, plans: Plans) -> Any:
    """The result of `function`: eagerly, where each operation would be called from Python, of a graph kept by `key`."""
    if tf.distribute.has_strategy() or not tf.executing_eagerly():
        return function(*arguments)
    if key not in plans.made:
        plans.made[key] = tf.function(function, autograph=False, jit_compile=False)
    return plans.made[key](*arguments)


def _raw(variable: Any) -> tf.Variable:
    """A weight comes as Keras's variable or, by way of `tf.distribute`, as TensorFlow's."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def _update_rows(slot: Slot, rule: Rule, s: Scalars) -> None:
    """The same for the rows that have a gradient."""
    indices = slot.gradient.indices
    variables = [_raw(slot.theta), slot.m, slot.v, slot.largest]
    theta, m, v, largest = (None if x is None else tf.gather(_raw(x), indices) for x in variables)
    slot = slot._replace(gradient=slot.gradient.values)
    for variable, new in zip(variables, _stepped(theta, m, v, largest, slot, rule, s), strict=True):
        if isinstance(variable, Stretch):
            variable.assign(tf.tensor_scatter_nd_update(variable.value, indices[:, None], new))
        elif variable is not None:
            handle = _raw(variable).handle
            tf.raw_ops.ResourceScatterUpdate(resource=handle, indices=indices, updates=tf.cast(new, variable.dtype))


def _stepped(theta: Any, m: Any, v: Any, largest: Any, slot: Slot, rule: Rule, s: Scalars) -> tuple[Any, ...]:
    """The next θ, m, v and largest v."""
    g, wide = tf.cast(slot.gradient, m.dtype), tf.cast(theta, m.dtype)
    if slot.decays and rule.coupled:
        g = g + s.decay * wide
    elif slot.decays:
        wide = wide - s.decay * wide
    m, v = _averaged(m, g, rule.beta_1), _averaged(v, tf.square(g), rule.beta_2)
    largest = None if largest is None else tf.maximum(largest, v)
    root = tf.sqrt(v if largest is None else largest)
    return wide - s.step_size * m / (root + s.epsilon), m, v, largest


def _averaged(moment: Any, value: Any, beta: float) -> Any:
    if beta < 0.5:
        return value + tf.constant(beta, value.dtype) * (moment - value)
    return moment + tf.constant(1 - beta, value.dtype) * (value - moment)


def _update_dense(slots: Sequence[Slot], rule: Rule, scalars: Mapping[str, Scalars]) -> None:
    for run in flat.runs([slot for slot in slots if isinstance(slot.m, Stretch)]):
        _update_run(run, rule, scalars["float32"])
    for slot in slots:
        if isinstance(slot.m, Stretch):
            continue
        s = scalars[slot.m.dtype]
        theta = _raw(slot.theta)
        g = _with_decay(slot, rule, s)
        decayed = None
        if slot.decays and not rule.coupled and theta.dtype == g.dtype:
            decayed = tf.raw_ops.AssignSubVariableOp(resource=theta.handle, value=s.decay * theta)
        # Its relative with AMSGrad cannot be compiled by XLA.
        if _is_large(slot) and slot.largest is None and s.turned is not None and theta.dtype == g.dtype:
            _update_fused(theta, slot, g, s.turned)
        else:
            _update_simply(theta, slot, g, rule, s, decayed)


def _with_decay(slot: Slot, rule: Rule, s: Scalars) -> Any:
    """The gradient, with the decay that is part of it."""
    g = tf.cast(slot.gradient, slot.m.dtype)
    return g + s.decay * tf.cast(_raw(slot.theta), g.dtype) if slot.decays and rule.coupled else g


def _update_run(run: Sequence[Slot], rule: Rule, s: Scalars) -> None:
    """One step of weights whose moments stand side by side."""
    g = tf.concat([_shaped(_with_decay(slot, rule, s), [-1]) for slot in run], 0)
    columns = [(slot.m, slot.v, *([] if slot.largest is None else [slot.largest])) for slot in (run[0], run[-1])]
    stretches = [(first.flat, first.start, last.stop) for first, last in zip(*columns, strict=True)]
    m, v = _moved(stretches, g, rule)
    steps = s.step_size * m / (tf.sqrt(v) + s.epsilon)
    sizes = [slot.m.stop - slot.m.start for slot in run]
    for slot, step in zip(run, tf.split(steps, sizes) if len(run) > 1 else [steps], strict=True):
        theta = _raw(slot.theta)
        step = _shaped(step, theta.shape)
        step = step + s.decay * theta if slot.decays and not rule.coupled else step
        tf.raw_ops.AssignSubVariableOp(resource=theta.handle, value=step)


def _shaped(x: Any, shape: Sequence[int]) -> Any:
    """`x` with that shape; of a bias it is the same, and an operation that does nothing costs, too."""
    return x if x.shape.rank == len(shape) == 1 else tf.reshape(x, shape)


def _moved(stretches: Sequence[tuple[Any, int, int]], g: Any, rule: Rule) -> tuple[Any, Any]:
    """Move the stretches (flat variable, start, stop) of m, v and the largest v; m, and what stands under the root."""
    (first, start, stop), (second, _, _) = stretches[:2]
    if (start, stop) == (0, first.shape[0]):  # in place
        _average(first, g, rule.beta_1)
        _average(second, tf.square(g), rule.beta_2)
        m, v = first.value(), second.value()
    else:
        m = _averaged(first[start:stop], g, rule.beta_1)
        v = _averaged(second[start:stop], tf.square(g), rule.beta_2)
        first[start:stop].assign(m)
        second[start:stop].assign(v)
    for largest, _, _ in stretches[2:]:
        v = tf.maximum(largest[start:stop], v)
        largest[start:stop].assign(v)
    return m, v


def _is_large(slot: Slot) -> bool:
    return bool(math.prod(slot.m.shape) >= flat.LARGE)


def _update_fused(theta: Any, slot: Slot, g: Any, s: Turned) -> None:
    tf.raw_ops.ResourceApplyAdam(
        var=theta.handle,
        m=slot.m.value.handle,
        v=slot.v.value.handle,
        beta1_power=0.0,
        beta2_power=0.0,
        lr=s.step_size,
        beta1=s.beta_1,
        beta2=s.beta_2,
        epsilon=s.epsilon,
        grad=g,
    )


def _update_simply(theta: Any, slot: Slot, g: Any, rule: Rule, s: Scalars, decayed: Any) -> None:
    m, v = slot.m.value, slot.v.value
    # Of a large weight one after the other: each, the decay too, needs a copy of the gradient.
    with _after(decayed, slot):
        done = _average(m, g, rule.beta_1)
    with _after(done, slot):
        _average(v, tf.square(g), rule.beta_2)
    if slot.largest is not None:
        v = slot.largest.value
        v.assign(tf.maximum(v, slot.v.value))
    if theta.dtype == m.dtype:
        # θ − α_t·m/(√v + ε_t) in one pass: AdaGrad's last line, with m in the gradient's place
        tf.raw_ops.ResourceApplyAdagradV2(
            var=theta.handle, accum=v.handle, lr=s.step_size, epsilon=s.epsilon, grad=m, update_slots=False
        )
        return
    wide = tf.cast(theta, m.dtype)
    if slot.decays and not rule.coupled:
        wide = wide - s.decay * wide
    theta.assign(tf.cast(wide - s.step_size * m / (tf.sqrt(v) + s.epsilon), theta.dtype))


def _after(done: Any, slot: Slot) -> Any:
    return tf.control_dependencies([done] if _is_large(slot) and done is not None else [])


def _average(moment: Any, value: Any, beta: float) -> Any:
    """Move `moment` towards `value`; what does so, in a graph."""
    if beta < 0.5:
        return moment.assign(value + tf.constant(beta, moment.dtype) * (moment - value))
    # moment − (1−β)(moment − value), where the last two of three operations are one
    share = tf.constant(1 - beta, moment.dtype)
    return tf.raw_ops.ResourceApplyGradientDescent(var=moment.handle, alpha=share, delta=moment - value)


def when(condition: Any, action: Callable[[], None], variables: Sequence[Any]) -> None:
    """Run `action`, which changes nothing but `variables`, if `condition` holds."""
    keras.ops.cond(condition, action, lambda: None)


def known(variable: Any) -> list[Any] | None:
    """The values of one axis as numbers of Python, or None where a graph is being made."""
    return list(keras.ops.convert_to_numpy(variable)) if tf.executing_eagerly() else None


def overwrite(variables: Sequence[Any], values: Sequence[Any]) -> None:
    """Give each variable a value, never memory that is shared with it."""
    # Through the strategy that made the variable: outside of its replicas it writes every copy.
    for variable, value in zip(variables, values, strict=True):
        strategy = getattr(variable.value, "distribute_strategy", None) or tf.distribute.get_strategy()
        strategy.extended.update(variable.value, lambda a, b: a.assign(tf.cast(b, a.dtype)), args=(value.value,))
