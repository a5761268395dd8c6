"""How a training went, as a picture: loss, accuracy and learning rate over the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.errors import ToolkitError
from toolkit.evaluation.files import replace_file
from toolkit.evaluation.picture import BLUE, GREEN, GREY, ORANGE, drawable, drawing, png
from toolkit.runs import metrics
from toolkit.runs.metrics import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BEST: dict[str, Any] = {"color": GREEN, "linestyle": (0, (4, 3)), "linewidth": 1.2, "zorder": 1}
SMOOTH_FROM = 40  # rows; fewer are shown as they are


def draw_curves(metrics_jsonl: Path, output: Path, *, best_metric: str = "val_loss") -> None:
    """Draw the rows of `metrics_jsonl` into the PNG `output`, which is replaced.

    Tolerates what a run can leave: one epoch or none complete, no validation, NaN, a last line that was cut off.

    Args:
        best_metric: marks the epoch with its best value (a loss: the lowest, anything else: the highest).

    Raises:
        ToolkitError: there is no such file, or no row in it, or a line that is no row.
        RunFailed: the picture cannot be written.
    """
    rows = list(metrics.read(metrics_jsonl))
    steps = [row for row in rows if row["kind"] == "step"]
    epochs = [row for row in rows if row["kind"] == "epoch"]
    panels: list[tuple[str, Callable[[Axes], None]]] = []
    if _has(rows, "loss", "val_loss"):
        panels.append(("loss", lambda axes: _draw_loss(axes, steps, epochs)))
    if _has(rows, "accuracy", "val_accuracy"):
        panels.append(("accuracy", lambda axes: _draw_accuracy(axes, steps, epochs)))
    if _has(rows, "learning_rate"):
        panels.append(("learning rate", lambda axes: _draw_rate(axes, steps or epochs)))
    if not panels:
        raise ToolkitError(f"{metrics_jsonl} has no finite loss, accuracy or learning rate to draw: train first.")
    best = best_epoch(epochs, best_metric)
    heights = [1.0 if name == "learning rate" else 2.0 for name, _ in panels]
    with drawing(8.5, 1.0 + 1.55 * sum(heights)) as figure:
        column: Any = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)
        for axes, (name, draw) in zip(column[:, 0], panels, strict=True):
            draw(axes)
            axes.set_ylabel(name)
            axes.grid(color="0.92", linewidth=0.8)
            axes.set_axisbelow(True)
            if best is not None:
                axes.axvline(best["step"], **_BEST)
        _finish(column[:, 0], steps, epochs)
        figure.legend(
            *_entries(column[:, 0], best, best_metric),
            title=drawable(metrics_jsonl.absolute().parent.name, cells=60, otherwise="training"),
            title_fontproperties={"weight": "bold", "size": 11},
            loc="outside upper center",
            ncols=2,
            frameon=False,
        )
        picture = png(figure)
    replace_file(output, picture)


def best_epoch(epochs: Sequence[Row], metric: str) -> Row | None:
    """The epoch with the best finite value, of equal ones the earlier; None where no epoch has one."""
    finite = [row for row in epochs if np.isfinite(_number(row, metric))]
    if not finite:
        return None
    sign = 1 if metric.endswith("loss") else -1
    return min(finite, key=lambda row: sign * _number(row, metric))


def _number(row: Row, key: str) -> float:
    value = row.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")


def _has(rows: Sequence[Row], *keys: str) -> bool:
    return any(np.isfinite(_number(row, key)) for row in rows for key in keys)


def _series(rows: Sequence[Row], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values; what is not finite is a gap."""
    values = np.array([_number(row, key) for row in rows], dtype=np.float64)
    values[~np.isfinite(values)] = np.nan
    return np.array([row["step"] for row in rows], dtype=np.float64), values


def _smooth(values: np.ndarray) -> np.ndarray:
    """Exponential moving average over about a 40th of all rows, corrected for its start; gaps stay gaps."""
    decay = 1 - 1 / max(1.0, len(values) / SMOOTH_FROM)
    smooth = np.full_like(values, np.nan)
    total = weight = 0.0
    for i in np.flatnonzero(np.isfinite(values)):
        total = decay * total + (1 - decay) * values[i]
        weight = decay * weight + (1 - decay)
        smooth[i] = total / weight
    return smooth


def _draw_metric(axes: Axes, steps: Sequence[Row], epochs: Sequence[Row], name: str) -> np.ndarray:
    """Lines of `name` and `val_name`; returns all values that must stay in sight."""
    x, values = _series(steps, name)
    smooth = _smooth(values)
    marks = [smooth[len(smooth) // 20 :]]  # the first rows of a training may start far above all others
    if np.isfinite(values).any():
        label = "training, by step" + (" (smoothed)" if len(values) > SMOOTH_FROM else "")
        axes.plot(x, values, color=BLUE, alpha=0.18, linewidth=0.7)
        axes.plot(x, smooth, color=BLUE, alpha=0.6, linewidth=1.0, label=label)
    for key, colour, marker, label in (
        (name, BLUE, "o", "training, mean of the epoch"),
        (f"val_{name}", ORANGE, "s", "validation"),
    ):
        x, values = _series(epochs, key)
        if np.isfinite(values).any():
            axes.plot(x, values, color=colour, marker=marker, markersize=4, linewidth=1.6, label=label)
            marks.append(values)
    seen: np.ndarray = np.concatenate(marks)
    finite: np.ndarray = seen[np.isfinite(seen)]
    return finite


def _draw_loss(axes: Axes, steps: Sequence[Row], epochs: Sequence[Row]) -> None:
    seen = _draw_metric(axes, steps, epochs, "loss")
    _limit(axes, seen)


def _draw_accuracy(axes: Axes, steps: Sequence[Row], epochs: Sequence[Row]) -> None:
    from matplotlib.ticker import PercentFormatter

    seen = _draw_metric(axes, steps, epochs, "accuracy")
    _limit(axes, seen)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def _limit(axes: Axes, seen: np.ndarray) -> None:
    if not len(seen):
        return
    low, high = float(seen.min()), float(seen.max())
    margin = 0.06 * (high - low) or 0.05 * max(abs(high), 1e-3)
    axes.set_ylim(low - margin, high + margin)


def _draw_rate(axes: Axes, rows: Sequence[Row]) -> None:
    x, values = _series(rows, "learning_rate")
    axes.plot(x, values, color=GREY, linewidth=1.4, marker="o" if len(rows) == 1 else None, markersize=4, zorder=3)
    axes.set_ylim(0, None)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


def _finish(column: Sequence[Axes], steps: Sequence[Row], epochs: Sequence[Row]) -> None:
    """The axes that the panels share, and what the reader must be told."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    bottom, top = column[-1], column[0]
    bottom.set_xlabel("step")
    bottom.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    bottom.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    bottom.set_xlim(left=0)
    if epochs and epochs[-1].get("epoch") and epochs[-1]["step"]:
        per_epoch = epochs[-1]["step"] / epochs[-1]["epoch"]
        above = top.secondary_xaxis("top", functions=(lambda x: x / per_epoch, lambda x: x * per_epoch))
        above.set_xlabel("epoch")
        above.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    gone = [row["step"] for row in (*steps, *epochs) if "loss" in row and not np.isfinite(_number(row, "loss"))]
    if gone:
        top.set_title(f"loss not finite in {len(gone)} rows, first at step {min(gone):,}", color=ORANGE, loc="left")


def _entries(column: Sequence[Axes], best: Row | None, best_metric: str) -> tuple[list[Any], list[str]]:
    """Lines and texts of the one legend, each once."""
    entries: dict[str, Any] = {}
    for axes in column:
        lines, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, lines, strict=True))
    if best is not None:
        line = column[-1].axvline(best["step"], **_BEST)
        entries[f"best {best_metric} {_number(best, best_metric):.4g}, epoch {best.get('epoch', '?')}"] = line
    return list(entries.values()), list(entries)
