"""From a run's directory to what is left of its accuracy when the test part is changed."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import registry, stages, workflow
from toolkit.config import RunConfig, load_run
from toolkit.errors import ToolkitError, did_you_mean
from toolkit.explain.robustness import changed, measure
from toolkit.explain.robustness.attack import gradient_of
from toolkit.explain.robustness.change import DEFINITIONS, SEVERITIES
from toolkit.explain.robustness.changed import Examples
from toolkit.explain.robustness.document import FILE, PART, Pass, Robustness, Setting, check_comparable, compare, read
from toolkit.explain.robustness.measure import Figures
from toolkit.runs import run as runs
from toolkit.runs import trust
from toolkit.runs.run import Run

if TYPE_CHECKING:
    from toolkit.data.load import Split
    from toolkit.data.spec import DataSpec
    from toolkit.workflow import Trained

EPSILONS = (1, 2, 4, 8, 16)


def robustness(
    run_dir: Path | str,
    *,
    changes: Sequence[str] = (),
    severities: Sequence[int] = SEVERITIES,
    epsilons: Sequence[int] | None = None,
    limit: int | None = None,
    seed: int = 0,
    baseline: Path | str | None = None,
    backend: str | None = None,
    model: Any = None,
) -> Robustness:
    """Measure a run on its test part under graded changes, and leave `robustness.json` and pictures in its directory.

    A pass that was interrupted goes on where it stopped.

    Args:
        changes: names of changes and attacks; none stands for all that there are for this kind of data.
        severities: of the changes, 1 to 5.
        epsilons: of the attacks, in grey levels; None stands for 1, 2, 4, 8 and 16.
        limit: measure a sample of so many examples.
        seed: of the sample and of the changes.
        baseline: the directory of a run that was measured alike, to set the errors beside its own.
        backend: in place of the one that the run was trained on.
        model: the Keras model, where the run was trained with one that its config does not name.

    Raises:
        ToolkitError: no trained run, no such change, a strength out of range, or a baseline that was measured
            otherwise.
        RunFailed: the model's output is not finite.
    """
    directory = runs.check(Path(run_dir))
    spec = stages.read_spec(directory)
    passes = all_passes(spec, changes, severities, epsilons)
    if limit is not None and limit < 1:
        raise ToolkitError(f"--limit is {limit}, but a sample has one example at least: use 1 or more.")
    if limit is not None and limit >= spec.examples.get("test", 0):
        limit = None  # a sample of all
    setting = _setting(directory, backend, seed, limit)
    beside = None
    if baseline is not None:
        beside = _read_baseline(runs.check(Path(baseline)))
        check_comparable(
            beside, setting, [one for one in passes if one[0] not in changed.attacks(spec)], Path(baseline)
        )
    with Run.open(directory) as run:
        trained = workflow.trained(run, "test", backend=backend, model=model)
        attacked = any(name in changed.attacks(spec) for name, _ in passes)
        examples = _examples(trained, seed, limit, attacked=attacked)
        found = _measure(trained, examples, passes, setting, run)
        if beside is not None:
            found = dataclasses.replace(found, comparison=compare(found, beside, Path(baseline or "")))
        _write(found, examples, run)
    return found


def all_passes(
    spec: DataSpec,
    changes: Sequence[str] = (),
    severities: Sequence[int] = SEVERITIES,
    epsilons: Sequence[int] | None = None,
) -> list[tuple[str, int]]:
    """Every (change, strength) that `robustness` is asked for, in order, once."""
    graded, attacks = changed.names(spec), changed.attacks(spec)
    for name in changes:
        if name not in (*graded, *attacks):
            raise ToolkitError(
                f"--changes has {trust.shown(name)!r}, which is no change of {spec.kind} data"
                f"{did_you_mean(name, (*graded, *attacks))}: use some of {', '.join((*graded, *attacks))}."
            )
    wanted = dict.fromkeys(changes or (*graded, *attacks))
    if epsilons is not None and not set(wanted) & set(attacks):
        raise ToolkitError(
            "--epsilons is given, but no attack is among the changes: leave it out"
            + (f", or add {' or '.join(attacks)} to --changes." if attacks else f"; {spec.kind} data has none.")
        )
    epsilons = EPSILONS if epsilons is None else epsilons
    for flag, values, most in (("--severities", severities, SEVERITIES[-1]), ("--epsilons", epsilons, 255)):
        for value in values:
            if not 1 <= value <= most:
                raise ToolkitError(f"{flag} has {value}, but they reach from 1 to {most}: use some of these.")
        if not values:
            raise ToolkitError(f"{flag} is empty, so nothing would be changed: name one or more, or leave it out.")
    strengths = {**dict.fromkeys(graded, severities), **dict.fromkeys(attacks, epsilons)}
    return [(name, strength) for name in wanted for strength in sorted(set(strengths[name]))]


def _setting(directory: Path, backend: str | None, seed: int, limit: int | None) -> Setting:
    fingerprint = trust.read_record(directory / runs.RECORD)["fingerprints"].get("test", "")
    backend = backend or load_run(directory).training.backend
    return Setting(
        fingerprint=fingerprint,
        weights=_digest_of_weights(directory),
        backend=backend,
        seed=seed,
        limit=limit,
        definitions=DEFINITIONS,
    )


def _digest_of_weights(directory: Path) -> str:
    with trust.open_file(directory / runs.WEIGHTS) as file:
        return hashlib.sha256(file.read()).hexdigest()


def _read_baseline(directory: Path) -> Robustness:
    if not (directory / FILE).exists():
        raise ToolkitError(
            f"--baseline {trust.shown(directory)} holds no {FILE}: run `toolkit robustness` on it first, with the same "
            "options."
        )
    found = read(directory / FILE)
    if found.setting.weights != _digest_of_weights(directory):
        raise ToolkitError(
            f"--baseline {trust.shown(directory)} has other weights than those that its {FILE} was measured with: "
            "measure it again with the same options."
        )
    return found


def _examples(trained: Trained, seed: int, limit: int | None, *, attacked: bool) -> Examples:
    split = trained.data.splits["test"]
    return Examples(
        split=split,
        spec=trained.data.spec,
        positions=changed.sample(split, limit, seed),
        batch_size=trained.config.data.options.evaluation_batch_size,
        seed=seed,
        strings=_strings(trained.config, split) if trained.data.spec.kind == "text" else (),
        gradient=gradient_of(trained.model) if attacked else None,
    )


def _strings(config: RunConfig, split: Split) -> list[str]:
    """The texts of the split, from the source: its table holds numbers of words."""
    source = config.data.source
    part = registry.resolve("sources", source.name)(**source.arguments).splits[split.name]
    texts = dict(zip(part.ids, part.values, strict=True))
    return [texts[id] for id in split.ids]


def _measure(
    trained: Trained, examples: Examples, wanted: Sequence[tuple[str, int]], setting: Setting, run: Run
) -> Robustness:
    from toolkit.training.progress import EpochBar

    start = time.perf_counter()
    known = _known(run, setting)
    run.say(f"examples of test: {len(examples.positions):,}; changes, each severity counted: {len(wanted)}")
    if known:
        run.say(f"going on where an earlier pass was interrupted; known already: {len(known)}")
    answers = _answers(trained, examples, "clean", 0)
    clean = _figures(examples, answers, None)

    def gathered(passes: Iterable[tuple[str, int]]) -> Robustness:
        return Robustness(
            split="test",
            examples=len(examples.positions),
            task=examples.spec.task,
            setting=setting,
            clean=clean,
            passes=tuple(Pass(change=change, strength=of, figures=known[change, of]) for change, of in passes),
            attacks=changed.attacks(examples.spec),
            comparison=None,
            seconds=round(time.perf_counter() - start, 1),
        )

    with EpochBar(run.console, title="robustness", steps=len(wanted)) as bar:
        for number, (change, strength) in enumerate(wanted):
            bar.update(number, f"{change} {strength}")
            if (change, strength) not in known:
                known[change, strength] = _figures(examples, _answers(trained, examples, change, strength), answers)
                gathered(known).write(run.path(PART))
    return gathered(wanted)


def _known(run: Run, setting: Setting) -> dict[tuple[str, int], Figures]:
    """What an interrupted pass of the same setting has left."""
    path = run.path(PART)
    if not path.exists():
        return {}
    part = read(path)
    if part.setting != setting:
        run.say(f"note: {PART} is of other weights, options or definitions of the changes, so nothing in it is used")
        return {}
    return {(one.change, one.strength): one.figures for one in part.passes}


def _answers(trained: Trained, examples: Examples, change: str, strength: int) -> Any:
    """Probabilities (n, classes), or n texts."""
    from toolkit.evaluation.predict import predict
    from toolkit.evaluation.transcripts import transcribe

    ask: Callable[..., Any] = predict if examples.transcripts is None else transcribe
    return ask(trained.model, trained.objective, examples.batches(change, strength), ids=examples.ids)


def _figures(examples: Examples, answers: Any, clean: Any) -> Figures:
    """Of `answers`, beside those to the `clean` examples; None where they are these."""
    if examples.transcripts is not None:
        return measure.of_transcripts(answers, examples.transcripts, clean)
    labels = examples.split.labels[examples.positions]
    return measure.of_classes(answers, labels, None if clean is None else clean.argmax(axis=1))


def _write(found: Robustness, examples: Examples, run: Run) -> None:
    from toolkit.evaluation.files import remove_file, replace_file
    from toolkit.explain.robustness import picture, table

    remove_file(run.path(FILE))  # it stands only beside the pictures of the same figures
    replace_file(run.path("robustness.png"), picture.draw_errors(found))
    if found.task == "classification":
        replace_file(run.path("reliability.png"), picture.draw_reliability(found))
    if examples.spec.kind == "image":
        replace_file(run.path("robustness-examples.png"), picture.draw_examples(found, examples))
    found.write(run.path(FILE))
    left = len(_known(run, found.setting).keys() - {(one.change, one.strength) for one in found.passes})
    if left:
        run.say(f"kept in {PART} for a later pass over more changes: {left} that were not asked for")
    else:
        remove_file(run.path(PART))
    run.say(*table.tables(found), f"everything is in {run.directory}")
