"""The walks: from a config to a trained and evaluated model, and from its run directory to figures and answers.

`toolkit.stages` hands the config's values to the rooms; here stands what comes after what.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from toolkit import auto, stages
from toolkit.config import RunConfig, load, load_run
from toolkit.data.spec import SPLITS
from toolkit.errors import RunFailed, ToolkitError
from toolkit.runs import checkpoints, kept, record
from toolkit.runs import resume as resuming
from toolkit.runs import run as runs
from toolkit.runs.checkpoints import Checkpoint
from toolkit.runs.run import Run

if TYPE_CHECKING:
    from toolkit.data.load import Data
    from toolkit.evaluation.evaluate import Evaluation
    from toolkit.evaluation.predict import Prediction
    from toolkit.evaluation.transcripts import Transcription, Transcripts
    from toolkit.tasks.objective import Objective
    from toolkit.training.feed import Feed
    from toolkit.training.loop import Outcome


def train(
    config: RunConfig | Path | str,
    *,
    run_dir: Path | str | None = None,
    steps: int | None = None,
    split: str = "test",
    model: Any = None,
) -> Path:
    """Train what `config` describes, evaluate it, and leave a run directory.

    Args:
        config: checked by `toolkit.load_config`, or the path of a file that is still to be.
        run_dir: the run's own folder; None makes one under `runs/`.
        steps: a smoke run: only the first so many batches of the training, validated and evaluated all the same.
        split: that it is evaluated on; a run among which others will be chosen leaves the test part alone.
        model: a Keras model of your own in place of the config's `model` section.

    Returns:
        The run directory.

    Raises:
        ToolkitError: the request cannot be carried out as it stands; nothing is left behind.
        RunFailed: training or evaluation broke off; what was kept is in the run directory.
    """
    if not isinstance(config, RunConfig):
        config = load(config)
    with Run.create(config.name, Path(run_dir) if run_dir else None) as run:
        return _train(config, run, steps=steps, split=split, model=model)


def resume(
    run_dir: Path | str,
    config: RunConfig | Path | str | None = None,
    *,
    overrides: Sequence[str] = (),
    split: str = "test",
    model: Any = None,
) -> Path:
    """Go on with a training that was interrupted, as if it had not been, and evaluate it.

    Args:
        run_dir: of the run.
        config: to compare with the run's own, from which it may differ in `training.epochs` and little else; None
            takes the run's own.
        overrides: values that win over the run's own config, where no other is given.
        split: that it is evaluated on.
        model: the Keras model, where the run was started with one that its config does not name.

    Returns:
        The run directory.

    Raises:
        ToolkitError: no such run, nothing left to do, or config, data or checkpoint are others than they were.
        RunFailed: training or evaluation broke off; what was kept is in the run directory.
    """
    if config is not None and not isinstance(config, RunConfig):
        config = load(config)
    with Run.resume(Path(run_dir)) as run:
        known = stages.read_record(run)
        before = load_run(run.directory)
        if config is None:
            config = load(run.path(runs.CONFIG), overrides)
        told = resuming.refuse_other_config(before.to_dict(), config.to_dict(), run.directory)
        config = dataclasses.replace(config, name=before.name, training=stages.settled(config, before))
        resuming.refuse_nothing_to_do(config.training.epochs, known, run.directory)
        told += resuming.other_environment(known, record.environment())
        if told:
            run.say("warning: what follows may differ in the last digits from a run without interruption:")
            run.say(*(f"  {difference}" for difference in told))
        return _train(config, run, steps=known.get("limit"), split=split, model=model, known=known)


def newest_unfinished(config: RunConfig) -> Path | None:
    """The run under `runs/` that began last with this config and is not finished."""

    def is_same(directory: Path) -> bool:
        try:
            resuming.refuse_other_config(load_run(directory).to_dict(), config.to_dict(), directory)
        except ToolkitError:
            return False
        return True

    return resuming.newest_unfinished(Path("runs"), is_same)


def _train(
    config: RunConfig, run: Run, *, steps: int | None, split: str, model: Any, known: Mapping[str, Any] | None = None
) -> Path:
    """The walk of `train` and, with what its record has `known`, of `resume`."""
    run.say(f"run directory {run.directory}")
    stages.set_up(config)
    data = stages.load_data(config, run, spec=stages.read_spec(run.directory) if known else None, model=model)
    stages.check_task(config, data.spec)
    config = auto.settle(config, data, run.say, model=model)
    model = stages.build_model(config, data.spec, model)
    stages.start_from(model, config, data.spec, run.say, resumed=known is not None)
    objective = stages.objective(config, data.spec)
    feed = stages.feed(config, data)
    weights = stages.class_weights(config, data)
    total = int(known["total_steps"]) if known else stages.total_steps(config, feed)
    stages.compile_model(model, objective, config, total)
    checkpoint = None
    if known:
        checkpoint = _go_on(config, data, feed, run, known)
    else:
        _write_start(config, data, model, run, total_steps=total, limit=steps)
    outcome = stages.fit(model, config, data, feed, run, class_weights=weights, limit=steps, checkpoint=checkpoint)
    _write_training(config, outcome, run)
    try:
        stages.load_weights(model, run.directory)
        stages.evaluate(model, objective, config, data, split, run)
    except Exception as error:
        raise RunFailed(
            f"training succeeded but evaluation failed ({error}): the weights are safe in "
            f"{run.path(runs.WEIGHTS)}, and `toolkit evaluate {run.directory}` tries again."
        ) from error
    stages.update_record(run, state="finished")
    run.say(f"everything is in {run.directory}")
    return run.directory


def evaluate(
    run_dir: Path | str,
    *,
    split: str = "test",
    weights: Literal["best", "last"] = "best",
    backend: str | None = None,
    beam_width: int = 1,
    model: Any = None,
) -> Evaluation | Transcription:
    """Measure weights that a run kept on one of its splits, and write table and pictures into its directory.

    Args:
        weights: of the best epoch, or of the last.
        backend: in place of the one that the run was trained on.
        beam_width: of speech to text: how many beginnings of a text are followed while it is decoded; 1 is greedy.
        model: the Keras model, where the run was trained with one that its config does not name.

    Raises:
        ToolkitError: no trained run, no such split, or data that is not what the run was trained with.
    """
    with Run.open(Path(run_dir)) as run:
        config, data, model, objective = trained(
            run, split, weights=weights, backend=backend, beam_width=beam_width, model=model
        )
        return stages.evaluate(model, objective, config, data, split, run, weights=weights, beam_width=beam_width)


class Trained(NamedTuple):
    """A run that was trained, brought back: `data` has one of its splits, `model` the weights it kept."""

    config: RunConfig
    data: Data
    model: Any
    objective: Objective


def trained(
    run: Run,
    split: str = "test",
    *,
    weights: Literal["best", "last"] = "best",
    backend: str | None = None,
    beam_width: int = 1,
    model: Any = None,
) -> Trained:
    """Bring back what `run` has trained, beside the data that it was trained with; the arguments are `evaluate`'s.

    Raises:
        ToolkitError: no such split, or data that is not what the run was trained with.
    """
    if split not in SPLITS:
        raise ToolkitError(f"--split {split!r} is unknown: use one of {', '.join(SPLITS)}.")
    config = stages.set_up(load_run(run.directory), backend)
    spec = stages.read_spec(run.directory)
    objective = stages.objective(config, spec, beam_width=beam_width)
    data = stages.load_data(config, run, splits=(split,), spec=spec, model=model)
    _check_same_data(data, split, run)
    model = stages.build_model(config, spec, model)
    stages.load_weights(model, run.directory, runs.KEPT[weights])
    return Trained(config, data, model, objective)


def predict(
    run_dir: Path | str,
    *,
    files: Sequence[Path] = (),
    texts: Sequence[str] = (),
    output: Path | None = None,
    backend: str | None = None,
    beam_width: int = 1,
    model: Any = None,
) -> Prediction | Transcripts:
    """A run's answers to files, folders of files, or texts; the run directory itself stays as it is.

    Args:
        output: a CSV file to write; None only returns and prints the answers.
        backend: in place of the one that the run was trained on.
        beam_width: of speech to text: how many beginnings of a text are followed while it is decoded; 1 is greedy.
        model: the Keras model, where the run was trained with one that its config does not name.

    Raises:
        ToolkitError: no trained run, nothing to answer, inputs of another kind than the run's, or `output` exists.
    """
    directory = runs.check(Path(run_dir))
    config = stages.set_up(load_run(directory), backend)
    spec = stages.read_spec(directory)
    objective = stages.objective(config, spec, beam_width=beam_width)
    inputs = stages.read_inputs(spec, files, texts)
    model = stages.build_model(config, spec, model)
    stages.load_weights(model, directory)
    return stages.answer(model, objective, config, spec, inputs, output)


def _write_start(config: RunConfig, data: Data, model: Any, run: Run, *, total_steps: int, limit: int | None) -> None:
    from toolkit.data.order import ORDER_VERSION

    run.write(runs.SPEC, data.spec.to_json())
    run.write_duplicates(data.duplicates)
    run.write_bad_examples(data.bad)
    run.write(runs.CONFIG, config.to_yaml())
    started = {
        **record.environment(),
        "backend": config.training.backend,
        "seed": config.seed,
        "model": model.name,
        "parameters": model.count_params(),
        "order_version": ORDER_VERSION,
        "total_steps": total_steps,
        "limit": limit,
        "fingerprints": stages.fingerprints(data),
        "duplicates": {f"{first}/{second}": len(ids) for (first, second), ids in data.duplicates.items()},
        "bad_examples": len(data.bad),
        "state": "training",
    }
    run.write(runs.RECORD, json.dumps(started, indent=2))
    counts = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    run.say(f"{model.name} with {model.count_params():,} parameters; examples: {counts}")


def _go_on(config: RunConfig, data: Data, feed: Feed, run: Run, known: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint that the run goes on from; None where it was interrupted before its first."""
    from toolkit.data.order import ORDER_VERSION
    from toolkit.training.position import check_state

    resuming.refuse_other_data(known["fingerprints"], stages.fingerprints(data), run.directory)
    if known["order_version"] != ORDER_VERSION:
        raise ToolkitError(
            f"the run in {run.directory} saw its examples in order version {known['order_version']}, this toolkit has "
            f"{ORDER_VERSION}: go on with the toolkit that began it."
        )
    checkpoint = checkpoints.newest(run.path(checkpoints.FOLDER), report=run.say, check=check_state)
    if checkpoint is None and run.path(runs.METRICS).exists():
        raise ToolkitError(
            f"{run.path(checkpoints.FOLDER)} holds no checkpoint, though the run has trained: bring them back, or "
            "start a run of its own without --resume."
        )
    if checkpoint and checkpoint.state["run"] != stages.identity(config, data):
        raise ToolkitError(f"{checkpoint.path} belongs to another run: bring back the checkpoints of this one.")
    position: dict[str, Any] = {"epoch": 1, "batch": 0, "trained": 0, "best": {"epoch": None}}
    if checkpoint:
        position = checkpoint.state["position"]
    begun = position["epoch"] if position["batch"] else position["epoch"] - 1
    if config.training.epochs < begun:
        raise ToolkitError(
            f"training.epochs is {config.training.epochs}, but the run in {run.directory} has trained in epoch {begun} "
            f"already: set it to {begun} or more."
        )
    best = position["best"]["epoch"]
    if not kept.go_back(run.directory, best):
        run.say(f"warning: the weights of epoch {best}, the best then, are gone until a later epoch is better")
    run.write(runs.CONFIG, config.to_yaml())
    step = position["trained"]
    sitting = {**record.environment(), "step": step}
    stages.update_record(run, state="training", error=None, resumed=[*known.get("resumed", []), sitting])
    run.say(f"going on after step {step:,}" if checkpoint else "going on from the start: there was no checkpoint yet")
    if stages.total_steps(config, feed) > known["total_steps"] and config.optimizer.schedule:
        longer = config.optimizer.schedule.arguments.get("total_steps")
        if longer is None:
            run.say(
                f"note: the schedule ends at step {known['total_steps']:,}, and the rate stays there; "
                "optimizer.schedule.total_steps makes it longer"
            )
    return checkpoint


def _write_training(config: RunConfig, outcome: Outcome, run: Run) -> None:
    from toolkit.evaluation.curves import draw_curves

    draw_curves(run.path(runs.METRICS), run.path(runs.CURVES), best_metric=config.training.best_metric)
    stages.update_record(
        run,
        state="trained",
        epochs=outcome.epochs,
        stopped_early=outcome.stopped_early,
        seconds=round(outcome.seconds, 1),
        saving_seconds=round(outcome.saving, 2),
        best=dataclasses.asdict(outcome.best),
    )


def _check_same_data(data: Data, split: str, run: Run) -> None:
    known = stages.read_record(run)["fingerprints"].get(split)
    if known != data.splits[split].fingerprint:
        raise ToolkitError(
            f"the {split} part is not the one that {run.directory} was trained beside (fingerprint "
            f"{data.splits[split].fingerprint[:12]}, recorded {str(known)[:12]}): bring back the data as it was."
        )
