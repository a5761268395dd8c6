"""What a Transformer sees in a text: which places look at which, and which words an answer rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.cells import cell_len

from toolkit.evaluation.picture import BLUE, drawable, drawing, png
from toolkit.explain.look import graph
from toolkit.explain.look.attributions import Attribution, Scores, integrated_gradients
from toolkit.explain.look.pictures import told_sum
from toolkit.explain.look.seen import Example, Seen, file_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray[Any, Any]
NAMED_PLACES = 32  # with more, a heat map's ticks are numbers
TOP = 10  # words in a list
HEADS_IN_A_ROW = 4
LINE = 100  # cells of a line of text
MOST_LINES = 60
RED, DARK_BLUE = "#b2182b", "#2166ac"  # near the ends of the colours that words have
_LETTER = 0.075  # inches, of a monospaced letter of 9 points


def attention(seen: Seen, examples: Sequence[Example]) -> dict[str, bytes]:
    """Of each attention layer and example, each head's weights, and the places that get most of them."""
    layers = graph.attentions(seen.model)
    scores = [graph.attention_scores(seen.model, layer) for layer in layers]
    drawn = {}
    for name, example in zip(file_names("attention", examples), examples, strict=True):
        for number, (layer, compute) in enumerate(zip(layers, scores, strict=True), start=1):
            weights = compute(example.inputs)[0]  # (heads, queries, keys)
            title = drawable(layer.name, cells=40, otherwise=f"attention {number}")
            suffix = f"-{number}" if len(layers) > 1 else ""
            drawn[name + suffix] = _draw_attention(seen, example, weights, title)
    return drawn


def place_names(seen: Seen, example: Example, places: int) -> list[str]:
    """What stands at each of `places` places: a word, or the words from it to the next place."""
    stride = graph.stride(seen.model, example.inputs["tokens"].shape[1], places)
    words = seen.words(example.tokens or [0])
    return [drawable(" ".join(words[i : i + stride]), cells=22, otherwise="") for i in range(0, len(words), stride)]


def _draw_attention(seen: Seen, example: Example, weights: Array, title: str) -> bytes:
    heads = len(weights)
    names = place_names(seen, example, weights.shape[-1])
    count = len(names)
    weights = weights[:, :count, :count]  # without padding
    columns = min(heads, HEADS_IN_A_ROW)
    rows = -(-heads // columns)
    side = 3.6 if count > NAMED_PLACES else max(2.4, 0.19 * count + 1.3)
    with drawing(columns * side + 0.9, rows * (side + 2.4) + 0.7) as figure:
        figure.suptitle(f"{example.title}: {seen.told(example)}\n{title}, {heads} heads", fontsize=10)
        grid: Any = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[side, 2.1] * rows)
        top = float(np.quantile(weights, 0.995))  # a few places that are looked at alone would leave the rest dark
        for axes in grid.flat:
            axes.set_visible(False)
        for head, weight in enumerate(weights):
            row, column = divmod(head, columns)
            heat, bars = grid[2 * row, column], grid[2 * row + 1, column]
            heat.set_visible(True)
            bars.set_visible(True)
            image = heat.imshow(weight, cmap="viridis", vmin=0, vmax=top, interpolation="nearest", aspect="auto")
            heat.set_title(f"head {head + 1}")
            if count <= NAMED_PLACES:
                heat.set_xticks(range(count), names, rotation=90, fontsize=7)
                heat.set_yticks(range(count), names, fontsize=7)
            heat.set_xlabel("looked at" + (" (place)" if count > NAMED_PLACES else ""))
            heat.set_ylabel("looking" + (" (place)" if count > NAMED_PLACES else ""))
            _draw_list(bars, weight.mean(axis=0), names, "mean attention that it gets", colours=(BLUE, BLUE))
        figure.colorbar(
            image, ax=list(grid.flat), label="attention, 1 in all for each row", shrink=0.5, aspect=30, extend="max"
        )
        return png(figure)


def _draw_list(axes: Axes, values: Array, names: Sequence[str], label: str, *, colours: tuple[str, str]) -> None:
    """Bars of the places with the largest of `values`; `colours` are those of positive and negative ones."""
    order = np.argsort(-np.abs(values), kind="stable")[:TOP]
    shown = [f"{names[i]} ({i})" for i in order]
    axes.barh(range(len(order)), values[order], color=[colours[0] if values[i] > 0 else colours[1] for i in order])
    axes.set_yticks(range(len(order)), shown, fontsize=7)
    axes.invert_yaxis()
    axes.axvline(0, color="0.4", linewidth=0.6)
    axes.set_xlabel(label, fontsize=8)
    axes.tick_params(axis="x", labelsize=7)


class Tokens:
    """What each token adds to a score; half of what a pair adds is each of its two tokens'."""

    def __init__(self, model: Any) -> None:
        own, pairs = graph.embedded(model), graph.paired(model)
        self._width = sum(tensor.shape[-1] for tensor in own)
        self._scores = Scores(model, *own, *([] if pairs is None else [pairs]))

    def attributions(self, example: Example) -> Attribution:
        """Of the answer's score, by integrated gradients from zero vectors: `(tokens,)`."""
        found = integrated_gradients(self._scores, example.inputs, example.answer)
        values, pairs = (part.sum(axis=-1) for part in np.split(found.values, [self._width], axis=-1))
        values += pairs / 2
        values[1:] += pairs[:-1] / 2  # the last pair is none
        return Attribution(values, found.difference)


def attributions(seen: Seen, examples: Sequence[Example]) -> dict[str, bytes]:
    """The text with each word coloured by what it adds to the answer's score, and those that add most."""
    tokens = Tokens(seen.model)
    drawn = {}
    for name, example in zip(file_names("attributions", examples), examples, strict=True):
        drawn[name] = _draw_attributions(seen, example, tokens.attributions(example))
    return drawn


def _draw_attributions(seen: Seen, example: Example, found: Attribution) -> bytes:
    words = seen.words(example.tokens or [0])
    values = found.values[: len(words)]
    limit = float(np.abs(values).max()) or 1.0
    placed = list(_lines(words))
    lines = placed[-1][0] + 1
    text_height, list_height = 0.22 * lines + 0.1, 2.4
    width, height = LINE * _LETTER + 0.4, text_height + list_height + 1.3
    with drawing(width, height) as figure:
        figure.set_layout_engine("none")  # all places are known
        figure.suptitle(
            f"{example.title}: {seen.told(example)}\nred speaks for the answer, blue against it; {told_sum(found)}",
            fontsize=10,
        )
        axes = figure.add_axes(
            (0.2 / width, (list_height + 0.5) / height, LINE * _LETTER / width, text_height / height)
        )
        axes.set(xlim=(0, LINE), ylim=(lines, 0))
        axes.set_axis_off()
        _draw_words(axes, words, values / limit, placed)
        below = figure.add_axes((2.4 / width, 0.5 / height, 1 - 2.8 / width, (list_height - 0.4) / height))
        _draw_list(below, values, words, "added to the score of the answer", colours=(RED, DARK_BLUE))
        return png(figure)


def _draw_words(axes: Axes, words: Sequence[str], shares: Array, placed: Sequence[tuple[int, int]]) -> None:
    import matplotlib
    from matplotlib import rcParams

    colours = matplotlib.colormaps["RdBu_r"]
    for word, share, (line, cell) in zip(words, shares, placed, strict=False):
        box = {"facecolor": colours(0.5 + 0.42 * float(share)), "edgecolor": "none", "pad": 1.2}
        family = ["DejaVu Sans Mono", *rcParams["font.family"]]
        ink = "white" if abs(share) > 0.7 else "black"
        axes.text(cell, line + 0.5, word, family=family, fontsize=8, va="center", color=ink, bbox=box)
    if len(placed) < len(words):
        axes.text(placed[-1][1] + LINE // 8, placed[-1][0] + 0.5, "…", va="center")


def _lines(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Line and cell at which each word begins; a text of more than `MOST_LINES` ends there."""
    line = cell = 0
    for word in words:
        width = cell_len(word)
        if cell and cell + width > LINE:
            line, cell = line + 1, 0
        if line == MOST_LINES:
            return
        yield line, cell
        cell += width + 1
