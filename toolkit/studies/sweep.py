"""Hyperparameter search: Optuna draws, each trial is a training in its own run directory, the validation part chooses.

Any number of processes may work on one study. Where one of them dies, its heartbeat ends, and another takes the trial
up again in the same run directory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import filelock

from toolkit.config.shipped import find_config
from toolkit.errors import Diverged, RunFailed, ToolkitError
from toolkit.runs.metrics import Row
from toolkit.studies.space import Space, read_space
from toolkit.studies.trial import OtherConfig, Training, Unfit, refuse_untrainable
from toolkit.training.monitors import Best
from toolkit.training.progress import figures
from toolkit.training.stop import Stopped, StopSignal, stop_signals

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial, Trial

Pruner = Literal["median", "hyperband", "none"]
DATABASE = "sweep.db"
HEARTBEAT, GRACE = 10, 60  # seconds: between two signs of life, and after the last until a trial counts as left
WAIT = 1.0  # seconds between two looks at what other processes do
MOST_UNFIT = 3  # trials in a row that cannot be trained
_OURS, _VALIDATION = "sweep", "validation"  # attributes of a study: what it searches, and on which examples


def sweep(
    config: str,
    space: Path,
    *,
    trials: int = 20,
    folder: Path | None = None,
    storage: str | None = None,
    study: str | None = None,
    pruner: Pruner = "median",
    seed: int = 0,
    overrides: Sequence[str] = (),
    say: Callable[[str], object] = print,
) -> Path:
    """Search `space` for the config that is best on the validation part, or go on with a search.

    Args:
        config: a YAML file or the name of a shipped config.
        space: a YAML file, see `read_space`.
        trials: of all processes together; those of an earlier call count.
        folder: of the run directories and what is written at the end; None: `runs/sweep-<config>`.
        storage: address of a database that Optuna takes; None: an SQLite file in `folder`.
        study: its name in the database; None: the config's.
        pruner: what ends a trial that is behind the others.
        seed: of the sampler; the draws of a trial are a function of it, of the trial's place, and of the results
            before.
        overrides: as `--set` takes them.
        say: takes a line for people.

    Returns:
        The config of the best trial, ready to be trained.

    Raises:
        ToolkitError: a wrong request; nothing is written, unless it shows only when a trial is trained.
        Stopped: a signal came; the same call goes on.
        RunFailed: a training or the storage failed, or no trial was trained to its end.
    """
    import sqlalchemy.exc
    from optuna.exceptions import StorageInternalError

    from toolkit.studies.sweep_page import write_results

    searched = read_space(space, find_config(config), overrides)
    refuse_untrainable(searched.config, searched.overrides)
    folder = (folder or Path("runs") / f"sweep-{searched.base.name}").absolute()
    opened = _open(searched, folder, storage, study or searched.base.name, pruner, seed)
    say(f"sweep of {searched.base.name} in {folder}: {searched.metric} of the validation part, seed {seed}")
    with stop_signals() as stop:
        worker = _Worker(opened, searched, folder, trials, seed, stop, say)
        try:
            worker.work()
        except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
            reason = str(error).partition("\n")[0]
            raise RunFailed(f"the storage of the sweep failed ({reason}): mend it; the same call goes on.") from error
    return write_results(opened, searched, folder, say)


def _open(searched: Space, folder: Path, storage: str | None, name: str, pruner: Pruner, seed: int) -> Study:
    """The study, made where there is none yet.

    Raises:
        ToolkitError: the storage cannot be used, or its study is of another search.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what there is to tell, we tell
    if storage is None:
        with _lock(folder):  # two processes that make the same file would hinder one another
            return _study(searched, _storage(f"sqlite:///{folder / DATABASE}"), name, pruner, seed)
    return _study(searched, _storage(storage), name, pruner, seed)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[filelock.BaseFileLock]:
    """The lock of a folder, which is made; held by who draws, never while a trial trains."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / "lock")
        lock.acquire()
    except OSError as error:
        raise ToolkitError(f"{folder} cannot be written ({error.strerror}): name another --folder.") from error
    try:
        yield lock
    finally:
        lock.release()


def _storage(address: str) -> RDBStorage:
    import sqlalchemy.exc
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

    # SQLite lets one write at a time; the others wait for so many seconds.
    patient = {"connect_args": {"timeout": 60}} if address.startswith("sqlite") else {}
    try:
        with _experiment():
            return RDBStorage(
                address,
                engine_kwargs=patient,
                heartbeat_interval=HEARTBEAT,
                grace_period=GRACE,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, RuntimeError) as error:
        # Of a driver that is missing Optuna does not say which; what it hides does.
        hidden = error.__context__ if isinstance(error, ImportError) else None
        reason = str(hidden or error).partition("\n")[0]
        raise ToolkitError(
            f"--storage cannot be used ({reason}): give the address of a database, as in "
            "postgresql://user:password@host/name, whose driver is installed, or leave it out."
        ) from error


def _study(searched: Space, storage: RDBStorage, name: str, pruner: Pruner, seed: int) -> Study:
    import optuna

    ours = {
        "config": {key: value for key, value in searched.base.to_dict().items() if key != "name"},
        "space": searched.plain(),
        "seed": seed,
        "pruner": pruner,
    }
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction="minimize" if searched.metric.endswith("loss") else "maximize",
        pruner=_pruner(pruner, searched.epochs),
        load_if_exists=True,
    )
    if _OURS not in study.user_attrs:
        study.set_user_attr(_OURS, ours)
    known = study.user_attrs[_OURS]
    other = [key for key, value in json.loads(json.dumps(ours)).items() if known.get(key) != value]
    if other:
        raise ToolkitError(
            f"the sweep {name!r} was begun with another {', '.join(other)}: put that back, or name another --folder "
            "or, in a shared --storage, another --study."
        )
    return study


def _pruner(name: Pruner, epochs: int) -> BasePruner:
    from optuna import pruners

    if name == "median":
        return pruners.MedianPruner()
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    return pruners.NopPruner()


def places(trials: Sequence[FrozenTrial]) -> list[int]:
    """The place of each trial: one that takes another up again has that one's, any other the next that is free."""
    from optuna.storages import RetryHeartbeatStaleTrialCallback

    found: list[int] = []
    free = 0
    with _experiment():
        for trial in trials:
            first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
            found.append(free if first is None else found[first])
            free += first is None
    return found


@contextlib.contextmanager
def _experiment() -> Iterator[None]:
    """Optuna calls what retries trials an experiment, each time."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


@dataclasses.dataclass
class _Worker:
    """What one process does of a sweep."""

    study: Study
    space: Space
    folder: Path
    trials: int
    seed: int
    stop: StopSignal
    say: Callable[[str], object]
    unfit: tuple[str, ...] = ()  # what was said of the last trials, where none of them could be trained
    number: int = -1  # of the trial that began last

    def work(self) -> None:
        """Train trials until there are as many as were asked for, and those of other processes are over too."""
        waits = False
        while True:
            with _lock(self.folder) as lock:
                states = self._states()
                begun = sum(state.is_finished() for state in states.values())
                running = sum(state.name == "RUNNING" for state in states.values())
                left = any(state.name == "WAITING" for state in states.values())
                if left or begun + running < self.trials:
                    waits = False
                    self._trial(len(states), lock)
                    continue
            if not running:
                return
            if not waits:
                self.say(f"waiting for {running} trials of other processes")
                waits = True
            if self.stop.received:
                raise Stopped("stopped while other processes train; the same sweep goes on.", self.stop.received)
            time.sleep(WAIT)

    def _states(self) -> Mapping[int, Any]:
        """The state of each place, which is that of its last trial; trials that were left wait to be taken up."""
        from optuna.storages import fail_stale_trials

        with _experiment():
            fail_stale_trials(self.study)
        trials = self.study.get_trials(deepcopy=False)
        return dict(zip(places(trials), (trial.state for trial in trials), strict=True))

    def _trial(self, place: int, lock: filelock.BaseFileLock) -> None:
        """Train one; `place` is its place if it is a new one."""
        import numpy as np
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.samplers import TPESampler
        from optuna.storages import RetryHeartbeatStaleTrialCallback

        # Of its own for each place: a sweep that is interrupted, or shared, draws what one process would have drawn.
        seed = int(np.random.SeedSequence([self.seed, place]).generate_state(1)[0])
        self.study.sampler = TPESampler(seed=seed)
        self.number = -1
        try:
            self.study.optimize(functools.partial(self._objective, lock), n_trials=1, catch=(Unfit,))
        except (Stopped, RunFailed, OtherConfig):
            with _experiment():
                RetryHeartbeatStaleTrialCallback()(self.study, self.study.trials[self.number])
            raise
        except (ValueError, AssertionError, UpdateFinishedTrialError):
            # What Optuna raises where it is told the end of a trial that has failed already.
            if not self._is_taken_up():
                raise
            place = places(self.study.get_trials(deepcopy=False))[self.number]
            self.say(f"trial-{place:04d} was taken up by another process, as this one gave no sign of life")
        if len(self.unfit) == MOST_UNFIT:
            alike = len(set(self.unfit)) == 1
            why = f", each for the same reason: {self.unfit[0]}" if alike else ": make the space smaller."
            raise ToolkitError(f"{MOST_UNFIT} trials in a row could not be trained{why}")

    def _is_taken_up(self) -> bool:
        """Whether another process has queued the trial that began last again; not where none began."""
        from optuna.storages import RetryHeartbeatStaleTrialCallback

        with _experiment():
            histories = map(RetryHeartbeatStaleTrialCallback.retry_history, self.study.get_trials(deepcopy=False))
            return any(history[-1:] == [self.number] for history in histories)

    def _objective(self, lock: filelock.BaseFileLock, trial: Trial) -> float:
        """Train, report each epoch, and give the best one's metric."""
        import optuna

        self.number = trial.number
        for dimension in self.space.dimensions:
            dimension.draw(trial)
        lock.release()
        place = places(self.study.get_trials(deepcopy=False))[trial.number]
        training = Training(
            self.folder / f"trial-{place:04d}", self.space.config, tuple(self.space.settings(trial.params))
        )
        name, best = training.directory.name, Best(self.space.metric)
        before, self.unfit = self.unfit, ()
        self.say(f"{name}: {', '.join(f'{key} {shown(value)}' for key, value in trial.params.items())}")
        try:
            with contextlib.closing(training.epochs(self.stop)) as epochs:
                for row in epochs:
                    self._report(trial, row, best, training)
                    if trial.should_prune():
                        self.say(f"{name}: pruned after epoch {row['epoch']}, {self._told(best)}")
                        raise optuna.TrialPruned
        except Unfit as error:
            self.unfit = (*before, str(error))
            self.say(f"{name}: cannot be trained: {error}")
            raise
        except Diverged as error:
            self.say(f"{name}: pruned: {error}")
            raise optuna.TrialPruned from error
        self.say(f"{name}: {self._told(best)}")
        assert best.value is not None  # a training that ends well has an epoch, and what it measured is finite
        return best.value

    def _report(self, trial: Trial, row: Row, best: Best, training: Training) -> None:
        """Take in the figures of an epoch."""
        if best.epoch is None:
            self._check_validation(training)
        best.update(row["epoch"], row[self.space.metric])
        trial.report(row[self.space.metric], row["epoch"])
        trial.set_user_attr("epoch", best.epoch)

    def _check_validation(self, training: Training) -> None:
        """Refuse to compare trials that are measured on different examples."""
        found = training.record()["fingerprints"]["validation"]
        known = self.study.user_attrs.get(_VALIDATION)
        if known is None:
            self.study.set_user_attr(_VALIDATION, found)
        elif known != found:
            raise ToolkitError(
                f"{training.directory.name} has another validation part (fingerprint {found[:12]}) than the trials "
                f"before it ({known[:12]}), so they do not compare: take what changes the data out of the space, or "
                "bring back the data as it was."
            )

    def _told(self, best: Best) -> str:
        assert best.value is not None
        return f"{figures({best.metric: best.value})} in epoch {best.epoch}"


def shown(value: Any) -> str:
    """A value that was drawn, short."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
