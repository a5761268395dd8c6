"""What a speech model hears: the waveform, its frames, which of them counted, and which gave which character."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.evaluation.picture import BLUE, GREY, ORANGE, drawable, drawing, png
from toolkit.explain.look import graph
from toolkit.explain.look.attributions import Attribution, Scores, integrated_gradients
from toolkit.explain.look.pictures import told_sum
from toolkit.explain.look.seen import Example, Seen, file_names
from toolkit.models.layers.log_mel import count_frames
from toolkit.tasks.transcription import BLANK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray[Any, Any]
SEEN_FROM = 0.1  # probability; a unit that never reaches it has no line
MOST_UNITS = 10


class Frames:
    """How the frames of a model lie in time."""

    def __init__(self, model: Any) -> None:
        self.layer = graph.log_mel(model)
        self._read = graph.reader(model, graph.features(model))

    def read(self, example: Example) -> Array:
        """The frames of one example as the layers after them see them, `(frames, mels)`, without padding."""
        values, valid = self._read(example.inputs)
        frames: Array = values[0, : int(valid[0].sum())]
        return frames

    def seconds(self, count: int, stride: int = 1) -> Array:
        """The middle of each of `count` frames, of which a layer kept every `stride`th."""
        middles: Array = (np.arange(count) * stride * self.layer.hop + self.layer.frame / 2) / self.layer.sample_rate
        return middles

    def draw(self, axes: Axes, values: Array) -> Any:
        """The frames as an image over seconds and Hz."""
        hop, start = self.layer.hop / self.layer.sample_rate, self.seconds(1)[0]
        extent = (start - hop / 2, start + (len(values) - 0.5) * hop, -0.5, values.shape[1] - 0.5)
        limit = float(np.quantile(np.abs(values), 0.995)) or 1.0
        image = axes.imshow(
            values.T, origin="lower", aspect="auto", cmap="magma", extent=extent, vmin=-limit, vmax=limit,
            interpolation="nearest",
        )  # fmt: skip
        bands = np.linspace(0, values.shape[1] - 1, min(5, values.shape[1])).round().astype(int)
        axes.set_yticks(bands, [f"{hz:,.0f}" for hz in self._middles()[bands]])
        return image

    def _middles(self) -> Array:
        """The frequency of each band's middle, in Hz."""
        edges = (self.layer.low_hz, self.layer.high_hz or self.layer.sample_rate / 2)
        low, high = (float(1127 * np.log1p(hz / 700)) for hz in edges)
        mels = np.linspace(low, high, self.layer.mels + 2)[1:-1]
        middles: Array = 700 * np.expm1(mels / 1127)
        return middles


def sound(seen: Seen, examples: Sequence[Example]) -> dict[str, bytes]:
    """Waveform and frames of each example; below, what each frame adds to the answer, or the output over time."""
    frames = Frames(seen.model)
    spoken = seen.spec.task == "transcription"
    scores = None if spoken else Scores(seen.model, graph.features(seen.model)[0])
    drawn = {}
    for name, example in zip(file_names("sound", examples), examples, strict=True):
        found = frame_attributions(scores, example) if scores else None
        drawn[name] = _draw(seen, example, frames, found)
    return drawn


def frame_attributions(scores: Scores, example: Example) -> Attribution:
    """What each frame adds to the answer's score, by integrated gradients from the clip's mean: `(frames,)`."""
    found = integrated_gradients(scores, example.inputs, example.answer)
    return Attribution(found.values.sum(axis=-1), found.difference)


def _draw(seen: Seen, example: Example, frames: Frames, found: Attribution | None) -> bytes:
    rate = frames.layer.sample_rate
    samples = example.inputs["samples"][0][: int(example.inputs["lengths"][0])]
    values = frames.read(example)
    seconds = len(samples) / rate
    with drawing(min(max(7.5, 2.5 * seconds + 3), 20), 6.6) as figure:
        figure.suptitle(
            f"{example.title}\n{_heard(seen, example) if found is None else seen.told(example)}", fontsize=10
        )
        panels: Any = figure.subplots(3, 1, sharex=True)
        wave, mel, last = panels
        wave.plot(np.arange(len(samples)) / rate, samples, color=BLUE, linewidth=0.5)
        wave.set_ylabel("amplitude")
        image = frames.draw(mel, values)
        mel.set_ylabel("frequency (Hz)")
        figure.colorbar(image, ax=mel, label="log-mel,\nas the model sees it", aspect=12, extend="both")
        if found is None:
            _draw_output(last, seen, example, frames, values)
        else:
            _draw_frames(last, frames, found, len(values))
        last.set_xlabel("time (s)")
        last.set_xlim(0, seconds)
        return png(figure)


def _draw_frames(axes: Axes, frames: Frames, found: Attribution, count: int) -> None:
    values = found.values[:count]
    width = frames.layer.hop / frames.layer.sample_rate
    axes.bar(frames.seconds(count), values, width=width, color=np.where(values > 0, ORANGE, BLUE).tolist())
    axes.axhline(0, color="0.4", linewidth=0.6)
    axes.set_ylabel("added to the answer's\nscore by each frame")
    axes.set_title(told_sum(found), loc="right", fontsize=8)


def _draw_output(axes: Axes, seen: Seen, example: Example, frames: Frames, values: Array) -> None:
    """Probability of the blank and of each unit, and which stretch of frames was read as which unit."""
    padded = count_frames(example.inputs["samples"].shape[1], frame=frames.layer.frame, hop=frames.layer.hop)
    stride = graph.stride(seen.model, padded, len(example.logits))
    logits = example.logits[: -(-len(values) // stride)].astype(np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    times = frames.seconds(len(shares), stride)
    peaks = shares.max(axis=0)
    lines = [
        label for label in np.argsort(-peaks, kind="stable").tolist() if label != BLANK and peaks[label] > SEEN_FROM
    ]
    axes.plot(times, shares[:, BLANK], color=GREY, linewidth=1, linestyle="--", label="blank")
    for i, label in enumerate(lines[:MOST_UNITS]):
        axes.plot(times, shares[:, label], color=f"C{i}", linewidth=1.2, label=unit_name(seen, label))
    half = stride * frames.layer.hop / frames.layer.sample_rate / 2
    for label, start, end in runs(shares.argmax(axis=1)):
        axes.axvspan(
            times[start] - half, times[end - 1] + half, facecolor="0.92", edgecolor="white", linewidth=1.5, zorder=0
        )
        middle = (times[start] + times[end - 1]) / 2
        axes.text(middle, 1.03, unit_name(seen, label), ha="center", va="bottom", fontsize=8, clip_on=False)
    axes.set_ylim(0, 1)
    axes.set_ylabel("probability of a unit")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=7)


def runs(best: Array) -> list[tuple[int, int, int]]:
    """(label, first frame, frame after the last) of each stretch that CTC reads as one unit."""
    found: list[tuple[int, int, int]] = []
    start = 0
    for label, group in itertools.groupby(best.tolist()):
        end = start + sum(1 for _ in group)
        if label != BLANK:
            found.append((label, start, end))
        start = end
    return found


def unit_name(seen: Seen, label: int) -> str:
    """A unit of the vocabulary for a picture; a space is seen."""
    unit = seen.spec.vocabulary[label - 1]
    return "␣" if unit == " " else drawable(unit, cells=16, otherwise=f"#{label}")


def _heard(seen: Seen, example: Example) -> str:
    said = drawable(example.text or "", cells=90, otherwise="(what no font here can show)")
    written = drawable(
        seen.objective.decode(example.logits[None])[0], cells=90, otherwise="(what no font here can show)"
    )
    return f"said: {said}\nwritten: {written}"
