"""From a run directory to pictures of what its model sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from toolkit import stages, workflow
from toolkit.errors import ToolkitError
from toolkit.evaluation.files import remove_file, replace_file
from toolkit.explain.look import KINDS
from toolkit.runs import run as runs
from toolkit.runs.run import Run
from toolkit.runs.trust import shown

if TYPE_CHECKING:
    from toolkit.explain.look.seen import Example, Seen

Draw = Callable[["Seen", Sequence["Example"]], dict[str, bytes]]


class Kind(NamedTuple):
    """What can be drawn: `draw` gives PNGs by the names of their files; `of_examples` where it takes any."""

    draw: Draw
    of_examples: bool


def look(
    run_dir: Path | str,
    *,
    examples: Sequence[str] = (),
    only: Sequence[str] = (),
    split: str = "test",
    weights: Literal["best", "last"] = "best",
    backend: str | None = None,
    model: Any = None,
) -> list[Path]:
    """Draw what a run's model sees, and what it gets wrong, into `look/` of the run directory.

    It is looked at in float32, whatever precision it was trained in.

    Args:
        examples: ids; without any the whole split is answered, and the surest mistake, the least sure answer and two
            right ones are looked at.
        only: some of `KINDS`; without any all that the model has. Without these and `examples`, the PNGs of a look
            before are removed.
        weights: of the best epoch, or of the last.
        backend: in place of the one that the run was trained on.
        model: the Keras model, where the run was trained with one that its config does not name.

    Returns:
        The PNGs that were written.

    Raises:
        ToolkitError: no trained run, no such example, or a kind that the model has not; nothing is written.
        RunFailed: an output is not finite, or a file cannot be written.
    """
    _check_kinds(only, examples)
    with Run.open(Path(run_dir)) as run:
        seen = _see(run, split, weights, backend, model)
        from toolkit.explain.look.seen import find, read

        kinds = _kinds(seen, only, with_examples=bool(examples))
        positions = find(seen.split, examples)
        drawn: dict[str, bytes] = {}
        if not examples and ("mistakes" in kinds or any(kind.of_examples for kind in kinds.values())):
            from toolkit.explain.look.mistakes import rank

            ranking = rank(seen, draw="mistakes" in kinds)
            run.say(*ranking.tables)
            drawn, positions = ranking.pictures, ranking.examples
        chosen = read(seen, positions)
        for kind in kinds.values():
            drawn |= kind.draw(seen, chosen)
        for example in chosen:
            run.say(f"looked at {example.id}")
        suffix = "".join(f"-{name}" for name in (split, weights) if name not in ("test", "best"))
        return _write(run, {name + suffix: picture for name, picture in drawn.items()}, anew=not (examples or only))


def _write(run: Run, drawn: Mapping[str, bytes], *, anew: bool) -> list[Path]:
    """Write PNGs by their names into the folder; `anew` removes those of a look before first."""
    folder = run.path(runs.LOOK)
    for path in sorted(folder.glob("*.png")) if anew else ():
        remove_file(path)  # of another choice of examples, and perhaps of other weights
    paths = [folder / f"{name}.png" for name in drawn]
    for path, picture in zip(paths, drawn.values(), strict=True):
        replace_file(path, picture)
    run.say(f"{len(paths)} pictures are in {folder}" if len(paths) != 1 else f"1 picture is in {folder}")
    return paths


def _check_kinds(only: Sequence[str], examples: Sequence[str]) -> None:
    for name in only:
        if name not in KINDS:
            raise ToolkitError(f"--only {name!r} is unknown: use some of {', '.join(KINDS)}.")
        if examples and name in ("filters", "mistakes"):
            raise ToolkitError(f"--only {name} is not about single examples: leave --example out.")


def _see(run: Run, split: str, weights: Literal["best", "last"], backend: str | None, own: Any) -> Seen:
    """The trained model in float32, and the split."""
    config, data, model, objective = workflow.trained(run, split, weights=weights, backend=backend, model=own)
    from toolkit.explain.look import graph
    from toolkit.explain.look.seen import Seen

    if own is None and config.training.precision != "float32":  # its gradients would have two digits
        training = config.training.model_copy(update={"precision": "float32"})
        model = stages.build_model(dataclasses.replace(config, training=training), data.spec)
        stages.load_weights(model, run.directory, runs.KEPT[weights])
    graph.check(model)
    size = config.data.options.evaluation_batch_size
    return Seen(model, data.spec, objective, data.splits[split], weights, size)


def _kinds(seen: Seen, only: Sequence[str], *, with_examples: bool) -> Mapping[str, Kind]:
    """What is to be drawn, in the order of `KINDS`.

    Raises:
        ToolkitError: `only` names what the model has not, or there is nothing to draw.
    """
    from toolkit.explain.look import graph, pictures, sounds, texts

    has: dict[str, Kind] = {}
    if seen.spec.kind == "image":
        if graph.convolutions(seen.model):
            has["filters"] = Kind(pictures.filters, of_examples=False)
            has["maps"] = Kind(pictures.maps, of_examples=True)
            has["gradcam"] = Kind(pictures.gradcam, of_examples=True)
        if graph.pixels(seen.model, seen.spec.shape) is not None:
            has["attributions"] = Kind(pictures.attributions, of_examples=True)
    elif seen.spec.kind == "text":
        if graph.attentions(seen.model):
            has["attention"] = Kind(texts.attention, of_examples=True)
        if graph.embedded(seen.model):
            has["attributions"] = Kind(texts.attributions, of_examples=True)
    elif graph.log_mel(seen.model) is not None:
        has["sound"] = Kind(sounds.sound, of_examples=True)
    has["mistakes"] = Kind(lambda seen, examples: {}, of_examples=False)  # drawn when the split is ranked
    for name in only:
        if name not in has:
            raise ToolkitError(
                f"--only {name} asks for {_NEEDS[name]}, which the model {shown(seen.model.name)} has not: use "
                f"{' or '.join(has)}, or leave it out."
            )
    chosen = {name: has[name] for name in KINDS if name in has and (name in only or not only)}
    if with_examples:
        chosen = {name: kind for name, kind in chosen.items() if kind.of_examples}
        if not chosen:
            raise ToolkitError(
                f"--example asks to look into the model {shown(seen.model.name)}, which has neither convolutions, "
                "attention, embedding nor log-mel frames: leave it out, and its mistakes are drawn."
            )
    return chosen


_NEEDS = {
    "filters": "the filters of a convolution over pictures (Conv2D)",
    "maps": "the maps of convolutions over pictures (Conv2D)",
    "gradcam": "Grad-CAM of a convolution over pictures (Conv2D)",
    "attributions": "attributions to pixels or words, so for scaled pictures or an embedding",
    "attention": "attention of words to words (MultiHeadAttention)",
    "sound": "frames of a sound (LogMel)",
}
