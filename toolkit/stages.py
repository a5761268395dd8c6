"""The stages of a walk, each handing what the config says, and what earlier stages gave, to one room.

Nothing heavy is imported before `set_up` has chosen what Keras runs on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import backend as backends
from toolkit.config import RunConfig
from toolkit.data.spec import MAX_BYTES, SPLITS, DataSpec
from toolkit.errors import Diverged, RunFailed, ToolkitError
from toolkit.runs import arrays, kept, trust
from toolkit.runs import resume as resuming
from toolkit.runs import run as runs
from toolkit.runs.checkpoints import Checkpoint
from toolkit.runs.run import Run

if TYPE_CHECKING:
    from toolkit.config.options import TrainingOptions
    from toolkit.data.files import Unlabelled
    from toolkit.data.load import Data
    from toolkit.evaluation.evaluate import Evaluation
    from toolkit.evaluation.predict import Prediction
    from toolkit.evaluation.transcripts import Transcription, Transcripts
    from toolkit.tasks.objective import Objective
    from toolkit.training.feed import Feed
    from toolkit.training.loop import Outcome

_OWN = "the model is one of your own"


def set_up(config: RunConfig, backend: str | None = None) -> RunConfig:
    """Choose the backend and seed everything; the config, with `backend` in place of its own where one is given."""
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


def settled(config: RunConfig, before: RunConfig) -> TrainingOptions:
    """The section `training` of `config`, with what the run chose `before` in place of `auto`."""
    chosen = {key.rpartition(".")[2] for key in resuming.SETTLED}
    update = {key: getattr(before.training, key) for key in chosen if getattr(config.training, key) == "auto"}
    return config.training.model_copy(update=update)


def read_data(
    config: RunConfig,
    report: Callable[[str], None],
    *,
    splits: Sequence[str] = SPLITS,
    spec: DataSpec | None = None,
    model: Any = None,
) -> Data:
    """The examples of `splits`; for `model`, where that is one of a person's own."""
    from toolkit.data.load import load

    options = config.data.options
    return load(
        config.data.source.name,
        config.data.source.arguments,
        image_size=options.image_size,
        sample_rate=options.sample_rate,
        vocabulary_size=options.vocabulary_size,
        max_tokens=options.max_tokens,
        buckets=options.buckets,
        transcript_units=options.transcript_units,
        frames=_frames(config, model),
        fastest=1 + options.augmentation.speed if options.augmentation else 1.0,
        max_bad_fraction=options.max_bad_fraction,
        cache=options.cache,
        splits=splits,
        spec=spec,
        report=report,
    )


def _frames(config: RunConfig, model: Any) -> Callable[[int, int], int] | None:
    """How many frames the model makes of (samples, rate); None where nothing tells."""
    from toolkit import registry
    from toolkit.models.build import check_inputs

    if model is None:
        count = getattr(registry.resolve("models", config.model.name), "frames", None)
        return functools.partial(count, **config.model.arguments) if count else None

    named = isinstance(getattr(model, "input", None), dict)

    def frames(samples: int, rate: int) -> int:
        check_inputs(model, "audio", _OWN)
        shapes = {"samples": (1, samples), "lengths": (1,)}
        shape = model.compute_output_shape(shapes if named else shapes["samples"])
        if len(shape) != 3 or shape[1] is None:
            raise ToolkitError(
                f"{_OWN}, and gives outputs of shape {shape} for {samples} samples, which does "
                "not tell for how many frames: let it give (batch, frames, units + 1)."
            )
        return int(shape[1])

    return frames


def load_data(
    config: RunConfig,
    run: Run,
    *,
    splits: Sequence[str] = SPLITS,
    spec: DataSpec | None = None,
    model: Any = None,
) -> Data:
    """The examples of `splits` for a run; what was left out, and what two splits share, is said."""
    from toolkit.data.load import TooManyBadExamples

    try:
        data = read_data(config, run.say, splits=splits, spec=spec, model=model)
    except TooManyBadExamples as error:
        if spec is not None:
            raise  # the list in the directory is the training's
        run.write_bad_examples(error.bad)
        raise RunFailed(f"{error} All are listed in {run.path(runs.BAD_EXAMPLES)}.") from error
    for (first, second), ids in data.duplicates.items():
        if ids:
            run.say(f"note: {len(ids)} examples of {second} have the same content as one of {first}")
    for split, bad in data.bad[:5]:
        run.say(f"note: left out of {split}: {bad.id} ({bad.reason})")
    if len(data.bad) > 5:
        run.say(f"note: {len(data.bad):,} examples were left out in all")
    return data


def build_model(config: RunConfig, spec: DataSpec, model: Any = None) -> Any:
    """The config's model for this data, or the person's own, once its output fits."""
    from toolkit.models.build import build, check_inputs, check_output, check_size

    what = f"model.name is {config.model.name}"
    if model is not None:
        what = _OWN
        check_inputs(model, spec.kind, what)
        check_output(model, spec, what)
    else:
        model = build(config.model.name, config.model.arguments, spec, precision=config.training.precision)
    augmentation = config.data.options.augmentation
    if augmentation and augmentation.crop:
        check_size(model, augmentation.crop, what)
    return model


def objective(config: RunConfig, spec: DataSpec, *, beam_width: int = 1) -> Objective:
    """What the task of the data means for loss, metrics and reading outputs."""
    from toolkit.tasks.objective import objective

    return objective(spec, label_smoothing=config.training.label_smoothing, beam_width=beam_width)


def check_task(config: RunConfig, spec: DataSpec) -> None:
    """Refuse what `training` asks for and the task of the data does not have."""
    if spec.task == "classification":
        return
    training = config.training
    watched = {"best_metric": training.best_metric}
    for key in ("early_stopping", "plateau"):
        if options := getattr(training, key):
            watched[f"{key}.monitor"] = options.monitor
    for key, metric in watched.items():
        if metric.endswith("accuracy"):
            raise ToolkitError(
                f"training.{key} is {metric}, but the data is for {spec.task}, which has no accuracy: use val_loss."
            )
    if training.class_weights is not None:
        raise ToolkitError(
            f"training.class_weights is set, but the data is for {spec.task}, which has no classes: remove it."
        )


def feed(config: RunConfig, data: Data) -> Feed:
    """The batches of training and validation."""
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


def total_steps(config: RunConfig, feed: Feed) -> int:
    """Optimizer steps in all epochs."""
    from toolkit.training.steps import steps_done

    return steps_done(
        feed.per_epoch * config.training.epochs,
        per_epoch=feed.per_epoch,
        accumulation=config.optimizer.options.gradient_accumulation_steps,
    )


def compile_model(model: Any, objective: Objective, config: RunConfig, total_steps: int) -> None:
    """Give the model its optimizer, loss and metrics."""
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


def start_from(model: Any, config: RunConfig, spec: DataSpec, report: Callable[[str], None], *, resumed: bool) -> None:
    """Load what `training.init_from` names, unless the run is resumed, and freeze what `training.freeze` names."""
    from toolkit.models.weights import fitting_names, set_arrays
    from toolkit.training.start import freeze

    if config.training.init_from and not resumed:
        directory = runs.check(Path(config.training.init_from))
        before = read_spec(directory)
        if before.task == spec.task and before.vocabulary != spec.vocabulary:
            stand, key = ("word vectors", "vocabulary_size") if spec.kind == "text" else ("outputs", "transcript_units")
            raise ToolkitError(
                f"training.init_from is {directory}, whose vocabulary is another than that of this data, so its "
                f"{stand} would stand for others: train on the same train split and data.{key}."
            )
        earlier = directory / runs.WEIGHTS
        fitting = fitting_names(model, arrays.shapes(earlier), where=str(earlier), partial=True)
        values, _ = arrays.load(earlier, only=fitting)
        new = set_arrays(model, values, where=str(earlier), partial=True)
        report(f"weights from {earlier}" + (f"; new: {', '.join(new)}" if new else ""))
    freeze(model, config.training.freeze)


def class_weights(config: RunConfig, data: Data) -> dict[int, float] | None:
    """Weights of the classes, from the labels of the training part; None without `training.class_weights`."""
    from toolkit.tasks.classification import class_weights

    if config.training.class_weights is None:
        return None
    return class_weights(data.splits["train"].labels, len(data.spec.class_names))


def fit(
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
    """Train, and put into the record how that ended if it broke off."""
    from toolkit.models.weights import get_arrays
    from toolkit.training.averages import averaged_weights
    from toolkit.training.loop import fit
    from toolkit.training.stop import Stopped

    training = config.training
    try:
        outcome = fit(
            model,
            feed,
            run,
            save_weights=lambda model, epoch: kept.save(run.directory, get_arrays(model), epoch),
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
            identity=identity(config, data),
            resume_from=checkpoint,
            watch_every=training.watch_every if training.watch else None,
        )
        with averaged_weights(model):
            arrays.save(run.path(runs.LAST), get_arrays(model))
    except BaseException as error:
        state = "stopped" if isinstance(error, Stopped | KeyboardInterrupt) else "failed"
        with contextlib.suppress(RunFailed):  # a full disk may be what stopped it
            told = str(error) or type(error).__name__
            update_record(run, state=state, error=told, diverged=isinstance(error, Diverged))
            tell_gradients(run)
        raise
    spent = f"{outcome.seconds:.1f} s, {outcome.saving:.1f} s of it saving"
    best = f"{outcome.best.metric} {outcome.best.value:.4f}"
    run.say(f"trained {outcome.epochs} epochs in {spent}; kept epoch {outcome.best.epoch} ({best})")
    tell_gradients(run)
    return outcome


def tell_gradients(run: Run) -> None:
    """Say what the gradients of a training that was watched tell, if any."""
    from toolkit.runs import gradients
    from toolkit.training.verdicts import summary

    path = run.path(runs.GRADIENTS)
    if path.exists() and path.stat().st_size:  # a resume may have cut it to nothing
        run.say(*summary(gradients.read(path)))


def load_weights(model: Any, directory: Path, name: str = runs.WEIGHTS) -> None:
    """Set weights that the run kept."""
    from toolkit.models.weights import fitting_names, set_arrays

    path = directory / name
    fitting_names(model, arrays.shapes(path), where=str(path))  # before anything is read that does not fit
    values, _ = arrays.load(path)
    set_arrays(model, values, where=str(path))


def evaluate(
    model: Any,
    objective: Objective,
    config: RunConfig,
    data: Data,
    split: str,
    run: Run,
    *,
    weights: str = "best",
    beam_width: int = 1,
) -> Evaluation | Transcription:
    """Measure on one split, and write and say the figures."""
    from toolkit.data.batches import evaluation_batches
    from toolkit.evaluation import table
    from toolkit.evaluation.evaluate import evaluate
    from toolkit.evaluation.transcripts import evaluate as evaluate_transcripts

    part = data.splits[split]
    if weights != "best":
        run.say(f"weights of the {weights} epoch")
    batches = evaluation_batches(part, data.spec, batch_size=config.data.options.evaluation_batch_size)
    to: dict[str, Any] = {"ids": part.ids, "directory": run.directory, "split": split, "weights": weights}
    if part.texts is not None:
        heard = evaluate_transcripts(model, objective, batches, texts=part.texts, beam_width=beam_width, **to)
        run.say(table.transcription_table(heard), table.confusions_table(heard))
        return heard
    evaluation = evaluate(model, objective, batches, labels=part.labels, class_names=data.spec.class_names, **to)
    run.say(table.summary_table(evaluation), table.class_table(evaluation))
    return evaluation


def read_inputs(spec: DataSpec, files: Sequence[Path], texts: Sequence[str]) -> Unlabelled:
    """What a person asks about: files, or texts."""
    from toolkit.data.files import read_files, read_texts

    if files and texts:
        raise ToolkitError("predict takes files or --text, not both: ask twice.")
    if not files and not texts:
        raise ToolkitError("predict has nothing to answer: give files, a folder, or --text for a text model.")
    return read_files(spec, files) if files else read_texts(spec, texts)


def answer(
    model: Any, objective: Objective, config: RunConfig, spec: DataSpec, inputs: Unlabelled, output: Path | None
) -> Prediction | Transcripts:
    """Predict, and print the answers or write them to `output`."""
    from rich.console import Console

    from toolkit.evaluation.names import printable
    from toolkit.evaluation.predict import Prediction, predict, refuse_existing, write_new
    from toolkit.evaluation.table import predictions_table, transcripts_table
    from toolkit.evaluation.transcripts import Transcripts, transcribe

    if output is not None:
        refuse_existing(output)
    batches, ids = inputs.batches(config.data.options.evaluation_batch_size), inputs.ids
    left_out = [(bad.id, bad.reason) for bad in inputs.bad]
    found: Prediction | Transcripts
    if spec.task == "transcription":
        texts = transcribe(model, objective, batches, ids=ids)
        found = Transcripts(ids, texts, left_out)
        shown = transcripts_table(ids, texts)
    else:
        shares = predict(model, objective, batches, ids=ids)
        found = Prediction(ids, shares, spec.class_names, left_out)
        shown = predictions_table(ids, shares, spec.class_names)
    console = Console()
    for id, reason in left_out:
        console.print(printable(f"left out {id}: {reason}"), markup=False, highlight=False, soft_wrap=True)
    if output is None:
        console.print(shown)
    else:
        write_new(output, found.to_csv())
        console.print(f"{len(ids):,} answers are in {output}", markup=False, highlight=False, soft_wrap=True)
    return found


def read_spec(directory: Path) -> DataSpec:
    """What the run's data was."""
    path = directory / runs.SPEC
    return DataSpec.from_json(trust.read_text(path, limit=MAX_BYTES), where=str(path))


def read_record(run: Run) -> dict[str, Any]:
    """The fields of the run's record."""
    return trust.read_record(run.path(runs.RECORD))


def update_record(run: Run, **fields: Any) -> None:
    """Change some fields of the run's record."""
    run.write(runs.RECORD, json.dumps({**read_record(run), **fields}, indent=2))


def fingerprints(data: Data) -> dict[str, str]:
    """The fingerprint of each split."""
    return {name: split.fingerprint for name, split in data.splits.items()}


def identity(config: RunConfig, data: Data) -> str:
    """What must stay the same for a run to go on, as one hash."""
    return resuming.identity(config.to_dict(), fingerprints(data))
