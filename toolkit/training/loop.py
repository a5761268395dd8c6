"""The training loop: one `fit` call per epoch, so that a run can be continued from any step.

A single `fit` over all epochs cannot resume inside one: it shifts or cuts the epochs that follow. What Keras would do
between the epochs (averages, validation, best weights, stopping) is done here, in the order that is written here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from toolkit.errors import Diverged, ToolkitError, did_you_mean
from toolkit.runs import gradients, metrics
from toolkit.runs import run as runs
from toolkit.runs.checkpoints import Checkpoint
from toolkit.runs.run import Run
from toolkit.training.averages import averaged_weights, finalising_put_off
from toolkit.training.calls import Calls
from toolkit.training.feed import Feed
from toolkit.training.guard import NonFiniteStep, Watch, guarded_steps
from toolkit.training.keeper import Keep, Keeper, LeaveValidation, ValidationLeft
from toolkit.training.monitors import Best, EarlyStopping, Plateau
from toolkit.training.position import Position
from toolkit.training.progress import EpochBar, figures, speed_figures
from toolkit.training.recorder import StepRecorder, TensorBoard
from toolkit.training.replay import find_cause
from toolkit.training.state import Generator, Restore, prepare, restore
from toolkit.training.steps import steps_done
from toolkit.training.stop import stop_signals
from toolkit.training.watch import GradientWatch


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        epochs: trained, the last maybe in part.
        micro_batches: trained.
        seconds: of training and validation together, in all sittings.
        saving: seconds of the last sitting that went into checkpoints.
        best: the epoch whose weights were kept.
        stopped_early: whether early stopping has ended it.
    """

    epochs: int
    micro_batches: int
    seconds: float
    saving: float
    best: Best
    stopped_early: bool


def fit(
    model: Any,
    feed: Feed,
    run: Run,
    *,
    save_weights: Callable[[Any, int], None],
    epochs: int,
    best_metric: str,
    early_stopping: Mapping[str, Any] | None = None,
    plateau: Mapping[str, Any] | None = None,
    class_weights: Mapping[int, float] | None = None,
    log_every: int = 50,
    limit: int | None = None,
    on_non_finite: str = "stop",
    max_skipped: int = 10,
    checkpoint: Mapping[str, Any] | None = None,
    identity: str = "",
    resume_from: Checkpoint | None = None,
    watch_every: int | None = None,
) -> Outcome:
    """Train a compiled model, epoch by epoch.

    Args:
        save_weights: called whenever `best_metric` improved, with the model (with its averaged weights, if any) and the
            epoch.
        plateau: when to lower the rate, as `Plateau` takes it.
        class_weights: class → weight of its examples in the training loss.
        log_every: micro-batches between two rows of `metrics.jsonl`.
        limit: stop after so many micro-batches (a smoke run); None trains all epochs.
        on_non_finite: "stop" or "skip" a step whose loss or gradient is NaN or infinite; it changes nothing either way.
        max_skipped: of the run; one more stops it.
        checkpoint: when to save, as `Keeper` takes it.
        identity: of the run, written into its checkpoints.
        resume_from: a checkpoint of this run; None begins at the first step.
        watch_every: micro-batches from one step whose gradients are measured to the next; None measures none.

    Raises:
        Diverged: a step or the validation loss was not finite; what was kept before stays on disk.
        RunFailed: a checkpoint could not be written; so it does then.
        Stopped: a signal came; a checkpoint was written.
        ToolkitError: a metric to watch does not exist, or the checkpoint does not fit.
    """
    if resume_from:
        position = Position.from_dict(resume_from.state["position"])
    else:
        position = Position(
            best=Best(best_metric),
            stopping=EarlyStopping(**early_stopping) if early_stopping else None,
            plateau=Plateau(**plateau) if plateau else None,
        )
    with stop_signals() as stop, contextlib.closing(_board(run, position)) as board:
        generator = Generator(resume_from.arrays if resume_from else {})
        keeper = Keeper(run, model, position, stop, identity, generator, **(checkpoint or {}))
        training = _Training(
            model=model,
            feed=feed,
            run=run,
            keeper=keeper,
            board=board,
            save_weights=save_weights,
            epochs=epochs,
            class_weights=class_weights,
            log_every=log_every,
            limit=limit,
            max_skipped=max_skipped if on_non_finite == "skip" else 0,
            watch_every=watch_every,
        )
        training.begin(resume_from)
        with guarded_steps(model):
            while not training.is_over():
                training.epoch()
    return Outcome(
        epochs=position.epoch - 1,
        micro_batches=position.trained,
        seconds=position.seconds,
        saving=keeper.saving,
        best=position.best,
        stopped_early=position.stopped_early,
    )


def _board(run: Run, position: Position) -> TensorBoard:
    """TensorBoard's folder with the rows that the files had at `position`, behind which they are cut."""
    metrics.cut(run.path(runs.METRICS), position.rows)
    metrics.cut(run.path(runs.GRADIENTS), position.gradient_rows)
    directory = run.path(runs.TENSORBOARD)
    if directory.exists():
        shutil.rmtree(directory)  # it may hold what came after the checkpoint
    board = TensorBoard(directory)
    if position.rows:
        for row in metrics.read(run.path(runs.METRICS)):
            board.write(row)
    if position.gradient_rows:
        for row in gradients.rows(run.path(runs.GRADIENTS)):
            board.write(gradients.scalars(row))
    return board


@dataclasses.dataclass(kw_only=True)
class _Training:
    """What one process does of a training; `keeper.position` says where it stands."""

    model: Any
    feed: Feed
    run: Run
    keeper: Keeper
    board: TensorBoard
    save_weights: Callable[[Any, int], None]
    epochs: int
    class_weights: Mapping[int, float] | None
    log_every: int
    limit: int | None
    max_skipped: int
    watch_every: int | None

    def __post_init__(self) -> None:
        self.at = self.keeper.position
        self.checkpoint: Checkpoint | None = None  # what `fit` still has to restore
        self.watch: GradientWatch | None = None
        self.calls = Calls(self.model, self.feed, epochs=self.epochs, class_weights=self.class_weights)

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Bring the model to where the checkpoint was written, or write the first one, of a run without steps."""
        prepare(self.model, self.feed.validation)
        if self.watch_every:
            self.watch = GradientWatch(
                self.model,
                self.feed,
                self.at,
                every=self.watch_every,
                class_weights=self.class_weights,
                write=self._append_gradients,
            )
        if checkpoint is None:
            self.keeper.save()
            return
        restore(self.model, checkpoint)
        self.checkpoint = checkpoint

    def is_over(self) -> bool:
        """Whether all epochs are trained, or as much as was asked for, or early stopping has said so."""
        limited = self.limit is not None and self.at.trained >= self.limit and not self.at.batch
        return self.at.epoch > self.epochs or self.at.stopped_early or limited

    def epoch(self) -> None:
        """Train an epoch, or what is left of it, and validate."""
        at, title = self.at, f"epoch {self.at.epoch}/{self.epochs}"
        planned = _rate_function(self.model.optimizer, self.feed.per_epoch)

        def rate(trained: int) -> float:
            return planned(trained - at.skipped)  # what was skipped was no step

        speed = self._train(title, rate)
        with self._left_validation_is_saved(), averaged_weights(self.model):
            logs = self._validate()
            improved = at.best.update(at.epoch, _watched(logs, at.best.metric, "training.best_metric"))
            if improved:
                self.save_weights(self.model, at.epoch)
        row = {"kind": "epoch", "epoch": at.epoch, "step": at.trained, **logs, "learning_rate": rate(at.trained)}
        self._append({**row, **speed})
        self.run.say(_line(title, logs, speed, best=improved))
        at.epoch, at.batch, at.logs, at.recorder = at.epoch + 1, 0, {}, {}
        self._heed_monitors(logs)
        self.model.reset_metrics()  # they hold the validation, and a checkpoint would hand it on to the next epoch
        self.keeper.after_epoch(last=self.is_over())

    def _train(self, title: str, rate: Callable[[int], float]) -> dict[str, float]:
        """One `fit` call over the batches that are left, if any; the speed of the epoch."""
        at, before = self.at, self.at.trained - self.at.batch
        steps = self.feed.per_epoch if self.limit is None else min(self.feed.per_epoch, self.limit - before)
        with EpochBar(self.run.console, title=title, steps=steps) as bar:
            recorder = StepRecorder(
                epoch=at.epoch,
                first_step=before,
                batch_size=self.feed.batch_size,
                log_every=self.log_every,
                append=self._append,
                bar=bar,
                waited=self.calls.waited if self.feed.metered else None,
                learning_rate=rate,
                state=at.recorder,
            )
            if at.batch < steps:
                keep = Keep(self.keeper, recorder.state)
                watch = [self.watch] if self.watch else []
                # `Watch` comes first: what ends the training has drawn no random numbers either.
                callbacks: list[Any] = [Watch(self._skips), self.keeper.generator, *watch, recorder, keep]
                if self.checkpoint:
                    callbacks.insert(0, Restore(self.checkpoint))
                try:
                    with (
                        finalising_put_off(self.model.optimizer),
                        self.calls.of(at.epoch - 1, at.batch, steps - at.batch, self._until_due) as fed,
                    ):
                        self.model.fit(
                            fed,
                            initial_epoch=at.epoch - 1,
                            epochs=at.epoch,
                            callbacks=callbacks,
                            shuffle=False,  # the order is in the batches already
                            verbose=0,
                        )
                except NonFiniteStep as error:
                    self._fail(error.code)
        self.checkpoint = None
        if hasattr(self.model.optimizer, "flush"):
            self.model.optimizer.flush()
        return recorder.speed()

    def _until_due(self) -> int:
        """Micro-batches up to the next row, checkpoint or measurement."""
        every = [n for n in (self.log_every, self.keeper.every_steps) if n]
        spans = [n - self.at.trained % n for n in every]
        return min([*spans, self.watch.until_due()] if self.watch else spans)

    def _skips(self, code: int) -> bool:
        """Whether the step that comes next in the position may be left out; if so, it is told."""
        at = self.at
        if at.skipped >= self.max_skipped:
            return False
        at.skipped += 1
        what, ids = "gradient" if code > 0 else "loss", self.feed.ids(at.epoch - 1, at.batch)
        self.run.say(
            f"warning: skipped step {at.batch + 1} of epoch {at.epoch}, whose {what} is not finite "
            f"({at.skipped} of at most {self.max_skipped}); its examples: {', '.join(ids)}"
        )
        return True

    def _fail(self, code: int) -> NoReturn:
        """Save the run as it was before the step that comes next, and tell what in that step is not finite."""
        at = self.at
        self.keeper.save()
        if self.watch:  # after the save: a resume cuts the row, and makes the step again
            self.watch.write_undone()
        inputs, _ = self.feed.batch(at.epoch - 1, at.batch)
        ids = self.feed.ids(at.epoch - 1, at.batch)
        cause = find_cause(self.model, inputs, ids, code)
        self.run.say(f"step {at.batch + 1} of epoch {at.epoch} has the examples {', '.join(ids)}")
        skipped, more = "", "training.on_non_finite=skip"
        if self.max_skipped:
            skipped, more = f" ({at.skipped} steps were skipped before)", f"training.max_skipped={2 * self.max_skipped}"
        raise Diverged(
            f"step {at.batch + 1} of epoch {at.epoch} gave a {'gradient' if code > 0 else 'loss'} that is not "
            f"finite{skipped}: {cause}. The run is saved as it was before; to leave such steps out, `toolkit train "
            f"--resume {self.run.directory} --set {more}`, or train anew with a lower optimizer.learning_rate, with "
            "optimizer.schedule.warmup_steps or optimizer.global_clipnorm."
        )

    def _validate(self) -> dict[str, float]:
        """The metrics of the epoch's training and of its validation."""
        leave = [LeaveValidation(self.keeper.stop)]
        measured = self.model.evaluate(self.feed.validation, callbacks=leave, verbose=0, return_dict=True)
        logs = {**self.at.logs, **{f"val_{name}": float(value) for name, value in measured.items()}}
        if not math.isfinite(logs["val_loss"]):
            raise Diverged(
                f"the validation loss became {logs['val_loss']} after epoch {self.at.epoch}: lower "
                "optimizer.learning_rate, or look for examples with extreme values."
            )
        return logs

    @contextlib.contextmanager
    def _left_validation_is_saved(self) -> Iterator[None]:
        """Where a signal ends the validation, the epoch is saved as before it, to be validated when the run goes on."""
        try:
            yield
        except ValidationLeft:
            self.keeper.after_batch()

    def _heed_monitors(self, logs: Mapping[str, float]) -> None:
        """Early stopping and the plateau take in what was measured."""
        stopping, plateau, optimizer = self.at.stopping, self.at.plateau, self.model.optimizer
        if stopping and stopping.update(_watched(logs, stopping.monitor, "training.early_stopping.monitor")):
            self.at.stopped_early = True
            self.run.say(
                f"stopped early: {stopping.monitor} has not improved for {stopping.patience} epochs "
                f"(best {stopping.best:.4f})"
            )
        if plateau:
            rate = _number(optimizer.learning_rate)
            lower = plateau.lower(_watched(logs, plateau.monitor, "training.plateau.monitor"), rate)
            if lower != rate:
                optimizer.learning_rate = lower
                self.run.say(
                    f"learning rate {lower:g}: {plateau.monitor} has not improved for {plateau.patience} epochs"
                )

    def _append(self, row: Mapping[str, Any]) -> None:
        metrics.append(self.run.path(runs.METRICS), row)
        self.board.write(row)

    def _append_gradients(self, row: Mapping[str, Any]) -> None:
        metrics.append(self.run.path(runs.GRADIENTS), row)
        self.board.write(gradients.scalars(row))


def _line(title: str, logs: Mapping[str, float], speed: Mapping[str, float], *, best: bool) -> str:
    """What a person reads about an epoch."""
    return f"{title}  {figures(logs)}  {speed_figures(speed)}  {speed['seconds']:.0f} s{'  best' if best else ''}"


def _rate_function(optimizer: Any, per_epoch: int) -> Callable[[int], float]:
    """Micro-batches trained → the rate of the last of their steps.

    It is computed and not read from the optimizer, whose variables are away while JAX trains.
    """
    import keras

    rate = optimizer._learning_rate
    if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        constant = _number(optimizer.learning_rate)
        return lambda trained: constant
    accumulation = optimizer.gradient_accumulation_steps

    def current(trained: int) -> float:
        done = steps_done(trained, per_epoch=per_epoch, accumulation=accumulation)
        return _number(rate(max(done, 1) - 1))

    return current


def _number(value: Any) -> float:
    from keras import ops

    return float(ops.convert_to_numpy(value))


def _watched(logs: Mapping[str, float], metric: str, key: str) -> float:
    if metric not in logs:
        raise ToolkitError(
            f"{key} is {metric!r}, which is not measured{did_you_mean(metric, logs)}: use one of {', '.join(logs)}."
        )
    return logs[metric]
