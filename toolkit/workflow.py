"""The walks: from a config to a trained and evaluated model, and from its run directory to figures and answers.

Nothing heavy is imported before `backend.select` has chosen what Keras runs on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import backend as backends
from toolkit.config import RunConfig, load, load_run
from toolkit.data.spec import MAX_BYTES, SPLITS, DataSpec
from toolkit.errors import RunFailed, ToolkitError
from toolkit.runs import arrays, checkpoints, record, trust
from toolkit.runs import resume as resuming
from toolkit.runs import run as runs
from toolkit.runs.checkpoints import Checkpoint
from toolkit.runs.run import Run

if TYPE_CHECKING:
    from toolkit.data.files import Unlabelled
    from toolkit.data.load import Data
    from toolkit.evaluation.evaluate import Evaluation
    from toolkit.evaluation.predict import Prediction
    from toolkit.tasks.objective import Objective
    from toolkit.training.feed import Feed
    from toolkit.training.loop import Outcome


def train(
    config: RunConfig | Path | str, *, run_dir: Path | str | None = None, steps: int | None = None, model: Any = None
) -> Path:
    """Train what `config` describes, evaluate it on the test part, and leave a run directory.

    Args:
        config: checked by `toolkit.load_config`, or the path of a file that is still to be.
        run_dir: the run's own folder; None makes one under `runs/`.
        steps: a smoke run: only the first so many batches of the training, validated and evaluated all the same.
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
        return _train(config, run, steps=steps, model=model)


def resume(
    run_dir: Path | str,
    config: RunConfig | Path | str | None = None,
    *,
    overrides: Sequence[str] = (),
    model: Any = None,
) -> Path:
    """Go on with a training that was interrupted, as if it had not been, and evaluate it.

    Args:
        run_dir: of the run.
        config: to compare with the run's own, from which it may differ in `training.epochs` and little else; None
            takes the run's own.
        overrides: values that win over the run's own config, where no other is given.
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
        known = _read_record(run)
        before = load_run(run.directory)
        if config is None:
            config = load(run.path(runs.CONFIG), overrides)
        told = resuming.refuse_other_config(before.to_dict(), config.to_dict(), run.directory)
        config = dataclasses.replace(config, name=before.name)
        resuming.refuse_nothing_to_do(before.training.epochs, config.training.epochs, known, run.directory)
        told += resuming.other_environment(known, record.environment())
        if told:
            run.say("warning: what follows may differ in the last digits from a run without interruption:")
            run.say(*(f"  {difference}" for difference in told))
        return _train(config, run, steps=known.get("limit"), model=model, known=known)


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
    config: RunConfig, run: Run, *, steps: int | None, model: Any, known: Mapping[str, Any] | None = None
) -> Path:
    """The walk of `train` and, with what its record has `known`, of `resume`."""
    run.say(f"run directory {run.directory}")
    _set_up(config)
    data = _load_data(config, run, spec=_read_spec(run.directory) if known else None)
    model = _build_model(config, data.spec, model)
    _start_from(model, config, data.spec, run, resumed=known is not None)
    objective = _objective(config, data.spec)
    feed = _feed(config, data)
    weights = _class_weights(config, data)
    total = int(known["total_steps"]) if known else _total_steps(config, feed)
    _compile(model, objective, config, total)
    checkpoint = None
    if known:
        checkpoint = _go_on(config, data, feed, run, known)
    else:
        _write_start(config, data, model, run, total_steps=total, limit=steps)
    outcome = _fit(model, config, data, feed, run, class_weights=weights, limit=steps, checkpoint=checkpoint)
    _write_training(config, outcome, run)
    try:
        _load_weights(model, run.directory)
        _evaluate(model, objective, config, data, "test", run)
    except Exception as error:
        raise RunFailed(
            f"training succeeded but evaluation failed ({error}): the weights are safe in "
            f"{run.path(runs.WEIGHTS)}, and `toolkit evaluate {run.directory}` tries again."
        ) from error
    _update_record(run, state="finished")
    run.say(f"everything is in {run.directory}")
    return run.directory


def evaluate(run_dir: Path | str, *, split: str = "test", backend: str | None = None, model: Any = None) -> Evaluation:
    """Measure a run's kept weights on one of its splits, and write table and pictures into its directory.

    Args:
        backend: in place of the one that the run was trained on.
        model: the Keras model, where the run was trained with one that its config does not name.

    Raises:
        ToolkitError: no trained run, no such split, or data that is not what the run was trained with.
    """
    if split not in SPLITS:
        raise ToolkitError(f"--split {split!r} is unknown: use one of {', '.join(SPLITS)}.")
    with Run.open(Path(run_dir)) as run:
        config = _set_up(load_run(run.directory), backend)
        spec = _read_spec(run.directory)
        data = _load_data(config, run, splits=(split,), spec=spec)
        _check_same_data(data, split, run)
        model = _build_model(config, spec, model)
        _load_weights(model, run.directory)
        return _evaluate(model, _objective(config, spec), config, data, split, run)


def predict(
    run_dir: Path | str,
    *,
    files: Sequence[Path] = (),
    texts: Sequence[str] = (),
    output: Path | None = None,
    backend: str | None = None,
    model: Any = None,
) -> Prediction:
    """A run's answers to files, folders of files, or texts; the run directory itself stays as it is.

    Args:
        output: a CSV file to write; None only returns and prints the answers.
        backend: in place of the one that the run was trained on.
        model: the Keras model, where the run was trained with one that its config does not name.

    Raises:
        ToolkitError: no trained run, nothing to answer, inputs of another kind than the run's, or `output` exists.
    """
    directory = runs.check(Path(run_dir))
    config = _set_up(load_run(directory), backend)
    spec = _read_spec(directory)
    inputs = _read_inputs(spec, files, texts)
    model = _build_model(config, spec, model)
    _load_weights(model, directory)
    return _predict(model, _objective(config, spec), config, spec, inputs, output)


def _set_up(config: RunConfig, backend: str | None = None) -> RunConfig:
    if backend:
        # Threads were chosen for the other backend, and JAX has no such setting.
        training = config.training.model_copy(update={"backend": backend, "threads": None})
        config = dataclasses.replace(config, training=training)
    key = "--backend" if backend else "training.backend"
    training = config.training
    backends.select(training.backend, key=key, threads=training.threads, deterministic=training.deterministic)
    import keras

    keras.utils.set_random_seed(config.seed)
    return config


def _load_data(config: RunConfig, run: Run, *, splits: Sequence[str] = SPLITS, spec: DataSpec | None = None) -> Data:
    from toolkit.data.load import TooManyBadExamples, load

    options = config.data.options
    try:
        data = load(
            config.data.source.name,
            config.data.source.arguments,
            image_size=options.image_size,
            sample_rate=options.sample_rate,
            vocabulary_size=options.vocabulary_size,
            max_tokens=options.max_tokens,
            buckets=options.buckets,
            max_bad_fraction=options.max_bad_fraction,
            cache=options.cache,
            splits=splits,
            spec=spec,
            report=run.say,
        )
    except TooManyBadExamples as error:
        if spec is not None:
            raise  # the list in the directory is the training's
        run.write_bad_examples(error.bad)
        raise RunFailed(f"{error} All are listed in {run.path(runs.BAD_EXAMPLES)}.") from error
    for (first, second), count in data.duplicates.items():
        if count:
            run.say(f"note: {count} examples of {second} have the same content as one of {first}")
    for split, bad in data.bad[:5]:
        run.say(f"note: left out of {split}: {bad.id} ({bad.reason})")
    if len(data.bad) > 5:
        run.say(f"note: {len(data.bad):,} examples were left out in all")
    return data


def _build_model(config: RunConfig, spec: DataSpec, model: Any = None) -> Any:
    from toolkit.models.build import build, check_output

    if model is not None:
        check_output(model, spec, "the model is one of your own")
        return model
    return build(config.model.name, config.model.arguments, spec, precision=config.training.precision)


def _objective(config: RunConfig, spec: DataSpec) -> Objective:
    from toolkit.tasks.objective import objective

    return objective(spec, label_smoothing=config.training.label_smoothing)


def _feed(config: RunConfig, data: Data) -> Feed:
    from toolkit.training.feed import feed

    options = config.data.options
    return feed(
        data,
        batch_size=options.batch_size,
        evaluation_batch_size=options.evaluation_batch_size,
        seed=config.seed,
        augmentation=options.augmentation.model_dump() if options.augmentation else {},
        metered=not config.training.deterministic,  # TensorFlow then has no clock
    )


def _total_steps(config: RunConfig, feed: Feed) -> int:
    from toolkit.training.steps import steps_done

    return steps_done(
        feed.per_epoch * config.training.epochs,
        per_epoch=feed.per_epoch,
        accumulation=config.optimizer.options.gradient_accumulation_steps,
    )


def _compile(model: Any, objective: Objective, config: RunConfig, total_steps: int) -> None:
    from toolkit.optimizers.build import build

    optimizer, schedule = config.optimizer.optimizer, config.optimizer.schedule
    # JAX always compiles; elsewhere compiling is the person's choice, never Keras's guess.
    jit = "auto" if config.training.backend == "jax" else config.training.jit
    model.compile(
        optimizer=build(
            optimizer.name,
            optimizer.arguments,
            schedule=(schedule.name, schedule.arguments) if schedule else None,
            options=config.optimizer.options.model_dump(),
            total_steps=total_steps,
        ),
        loss=objective.loss,
        metrics=objective.metrics,
        jit_compile=jit,
    )


def _start_from(model: Any, config: RunConfig, spec: DataSpec, run: Run, *, resumed: bool) -> None:
    from toolkit.models.weights import fitting_names, set_arrays
    from toolkit.training.start import freeze

    if config.training.init_from and not resumed:
        directory = runs.check(Path(config.training.init_from))
        if _read_spec(directory).vocabulary != spec.vocabulary:
            raise ToolkitError(
                f"training.init_from is {directory}, whose vocabulary is another than that of this data, so its word "
                "vectors would stand for other words: train on the same train split and data.vocabulary_size."
            )
        earlier = directory / runs.WEIGHTS
        fitting = fitting_names(model, arrays.shapes(earlier), where=str(earlier), partial=True)
        values, _ = arrays.load(earlier, only=fitting)
        new = set_arrays(model, values, where=str(earlier), partial=True)
        run.say(f"weights from {earlier}" + (f"; new: {', '.join(new)}" if new else ""))
    freeze(model, config.training.freeze)


def _write_start(config: RunConfig, data: Data, model: Any, run: Run, *, total_steps: int, limit: int | None) -> None:
    from toolkit.data.order import ORDER_VERSION

    run.write(runs.CONFIG, config.to_yaml())
    run.write(runs.SPEC, data.spec.to_json())
    started = {
        **record.environment(),
        "backend": config.training.backend,
        "seed": config.seed,
        "model": model.name,
        "parameters": model.count_params(),
        "order_version": ORDER_VERSION,
        "total_steps": total_steps,
        "limit": limit,
        "fingerprints": _fingerprints(data),
        "duplicates": {f"{first}/{second}": count for (first, second), count in data.duplicates.items()},
        "bad_examples": len(data.bad),
        "state": "training",
    }
    run.write(runs.RECORD, json.dumps(started, indent=2))
    if data.bad:
        run.write_bad_examples(data.bad)
    counts = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    run.say(f"{model.name} with {model.count_params():,} parameters; examples: {counts}")


def _fingerprints(data: Data) -> dict[str, str]:
    return {name: split.fingerprint for name, split in data.splits.items()}


def _identity(config: RunConfig, data: Data) -> str:
    return resuming.identity(config.to_dict(), _fingerprints(data))


def _go_on(config: RunConfig, data: Data, feed: Feed, run: Run, known: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint that the run goes on from; None where it was interrupted before its first."""
    from toolkit.data.order import ORDER_VERSION
    from toolkit.training.position import check_state

    resuming.refuse_other_data(known["fingerprints"], _fingerprints(data), run.directory)
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
    if checkpoint and checkpoint.state["run"] != _identity(config, data):
        raise ToolkitError(f"{checkpoint.path} belongs to another run: bring back the checkpoints of this one.")
    run.write(runs.CONFIG, config.to_yaml())
    step = checkpoint.state["position"]["trained"] if checkpoint else 0
    sitting = {**record.environment(), "step": step}
    _update_record(run, state="training", error=None, resumed=[*known.get("resumed", []), sitting])
    run.say(f"going on after step {step:,}" if checkpoint else "going on from the start: there was no checkpoint yet")
    if _total_steps(config, feed) > known["total_steps"] and config.optimizer.schedule:
        longer = config.optimizer.schedule.arguments.get("total_steps")
        if longer is None:
            run.say(
                f"note: the schedule ends at step {known['total_steps']:,}, and the rate stays there; "
                "optimizer.schedule.total_steps makes it longer"
            )
    return checkpoint


def _class_weights(config: RunConfig, data: Data) -> dict[int, float] | None:
    from toolkit.tasks.classification import class_weights

    if config.training.class_weights is None:
        return None
    return class_weights(data.splits["train"].labels, len(data.spec.class_names))


def _fit(
    model: Any,
    config: RunConfig,
    data: Data,
    feed: Feed,
    run: Run,
    *,
    class_weights: dict[int, float] | None,
    limit: int | None,
    checkpoint: Checkpoint | None,
) -> Outcome:
    from toolkit.models.weights import get_arrays
    from toolkit.training.loop import fit
    from toolkit.training.stop import Stopped

    training = config.training
    try:
        outcome = fit(
            model,
            feed,
            run,
            save_weights=lambda model: arrays.save(run.path(runs.WEIGHTS), get_arrays(model)),
            epochs=training.epochs,
            best_metric=training.best_metric,
            early_stopping=training.early_stopping.model_dump() if training.early_stopping else None,
            plateau=training.plateau.model_dump() if training.plateau else None,
            class_weights=class_weights,
            log_every=training.log_every,
            limit=limit,
            on_non_finite=training.on_non_finite,
            max_skipped=training.max_skipped,
            checkpoint=training.checkpoint.model_dump(),
            identity=_identity(config, data),
            resume_from=checkpoint,
        )
    except BaseException as error:
        state = "stopped" if isinstance(error, Stopped | KeyboardInterrupt) else "failed"
        with contextlib.suppress(OSError):  # a full disk may be what stopped it
            _update_record(run, state=state, error=str(error) or type(error).__name__)
        raise
    spent = f"{outcome.seconds:.1f} s, {outcome.saving:.1f} s of it saving"
    best = f"{outcome.best.metric} {outcome.best.value:.4f}"
    run.say(f"trained {outcome.epochs} epochs in {spent}; kept epoch {outcome.best.epoch} ({best})")
    return outcome


def _load_weights(model: Any, directory: Path) -> None:
    from toolkit.models.weights import fitting_names, set_arrays

    path = directory / runs.WEIGHTS
    fitting_names(model, arrays.shapes(path), where=str(path))  # before anything is read that does not fit
    values, _ = arrays.load(path)
    set_arrays(model, values, where=str(path))


def _write_training(config: RunConfig, outcome: Outcome, run: Run) -> None:
    from toolkit.evaluation.curves import draw_curves

    draw_curves(run.path(runs.METRICS), run.path(runs.CURVES), best_metric=config.training.best_metric)
    _update_record(
        run,
        state="trained",
        epochs=outcome.epochs,
        stopped_early=outcome.stopped_early,
        seconds=round(outcome.seconds, 1),
        saving_seconds=round(outcome.saving, 2),
        best=dataclasses.asdict(outcome.best),
    )


def _update_record(run: Run, **fields: Any) -> None:
    run.write(runs.RECORD, json.dumps({**_read_record(run), **fields}, indent=2))


def _read_record(run: Run) -> dict[str, Any]:
    return trust.read_record(run.path(runs.RECORD))


def _read_spec(directory: Path) -> DataSpec:
    path = directory / runs.SPEC
    return DataSpec.from_json(trust.read_text(path, limit=MAX_BYTES), where=str(path))


def _check_same_data(data: Data, split: str, run: Run) -> None:
    known = _read_record(run)["fingerprints"].get(split)
    if known != data.splits[split].fingerprint:
        raise ToolkitError(
            f"the {split} part is not the one that {run.directory} was trained beside (fingerprint "
            f"{data.splits[split].fingerprint[:12]}, recorded {str(known)[:12]}): bring back the data as it was."
        )


def _evaluate(model: Any, objective: Objective, config: RunConfig, data: Data, split: str, run: Run) -> Evaluation:
    from toolkit.data.batches import evaluation_batches
    from toolkit.evaluation.evaluate import evaluate
    from toolkit.evaluation.table import class_table, summary_table

    part = data.splits[split]
    evaluation = evaluate(
        model,
        objective,
        evaluation_batches(part, data.spec, batch_size=config.data.options.evaluation_batch_size),
        labels=part.labels,
        ids=part.ids,
        class_names=data.spec.class_names,
        directory=run.directory,
        split=split,
    )
    run.say(summary_table(evaluation), class_table(evaluation))
    return evaluation


def _read_inputs(spec: DataSpec, files: Sequence[Path], texts: Sequence[str]) -> Unlabelled:
    from toolkit.data.files import read_files, read_texts

    if files and texts:
        raise ToolkitError("predict takes files or --text, not both: ask twice.")
    if not files and not texts:
        raise ToolkitError("predict has nothing to answer: give files, a folder, or --text for a text model.")
    return read_files(spec, files) if files else read_texts(spec, texts)


def _predict(
    model: Any, objective: Objective, config: RunConfig, spec: DataSpec, inputs: Unlabelled, output: Path | None
) -> Prediction:
    from rich.console import Console

    from toolkit.evaluation.names import printable
    from toolkit.evaluation.predict import Prediction, predict, refuse_existing, write_predictions
    from toolkit.evaluation.table import predictions_table

    if output is not None:
        refuse_existing(output)
    batches = inputs.batches(config.data.options.evaluation_batch_size)
    probabilities = predict(model, objective, batches, ids=inputs.ids)
    console = Console()
    for bad in inputs.bad:
        console.print(printable(f"left out {bad.id}: {bad.reason}"), markup=False, highlight=False, soft_wrap=True)
    if output is None:
        console.print(predictions_table(inputs.ids, probabilities, spec.class_names))
    else:
        write_predictions(output, inputs.ids, probabilities, spec.class_names)
        console.print(f"{len(inputs.ids):,} answers are in {output}", markup=False, highlight=False, soft_wrap=True)
    return Prediction(inputs.ids, probabilities, spec.class_names, [(bad.id, bad.reason) for bad in inputs.bad])
