"""What a config names: optimizers and schedules, and how the two and the common options come together.

A registered optimizer takes the common options (`weight_decay`, `use_ema` …) by position and its own hyperparameters
by keyword; a registered schedule takes the peak and the run's length by position. Keras comes in when one is called.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from toolkit import registry
from toolkit.errors import ToolkitError
from toolkit.types import Beta, Count, Fraction, NonNegative, Positive, Rate, Share, Size

Options = Mapping[str, Any]


def build(
    name: str,
    arguments: Mapping[str, Any],
    *,
    schedule: tuple[str, Mapping[str, Any]] | None,
    options: Options,
    total_steps: int,
) -> Any:
    """The Keras optimizer that section `optimizer` of a config describes.

    Args:
        name: registered name of the optimizer.
        arguments: its hyperparameters, among them `learning_rate`, the peak where there is a schedule.
        schedule: registered name of a schedule and its arguments.
        options: the options that all optimizers share, as Keras names them.
        total_steps: steps (updates, not micro-batches) of the whole run.

    Raises:
        ToolkitError: the optimizer cannot accumulate gradients, or the schedule does not fit the run.
    """
    make = registry.resolve("optimizers", name)
    common = {key: value for key, value in options.items() if value is not None}
    if common.get("gradient_accumulation_steps") == 1:
        del common["gradient_accumulation_steps"]  # one micro-batch a step is what every optimizer does
    if "gradient_accumulation_steps" in common and not getattr(make, "supports_accumulation", False):
        raise ToolkitError(
            f"optimizer.gradient_accumulation_steps is {common['gradient_accumulation_steps']}, but {name!r} would "
            "lose the last, incomplete window of each epoch: use optimizer.name adam, or leave the key out."
        )
    clips = [key for key in ("clipnorm", "clipvalue", "global_clipnorm") if key in common]
    if len(clips) > 1:
        raise ToolkitError(
            f"optimizer.{' and optimizer.'.join(clips)} exclude one another: keep one of them and leave out the rest."
        )
    arguments = dict(arguments)
    if schedule is not None:
        schedule_name, schedule_arguments = schedule
        make_schedule = registry.resolve("schedules", schedule_name)
        arguments["learning_rate"] = make_schedule(arguments["learning_rate"], total_steps, **schedule_arguments)
    return make(common, **arguments)


# --- optimizers: a test holds these defaults to those of the classes ------------------------------------------------


def adam(
    options: Options | None = None,
    *,
    learning_rate: Rate = 1e-3,
    beta_1: Beta = 0.9,
    beta_2: Beta = 0.999,
    epsilon: Positive = 1e-8,
    amsgrad: bool = False,
    weight_decay_mode: Literal["decoupled", "coupled"] = "decoupled",
    decay_biases_and_norms: bool = True,
    exclude_from_decay: tuple[str, ...] = (),
    epsilon_placement: Literal["paper", "hat"] = "paper",
    state_dtype: Literal["float32", "float64"] = "float32",
    sparse_updates: Literal["exact", "lazy"] = "exact",
) -> Any:
    """Adam, Algorithm 1 of Kingma & Ba 2015.

    Args:
        options: the options that all optimizers share.
        learning_rate: α, about the largest change of a weight in one step.
        beta_1: decay of the first moment, the mean of the gradients.
        beta_2: decay of the second moment, the mean of their squares.
        epsilon: added to the root of the second moment, after bias correction.
        amsgrad: divide by the root of the largest second moment so far (Reddi et al. 2018).
        weight_decay_mode: decoupled: weights shrink by themselves (AdamW); coupled: the decay is part of the gradient.
        decay_biases_and_norms: false: weights with fewer than two axes do not decay.
        exclude_from_decay: regular expressions; a weight in whose path one is found does not decay.
        epsilon_placement: hat: add epsilon before bias correction, as Keras does.
        state_dtype: least type of the moments.
        sparse_updates: lazy: rows of an embedding that a batch does not use stay as they are, which is faster.

    Raises:
        ToolkitError: lazy updates together with gradient accumulation.
    """
    from toolkit.optimizers.adam import Adam

    if sparse_updates == "lazy" and (options or {}).get("gradient_accumulation_steps"):
        raise ToolkitError(
            "optimizer.sparse_updates is lazy, but optimizer.gradient_accumulation_steps holds gradients of all rows: "
            "leave out one of the two."
        )
    return Adam(
        learning_rate=learning_rate,
        beta_1=beta_1,
        beta_2=beta_2,
        epsilon=epsilon,
        amsgrad=amsgrad,
        weight_decay_mode=weight_decay_mode,
        decay_biases_and_norms=decay_biases_and_norms,
        exclude_from_decay=exclude_from_decay,
        epsilon_placement=epsilon_placement,
        state_dtype=state_dtype,
        sparse_updates=sparse_updates,
        **(options or {}),
    )


def _check_adam(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What shows without the data: (key, what is wrong)."""
    for pattern in arguments["exclude_from_decay"]:
        try:
            re.compile(pattern)
        except re.error as error:
            return [("exclude_from_decay", f"{pattern!r} is no regular expression ({error}): correct it")]
    return []


adam.check = _check_adam  # type: ignore[attr-defined]
adam.supports_accumulation = True  # type: ignore[attr-defined]
adam.needs_weight_decay = ("weight_decay_mode", "decay_biases_and_norms", "exclude_from_decay")  # type: ignore[attr-defined]


def sgd(options: Options | None = None, *, learning_rate: Rate = 0.01) -> Any:
    """Gradient descent without memory: θ ← θ − α·g.

    Args:
        options: the options that all optimizers share.
        learning_rate: α.
    """
    import keras

    return keras.optimizers.SGD(learning_rate=learning_rate, **(options or {}))


def momentum(
    options: Options | None = None, *, learning_rate: Rate = 0.01, momentum: Beta = 0.9, nesterov: bool = False
) -> Any:
    """Gradient descent with momentum: u ← μ·u − α·g, θ ← θ + u.

    Args:
        options: the options that all optimizers share.
        learning_rate: α; a constant gradient moves a weight by α ÷ (1−μ) a step in the end.
        momentum: μ, what stays of the last step.
        nesterov: look ahead along the momentum (Nesterov 1983, in the form of Sutskever et al. 2013).
    """
    import keras

    return keras.optimizers.SGD(learning_rate=learning_rate, momentum=momentum, nesterov=nesterov, **(options or {}))


def rmsprop(
    options: Options | None = None,
    *,
    learning_rate: Rate = 1e-3,
    rho: Beta = 0.9,
    momentum: Beta = 0.0,
    epsilon: Positive = 1e-7,
    centered: bool = False,
) -> Any:
    """RMSProp (Hinton 2012): steps divided by the root of a moving average of squared gradients.

    Args:
        options: the options that all optimizers share.
        learning_rate: α.
        rho: decay of the average of squares.
        momentum: what stays of the last step.
        epsilon: added to the average, under the root (Keras's form).
        centered: take the square of the mean gradient from the average first.
    """
    import keras

    return keras.optimizers.RMSprop(
        learning_rate=learning_rate,
        rho=rho,
        momentum=momentum,
        epsilon=epsilon,
        centered=centered,
        **(options or {}),
    )


def adagrad(
    options: Options | None = None,
    *,
    learning_rate: Rate = 1e-3,
    initial_accumulator_value: NonNegative = 0.1,
    epsilon: Positive = 1e-7,
) -> Any:
    """AdaGrad (Duchi, Hazan & Singer 2011): steps divided by the root of the sum of all squared gradients.

    Args:
        options: the options that all optimizers share.
        learning_rate: α; useful values are larger than Adam's, about 0.01 to 0.1.
        initial_accumulator_value: where the sum starts.
        epsilon: added to the sum, under the root (Keras's form).
    """
    import keras

    return keras.optimizers.Adagrad(
        learning_rate=learning_rate,
        initial_accumulator_value=initial_accumulator_value,
        epsilon=epsilon,
        **(options or {}),
    )


# --- schedules: typed doors to the classes of schedules.py ----------------------------------------------------------


def constant(learning_rate: float, run_steps: int, *, warmup_steps: Count = 0) -> Any:
    """The peak throughout.

    Args:
        learning_rate: the peak.
        run_steps: steps of the run.
        warmup_steps: steps in which the rate rises linearly from peak ÷ steps.
    """
    from toolkit.optimizers.schedules import Constant

    return _schedule(Constant, learning_rate, run_steps, warmup_steps)


def cosine(
    learning_rate: float,
    run_steps: int,
    *,
    warmup_steps: Count = 0,
    final_share: Share = 0.0,
    total_steps: Size | None = None,
) -> Any:
    """Half a cosine wave, from the peak down to the run's end.

    Args:
        learning_rate: the peak.
        run_steps: steps of the run.
        warmup_steps: steps in which the rate rises linearly from peak ÷ steps.
        final_share: share of the peak that is reached at the end.
        total_steps: where the shape ends and the rate stays, in place of the run's last step.
    """
    from toolkit.optimizers.schedules import Cosine

    return _schedule(Cosine, learning_rate, total_steps or run_steps, warmup_steps, final_share=final_share)


def exponential(
    learning_rate: float,
    run_steps: int,
    *,
    warmup_steps: Count = 0,
    decay_rate: Fraction = 0.5,
    decay_steps: Size = 1000,
    total_steps: Size | None = None,
) -> Any:
    """The rate shrinks by the same factor in equal times.

    Args:
        learning_rate: the peak.
        run_steps: steps of the run.
        warmup_steps: steps in which the rate rises linearly from peak ÷ steps.
        decay_rate: what is left of the rate after `decay_steps` steps.
        decay_steps: steps, counted from the warm-up's end.
        total_steps: where the shape ends and the rate stays, in place of the run's last step.
    """
    from toolkit.optimizers.schedules import Exponential

    return _schedule(
        Exponential,
        learning_rate,
        total_steps or run_steps,
        warmup_steps,
        decay_rate=decay_rate,
        decay_steps=decay_steps,
    )


def step(
    learning_rate: float,
    run_steps: int,
    *,
    warmup_steps: Count = 0,
    every: Size | None = None,
    boundaries: tuple[Size, ...] = (),
    factor: Fraction = 0.1,
    total_steps: Size | None = None,
) -> Any:
    """The rate drops by a factor, every so many steps or at given ones.

    Args:
        learning_rate: the peak.
        run_steps: steps of the run.
        warmup_steps: steps in which the rate rises linearly from peak ÷ steps.
        every: steps from drop to drop, counted from the warm-up's end.
        boundaries: steps of the run at which the rate drops, in place of `every`.
        factor: what is left of the rate after a drop.
        total_steps: where the shape ends and the rate stays, in place of the run's last step.
    """
    from toolkit.optimizers.schedules import Step

    for _, text in _check_step({"every": every, "boundaries": boundaries}):
        raise ToolkitError(f"optimizer.schedule.{text}.")
    return _schedule(
        Step, learning_rate, total_steps or run_steps, warmup_steps, every=every, boundaries=boundaries, factor=factor
    )


def _check_step(arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What shows without the data: (key, what is wrong)."""
    every, boundaries = arguments["every"], list(arguments["boundaries"])
    if (every is None) == (not boundaries):
        return [("every", f"every is {every} and optimizer.schedule.boundaries is {boundaries}: give one of the two")]
    if any(a >= b for a, b in itertools.pairwise(boundaries)):
        return [("boundaries", f"boundaries is {boundaries}: write rising steps")]
    return []


step.check = _check_step  # type: ignore[attr-defined]


def warm_restarts(
    learning_rate: float,
    run_steps: int,
    *,
    warmup_steps: Count = 0,
    first_cycle: Size = 1000,
    cycle_growth: Size = 2,
    peak_decay: Fraction = 1.0,
    final_share: Share = 0.0,
    total_steps: Size | None = None,
) -> Any:
    """Cosine cycles that start again from the peak (SGDR, Loshchilov & Hutter 2017).

    Args:
        learning_rate: the peak of the first cycle.
        run_steps: steps of the run.
        warmup_steps: steps before the first cycle in which the rate rises linearly from peak ÷ steps.
        first_cycle: steps of the first cycle.
        cycle_growth: each cycle is so many times longer than the one before.
        peak_decay: each peak is so much of the one before.
        final_share: share of its peak that a cycle ends at.
        total_steps: where the shape ends and the rate stays, in place of the run's last step.
    """
    from toolkit.optimizers.schedules import WarmRestarts

    return _schedule(
        WarmRestarts,
        learning_rate,
        total_steps or run_steps,
        warmup_steps,
        first_cycle=first_cycle,
        cycle_growth=cycle_growth,
        peak_decay=peak_decay,
        final_share=final_share,
    )


def _schedule(
    make: Callable[..., Any], learning_rate: float, total_steps: int, warmup_steps: int, **arguments: Any
) -> Any:
    if warmup_steps >= total_steps:
        raise ToolkitError(
            f"optimizer.schedule.warmup_steps is {warmup_steps}, but the whole run has {total_steps} steps: "
            "make the warm-up shorter, or training.epochs larger."
        )
    try:
        return make(learning_rate, total_steps, warmup_steps, **arguments)
    except ValueError as error:
        raise ToolkitError(f"optimizer.schedule.{error}") from error
