"""A comparison as a picture: the loss in training at each best rate, and the accuracy over all rates."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.evaluation.picture import BLUE, GREEN, ORANGE, drawable, drawing, png
from toolkit.studies.comparison import Comparison, Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The three of all pictures, and more of Okabe & Ito 2008.
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "osD^vPX"  # another period than the dashes, beside the colours
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (3, 1)))
WIDE = 20
"""Highest loss ÷ lowest from which on the axis is logarithmic."""


def draw(comparison: Comparison) -> bytes:
    """The PNG."""
    styles = [
        {"color": colour, "marker": marker, "linestyle": dash}
        for colour, marker, dash, _ in zip(
            itertools.cycle(COLOURS),
            itertools.cycle(MARKERS),
            itertools.cycle(DASHES),
            comparison.results,
            strict=False,
        )
    ]
    with drawing(11, 4.8) as figure:
        left, right = figure.subplots(1, 2)
        for result, style in zip(comparison.results, styles, strict=True):
            _draw_curve(left, result, style)
            _draw_rates(right, result, style)
        _finish_curves(left, comparison)
        _finish_rates(right, comparison)
        figure.legend(
            *right.get_legend_handles_labels(),
            title=drawable(
                f"{comparison.config}: each optimizer at its best rate, and over all", cells=90, otherwise=""
            ),
            title_fontproperties={"weight": "bold", "size": 11},
            loc="outside upper center",
            ncols=min(len(comparison.results), 6),
            handlelength=3.5,
            frameon=False,
        )
        return png(figure)


def _draw_curve(axes: Axes, result: Result, style: dict[str, Any]) -> None:
    if not result.finals:
        return
    # Early stopping may have ended one before the others.
    steps = min((final.curve.steps for final in result.finals), key=len)
    losses = np.array([final.curve.losses[: len(steps)] for final in result.finals])  # (seeds, points)
    mean, spread = losses.mean(axis=0), losses.std(axis=0, ddof=1) if len(losses) > 1 else 0 * losses[0]
    every = max(1, len(steps) // 8)
    axes.plot(steps, mean, **style, linewidth=1.6, markersize=4, markevery=every)
    low = np.maximum(mean - spread, losses.min(axis=0) / 2)  # a logarithmic axis has no room below 0
    axes.fill_between(steps, low, mean + spread, color=style["color"], alpha=0.15, linewidth=0)


def _finish_curves(axes: Axes, comparison: Comparison) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    losses = [loss for result in comparison.results for final in result.finals for loss in final.curve.losses]
    if comparison.target is not None:
        axes.axhline(comparison.target, color="0.45", linewidth=0.9, linestyle=(0, (2, 3)), zorder=1)
        axes.annotate(
            f"target {comparison.target:.3g}",
            (0, comparison.target),
            xycoords=("axes fraction", "data"),
            xytext=(4, -3),
            textcoords="offset points",
            va="top",
            bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1},
            color="0.35",
        )
    if losses and min(losses) > 0 and max(losses) / min(losses) > WIDE:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(left=0)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    axes.set_title("Loss in training at the best rate: mean and standard deviation of the seeds", fontsize=9)
    axes.grid(color="0.92", linewidth=0.8)


def _draw_rates(axes: Axes, result: Result, style: dict[str, Any]) -> None:
    accuracies = [np.nan if one.accuracy is None else one.accuracy for one in result.tried]
    rates = [one.rate for one in result.tried]
    axes.plot(rates, accuracies, **style, linewidth=1.6, markersize=4.5, label=result.optimizer)
    best = [(rate, accuracy) for rate, accuracy in zip(rates, accuracies, strict=True) if rate == result.best]
    for rate, accuracy in best:
        axes.plot(rate, accuracy, marker="o", markersize=12, markerfacecolor="none", color=style["color"])


def _finish_rates(axes: Axes, comparison: Comparison) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

    _draw_diverged(axes, comparison)
    rates = [one.rate for result in comparison.results for one in result.tried]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if max(rates) > 100 * min(rates) else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))  # its own needs mathematical text
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("validation accuracy")
    axes.set_title("Accuracy over the learning rate, one seed; the best is ringed", fontsize=9)
    axes.grid(color="0.92", linewidth=0.8)


def _draw_diverged(axes: Axes, comparison: Comparison) -> None:
    """A strip below the accuracies with a cross for each training that has none, a row for each optimizer."""
    lost = [[one.rate for one in result.tried if one.accuracy is None] for result in comparison.results]
    if not any(lost):
        return
    low, high = axes.get_ylim() if any(result.best for result in comparison.results) else (0.0, 1.0)
    row = (high - low) / 25
    bottom = low - row * (sum(map(bool, lost)) + 1)
    place = low
    for rates, colour in zip(lost, itertools.cycle(COLOURS), strict=False):
        place -= row if rates else 0
        axes.plot(rates, [place] * len(rates), "x", color=colour, markersize=5, markeredgewidth=1.6)
    axes.axhspan(bottom, low, color="0.95", zorder=0)
    axes.annotate(
        "diverged ×", (0.01, (bottom + low) / 2), xycoords=("axes fraction", "data"), va="center", color="0.3"
    )
    axes.set_ylim(bottom, high)
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= high])
