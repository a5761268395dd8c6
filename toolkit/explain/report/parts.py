"""What a report tells of one run, section by section; what has not been computed has none."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree.ElementTree import Element

from toolkit.evaluation.confusion import COUNTS_UP_TO
from toolkit.evaluation.evaluate import Evaluation
from toolkit.evaluation.transcripts import ErrorRate, Transcription
from toolkit.explain.report import curves
from toolkit.explain.report.documents import document, number
from toolkit.explain.report.gather import LOOK, Found
from toolkit.explain.report.markup import Cell, element, facts, folded, percent, section, table
from toolkit.explain.report.pictures import Picture
from toolkit.explain.report.tables import FIRST
from toolkit.runs import run as runs
from toolkit.runs.trust import shown

NAME = 80  # characters of a class or an id
TEXT = 300  # characters of a transcript
MAX_CLASSES = 1000
MAX_PAIRS = 10
MAX_EPOCHS = 200
MAX_COLUMNS = 20  # of their table
MAX_PICTURES = 60
_CONFUSION = "confusion.png"
_CONFUSED, _MISTAKES = f"{LOOK}/confused.png", f"{LOOK}/mistakes.png"  # of `toolkit look`


def summary(run: Found) -> dict[str, str]:
    """What was trained, by what is told."""
    record, config = run.record, run.config
    state = record.state if record.error is None else f"{record.state}: {shown(record.error, length=TEXT)}"
    told: dict[str, str | None] = {
        "state": state,
        "model": record.model and shown(record.model, length=NAME),
        "parameters": None if record.parameters is None else f"{record.parameters:,}",
        "data": f"{config.data.source.name} ({run.spec.kind}, {run.spec.task})",
        "splits": ", ".join(f"{count:,} {name}" for name, count in run.spec.examples.items()),
        "classes": f"{len(run.spec.class_names):,}" if run.spec.class_names else None,
        "optimizer": _optimizer(run),
        "epochs": _epochs(run),
        "kept": _kept(run),
        "training": None if record.seconds is None else f"{record.seconds:,.1f} s",
        "interruptions": f"{len(record.resumed):,}, each resumed" if record.resumed else None,
    }
    return {name: value for name, value in told.items() if value is not None}


def figures(evaluation: Evaluation | Transcription) -> dict[str, str]:
    """The figures of one evaluation, by name."""
    if isinstance(evaluation, Transcription):
        told = {
            "word error rate": _error_rate(evaluation.words),
            "character error rate": _error_rate(evaluation.characters),
            "without any error": percent(evaluation.right),
            "decoding": shown(evaluation.decoding, length=NAME),
        }
    else:
        low, high = evaluation.accuracy_interval
        told = {
            "accuracy": f"{percent(evaluation.accuracy)} (95 % interval {percent(low)} to {percent(high)})",
            **{f"top-{k} accuracy": percent(share) for k, share in evaluation.top_k.items()},
            "macro F1": percent(evaluation.macro.f1),
            "weighted F1": percent(evaluation.weighted.f1),
        }
    return {**told, "loss": f"{evaluation.loss:.4f}", "examples": f"{evaluation.examples:,}"}


def environment(run: Found) -> dict[str, str]:
    """Versions, commit, command and machine."""
    record = run.record
    told: dict[str, str | None] = {
        "started": record.started,
        "command": shown(" ".join(record.command), length=1000) or None,
        "commit": record.commit,
        "backend": record.backend,
        "seed": None if record.seed is None else str(record.seed),
        "Python": record.python,
        **{shown(name, length=NAME): shown(version, length=NAME) for name, version in record.versions.items()},
        **{shown(name, length=NAME): shown(value, length=NAME) for name, value in record.machine.items()},
    }
    return {name: value for name, value in told.items() if value is not None}


def sections(run: Found, pictures: list[Picture], *, hovered: Element | None) -> Iterator[Element]:
    """All that a report tells of a run.

    Args:
        pictures: takes those that the sections hold; they are still to be filled.
        hovered: where the curves of this run are drawn; None shows their picture alone.
    """
    used = {runs.CURVES, _CONFUSION}
    if isinstance(run.evaluation, Evaluation):
        used.add(_CONFUSED)
    if run.mistakes:
        used.add(_MISTAKES)
    yield section("What was trained", facts("What was trained", summary(run)))
    if run.evaluation is not None:
        split = shown(run.evaluation.split, length=NAME)
        yield section(f"Figures of the {split} part", facts("Figures", figures(run.evaluation)))
    yield from _curves(run, pictures, hovered)
    if isinstance(run.evaluation, Evaluation):
        yield _confusion(run.evaluation, run, pictures)
        yield section("Classes", _classes(run.evaluation))
    elif run.evaluation is not None and run.evaluation.confusions:
        yield section("Words most often written wrong", _words(run.evaluation))
    if run.mistakes:
        yield section("Worst mistakes", *_mistakes(run), _figure(run, _MISTAKES, "The worst mistakes", pictures))
    others = {name: evaluation for name, evaluation in run.evaluations.items() if name}
    for name, evaluation in others.items():
        yield section(f"Evaluation {shown(name, length=NAME)}", facts(name, figures(evaluation)))
    yield from _pictures({name: path for name, path in run.pictures.items() if name not in used}, pictures)
    for name, content in run.documents.items():
        yield section(shown(name, length=NAME), folded("figures", *document(content, shown(name, length=NAME))))
    for name, rows in run.tables.items():
        yield section(_TABLES[name], *_listed(rows, name))
    yield section("Config", folded("every key", element("pre", run.config.to_yaml())))
    yield section("Environment", facts("Environment", environment(run)))


_TABLES = {
    runs.BAD_EXAMPLES: "Examples that could not be read",
    runs.DUPLICATES: "Examples that stand in another part, too",
}


def _optimizer(run: Found) -> str:
    optimizer, schedule = run.config.optimizer.optimizer, run.config.optimizer.schedule
    told = [optimizer.name]
    if "learning_rate" in optimizer.arguments:  # one of somebody's own may have none
        told.append(f"learning rate {optimizer.arguments['learning_rate']:g}")
    return ", ".join([*told, schedule.name] if schedule else told)


def _epochs(run: Found) -> str:
    wanted, trained = run.config.training.epochs, run.record.epochs
    if trained is None:
        return f"{run.epochs_seen:,} of {wanted:,} so far"
    return f"{trained:,} of {wanted:,}" + (", stopped early" if run.record.stopped_early else "")


def _kept(run: Found) -> str | None:
    best = run.record.best
    if best is None or best.epoch is None or best.value is None:
        return None
    return f"epoch {best.epoch:,} ({shown(best.metric, length=NAME)} {best.value:.4f})"


def _error_rate(rate: ErrorRate) -> str:
    low, high = rate.interval
    return f"{percent(rate.rate)} (95 % interval {percent(low)} to {percent(high)})"


def _curves(run: Found, pictures: list[Picture], hovered: Element | None) -> Iterator[Element]:
    best = _kept(run)
    alternative = f"Curves of the training over its steps{f'; kept: {best}' if best else ''}"
    drawn = _figure(run, runs.CURVES, alternative, pictures)
    figures = folded("the figures of each epoch", *_epoch_table(run)) if run.epochs else None
    if any(part is not None for part in (hovered, drawn, figures)):
        yield section("Curves", hovered, drawn, figures)


def _figure(run: Found, name: str, alternative: str, pictures: list[Picture]) -> Element | None:
    """One of the run's pictures, if it has been drawn."""
    if name not in run.pictures:
        return None
    pictures.append(Picture(run.pictures[name], alternative))
    return element("figure", pictures[-1].image)


def _epoch_table(run: Found) -> Iterator[Element]:
    """The last epochs and, before them, the best where it is none of these; a column for each metric."""
    rows = run.epochs[-MAX_EPOCHS:]
    best = curves.best_row(run)
    if best is not None and not any(row is best for row in rows):
        rows = [best, *rows]
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in ("kind", "epoch")]
    names = [name for name in names if any(curves.is_drawn(row.get(name)) for row in rows)]
    names = names[:MAX_COLUMNS]
    cells = [[number(row.get(name)) for name in ("epoch", *names)] for row in rows]
    head = ["epoch", *(shown(name, length=NAME).replace("_", " ") for name in names)]
    if len(rows) < run.epochs_seen:
        told = f"{len(rows):,} of {run.epochs_seen:,} epochs; {runs.METRICS} in the run directory has all."
        yield element("p", told)
    yield table("Figures of each epoch", head, cells, numbers=range(len(head)))


def _confusion(evaluation: Evaluation, run: Found, pictures: list[Picture]) -> Element:
    """As a table that every screen can show, or with many classes as the picture; and the pairs in words."""
    names = [shown(one.name, length=NAME) for one in evaluation.classes]
    parts: list[Cell | None] = []
    if len(names) <= COUNTS_UP_TO:
        read = "Each row is a label, each column an answer; the deeper the colour, the larger its share of the row."
        parts += [element("p", read), _counts(evaluation, names)]
    else:
        alternative = f"Confusion matrix of {len(names):,} classes: a row per label, a column per answer"
        parts.append(_figure(run, _CONFUSION, alternative, pictures))
    confused = (
        (count, label, answer)
        for label, row in enumerate(evaluation.confusion)
        for answer, count in enumerate(row)
        if count > 0 and label != answer
    )
    pairs = heapq.nlargest(MAX_PAIRS, confused, key=lambda pair: pair[0])  # of equal ones the first
    if pairs:
        rows = [(names[label], names[answer], f"{count:,}") for count, label, answer in pairs]
        parts += [
            element("h3", "Most confused"),
            table("Most confused", ("label", "answer", "examples"), rows, numbers=(2,)),
        ]
    parts.append(_figure(run, _CONFUSED, "Examples of the pairs of classes most confused", pictures))
    return section("Confusion matrix", *parts)


def _counts(evaluation: Evaluation, names: list[str]) -> Element:
    rows: list[list[Cell]] = []
    for name, counts in zip(names, evaluation.confusion, strict=True):
        support = sum(counts)
        cells = [_shaded(count, count / support if support else 0.0) for count in counts]
        rows.append([name, *cells])
    head: list[Cell] = ["label", *(element("span", name, class_="upright") for name in names)]
    made = table("Confusion matrix: a row per label, a column per answer", head, rows)
    made.set("class", "wide counts")  # at most `COUNTS_UP_TO` rows
    return made


def _shaded(count: int, share: float) -> Element:
    # The root makes an error of one in a hundred visible, as in confusion.png.
    strength = 0.7 * math.sqrt(max(0.0, min(1.0, share)))
    return element("span", f"{count:,}", style=f"background: rgb(59 143 214 / {strength:.2f})")


def _classes(evaluation: Evaluation) -> Element:
    """Every class; of many, those with the lowest F1 first."""
    held = list(evaluation.classes)
    if len(held) > COUNTS_UP_TO:
        held.sort(key=lambda one: 2.0 if one.f1 is None else one.f1)
    rows = [
        (shown(one.name, length=NAME), percent(one.precision), percent(one.recall), percent(one.f1), f"{one.support:,}")
        for one in held[:MAX_CLASSES]
    ]
    return table("Classes", ("class", "precision", "recall", "F1", "examples"), rows, numbers=(1, 2, 3, 4))


def _words(evaluation: Transcription) -> Element:
    rows = [
        (shown(one.said, length=NAME) or "–", shown(one.written, length=NAME) or "–", f"{one.times:,}")
        for one in evaluation.confusions[:MAX_PAIRS]
    ]
    return table("Words most often written wrong", ("said", "written", "times"), rows, numbers=(2,))


def _mistakes(run: Found) -> Iterator[Element]:
    if isinstance(run.evaluation, Transcription):
        yield element("p", "The recordings with the most words substituted, left out or put in.")
        rows = [
            (
                shown(one.id, length=NAME),
                shown(one.label, length=TEXT),
                shown(one.answer, length=TEXT),
                f"{one.badness:.0f}",
            )
            for one in run.mistakes
        ]
        yield table("Worst mistakes", ("recording", "said", "written", "errors"), rows, numbers=(3,))
        return
    yield element("p", "The wrong answers that the model was surest of.")
    lines = []
    for one in run.mistakes:
        texts = [shown(text, length=NAME) for text in (one.id, one.label, one.answer)]
        lines.append((*texts, percent(one.badness), percent(one.own)))
    head = ("example", "label", "answer", "probability", "of the label")
    yield table("Worst mistakes", head, lines, numbers=(3, 4))


def _pictures(held: Mapping[str, Any], pictures: list[Picture]) -> Iterator[Element]:
    """What other verbs drew; the name of the file says what it shows."""
    drawn: list[Cell | None] = []
    for name, path in list(held.items())[:MAX_PICTURES]:
        caption = shown(name.removesuffix(".png").replace("/", ": "), length=NAME)
        pictures.append(Picture(path, caption))
        drawn.append(element("figure", pictures[-1].image, element("figcaption", caption)))
    if len(held) > MAX_PICTURES:
        drawn.append(element("p", f"{len(held) - MAX_PICTURES:,} more pictures stand in the run directory."))
    if drawn:
        yield section("Pictures", *drawn)


def _listed(rows: list[list[str]], name: str) -> Iterator[Element]:
    head, *body = [[shown(cell, length=TEXT) for cell in row] for row in rows]
    yield table(_TABLES[name], head, body)
    if len(body) == FIRST:
        yield element("p", f"The first {FIRST}; {name} in the run directory has all.")
