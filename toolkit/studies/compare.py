"""Compares optimizers on one config: each is tuned over the same number of rates, then trained with several seeds.

With one rate each, the one whose default suits the problem wins: Choi et al. 2019 (arXiv:1910.05446) and Schmidt et al.
2021 (arXiv:2007.01547) show how the ranking turns with the tuning. The validation part chooses; the test part is looked
at for the chosen rate alone. Each training is a run directory, all are trained in this process, one after the other: a
process of its own takes longer to start than many of them take.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import io
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from toolkit import auto, registry, stages, workflow
from toolkit.config import RunConfig, load
from toolkit.config.shipped import find_config
from toolkit.errors import Diverged, ToolkitError, did_you_mean
from toolkit.evaluation.files import encode, replace_file, strict_json
from toolkit.explain.robustness import walk
from toolkit.explain.robustness.document import FILE as ROBUSTNESS
from toolkit.runs import run as runs
from toolkit.runs import terminal, trust
from toolkit.studies.comparison import (
    TRAIN,
    Comparison,
    Final,
    Result,
    Tried,
    common_target,
    has_diverged,
    read_final,
    read_robust,
    read_tried,
)
from toolkit.studies.comparison_picture import draw
from toolkit.studies.comparison_rates import is_at_end, next_rate
from toolkit.studies.comparison_table import markdown, tables
from toolkit.studies.reproduce import config_hash
from toolkit.studies.results import percent
from toolkit.training.stop import Stopped

FURTHER = 3
"""Rates for each optimizer beside the grid, beyond its end where that is best, else within it."""
ROWS = 60
"""Points of a curve, about."""
MOST_SEEDS = 100
JSON, TABLE, PICTURE = "comparison.json", "comparison.md", "comparison.png"


def compare(
    config: str,
    *,
    optimizers: Sequence[str],
    rates: Sequence[float],
    seeds: int = 3,
    target: float | None = None,
    robustness: bool = False,
    overrides: Sequence[str] = (),
    folder: Path | None = None,
    say: Callable[[RenderableType], object] | None = None,
) -> Comparison:
    """Train what is missing, and write `comparison.json`, `comparison.md` and `comparison.png`.

    Args:
        config: name of a shipped config, or a YAML file.
        optimizers: names; each trains with what the config says of all, and with its own defaults for the rest, save
            the one that the config names, which keeps what is set there.
        rates: that each is trained with, rising by equal factors, as `read_rates` gives them.
        seeds: of the trainings at each best rate, from the config's on.
        target: training loss whose reaching is timed; None takes the lowest that every training at a best rate reached.
        robustness: measure the test part under graded changes, too, with every training at a best rate.
        overrides: values that win over the config.
        folder: for the run directories and the results; None takes `comparisons/<config>/`.
        say: takes lines and tables for people; None prints them.

    Raises:
        ToolkitError: the request cannot be carried out as it stands; nothing is written then.
        RunFailed: a training broke off for another reason than numbers that are not finite.
    """
    _check(optimizers, seeds, target)
    base = load(find_config(config), overrides)
    plan = _plan(base, optimizers, rates)
    trainings = _Trainings(
        plan,
        folder or Path("comparisons") / base.name,
        count=len(optimizers) * (len(rates) + FURTHER + seeds - 1),
        say=say or _print,
    )
    results = _timed(plan, [_result(trainings, optimizer, rates, seeds, robustness) for optimizer in optimizers])
    comparison = Comparison(
        config=base.name,
        target=common_target(results) if target is None else target,
        target_is_given=target is not None,
        results=results,
    )
    replace_file(trainings.folder / TABLE, encode(markdown(comparison)))
    replace_file(trainings.folder / PICTURE, draw(comparison))
    replace_file(trainings.folder / JSON, encode(strict_json(comparison.to_dict())))
    for table in tables(comparison):
        trainings.say(table)
    trainings.say(f"everything is in {trainings.folder}")
    return comparison


def _check(optimizers: Sequence[str], seeds: int, target: float | None) -> None:
    known = registry.names("optimizers")
    for name in optimizers:
        if name not in known:
            raise ToolkitError(
                f"--optimizers: there is no optimizer {name!r}{did_you_mean(name, known)}: use some of "
                f"{','.join(known)}."
            )
        if optimizers.count(name) > 1:
            raise ToolkitError(f"--optimizers names {name} more than once: name each once.")
    if not 1 <= seeds <= MOST_SEEDS:
        raise ToolkitError(f"--seeds is {seeds}: train each optimizer's best rate with 1 to {MOST_SEEDS} seeds.")
    if target is not None and not 0 < target < float("inf"):
        raise ToolkitError(f"--target is {target}: give a training loss above 0.")


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is known before anything is trained.

    Attributes:
        base: the config, with nothing left to `auto`: all trainings compute alike.
        fingerprints: of the data.
        state_bytes: of each optimizer, for a trainable parameter.
        factor: between neighbouring rates.
    """

    base: RunConfig
    fingerprints: dict[str, str]
    state_bytes: dict[str, float]
    factor: float

    def config(self, optimizer: str, rate: float, seed: int) -> RunConfig:
        """Of one training. What the config sets of its own optimizer is not for another: `name=` leaves it out."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / runs.CONFIG
            path.write_text(self.base.to_yaml(), encoding="utf-8")
            changes = (f"optimizer.name={optimizer}", f"optimizer.learning_rate={rate!r}", f"seed={seed}")
            return load(path, changes)


def _plan(base: RunConfig, optimizers: Sequence[str], rates: Sequence[float]) -> _Plan:
    """Read the data and build the model once with each optimizer, so that what does not fit shows before a training."""
    stages.set_up(base)
    data = stages.read_data(base, lambda line: None)
    if data.spec.task != "classification":
        raise ToolkitError(
            f"compare ranks by accuracy, but the data of {base.name} is for {data.spec.task}, which has none: give a "
            "config for classification."
        )
    base = auto.settle(base, data, lambda line: None)
    total = stages.total_steps(base, feed := stages.feed(base, data))
    training = base.training.model_copy(update={"log_every": max(1, feed.per_epoch * base.training.epochs // ROWS)})
    base = dataclasses.replace(base, training=training)
    plan = _Plan(base, stages.fingerprints(data), {}, (rates[-1] / rates[0]) ** (1 / (len(rates) - 1)))
    objective = stages.objective(base, data.spec)
    for optimizer in optimizers:
        config = plan.config(optimizer, rates[0], base.seed)
        model = stages.build_model(config, data.spec)
        stages.compile_model(model, objective, config, total)
        plan.state_bytes[optimizer] = _state_bytes(model)
    return plan


def _state_bytes(model: Any) -> float:
    """Bytes of the optimizer's variables that have axes, for each trainable parameter of `model`."""
    import keras
    import numpy as np

    model.optimizer.build(model.trainable_variables)
    state = sum(
        int(np.prod(variable.shape)) * np.dtype(keras.backend.standardize_dtype(variable.dtype)).itemsize
        for variable in model.optimizer.variables
        if len(variable.shape)
    )
    return float(state / sum(int(np.prod(variable.shape)) for variable in model.trainable_variables))


class _Trainings:
    """The run directories: each is trained, or gone on with, or found finished."""

    def __init__(self, plan: _Plan, folder: Path, *, count: int, say: Callable[[RenderableType], object]) -> None:
        self.plan, self.folder, self.count, self.say = plan, folder, count, say
        self.done = 0

    def tried(self, optimizer: str, rate: float, seed: int) -> Tried:
        """A training to its end, or until it diverges."""
        config = self.plan.config(optimizer, rate, seed)
        directory = self._directory(optimizer, rate, seed, config)
        self._train(directory, config)
        if trust.read_record(directory / runs.RECORD)["fingerprints"] != self.plan.fingerprints:
            raise ToolkitError(
                f"the run in {directory} was trained on other data: name another --folder, or move it elsewhere."
            )
        tried = read_tried(directory, rate, seed)
        self.done += 1
        found = "diverged" if tried.accuracy is None else f"validation accuracy {percent(tried.accuracy)}"
        self.say(f"{self.done:>{len(str(self.count))}}/{self.count}  {optimizer}, rate {rate:g}, seed {seed}: {found}")
        return tried

    def final(self, optimizer: str, tried: Tried, robustness: bool) -> Final | None:
        """What a training has reached on the training and the test part; None where it diverged."""
        if tried.curve is None:
            return None
        directory = self.folder / "runs" / tried.run
        if not (directory / TRAIN).exists():
            with _silence():
                workflow.evaluate(directory, split="train")
        final = read_final(directory, tried, tried.curve)
        if not robustness:
            return final
        if not (directory / ROBUSTNESS).exists():
            with _silence():
                walk.robustness(directory)
        robust = read_robust(directory)
        self.say(f"{optimizer}, seed {tried.seed}: accuracy under changes {percent(robust.accuracy)}")
        return dataclasses.replace(final, robust=robust)

    def _directory(self, optimizer: str, rate: float, seed: int, config: RunConfig) -> Path:
        return self.folder / "runs" / f"{optimizer}-{rate:g}-seed{seed}-{config_hash(config)[:8]}"

    def _train(self, directory: Path, config: RunConfig) -> None:
        record = directory / runs.RECORD
        with _silence(), contextlib.suppress(Diverged):
            if not record.exists():
                workflow.train(config, run_dir=directory)
                return
            known = trust.read_record(record)
            if known.get("state") != "finished" and not has_diverged(known):
                workflow.resume(directory)


def _result(trainings: _Trainings, optimizer: str, rates: Sequence[float], seeds: int, robustness: bool) -> Result:
    """Tune an optimizer, and train it with several seeds at its best rate."""
    first = trainings.plan.base.seed
    tried = {rate: trainings.tried(optimizer, rate, first) for rate in rates}
    for _ in range(FURTHER):
        further = next_rate({rate: one.accuracy for rate, one in tried.items()}, trainings.plan.factor)
        tried[further] = trainings.tried(optimizer, further, first)
    ordered = tuple(tried[rate] for rate in sorted(tried))
    result = Result(optimizer, ordered, (), 0, trainings.plan.state_bytes[optimizer], 0.0)
    if result.best is None:
        trainings.say(f"{optimizer} diverged at every rate: lower --rates")
        return result
    if is_at_end(result.accuracies):
        trainings.say(f"note: {optimizer} is best at {result.best:g}, an end of what was tried")
    at_best = [tried[result.best]]
    at_best += [trainings.tried(optimizer, result.best, seed) for seed in range(first + 1, first + seeds)]
    finals = [trainings.final(optimizer, one, robustness) for one in at_best]
    return dataclasses.replace(result, finals=tuple(filter(None, finals)), diverged=finals.count(None))


def _timed(plan: _Plan, results: Sequence[Result]) -> tuple[Result, ...]:
    """With the time of a step. The trainings ran one after the other: how busy the machine was would decide."""
    configs = {
        result.optimizer: plan.config(result.optimizer, result.best or result.tried[0].rate, plan.base.seed)
        for result in results
    }
    with _silence():
        stages.set_up(plan.base)
        times = auto.milliseconds(configs, stages.read_data(plan.base, lambda line: None))
    return tuple(dataclasses.replace(result, step_seconds=times[result.optimizer] / 1000) for result in results)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """What a training says goes to its own log alone; what it held is freed, as the next one comes in this process."""
    import keras

    log = logging.getLogger("tensorflow")
    log.addFilter(_no_retracing)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except Stopped as stopped:
        text = "stopped; what is trained is kept, and the same command goes on where it was."
        raise Stopped(text, stopped.received) from stopped
    finally:
        log.removeFilter(_no_retracing)
        keras.utils.clear_session()
        gc.collect()


def _no_retracing(record: logging.LogRecord) -> bool:
    """TensorFlow warns of a function that is traced again and again: here each is another model's."""
    return "retracing" not in str(record.msg)


def _print(what: RenderableType) -> None:
    terminal.console().print(what, markup=False, highlight=False, soft_wrap=isinstance(what, str))
