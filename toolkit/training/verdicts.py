"""What measured gradients say of a training: layers that explode, vanish or are dead.

docs/gradients.md justifies the bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from toolkit.runs.gradients import Gradients
from toolkit.runs.trust import shown

FADED = 1e-4  # of the output layer's gradient: what is left after 7 layers of sigmoid, whose slope is at most 1/4
SWOLLEN = 1 / FADED
JUMP = 100  # times the largest gradient of the whole model before
REWRITTEN = 10  # times its own size that one step moved a layer
_SETTLED = 3  # measurements that come before a jump, and that vanishing and dead layers last
_SHOWN, _WIDTH = 4, 80  # names in a sentence, and characters of one

Array = np.ndarray[Any, Any]


class Verdict(NamedTuple):
    """What is wrong, from which step on, in which layers, and the sentence for a person, about the first of these.

    Layers that explode stand in the order of how much they do, others in the order of the model.
    """

    kind: Literal["exploding", "vanishing", "dead"]
    step: int
    layers: tuple[str, ...]
    text: str


def judge(measured: Gradients) -> list[Verdict]:
    """At most one verdict of each kind; none of a healthy training."""
    dead = _dead(measured)
    found = [_exploding(measured), _vanishing(measured, dead), dead]
    return [verdict for verdict in found if verdict]


def summary(measured: Gradients) -> list[str]:
    """Lines for a person: how much was measured, and what is wrong."""
    extent = f"{len(measured.steps):,} steps in {measured.seconds.sum():.1f} s"
    found = judge(measured)
    if not found:
        return [f"gradients: no layer explodes, vanishes or is dead (measured {extent})"]
    return [f"gradients: measured {extent}", *(f"  {verdict.text}" for verdict in found)]


def _exploding(measured: Gradients) -> Verdict | None:
    """The first step that was beyond a bound, and the layer that was furthest."""
    norms, updates = measured.values["gradient_norm"], measured.values["update_ratio"]
    _, relative = _relative_to_output(norms)
    free = ~measured.clipped  # clipping is the remedy already
    # Of the whole model: that one layer gets more than before may be the end of a plateau.
    jump = np.broadcast_to(_jumps(norms), norms.shape)
    leads = norms == np.fmax.reduce(norms, axis=0)
    tests = [
        (np.isinf(norms) | np.isinf(updates), norms, "has a gradient or an update that is not finite"),
        ((jump > JUMP) & leads & free, jump, "has most of a gradient that is {} times the largest before"),
        ((relative > SWOLLEN) & free, relative, "has {} times the gradient of the output layer"),
        (updates > REWRITTEN, updates, "was changed by {} times its own size"),
    ]
    steps = np.flatnonzero(np.any([beyond for beyond, _, _ in tests], axis=(0, 1)))
    if not len(steps):
        return None
    first = int(steps[0])
    beyond, size, text = next(test for test in tests if test[0][:, first].any())
    worst = sorted(np.flatnonzero(beyond[:, first]).tolist(), key=lambda i: -size[i, first])
    step, (layer, others) = int(measured.steps[first]), _told(measured, worst)
    what = text.format(f"{size[worst[0], first]:,.3g}")
    return Verdict(
        "exploding",
        step,
        _names(measured, worst),
        f"exploding gradient: in step {step:,} layer {layer} {what}{others}; set optimizer.global_clipnorm, or lower "
        "optimizer.learning_rate.",
    )


def _vanishing(measured: Gradients, dead: Verdict | None) -> Verdict | None:
    """Layers that get next to nothing of the gradient, up to the end; those before a dead layer have that cause."""
    output, relative = _relative_to_output(measured.values["gradient_norm"])
    faded = relative < FADED
    if dead:
        faded[: 1 + max(measured.layers.index(name) for name in dead.layers)] = False
    since = _since(faded)
    if not since:
        return None
    first, *_ = since
    step, (layer, others) = int(measured.steps[since[first]]), _told(measured, list(since))
    return Verdict(
        "vanishing",
        step,
        _names(measured, list(since)),
        f"vanishing gradient: since step {step:,} layer {layer} has {relative[first, -1]:.1e} of the gradient of the "
        f"output layer {_shown(measured, output)}{others}; use ReLU for sigmoid or tanh, normalisation, or shortcuts.",
    )


def _dead(measured: Gradients) -> Verdict | None:
    """Layers that, up to the end, give nothing but zeros, whatever the batch."""
    since = _since(measured.values["zero_share"] == 1)
    if not since:
        return None
    first, *_ = since
    step, (layer, others) = int(measured.steps[since[first]]), _told(measured, list(since))
    return Verdict(
        "dead",
        step,
        _names(measured, list(since)),
        f"dead layer: since step {step:,} layer {layer} gives only zeros after its ReLU{others}, so that nothing "
        "before it learns; begin anew with a lower optimizer.learning_rate, or with warm-up.",
    )


def _names(measured: Gradients, layers: Sequence[int]) -> tuple[str, ...]:
    return tuple(measured.layers[i] for i in layers)


def _shown(measured: Gradients, layer: int) -> str:
    return shown(measured.layers[layer], length=_WIDTH)


def _told(measured: Gradients, layers: Sequence[int]) -> tuple[str, str]:
    """The first of them, and the others in brackets."""
    first, *others = (_shown(measured, i) for i in layers)
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    return first, f" (so, too, {', '.join(others[:_SHOWN])}{more})" if others else ""


def _relative_to_output(norms: Array) -> tuple[int, Array]:
    """The last layer that has a gradient, and (layers, measurements): gradients in units of its own."""
    output = int(np.flatnonzero(~np.isnan(norms).all(axis=1))[-1])
    unit = np.where(np.isfinite(norms[output]) & (norms[output] > 0), norms[output], np.nan)
    return output, norms / unit


def _jumps(norms: Array) -> Array:
    """(measurements): the gradient of all layers in units of the largest before; 0 in the first few."""
    with np.errstate(over="ignore"):
        total = np.sqrt(np.nansum(np.where(np.isfinite(norms), norms, 0) ** 2, axis=0))
    largest = np.maximum.accumulate(total)
    jumps = np.zeros(len(total))
    np.divide(total[_SETTLED:], largest[_SETTLED - 1 : -1], out=jumps[_SETTLED:], where=largest[_SETTLED - 1 : -1] > 0)
    return jumps


def _since(holds: Array) -> dict[int, int]:
    """Layers for which something holds up to the last measurement, and long enough → the first of these."""
    count = holds.shape[1]
    since = {i: int(np.flatnonzero(~row)[-1]) + 1 if not row.all() else 0 for i, row in enumerate(holds)}
    return {i: first for i, first in since.items() if count - first >= min(_SETTLED, count)}
