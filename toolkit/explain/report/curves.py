"""Curves that can be hovered, drawn in the page by Plotly, which the page carries."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import math
from collections.abc import Sequence
from typing import Any

from toolkit.explain.report.gather import Found
from toolkit.runs.metrics import Row
from toolkit.runs.trust import shown

# Told apart on white and on black, and by any common colour vision (after Okabe & Ito 2008).
_COLOURS = ("#3b8fd6", "#e0701a", "#1fa37a", "#b86fd1", "#c29a00", "#d6508b", "#6f9aa8", "#a0724a")
_NOT_DRAWN = ("kind", "step", "epoch", "seconds", "examples_per_second", "data_wait_share")
_RATE = "learning_rate"
_PANEL, _LEGEND = 230, 22  # pixels of a panel, of a run in the legend on a narrow screen
MAX_MIDDLE = 10  # metrics that are drawn beside loss and learning rate


def curves(found: Sequence[Found]) -> str | None:
    """Plotly's figure as JSON: of one run its steps and epochs, of several their epochs; None where nothing is to draw.

    Every metric of `metrics.jsonl` has a panel, shared with its value on the validation part; the learning rate comes
    last. What is not finite is a gap.
    """
    names = _metrics([row for run in found for row in (*run.steps, *run.epochs)])
    if not names:
        return None
    from plotly.subplots import make_subplots

    titles = [html.escape(shown(name, length=60)).replace("_", " ") for name in names]  # Plotly reads tags
    figure = make_subplots(rows=len(names), cols=1, shared_xaxes=True, vertical_spacing=0.12 / len(names))
    for panel, name in enumerate(names, start=1):
        for trace in _traces(found, name, legend=panel == 1):
            figure.add_trace(trace, row=panel, col=1)
        axis: dict[str, Any] = {"title_text": titles[panel - 1]}
        if name == _RATE:
            axis["rangemode"] = "tozero"
        else:
            axis["range"] = _range(found, name)
        if "accuracy" in name:
            axis |= {"tickformat": ".0%", "hoverformat": ".2%"}
        figure.update_yaxes(row=panel, col=1, **axis)
    figure.update_xaxes(title_text="step", row=len(names), col=1)
    figure.update_xaxes(hoverformat=",d", rangemode="tozero")
    best = best_row(found[0]) if len(found) == 1 else None
    if best is not None:
        figure.add_vline(best["step"], line={"color": _COLOURS[2], "dash": "dash", "width": 1.5}, row="all", col=1)
    figure.update_layout(
        template="none",
        height=_PANEL * len(names) + 90 + _LEGEND * len(found),
        margin={"l": 64, "r": 12, "t": 12, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="x unified",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0},
    )
    text: str = figure.to_json()  # which has no "<" that could end the script: Plotly writes \u003c
    return text


def plotly() -> tuple[str, str]:
    """Plotly's own JavaScript, gzipped in base64, and the SHA-256 by which the page lets it run."""
    from plotly.offline import get_plotlyjs

    script = get_plotlyjs().encode()
    packed = base64.b64encode(gzip.compress(script, mtime=0)).decode()
    return packed, base64.b64encode(hashlib.sha256(script).digest()).decode()


def is_drawn(value: Any) -> bool:
    """Whether `value` of a row is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def best_row(run: Found) -> Row | None:
    """The row of the epoch whose weights were kept."""
    best = run.record.best
    if best is None or best.epoch is None:
        return None
    return next((row for row in run.epochs if row.get("epoch") == best.epoch), None)


def _metrics(rows: Sequence[Row]) -> list[str]:
    found = {key.removeprefix("val_") for row in rows for key in row if key not in _NOT_DRAWN and is_drawn(row[key])}
    middle = sorted(found - {"loss", _RATE})
    return [name for name in ("loss", *middle[:MAX_MIDDLE], _RATE) if name in found]


def _traces(found: Sequence[Found], name: str, *, legend: bool) -> list[Any]:
    """The lines of one panel; each is named in the legend of the first panel alone."""
    if len(found) > 1:
        return [
            line
            for i, run in enumerate(found)
            for line in _traces_of_many(run, name, _COLOURS[i % len(_COLOURS)], legend=legend)
        ]
    run, (blue, orange, _, purple, *_) = found[0], _COLOURS
    if name == _RATE:
        return [_line(_by_step(run), name, "learning rate", purple, legend=False)]
    return [
        _line(run.steps, name, "training, by step", blue, legend=legend, width=1.0, opacity=0.5),
        _line(run.epochs, name, "training, mean of the epoch", blue, legend=legend, mark="circle"),
        _line(run.epochs, f"val_{name}", "validation", orange, legend=legend, mark="square"),
    ]


def _traces_of_many(run: Found, name: str, colour: str, *, legend: bool) -> list[Any]:
    label = html.escape(shown(run.label, length=40))
    if name == _RATE:
        return [_line(_by_step(run), name, label, colour, legend=False)]
    rows = run.epochs or run.steps
    validated = any(f"val_{name}" in row for row in rows)  # the legend then needs no second line for the run
    return [
        _line(rows, name, f"{label}, training", colour, label, legend=legend and not validated, width=1.0, dash="dot"),
        _line(rows, f"val_{name}", f"{label}, validation", colour, label, legend=legend, mark="square"),
    ]


def _by_step(run: Found) -> list[Row]:
    return sorted((*run.steps, *run.epochs), key=lambda row: row["step"])


def _line(
    rows: Sequence[Row],
    key: str,
    label: str,
    colour: str,
    group: str = "",
    *,
    legend: bool,
    mark: str = "",
    width: float = 2.0,
    opacity: float = 1.0,
    dash: str = "solid",
) -> Any:
    """What one key has in `rows`; a click in the legend hides or shows all lines of a group."""
    from plotly import graph_objects

    held = [row for row in rows if key in row]
    return graph_objects.Scatter(
        x=[row["step"] for row in held],
        y=[row[key] if is_drawn(row[key]) else None for row in held],
        customdata=[str(row["epoch"]) if is_drawn(row.get("epoch")) else "?" for row in held],
        hovertemplate="%{y}, epoch %{customdata}",
        name=label,
        legendgroup=group or label,
        showlegend=legend and bool(held),
        mode="lines+markers" if mark or len(held) == 1 else "lines",
        marker={"symbol": mark or "circle", "size": 6},
        line={"color": colour, "width": width, "dash": dash},
        opacity=opacity,
    )


def _range(found: Sequence[Found], name: str) -> list[float] | None:
    """Of what must be in sight: the first rows of a training may lie far above all others."""
    alone = len(found) == 1
    seen = [
        row[key]
        for run in found
        for row in (*run.epochs, *(run.steps[len(run.steps) // 20 :] if alone or not run.epochs else ()))
        for key in (name, f"val_{name}")
        if key in row and is_drawn(row[key])
    ]
    if not seen:
        return None
    low, high = min(seen), max(seen)
    margin = 0.06 * (high - low) or 0.05 * max(abs(high), 1e-3)
    return [low - margin, high + margin]
