"""Where a model is wrong most: surest mistakes, least sure answers, classes it confuses, worst transcripts."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import Counter
from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from toolkit.data.batches import evaluation_batches
from toolkit.evaluation import table, transcripts
from toolkit.evaluation.names import printable, shorten
from toolkit.evaluation.predict import numpy_batches, outputs, require_finite
from toolkit.explain.look import gallery
from toolkit.explain.look.gallery import Entry
from toolkit.explain.look.seen import Array, Seen, read

SHOWN = 12
PAIRS = 6
OF_A_PAIR = 4
LOOKED_AT = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Ranking:
    """What a whole split shows.

    Attributes:
        pictures: PNGs by the names of their files, without the ending.
        tables: for the terminal.
        examples: positions of those worth a closer look: the surest mistake, the least sure answer, and the surest
            right ones of different classes; of transcripts the worst, and one of the best.
    """

    pictures: dict[str, bytes]
    tables: list[RenderableType]
    examples: list[int]


def rank(seen: Seen, *, draw: bool) -> Ranking:
    """Answer the whole split and rank it; without `draw` there are neither pictures nor tables.

    Raises:
        RunFailed: an output is NaN or infinite.
    """
    return _transcripts(seen, draw=draw) if seen.spec.task == "transcription" else _classes(seen, draw=draw)


def _classes(seen: Seen, *, draw: bool) -> Ranking:
    split = seen.split
    logits, _ = outputs(seen.model, evaluation_batches(split, seen.spec, batch_size=seen.batch_size))
    require_finite(logits, split.ids)
    shares: Array = seen.objective.decode(logits)
    answers, sure = shares.argmax(axis=1), shares.max(axis=1)
    order = np.argsort(-sure, kind="stable")
    wrong = order[answers[order] != split.labels[order]]
    unsure = order[::-1]
    examples = _worth_a_look(wrong, unsure, answers, split.labels)
    if not draw:
        return Ranking({}, [], examples)

    pairs = Counter(zip(split.labels[wrong].tolist(), answers[wrong].tolist(), strict=True))
    # Equally frequent pairs in the order of the classes.
    frequent = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:PAIRS]
    of_pair = {
        pair: [int(i) for i in wrong if (split.labels[i], answers[i]) == pair][:OF_A_PAIR] for pair, _ in frequent
    }
    lists = {
        "mistakes": (f"surest mistakes ({len(wrong):,} of {len(split):,} answers are wrong)", wrong[:SHOWN].tolist()),
        "least-confident": ("least sure answers", unsure[:SHOWN].tolist()),
        "confused": ("classes confused most, with the surest mistakes", list(itertools.chain(*of_pair.values()))),
    }
    pictures = {}
    for name, (title, positions) in lists.items():
        if positions:
            shown = zip(positions, read(seen, positions), strict=True)
            entries = [
                Entry(example, _caption(seen, int(split.labels[i]), int(answers[i]), sure[i])) for i, example in shown
            ]
            pictures[name] = gallery.draw(seen, entries, f"{title}: label → answer\n{seen.where}")
    tables: list[RenderableType] = [
        _table(seen, "surest mistakes", wrong[:SHOWN], answers, sure),
        _table(seen, "least sure answers", unsure[:SHOWN], answers, sure),
        _pairs_table(seen, dict(frequent), of_pair),
    ]
    return Ranking(pictures, tables, examples)


def _caption(seen: Seen, label: int, answer: int, sure: float) -> str:
    return f"{seen.name(label, cells=12)} → {seen.name(answer, cells=12)} ({100 * sure:.1f} %)"


def _worth_a_look(wrong: Array, unsure: Array, answers: Array, labels: Array) -> list[int]:
    chosen = dict.fromkeys([*wrong[:1].tolist(), *unsure[:1].tolist()])
    classes: set[int] = set()
    for i in unsure[::-1].tolist():  # the surest first
        if answers[i] == labels[i] and labels[i] not in classes and len(chosen) < LOOKED_AT:
            classes.add(labels[i])
            chosen[i] = None
    return list(chosen)


def _table(seen: Seen, title: str, positions: Array, answers: Array, sure: Array) -> RenderableType:
    rows = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1))
    rows.add_column("id", overflow="fold")  # whole, since --example takes it
    for name in ("label", "answer"):
        rows.add_column(name, no_wrap=True)
    rows.add_column("probability", justify="right", no_wrap=True)
    for i in positions.tolist():
        names = [shorten(seen.spec.class_names[label], 14) for label in (seen.split.labels[i], answers[i])]
        rows.add_row(Text(printable(seen.split.ids[i])), *map(Text, names), f"{100 * sure[i]:.2f} %")
    return rows


def _pairs_table(
    seen: Seen, counts: dict[tuple[int, int], int], examples: dict[tuple[int, int], list[int]]
) -> RenderableType:
    rows = Table(title="confused most", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("label", "answer"):
        rows.add_column(name, no_wrap=True)
    rows.add_column("times", justify="right", no_wrap=True)
    rows.add_column("for example", overflow="fold")
    for pair, times in counts.items():
        names = [Text(shorten(seen.spec.class_names[label], 14)) for label in pair]
        rows.add_row(*names, f"{times:,}", Text(printable(seen.split.ids[examples[pair][0]])))
    return rows


def _transcripts(seen: Seen, *, draw: bool) -> Ranking:
    from rapidfuzz.distance import Levenshtein

    split, start = seen.split, time.perf_counter()
    said = list(split.texts or ())
    written: list[str] = []
    losses: list[Array] = []
    for inputs, labels in numpy_batches(evaluation_batches(split, seen.spec, batch_size=seen.batch_size)):
        logits = np.asarray(seen.model.predict_on_batch(inputs), np.float32)
        require_finite(logits, split.ids[len(written) : len(written) + len(logits)])
        written += seen.objective.decode(logits)
        losses.append(seen.objective.losses(logits, labels))
    rates = np.array(
        [Levenshtein.distance(one, other) / max(len(one), 1) for one, other in zip(said, written, strict=True)]
    )
    order = np.argsort(-rates, kind="stable")
    worst = order[rates[order] > 0]
    examples = list(dict.fromkeys([*worst[: LOOKED_AT - 1].tolist(), int(order[-1])]))
    if not draw:
        return Ranking({}, [], examples)
    shown = worst[:SHOWN].tolist()
    pictures = {}
    if shown:
        entries = [
            Entry(example, f"said: {gallery.line(said[i])}\nwritten: {gallery.line(written[i])}")
            for i, example in zip(shown, read(seen, shown), strict=True)
        ]
        title = f"worst transcripts, by wrong characters ({len(worst):,} of {len(split):,} have any)\n{seen.where}"
        pictures["mistakes"] = gallery.draw(seen, entries, title)
    figures = transcripts.measure(
        written,
        said,
        losses=np.concatenate(losses),
        split=split.name,
        seconds=time.perf_counter() - start,
        decoding="greedy",
    )
    tables = [_transcripts_table(split.ids, said, written, rates, shown), table.confusions_table(figures)]
    return Ranking(pictures, tables, examples)


def _transcripts_table(
    ids: Sequence[str], said: Sequence[str], written: Sequence[str], rates: Array, positions: Sequence[int]
) -> RenderableType:
    rows = Table(
        title="worst transcripts", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1)
    )
    for name in ("id", "said", "written"):
        rows.add_column(name, overflow="fold")
    rows.add_column("wrong characters", justify="right", no_wrap=True)
    for i in positions:
        cells = [printable(ids[i]), shorten(said[i], table.LETTERS), shorten(written[i], table.LETTERS)]
        rows.add_row(*map(Text, cells), f"{100 * rates[i]:.0f} %")
    return rows
