"""What the watched steps of a run measured, as a picture of layers over time and in sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.errors import ToolkitError
from toolkit.evaluation.files import replace_file
from toolkit.evaluation.picture import drawable, drawing, png
from toolkit.runs import gradients, trust
from toolkit.runs import run as runs
from toolkit.runs.gradients import Gradients
from toolkit.training.verdicts import summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

Array = np.ndarray[Any, Any]

_TITLES = {
    "gradient_norm": "norm of the gradient",
    "update_ratio": "update ÷ weights",
    "zero_share": "share of zeros after ReLU",
    "moment_ratio": "largest |m̂| ÷ √v̂",
}
_LOGARITHMIC = ("gradient_norm", "update_ratio")
_DECADES = 12  # of a logarithmic scale: what is below would take the colours from the rest
_UNDER, _OVER = 1e-300, 1e300  # what is drawn for 0, which has no logarithm, and for a number that is not finite
_MOST_NAMES, _CELLS = 40, 28  # layers that are named, and the width of a name
_MOST_COLUMNS = 600  # more measurements than a picture has room for are thinned out


def explain(run_dir: Path, *, say: Callable[[str], None]) -> None:
    """Draw `gradients.png` into the run's directory, and say what is wrong.

    Raises:
        ToolkitError: there is no such run, or it was not watched.
        RunFailed: the picture cannot be written.
    """
    directory = runs.check_begun(run_dir)
    source = directory / runs.GRADIENTS
    if not source.exists():
        raise ToolkitError(
            f"the run in {trust.shown(directory)} was not watched ({runs.GRADIENTS} is missing): train with --set "
            "training.watch=gradients."
        )
    measured = gradients.read(source)
    output = directory / runs.GRADIENTS_PICTURE
    draw(measured, output, title=directory.name)
    for line in summary(measured):
        say(line)
    say(f"the picture is {trust.shown(output)}")


def draw(measured: Gradients, output: Path, *, title: str) -> None:
    """Layers downwards from the input, steps to the right; a panel for each measure that some layer has."""
    columns = np.unique(np.linspace(0, len(measured.steps) - 1, _MOST_COLUMNS).round().astype(int))
    panels = {}
    for name in gradients.MEASURES:
        rows = np.flatnonzero(~np.isnan(measured.values[name]).all(axis=1))
        if len(rows):
            panels[name] = rows
    heights = [0.15 * min(max(len(rows), 4), _MOST_NAMES) for rows in panels.values()]  # inches
    with drawing(9, 0.9 + sum(heights) + 0.45 * len(panels)) as figure:
        column: Any = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)
        for axes, (name, rows) in zip(column[:, 0], panels.items(), strict=True):
            names = [drawable(measured.layers[i], cells=_CELLS, otherwise=f"#{i}") for i in rows]
            _draw_panel(axes, name, measured.steps[columns], measured.values[name][np.ix_(rows, columns)], names)
        axes.set_xlabel("step")
        figure.suptitle(drawable(title, cells=60, otherwise="gradients"), fontweight="bold", fontsize=11)
        picture = png(figure)
    replace_file(output, picture)


def _draw_panel(axes: Axes, name: str, steps: Array, values: Array, names: Sequence[str]) -> None:
    """`values` is (layers, steps); each is drawn from its step to the next."""
    from matplotlib import colormaps
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    colours = colormaps["viridis"].with_extremes(bad="0.9", under="black", over="red")
    gap = steps[-1] - steps[-2] if len(steps) > 1 else 1
    scale = _scale(name, values)
    drawn = np.where(np.isinf(values), _OVER, np.where(values == 0, _UNDER, values))
    mesh = axes.pcolormesh(
        np.append(steps, steps[-1] + gap) - 0.5,
        np.arange(len(names) + 1) - 0.5,
        np.ma.masked_invalid(drawn),
        norm=scale,
        cmap=colours,
    )
    apart = -(-len(names) // _MOST_NAMES)
    axes.set_yticks(range(0, len(names), apart), names[::apart], fontsize=7)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.set_title(_TITLES[name], loc="left")
    rows = min(max(len(names), 4), _MOST_NAMES)
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.01, aspect=2.5 * rows, extend=_extend(scale, values))
    bar.ax.tick_params(labelsize=7)
    if name in _LOGARITHMIC:
        bar.set_ticks(_powers(scale), labels=[f"{power:.0e}" for power in _powers(scale)])
        bar.ax.minorticks_off()


def _scale(name: str, values: Array) -> Normalize:
    from matplotlib.colors import LogNorm, Normalize

    finite = values[np.isfinite(values)]
    if name not in _LOGARITHMIC:
        return Normalize(0, max(1, finite.max(initial=0)))
    positive = finite[finite > 0]
    high = positive.max(initial=0) or 1
    return LogNorm(max(positive.min(initial=0.9 * high), high / 10**_DECADES), high)


def _powers(scale: Normalize) -> list[float]:
    """Up to four powers of ten on a logarithmic scale; its ends where it has none."""
    low, high = np.log10(scale.vmin or 1), np.log10(scale.vmax or 1)
    whole = np.arange(np.ceil(low), np.floor(high) + 1)
    apart = -(-len(whole) // 4) or 1
    return [float(10.0**power) for power in (whole[::apart] if len(whole) else (low, high))]


def _extend(norm: Normalize, values: Array) -> str:
    """Which ends of the scale values lie beyond: 0 has no logarithm, and infinite is above all."""
    under, over = bool((values < (norm.vmin or 0)).any()), bool(np.isinf(values).any())
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[under, over]
