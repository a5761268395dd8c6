"""Before a training: what of a config's data, model and machine will spoil it, in under a minute."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit import auto, stages
from toolkit.config import RunConfig, load
from toolkit.errors import ToolkitError
from toolkit.explain.findings import (
    Finding,
    listed,
    of_classes,
    of_copies,
    of_heart,
    of_memory,
    of_pace,
    of_start,
)

if TYPE_CHECKING:
    from toolkit.data.load import Data
    from toolkit.explain.trial import ByHeart, Start
    from toolkit.training.feed import Feed

_HEART_EXAMPLES = {"classification": 16, "transcription": 4}
_HEART_SECONDS = 15.0
_PACE_SECONDS = 5.0


def check(
    config: RunConfig | Path | str,
    *,
    model: Any = None,
    output: Path | None = None,
    report: Callable[[Finding], None] = lambda finding: None,
) -> list[Finding]:
    """Look at data, model and pace of what `config` describes, without training it.

    Nothing is written but the contact sheet and the caches that `train` would write, too. A model of your own has its
    weights afterwards that it had before, and must be compiled again.

    Args:
        config: checked by `toolkit.load_config`, or the path of a file that is still to be.
        model: a Keras model of your own in place of the config's `model` section.
        output: the PNG of the contact sheet, a file that is not there yet; None takes `<name of the config>-check.png`
            in the current folder, which is replaced.
        report: called with each finding as soon as it is there.

    Raises:
        ToolkitError: the config is not valid, its backend cannot be had, or `output` exists.
        RunFailed: the contact sheet cannot be written.
    """
    if not isinstance(config, RunConfig):
        config = load(config)
    if output is not None:
        from toolkit.evaluation.predict import refuse_existing

        refuse_existing(output)
    found: list[Finding] = []
    with _generators_kept():
        stages.set_up(config)
        for finding in _findings(config, model, output or Path(f"{config.name}-check.png")):
            found.append(finding)
            report(finding)
    return found


def _findings(config: RunConfig, model: Any, output: Path) -> Iterator[Finding]:
    """The walk; it ends early where what is wrong leaves nothing to look at."""
    from toolkit.explain.copies import find_copies
    from toolkit.explain.trial import measure_pace, weights_kept

    data, findings = _read(config, model)
    yield from findings
    if data is None:
        return
    yield from of_copies(data, find_copies(data))
    yield from of_classes(data)
    try:
        stages.check_task(config, data.spec)
        feed = stages.feed(config, data)
        class_weights = stages.class_weights(config, data)
        settled: list[str] = []
        config = auto.settle(config, data, settled.append, model=model)
        yield from (Finding("ok", "precision", line.removeprefix("auto: ")) for line in settled)
        model = stages.build_model(config, data.spec, model)
        stages.start_from(model, config, data.spec, settled.append, resumed=False)
    except ToolkitError as error:
        yield _told("the config", error)
        return
    yield _sheet(config, data, feed, output)
    with weights_kept(model):
        start, heart = _try(config, data, feed, model)
        yield of_start(data, start)
        yield from of_heart(config, heart)
    if heart.cut_off:  # no step to time
        return
    with weights_kept(model):
        try:
            stages.compile_model(model, stages.objective(config, data.spec), config, stages.total_steps(config, feed))
        except ToolkitError as error:
            yield _told("the config", error)
            return
        pace = measure_pace(model, feed, class_weights=class_weights, seconds=_PACE_SECONDS)
        yield from of_pace(config, feed.per_epoch, pace)
    yield _memory()


def _told(about: str, error: ToolkitError) -> Finding:
    """What `train` would refuse."""
    return Finding("wrong", about, str(error))


def _read(config: RunConfig, model: Any) -> tuple[Data | None, list[Finding]]:
    """Every example, however many are bad, and what is to say about them."""
    options = config.data.options
    all_read = options.model_copy(update={"max_bad_fraction": 1.0})
    lines: list[str] = []
    start = time.perf_counter()
    try:
        data = stages.read_data(
            dataclasses.replace(config, data=dataclasses.replace(config.data, options=all_read)),
            lines.append,
            model=model,
        )
    except ToolkitError as error:
        return None, [_told("examples", error)]
    seconds = time.perf_counter() - start
    notes = [
        Finding("note", "transcripts", line.removeprefix("note: "), "give train examples of them, or leave those out")
        for line in lines
        if line.startswith("note: ")
    ]
    counts = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
    if not data.bad:
        text = f"all {sum(map(len, data.splits.values())):,} decode ({counts}), read in {seconds:.1f} s"
        return data, [Finding("ok", "examples", text), *notes]
    bad = {name: sum(split == name for split, _ in data.bad) for name in data.splits}
    limit = options.max_bad_fraction
    too_many = [name for name, count in bad.items() if count > limit * (count + len(data.splits[name]))]
    named = listed([f"{example.id} ({example.reason})" for _, example in data.bad])
    text = f"{len(data.bad):,} cannot be used, {counts} can: {named}"
    if not too_many:
        return data, [Finding("note", "examples", text, "mend or remove them; training leaves them out"), *notes]
    advice = f"mend or remove them: data.max_bad_fraction allows {limit:.1%} of {' and '.join(too_many)}"
    return data, [Finding("wrong", "examples", text, advice), *notes]


def _sheet(config: RunConfig, data: Data, feed: Feed, output: Path) -> Finding:
    from toolkit.evaluation.files import replace_file
    from toolkit.explain.contact_sheet import draw_contact_sheet

    inputs, labels = next(feed.batches(0, 0, 1).as_numpy_iterator())
    if data.spec.task == "transcription":
        from toolkit.tasks.transcription import to_text

        texts = [to_text(row[row > 0], data.spec) for row in labels]
    else:
        texts = [data.spec.class_names[label] for label in labels]
    existed = output.exists()
    title = f"{config.name}: what training is given, augmentation included"
    replace_file(output, draw_contact_sheet(data, inputs, texts, title=title))
    again = " (in place of the one before)" if existed else ""
    return Finding("ok", "contact sheet", f"{output}{again}: labels and sizes, and examples as training gets them")


def _try(config: RunConfig, data: Data, feed: Feed, model: Any) -> tuple[Start, ByHeart]:
    """On the first batch: as training gets it, and a few of its examples to learn by heart."""
    from toolkit.explain.trial import LEARNT, learn_by_heart, start_losses
    from toolkit.tasks.objective import objective

    aim = objective(data.spec)  # without label smoothing, below which no loss could fall
    inputs, labels = next(feed.batches(0, 0, 1).as_numpy_iterator())
    start = start_losses(model, aim, inputs, labels)
    few = _different(inputs, most=_HEART_EXAMPLES[data.spec.task])
    heart = learn_by_heart(
        model,
        aim.loss,
        {name: values[few] for name, values in inputs.items()},
        labels[few],
        goal=LEARNT[data.spec.task] * start.blind,
        seconds=_HEART_SECONDS,
    )
    return start, heart


def _different(inputs: Mapping[str, Any], *, most: int) -> list[int]:
    """Places of the first examples with other inputs than those before: no model can learn two labels for the same."""
    places: dict[bytes, int] = {}
    for place, values in enumerate(zip(*inputs.values(), strict=True)):
        places.setdefault(b"".join(value.tobytes() for value in values), place)
    return list(places.values())[:most]


def _memory() -> Finding:
    from toolkit.data.tables import available_memory

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return of_memory(peak, room=peak + available_memory())


@contextlib.contextmanager
def _generators_kept() -> Iterator[None]:
    """Python's and NumPy's global generators are afterwards as they were; a backend's own is seeded by every run."""
    import numpy as np

    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
