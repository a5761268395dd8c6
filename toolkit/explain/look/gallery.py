"""Many examples on one picture: photos, frames of sounds, or the beginnings of texts, each with its caption and id."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.evaluation.picture import BLUE, drawable, drawing, png
from toolkit.explain.look import graph
from toolkit.explain.look.pictures import show_picture
from toolkit.explain.look.seen import Example, Seen
from toolkit.explain.look.sounds import Frames

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 4
LETTERS = 145  # of a line
TEXT_LINES = 3  # of an example


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """An example and what is said of it."""

    example: Example
    caption: str


def draw(seen: Seen, entries: Sequence[Entry], title: str) -> bytes:
    """A PNG of `entries`, in their order."""
    if seen.spec.kind == "text":
        return _draw_texts(seen, entries, title)
    spoken = seen.split.texts is not None
    columns = min(COLUMNS // 2 if spoken else COLUMNS, len(entries))
    rows = -(-len(entries) // columns)
    width, height = (5.0, 2.3) if spoken else (2.3, 2.75) if seen.spec.kind == "image" else (2.7, 2.3)
    frames = Frames(seen.model) if seen.spec.kind == "audio" and graph.log_mel(seen.model) else None
    with drawing(max(width * columns, 5.5), height * rows + 0.7) as figure:
        figure.suptitle(title, fontsize=10)
        grid: Any = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(entries) :]:
            axes.set_visible(False)
        for axes, entry in zip(grid.flat, entries, strict=False):
            axes.set_title(f"{entry.caption}\n{_short_id(entry.example, 60 if spoken else 32)}", fontsize=7)
            _draw_one(axes, seen, entry.example, frames)
        return png(figure)


def line(text: str, *, cells: int = 70) -> str:
    """A transcript for a caption."""
    return drawable(text, cells=cells, otherwise="(what no font here can show)")


def _draw_one(axes: Axes, seen: Seen, example: Example, frames: Frames | None) -> None:
    if seen.spec.kind == "image":
        show_picture(axes, example.inputs["image"][0])
        return
    axes.tick_params(labelsize=6)
    axes.set_xlabel("s", fontsize=7)
    if frames is not None:
        frames.draw(axes, frames.read(example))
        axes.set_ylabel("Hz", fontsize=7)
        return
    samples = example.inputs["samples"][0][: int(example.inputs["lengths"][0])]
    axes.plot(np.arange(len(samples)) / (seen.spec.sample_rate or 1), samples, color=BLUE, linewidth=0.5)


def _draw_texts(seen: Seen, entries: Sequence[Entry], title: str) -> bytes:
    blocks = []
    for entry in entries:
        words = " ".join(seen.words(entry.example.tokens)) or "(no word)"
        lines = textwrap.wrap(words, LETTERS, max_lines=TEXT_LINES, placeholder=" …")
        blocks.append((f"{entry.caption}   {_short_id(entry.example, 60)}", lines))
    height = sum(len(lines) + 1.7 for _, lines in blocks)
    with drawing(9.0, 0.17 * height + 0.7) as figure:
        figure.suptitle(title, fontsize=10)
        axes = figure.add_subplot()
        axes.set(xlim=(0, 1), ylim=(height, 0))
        axes.set_axis_off()
        at = 0.5
        for caption, lines in blocks:
            axes.text(0, at, caption, fontsize=8, fontweight="bold", va="center")
            axes.text(0.01, at + 0.6, "\n".join(lines), fontsize=8, va="top", linespacing=1.25)
            at += len(lines) + 1.7
        return png(figure)


def _short_id(example: Example, cells: int) -> str:
    title = example.title
    return title if len(title) <= cells else f"…{title[1 - cells :]}"
