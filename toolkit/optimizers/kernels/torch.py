"""The update on torch: its fused kernel on the CPU, `foreach` operations elsewhere and where types differ.

The fused kernel takes 1−β in double precision, and its m is that of `lerp`; only v decays by a float32 (`_drift`).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import torch
from keras.src.backend.common.stateless_scope import in_stateless_scope
from keras.src.backend.common.variables import get_autocast_scope

from toolkit.optimizers.kernels import Plans, Rows, Rule, Scalars, Slot


def has_float64() -> bool:
    """Whether a scalar can be float64."""
    return str(torch.get_default_device().type) != "mps"


def is_distributed(optimizer: Any) -> bool:
    """Whether its variables have a copy per replica: never."""
    return False


def add_moments(optimizer: Any, variables: Sequence[Any], names: Sequence[str]) -> Sequence[list[Any]]:
    """Zeros for each of `names`, one per weight."""
    moments: Sequence[list[Any]] = optimizer.add_optimizer_variables(variables, names)
    return moments


def prepare(gradient: Any, lazy: bool) -> Any:
    """The gradient, at least float32; that of `torch.nn.Embedding(sparse=True)` with repeated rows summed."""
    if gradient.is_sparse and lazy:
        gradient = gradient.coalesce()
        return Rows(gradient.indices()[0], _widen(gradient.values()))
    return _widen(gradient.to_dense() if gradient.is_sparse else gradient)


def _widen(values: Any) -> Any:
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


@torch.no_grad()  # type: ignore[untyped-decorator]
def update(slots: Sequence[Slot], rule: Rule, scalars: Mapping[str, Scalars], plans: Plans) -> None:
    """One step of every slot, in place."""
    read = _reader()
    raw = []
    for theta, m, v, largest, gradient, decays in slots:
        largest = None if largest is None else read(largest)
        raw.append(Slot(read(theta), read(m), read(v), largest, gradient, decays))
    for dtype, s in scalars.items():
        mine = [slot for slot in raw if slot.m.dtype == getattr(torch, dtype)]
        fitting = [s.turned is not None and _fits_fused(slot) for slot in mine]
        fused = [slot for slot, fits in zip(mine, fitting, strict=True) if fits]
        if fused:
            _fused(fused, rule, s)
        # The others' weights, moments and gradients: whole, or copies of rows that are put back.
        others = [_Part.of(slot) for slot, fits in zip(mine, fitting, strict=True) if not fits]
        if others:
            _foreach(others, rule, s)
            for part in others:
                part.put_back()


_VARIABLES = ("theta", "m", "v", "largest")


def _reader() -> Callable[[Any], Any]:
    """What gives the tensor of a variable.

    Keras's `value` looks for scopes each time, which for a small weight takes longer than its update: here once a step.
    """
    if in_stateless_scope() or get_autocast_scope() is not None:
        return operator.attrgetter("value")
    return operator.attrgetter("_value")


# --- the fused kernel -------------------------------------------------------------------------------------------------


class Turned(NamedTuple):
    """Numbers of a step for the fused kernel."""

    step_size: float
    epsilon: float
    drift: float | None  # what v has to be multiplied by before this step


def turned(rule: Rule, t: Any, rate: Any) -> Turned | None:
    """For the CPU; on an accelerator asking for t would wait for all its work, and the plain formula is used."""
    if t.device.type != "cpu":
        return None
    t = int(t.item())
    root = math.sqrt(-math.expm1(t * math.log(rule.beta_2)) if rule.beta_2 else 1.0)
    step_size = float(rate.item()) * root / (1 - rule.beta_1**t)
    return Turned(step_size, rule.epsilon * (1 if rule.hat else root), _drift(rule.beta_2, t))


def _drift(beta_2: float, t: int) -> float | None:
    """The kernel decays v by β₂ as a float32, up to 3e-8 off. Every so many steps that is set right.

    Not in each: by less than some units of its last digit a float32 cannot be changed truly.
    """
    off = float(torch.tensor(beta_2, dtype=torch.float32)) / beta_2 - 1 if beta_2 else 0.0
    if abs(off) < 1e-12:
        return None
    period = math.ceil(_DRIFT / abs(off))
    return (1 + off) ** -period if t % period == 0 else None


_DRIFT = 5e-7


def _fits_fused(slot: Slot) -> bool:
    theta, gradient = slot.theta, slot.gradient
    return (
        not isinstance(gradient, Rows)
        and theta.is_cpu
        and theta.dtype == slot.m.dtype == gradient.dtype == torch.float32
        and theta.is_contiguous()
    )


def _fused(slots: Sequence[Slot], rule: Rule, s: Scalars) -> None:
    decaying = [slot.theta for slot in slots if slot.decays]
    if decaying and not rule.coupled:
        _decay(decaying, s)
    if s.turned.drift is not None:
        torch._foreach_mul_([slot.v for slot in slots], s.turned.drift)
    for decays in (False, True):
        chosen = [slot for slot in slots if (slot.decays and rule.coupled) == decays]
        if not chosen:
            continue
        torch._fused_adam_(
            [slot.theta for slot in chosen],
            [slot.gradient.contiguous() for slot in chosen],
            [slot.m for slot in chosen],
            [slot.v for slot in chosen],
            [slot.largest for slot in chosen if slot.largest is not None],
            # So late a step that the kernel's own bias correction is 1; `lr` and `eps` hold ours.
            [torch.tensor(1e30)] * len(chosen),
            amsgrad=chosen[0].largest is not None,
            beta1=rule.beta_1,
            beta2=rule.beta_2,
            lr=s.turned.step_size,
            eps=s.turned.epsilon,
            weight_decay=float(s.decay.item()) if decays else 0.0,
            maximize=False,
        )


def _decay(thetas: Sequence[Any], s: Scalars) -> None:
    """Not θ·(1 − decay), as Keras and torch have it: in float32 that loses the last digits of a small decay."""
    torch._foreach_sub_(thetas, torch._foreach_mul(thetas, s.decay))


# --- the plain formula ------------------------------------------------------------------------------------------------


class _Part(NamedTuple):
    """What the plain formula works on: a slot's tensors, or of a gradient of rows copies of these."""

    slot: Slot
    theta: Any
    m: Any
    v: Any
    largest: Any
    gradient: Any

    @classmethod
    def of(cls, slot: Slot) -> _Part:
        tensors: list[Any] = [getattr(slot, name) for name in _VARIABLES]
        gradient = slot.gradient
        if isinstance(gradient, Rows):
            tensors = [None if x is None else x[gradient.indices] for x in tensors]
            gradient = gradient.values
        theta, m, v, largest = tensors
        return cls(slot, theta.to(m.dtype), m, v, largest, gradient.to(m.dtype))

    def put_back(self) -> None:
        gradient = self.slot.gradient
        for name in _VARIABLES:
            old, new = getattr(self.slot, name), getattr(self, name)
            if old is new:
                continue
            if isinstance(gradient, Rows):
                old.index_copy_(0, gradient.indices, new.to(old.dtype))
            else:
                old.copy_(new)


def _foreach(parts: Sequence[_Part], rule: Rule, s: Scalars) -> None:
    thetas, ms, vs = [p.theta for p in parts], [p.m for p in parts], [p.v for p in parts]
    gs = [p.gradient for p in parts]
    decaying = [i for i, p in enumerate(parts) if p.slot.decays]
    if decaying and rule.coupled:
        pulls = torch._foreach_mul([thetas[i] for i in decaying], s.decay)
        for i, pull in zip(decaying, pulls, strict=True):
            gs[i] = gs[i] + pull
    elif decaying:
        _decay([thetas[i] for i in decaying], s)
    # `lerp` takes the one or the other form of the average by itself, at a weight of 1/2.
    torch._foreach_lerp_(ms, gs, 1 - rule.beta_1)
    torch._foreach_lerp_(vs, torch._foreach_mul(gs, gs), 1 - rule.beta_2)
    if parts[0].largest is not None:
        largest = [p.largest for p in parts]
        torch._foreach_maximum_(largest, vs)
        vs = largest
    denominators = torch._foreach_sqrt(vs)
    torch._foreach_add_(denominators, s.epsilon)
    if s.step_size.device.type == "cpu":
        torch._foreach_addcdiv_(thetas, ms, denominators, value=-s.step_size.item())
    else:  # the step's size stays a tensor: asking an accelerator for its value would wait for all its work
        torch._foreach_sub_(thetas, torch._foreach_div(torch._foreach_mul(ms, s.step_size), denominators))


def call(function: Callable[..., Any], arguments: Sequence[Any], key: Any, plans: Plans) -> Any:
    """The result of `function`."""
    return function(*arguments)


def when(condition: Any, action: Callable[[], None], variables: Sequence[Any]) -> None:
    """Run `action`, which changes nothing but `variables`, if `condition` holds."""
    keras.ops.cond(condition, action, lambda: None)


def known(variable: Any) -> list[Any] | None:
    """The values of one axis as numbers of Python, or None where a graph is being made."""
    return list(variable.value.tolist())


def overwrite(variables: Sequence[Any], values: Sequence[Any]) -> None:
    """Give each variable a value, never memory that is shared with it."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value.value)
