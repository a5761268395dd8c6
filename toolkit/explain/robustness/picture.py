"""Robustness as pictures: figures by severity, reliability diagrams, and what a change looks like."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.evaluation.picture import BLUE, GREY, drawing, png
from toolkit.explain.robustness.changed import Examples
from toolkit.explain.robustness.document import Robustness
from toolkit.explain.robustness.measure import BINS, Bin, pooled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_errors(found: Robustness) -> bytes:
    """A PNG: a row for each change, a column for each severity, in each cell the accuracy or the word error rate."""
    groups = [(found.changes, "severity"), ([name for name in found.attacks if found.of(name)], "ε in 1/255")]
    groups = [(names, of) for names, of in groups if names]
    classes = found.task == "classification"
    heights = [len(names) + 1.0 for names, _ in groups]
    with drawing(6.4, 1.3 + 0.33 * sum(heights) + 0.5 * len(groups)) as figure:
        column: Any = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)
        for axes, (names, of) in zip(column[:, 0], groups, strict=True):
            image = _draw_cells(axes, found, names)
            axes.set_xlabel(of)
        kind = "accuracy" if classes else "word error rate"
        clean = 100 * (found.clean.accuracy if classes else found.clean.error)
        figure.suptitle(
            f"{kind} in % under changes\ntest split, {found.examples:,} examples, unchanged {clean:.1f} %",
            x=0.02,
            ha="left",
        )
        bar: Any = figure.colorbar(image, ax=list(column[:, 0]), fraction=0.05, aspect=25)
        bar.set_label(kind + ("" if classes else " (darkest: 100 % and more)"))
        bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "25 %", "50 %", "75 %", "100 %"])
        bar.outline.set_visible(False)
        return png(figure)


def _draw_cells(axes: Axes, found: Robustness, names: Sequence[str]) -> Any:
    strengths = sorted({strength for name in names for strength in found.of(name)})
    values = np.full((len(names), len(strengths) + 1), np.nan)
    for i, name in enumerate(names):
        values[i, 0] = found.clean.error
        for strength, figures in found.of(name).items():
            values[i, 1 + strengths.index(strength)] = figures.error
    if found.task == "classification":
        values = 1 - values
    image = axes.imshow(
        values, cmap="Blues" if found.task == "classification" else "Oranges", vmin=0, vmax=1, aspect="auto"
    )
    axes.set_xticks(range(len(strengths) + 1), ["clean", *map(str, strengths)])
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (row, at), value in np.ndenumerate(values):
        if np.isfinite(value):
            ink = "white" if value > 0.6 else "black"
            axes.text(at, row, f"{100 * value:.1f}", ha="center", va="center", color=ink, fontsize=8)
    return image


def draw_reliability(found: Robustness) -> bytes:
    """A PNG: for the unchanged examples, and for each severity all changes together, accuracy over confidence."""
    panels = [("unchanged", found.clean.reliability)]
    for severity in sorted({strength for name in found.changes for strength in found.of(name)}):
        alike = [found.of(name)[severity] for name in found.changes if severity in found.of(name)]
        panels.append((f"severity {severity}", pooled(alike)))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    legend_columns = 3 if columns > 1 else 1  # a single panel is not as wide as its legend
    with drawing(2.75 * columns + 0.6, 2.7 * rows + 0.9) as figure:
        grid: Any = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes, (title, bins) in zip(grid.flat, panels, strict=False):
            _draw_bins(axes, title, bins)
        for axes in grid.flat[max(0, len(panels) - columns) : len(panels)]:
            axes.set_xlabel("confidence")
            axes.tick_params(labelbottom=True)
        for axes in grid[:, 0]:
            axes.set_ylabel("accuracy, share")
        figure.legend(
            *grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=legend_columns, frameon=False
        )
        return png(figure)


def _draw_bins(axes: Axes, title: str, bins: Sequence[Bin]) -> None:
    edges = np.linspace(0, 1, BINS + 1)
    total = sum(one.examples for one in bins)
    shares = [one.examples / total for one in bins]
    axes.stairs(shares, edges, fill=True, color=GREY, alpha=0.25, label="share of answers")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)), label="as sure as right")
    known = [one for one in bins if one.confidence is not None and one.accuracy is not None]
    x, y = ([getattr(one, name) for one in known] for name in ("confidence", "accuracy"))
    axes.plot(x, y, color=BLUE, marker="o", markersize=3.5, linewidth=1.2, label="accuracy of a bin")
    gap = sum(one.examples * abs(one.confidence - one.accuracy) for one in known) / total  # type: ignore[operator]
    axes.set_title(f"{title}: ECE {100 * gap:.1f} %", loc="left")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)


def draw_examples(found: Robustness, examples: Examples) -> bytes:
    """A PNG: the first of the examples under each change and attack that was measured."""
    one = dataclasses.replace(examples, positions=examples.positions[:1])
    names = list(dict.fromkeys(entry.change for entry in found.passes))
    columns = 1 + max(len(found.of(name)) for name in names)
    with drawing(1.5 + 0.95 * columns, 0.6 + 1.05 * len(names)) as figure:
        grid: Any = figure.subplots(len(names), columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for line, name in zip(grid, names, strict=True):
            for axes, strength in zip(line, [0, *sorted(found.of(name))], strict=False):
                _draw_picture(axes, next(one.batches(name, strength))["image"][0])
                axes.set_title(f"{'ε ' if name in found.attacks else ''}{strength}" if strength else name, fontsize=8)
        return png(figure)


def _draw_picture(axes: Axes, image: np.ndarray) -> None:
    grey = image.shape[2] == 1
    axes.imshow(
        image[:, :, 0] if grey else image, cmap="gray" if grey else None, vmin=0, vmax=255, interpolation="nearest"
    )
