"""Which learning rate a config's model learns at: the range test, its picture, and a suggestion."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit import auto, stages
from toolkit.config import RunConfig
from toolkit.errors import RunFailed, ToolkitError
from toolkit.evaluation.files import replace_file, strict_json
from toolkit.runs import record
from toolkit.runs.run import Run

if TYPE_CHECKING:
    from toolkit.training.range_test import Rise

PICTURE = "rate.png"
FIGURES = "rate.json"
LOWEST, HIGHEST, STEPS = 1e-5, 10.0, 100
LEAST_STEPS = 20  # fewer are too few to be smoothed
SMOOTHED = 1 / 30  # of the steps: standard deviation of the bell curve that each loss is averaged with
NOISE = 5.0  # standard deviations of the smooth line by chance alone: a smaller fall is none


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """What the smoothed losses say.

    Attributes:
        steepest: the rate at which the loss falls fastest, per factor of the rate.
        lowest: the rate at which the loss is lowest.
        loss: there.
    """

    steepest: float
    lowest: float
    loss: float

    @property
    def tenth(self) -> float:
        """A tenth of the rate at which the loss is lowest."""
        return self.lowest / 10

    @property
    def rate(self) -> float:
        """The lower of the two rules, to two digits."""
        return float(f"{min(self.steepest, self.tenth):.1e}")


@dataclasses.dataclass(frozen=True)
class Found:
    """A range test.

    Attributes:
        directory: holds `rate.png` and `rate.json`.
        rates: one per step that was made.
        losses: of these steps, each on its own batch before the update.
        smoothed: the same, averaged with their neighbours.
        suggestion: None where the loss fell at no rate.
    """

    directory: Path
    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    suggestion: Suggestion | None


def find_rate(
    config: RunConfig,
    *,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    steps: int = STEPS,
    run_dir: Path | None = None,
) -> Found:
    """Train the model of `config` for some steps at a rising rate, and suggest a rate; nothing of it is kept.

    Args:
        lowest: rate, of the first step.
        highest: rate, of the last step, where the loss has not diverged before.
        steps: of the optimizer; the rate is multiplied by the same factor from one to the next.
        run_dir: folder for picture and figures; None makes one under `runs/`.

    Raises:
        ToolkitError: the range is none, or the config cannot be trained; nothing is left behind.
        RunFailed: the loss fell at no rate; picture and figures are there.
    """
    rates = rising(lowest, highest, steps)
    with Run.create(f"{config.name}-find-rate", run_dir) as run:
        start = time.perf_counter()
        own_rate = config.optimizer.optimizer.arguments["learning_rate"]
        rise = _rise(config, rates, run)
        found = judge(rates, rise, run.directory)
        seconds = round(time.perf_counter() - start, 1)
        replace_file(run.path(FIGURES), _figures(config, rates, rise, found, seconds).encode())
        from toolkit.studies.rate_picture import draw_rates

        replace_file(run.path(PICTURE), draw_rates(found, title=config.name, own_rate=own_rate))
        _tell(found, rise, rates, run, seconds)
    return found


def rising(lowest: float, highest: float, steps: int) -> np.ndarray:
    """The rate of each step, float64.

    Raises:
        ToolkitError: they do not rise from above 0, or there are too few.
    """
    if not 0 < lowest < highest < math.inf:
        raise ToolkitError(
            f"--lowest is {lowest:g} and --highest is {highest:g}, but the rate is multiplied from step to step, from "
            f"a number above 0 to a larger one: use for example {LOWEST:g} and {HIGHEST:g}."
        )
    if steps < LEAST_STEPS:
        raise ToolkitError(f"--steps is {steps}, too few to tell noise from learning: use {LEAST_STEPS} or more.")
    return np.geomspace(lowest, highest, steps)


def judge(rates: np.ndarray, rise: Rise, directory: Path) -> Found:
    """What the losses of `rise` say about its `rates`."""
    losses = np.array(rise.losses)
    made = rates[: len(losses)]
    if len(losses) < 2:
        return Found(directory, made, losses, losses, None)
    width = max(1.0, len(rates) * SMOOTHED)
    smoothed = smooth(losses, width)
    best = int(np.argmin(smoothed))
    fall = float(smoothed[: best + 1].max() - smoothed[best])
    suggestion = None
    if best and fall > NOISE * chance(losses[: best + 1], width):
        slope = np.gradient(smoothed[: best + 1], np.log(made[: best + 1]))
        suggestion = Suggestion(float(made[np.argmin(slope)]), float(made[best]), float(smoothed[best]))
    return Found(directory, made, losses, smoothed, suggestion)


def smooth(losses: np.ndarray, width: float) -> np.ndarray:
    """Each loss averaged with those before and after it by a bell curve of that many steps, which shifts nothing.

    A loss above the first counts as the first: else its explosion would hide the steps before it.
    """
    from scipy.ndimage import gaussian_filter1d

    first = float(np.mean(losses[: math.ceil(width)]))
    smoothed: np.ndarray = gaussian_filter1d(np.minimum(losses, first), width, mode="nearest")
    return smoothed


def chance(losses: np.ndarray, width: float) -> float:
    """Standard deviation of the smooth line where the losses only scatter; they fall little from one to the next."""
    scatter = float(np.sqrt(np.mean(np.diff(losses) ** 2) / 2))
    return scatter / math.sqrt(2 * math.sqrt(math.pi) * width)  # the norm of the bell curve


def _rise(config: RunConfig, rates: np.ndarray, run: Run) -> Rise:
    """The walk of a training, as far as the last rate."""
    run.say(f"run directory {run.directory}")
    stages.set_up(config)
    data = stages.load_data(config, run, splits=("train", "validation"))  # the test part is not looked at
    stages.check_task(config, data.spec)
    config = auto.settle(config, data, run.say)
    model = stages.build_model(config, data.spec)
    stages.start_from(model, config, data.spec, run.say, resumed=False)
    without = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, schedule=None))
    stages.compile_model(model, stages.objective(config, data.spec), without, len(rates))
    run.say(
        f"{model.name} with {model.count_params():,} parameters: {len(rates)} steps of "
        f"{config.optimizer.optimizer.name} on batches of {config.data.options.batch_size}, at rates from "
        f"{rates[0]:g} to {rates[-1]:g}"
    )
    from toolkit.training.progress import EpochBar
    from toolkit.training.range_test import range_test

    with EpochBar(run.console, title="rising rate", steps=len(rates)) as bar:
        return range_test(
            model,
            stages.feed(config, data),
            rates.tolist(),
            class_weights=stages.class_weights(config, data),
            progress=lambda done, loss: bar.update(done, f"rate {rates[done - 1]:.1e}  loss {loss:.4f}"),
        )


def _tell(found: Found, rise: Rise, rates: np.ndarray, run: Run, seconds: float) -> None:
    """What a person reads; raises RunFailed where there is nothing to suggest."""
    made, last = len(found.rates), rates[min(len(found.rates), len(rates) - 1)]
    why = {"highest": "the highest rate", "diverged": "the loss diverged", "not finite": "the loss was not finite"}
    run.say(f"ended after {made} of {len(rates)} steps, rate {last:.2g}: {why[rise.ended]} ({seconds:.0f} s in all)")
    told = found.suggestion
    if told is None:
        raise RunFailed(
            f"between the rates {rates[0]:g} and {last:.2g} the loss did not fall by more than it scatters, see "
            f"{run.path(PICTURE)}: give it more --steps, such as {3 * len(rates)}, a larger data.batch_size or other "
            "rates (--highest)."
        )
    run.say(
        f"  steepest descent        {told.steepest:.2e}  the smoothed loss falls fastest at this rate",
        f"  a tenth of the minimum  {told.tenth:.2e}  where it is lowest, {told.loss:.3g}, at {told.lowest:.2e}",
    )
    if told.lowest == rates[-1]:
        run.say("note: the loss still fell at the highest rate; a larger --highest may show more")
    run.say(
        f"suggested: --set optimizer.learning_rate={told.rate:g}  (the lower of the two)",
        f"{PICTURE} and {FIGURES} are in {run.directory}",
    )


def _figures(config: RunConfig, rates: np.ndarray, rise: Rise, found: Found, seconds: float) -> str:
    told = found.suggestion
    return strict_json(
        {
            "config": config.name,
            "seed": config.seed,
            "optimizer": config.optimizer.optimizer.name,
            "batch_size": config.data.options.batch_size,
            "backend": config.training.backend,
            "lowest": float(rates[0]),
            "highest": float(rates[-1]),
            "steps": len(rates),
            "ended": rise.ended,
            "steepest_descent": told and told.steepest,
            "minimum": told and {"rate": told.lowest, "loss": told.loss, "tenth": told.tenth},
            "suggested": told and told.rate,
            "rates": found.rates.tolist(),
            "losses": found.losses.tolist(),
            "smoothed": found.smoothed.tolist(),
            "seconds": seconds,
            **record.environment(),
        }
    )
