"""What a convolutional network sees in a picture: its filters, its maps, and where an answer comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.evaluation.picture import drawable, drawing, png
from toolkit.explain.look import graph
from toolkit.explain.look.attributions import Scores, grad_cam, integrated_gradients
from toolkit.explain.look.seen import Example, Seen, file_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from toolkit.explain.look.attributions import Attribution

Array = np.ndarray[Any, Any]
MOST_FILTERS = 64
MOST_MAPS = 12  # of a layer


def filters(seen: Seen, examples: Sequence[Example]) -> dict[str, bytes]:
    """The weights of the first convolution; of more than 64 filters those with the largest."""
    from keras import ops

    layer = graph.convolutions(seen.model)[0]
    kernel = np.asarray(ops.convert_to_numpy(layer.kernel), np.float32)  # (height, width, in, out)
    height, width, channels, count = kernel.shape
    norms = np.sqrt(np.square(kernel).sum(axis=(0, 1, 2)))
    shown = sorted(np.argsort(-norms, kind="stable")[:MOST_FILTERS].tolist())
    colour = channels == 3
    columns = min(8, len(shown))
    rows = -(-len(shown) // columns)
    kind = "red, green and blue, each filter scaled to its own range" if colour else "weights, one scale for all"
    more = f"; the {len(shown)} with the largest weights" if count > len(shown) else ""
    mean = f", mean over {channels} channels" if channels not in (1, 3) else ""
    name = drawable(layer.name, cells=40, otherwise="the first convolution")
    with drawing(0.85 * columns + (1.6 if not colour else 0.6) + max(0, 5 - columns), 0.95 * rows + 1.0) as figure:
        figure.suptitle(
            f"{name}: {count} filters of {height} × {width}{more}\n{kind}{mean}; weights of the {seen.weights} epoch",
            fontsize=10,
        )
        grid: Any = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        limit = float(np.abs(kernel.mean(axis=2)).max()) or 1.0
        for axes, i in zip(grid.flat, shown, strict=False):
            one = kernel[..., i]  # (height, width, in)
            if colour:
                axes.imshow((one - one.min()) / (float(np.ptp(one)) or 1.0), interpolation="nearest")
            else:
                image = axes.imshow(one.mean(axis=2), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
            axes.set_title(str(i), fontsize=7, pad=2)
        if not colour:
            figure.colorbar(image, ax=list(grid.flat), label="weight", shrink=min(1.0, 2.5 / rows + 0.3), aspect=25)
        return {"filters": png(figure)}


def maps(seen: Seen, examples: Sequence[Example]) -> dict[str, bytes]:
    """What each convolution makes of each example, after its activation: the maps that are strongest on the mean."""
    found = [graph.activated(seen.model, layer) for layer in graph.convolutions(seen.model)]
    read = graph.reader(seen.model, [layer.output for layer in found])
    names = [drawable(layer.name, cells=20, otherwise=f"convolution {i}") for i, layer in enumerate(found, start=1)]
    drawn = {}
    for name, example in zip(file_names("maps", examples), examples, strict=True):
        drawn[name] = _draw_maps(seen, example, names, [value[0] for value in read(example.inputs)])
    return drawn


def _draw_maps(seen: Seen, example: Example, names: Sequence[str], values: Sequence[Array]) -> bytes:
    columns = min(MOST_MAPS, max(value.shape[-1] for value in values))
    with drawing(0.8 * columns + 2.6, 0.95 * len(values) + 0.9) as figure:
        figure.suptitle(f"{example.title}: {seen.told(example)}", fontsize=10)
        grid: Any = figure.subplots(len(values), columns + 2, squeeze=False, width_ratios=[1.4, 1.3, *[1.0] * columns])
        for axes in grid.flat:
            axes.set_axis_off()
        show_picture(grid[0, 0], example.inputs["image"][0])
        for (_, label, *row), name, value in zip(grid, names, values, strict=True):
            height, width, channels = value.shape
            told = f"{name}\n{channels} maps\n{height} × {width}"
            label.text(1, 0.5, told, fontsize=7, ha="right", va="center", transform=label.transAxes)
            order = np.argsort(-value.mean(axis=(0, 1)), kind="stable")[:columns]
            low, high = float(min(value.min(), 0.0)), float(value.max())
            for axes, i in zip(row, order.tolist(), strict=False):
                axes.imshow(value[..., i], cmap="viridis", vmin=low, vmax=high, interpolation="nearest")
                axes.set_title(str(i), fontsize=6, pad=1)
        return png(figure)


def gradcam(seen: Seen, examples: Sequence[Example]) -> dict[str, bytes]:
    """Grad-CAM of the last convolution over each picture: for the answer, and for the label where that is another."""
    layer = graph.activated(seen.model, graph.convolutions(seen.model)[-1])
    scores = Scores(seen.model, layer.output)
    drawn = {}
    for name, example in zip(file_names("gradcam", examples), examples, strict=True):
        labels = dict.fromkeys([example.answer, *([] if example.label is None else [example.label])])
        heats = {label: grad_cam(scores, example.inputs, label) for label in labels}
        drawn[name] = _draw_gradcam(seen, example, heats)
    return drawn


def _draw_gradcam(seen: Seen, example: Example, heats: dict[int, Array]) -> bytes:
    picture = example.inputs["image"][0]
    with drawing(2.6 * (1 + len(heats)) + 0.9, 3.4) as figure:
        figure.suptitle(f"{example.title}\n{seen.told(example)}", fontsize=10)
        row: Any = figure.subplots(1, 1 + len(heats))
        show_picture(row[0], picture)
        row[0].set_title("the picture")
        for axes, (label, heat) in zip(row[1:], heats.items(), strict=True):
            show_picture(axes, picture, grey=True)
            height, width, _ = picture.shape
            top = float(heat.max())
            image = axes.imshow(
                heat / (top or 1.0), cmap="inferno", vmin=0, vmax=1, alpha=0.55, interpolation="bilinear",
                extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            )  # fmt: skip
            axes.set_title(f"what speaks for {seen.name(label, cells=16)}" + ("" if top else ": nothing"))
        bar: Any = figure.colorbar(image, ax=list(row), label="Grad-CAM, part of its maximum", shrink=0.8, aspect=20)
        bar.solids.set_alpha(1)
        return png(figure)


def attributions(seen: Seen, examples: Sequence[Example]) -> dict[str, bytes]:
    """What each pixel adds to the answer's score, by integrated gradients from black."""
    scores = Scores(seen.model, graph.pixels(seen.model, seen.spec.shape))
    drawn = {}
    for name, example in zip(file_names("attributions", examples), examples, strict=True):
        drawn[name] = _draw_attributions(seen, example, pixel_attributions(scores, example))
    return drawn


def pixel_attributions(scores: Scores, example: Example) -> Attribution:
    """What each number of a picture adds to the answer's score, by integrated gradients from black."""
    # Black is all numbers 0 before the scaling; after it, with an offset, they are others.
    black = {name: np.zeros_like(value) for name, value in example.inputs.items()}
    return integrated_gradients(scores, example.inputs, example.answer, baseline=black)


def _draw_attributions(seen: Seen, example: Example, found: Attribution) -> bytes:
    heat = found.values.sum(axis=-1)  # (height, width)
    limit = float(np.quantile(np.abs(heat), 0.995)) or float(np.abs(heat).max()) or 1.0
    with drawing(6.6, 3.7) as figure:
        figure.suptitle(f"{example.title}\n{seen.told(example)}", fontsize=10)
        row: Any = figure.subplots(1, 2)
        show_picture(row[0], example.inputs["image"][0])
        row[0].set_title("the picture")
        image = row[1].imshow(heat, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        row[1].set_xticks([])
        row[1].set_yticks([])
        row[1].spines[:].set_visible(False)
        row[1].set_title(f"for (red) and against (blue) {seen.name(example.answer, cells=14)}")
        row[1].set_xlabel(told_sum(found), fontsize=8)
        figure.colorbar(image, ax=row[1], label="added to the score", shrink=0.8, aspect=20, extend="both")
        return png(figure)


def told_sum(found: Attribution) -> str:
    """What the attributions sum to, beside what they should."""
    total = float(found.values.sum())
    return f"sum {total:.3f}, difference of the scores {found.difference:.3f}"


def show_picture(axes: Axes, picture: Array, *, grey: bool = False) -> None:
    """uint8 `(height, width, 1 or 3)`, in colour or grey, without ticks."""
    if picture.shape[-1] == 1 or grey:
        axes.imshow(picture.mean(axis=-1), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    else:
        axes.imshow(picture, interpolation="nearest")
    axes.set_axis_off()
