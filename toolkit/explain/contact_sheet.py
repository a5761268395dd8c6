"""A picture of what training is given: how labels and sizes are spread, and examples as they go into the model."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data.load import Data
from toolkit.data.spec import DataSpec
from toolkit.data.tables import RaggedTable
from toolkit.evaluation.picture import BLUE, GREEN, ORANGE, drawable, drawing, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

EXAMPLES = {"image": 24, "audio": 16, "text": 12}
_COLOURS = {"train": BLUE, "validation": ORANGE, "test": GREEN}
_NAMED = 12  # bars with a name; with more only every so many
_TEXT_LINES = 6


def draw_contact_sheet(data: Data, inputs: Any, labels: Sequence[str], *, title: str) -> bytes:
    """A PNG of counts and of examples.

    Args:
        inputs: a training batch, augmented, of which as many are shown as `EXAMPLES` says.
        labels: what stands under each.
    """
    count = min(len(labels), EXAMPLES[data.spec.kind])
    columns = {"image": 8, "audio": 4, "text": 3}[data.spec.kind]
    rows = -(-count // columns)
    height = {"image": 1.45, "audio": 1.35, "text": 1.05}[data.spec.kind]
    with drawing(10, 3.1 + rows * height) as figure:
        figure.suptitle(drawable(title, cells=90, otherwise="data"), x=0.01, ha="left")
        parts: Any = figure.subfigures(2, 1, height_ratios=[2.6, rows * height])
        _draw_counts(parts[0], data)
        grid: Any = parts[1].subplots(rows, columns, squeeze=False)
        for axes, i in itertools.zip_longest(grid.ravel(), range(count)):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            if i is not None:
                _draw_example(axes, inputs, i, data.spec)
                label = drawable(labels[i], cells=140 // columns, otherwise="–")
                axes.set_xlabel(label, fontsize=8, labelpad=3, loc="left", fontweight="bold")
        return png(figure)


def _draw_counts(figure: SubFigure, data: Data) -> None:
    panels = [_draw_classes] if data.spec.task == "classification" else []
    tables = [split.table for split in data.splits.values()]
    if isinstance(tables[0], RaggedTable):
        panels.append(_draw_lengths)
    row: Any = figure.subplots(1, len(panels), squeeze=False)
    for axes, draw in zip(row[0], panels, strict=True):
        draw(axes, data)
        axes.grid(axis="y", color="0.92", linewidth=0.8)
        axes.set_axisbelow(True)
    row[0, 0].legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))


def _draw_classes(axes: Axes, data: Data) -> None:
    """Per class a bar for each split: its share of the split, so that splits of different size compare."""
    names, width = data.spec.class_names, 0.8 / len(data.splits)
    for i, split in enumerate(data.splits.values()):
        counts = np.bincount(split.labels, minlength=len(names))
        places = np.arange(len(names)) + (i - (len(data.splits) - 1) / 2) * width
        axes.bar(
            places, 100 * counts / len(split), width, color=_COLOURS[split.name], label=f"{split.name}, {len(split):,}"
        )
    shown = range(0, len(names), -(-len(names) // _NAMED))
    axes.set_xticks(list(shown), [drawable(names[i], cells=12, otherwise=f"#{i}") for i in shown], fontsize=8)
    if max(len(names[i]) for i in shown) * len(shown) > 60:
        axes.tick_params(axis="x", rotation=30)
    axes.set_ylabel("% of the split")


def _draw_lengths(axes: Axes, data: Data) -> None:
    """How long sounds or texts are; the edges that batches are padded to are marked."""
    rate = data.spec.sample_rate or 1
    tables = {split.name: split.table for split in data.splits.values() if isinstance(split.table, RaggedTable)}
    longest = max(int(table.lengths.max()) for table in tables.values()) / rate
    for name, table in tables.items():
        weights = np.full(len(table), 100 / len(table))
        axes.hist(
            table.lengths / rate,
            bins=list(np.linspace(0, longest, 41)),
            weights=weights,
            histtype="step",
            linewidth=1.4,
            color=_COLOURS[name],
            label=f"{name}, {len(table):,}",
        )
    for edge in data.spec.lengths:
        axes.axvline(edge / rate, color="0.75", linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    axes.set_xlim(0, longest * 1.05)
    unit = "seconds" if data.spec.sample_rate else "words and marks that are read"
    axes.set_xlabel(f"{unit} (dashed: what batches are padded to)")
    axes.set_ylabel("% of the split")


def _draw_example(axes: Axes, inputs: Any, i: int, spec: DataSpec) -> None:
    if spec.kind == "image":
        grey = spec.shape[2] == 1
        axes.imshow(inputs["image"][i], cmap="gray" if grey else None, vmin=0, vmax=255, interpolation="nearest")
        return
    if spec.kind == "audio":
        assert spec.sample_rate
        samples = inputs["samples"][i][: inputs["lengths"][i]]
        axes.imshow(_spectrogram(samples, spec.sample_rate), aspect="auto", origin="lower", cmap="magma")
        return
    words = [spec.vocabulary[token] for token in inputs["tokens"][i] if token]
    lines = textwrap.wrap(" ".join(drawable(word, cells=20, otherwise="□") for word in words[:80]), 52)[:_TEXT_LINES]
    axes.text(0, 1, "\n".join(lines), fontsize=7.5, va="top", ha="left", transform=axes.transAxes)


def _spectrogram(samples: np.ndarray, rate: int) -> np.ndarray:
    """Decibels `(frequencies, frames)` below the loudest, at least −60; frames of 25 ms, a new one every 10."""
    from scipy.signal import ShortTimeFFT, get_window

    width, hop = max(rate // 40, 8), max(rate // 100, 1)
    padded = np.pad(samples, (0, max(0, width - len(samples))))
    power = ShortTimeFFT(get_window("hann", width), hop, rate).spectrogram(padded)
    levels: np.ndarray = 10 * np.log10(np.maximum(power / max(power.max(), 1e-12), 1e-6))
    return levels
