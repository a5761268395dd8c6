"""A range test as a picture: the loss over the rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit.evaluation.picture import BLUE, GREEN, GREY, ORANGE, drawable, drawing, png

if TYPE_CHECKING:
    from toolkit.studies.find_rate import Found

_LINES: dict[str, Any] = {"linewidth": 1.3, "zorder": 1}


def draw_rates(found: Found, *, title: str, own_rate: float) -> bytes:
    """A PNG; `own_rate` is the config's, marked where it lies among those that were tried."""
    from matplotlib.ticker import FuncFormatter

    with drawing(7.5, 4.4) as figure:
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))  # the usual one needs formulas
        axes.plot(found.rates, found.losses, color=BLUE, alpha=0.3, linewidth=0.9, label="loss of each step")
        axes.plot(found.rates, found.smoothed, color=BLUE, linewidth=1.8, label="smoothed")
        if told := found.suggestion:
            axes.plot(told.lowest, told.loss, "o", color=GREY, label=f"lowest, at {told.lowest:.2g}")
            axes.axvline(told.steepest, color=GREEN, label=f"steepest descent, {told.steepest:.2g}", **_LINES)
            tenth = f"a tenth of the minimum, {told.tenth:.2g}"
            axes.axvline(told.tenth, color=ORANGE, linestyle=(0, (5, 2)), label=tenth, **_LINES)
        if len(found.rates) and found.rates[0] <= own_rate <= found.rates[-1]:
            axes.axvline(own_rate, color=GREY, linestyle=":", label=f"the config's own, {own_rate:g}", **_LINES)
        if len(found.smoothed):
            low, high = float(min(found.losses.min(), found.smoothed.min())), float(found.smoothed.max())
            margin = 0.15 * (high - low) or 0.05 * max(abs(high), 1e-3)  # an explosion may leave the picture
            axes.set_ylim(low - margin, high + margin)
        axes.set_xlabel("learning rate")
        axes.set_ylabel("training loss")
        axes.grid(color="0.92", linewidth=0.8)
        axes.set_axisbelow(True)
        figure.legend(
            title=drawable(title, cells=60, otherwise="learning rate"),
            title_fontproperties={"weight": "bold", "size": 11},
            loc="outside upper center",
            ncols=2,
            frameon=False,
        )
        return png(figure)
