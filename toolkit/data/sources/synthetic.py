"""Made data that a small model learns in seconds: for tests and smoke runs, never for results.

Pure functions of their arguments: equal seeds give equal examples, on every machine.
"""

from __future__ import annotations

from typing import Any, Literal

from toolkit.data.examples import Examples, Source
from toolkit.data.sources.shared import share_out
from toolkit.data.splits import check_shares, refuse
from toolkit.errors import ToolkitError
from toolkit.types import Hertz, Positive, Seed, Share, Size

_SYLLABLES = tuple(consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou")


def synthetic_images(
    *,
    classes: Size = 3,
    examples: Size = 120,
    height: Size = 16,
    width: Size = 16,
    channels: Literal[1, 3] = 1,
    noise: Share = 0.1,
    encoded: bool = True,
    seed: Seed = 0,
    validation: Share = 0.1,
    test: Share = 0.2,
    split_seed: Seed = 0,
) -> Source:
    """A bright bar on a dark, noisy ground; its direction is the class, its place varies.

    Args:
        classes: directions, evenly spread over half a turn.
        examples: of all classes together, dealt to them in turn.
        height: in pixels.
        width: in pixels.
        channels: 1 grey, 3 colour (the bar's colour varies and says nothing).
        noise: standard deviation of the noise, as a part of full brightness.
        encoded: PNG bytes, else uint8 arrays `(height, width, channels)`.
        seed: of the pictures.
        validation: share of each class that chooses.
        test: share of each class that is only measured.
        split_seed: of the split.
    """
    import numpy as np

    rows, columns = np.mgrid[:height, :width]
    values, labels = [], _labels(classes, examples)
    for i, label in enumerate(labels):
        rng = np.random.default_rng([seed, i])
        angle = np.pi * label / classes
        middle = rng.uniform(-0.2, 0.2, 2) * [height, width] + [(height - 1) / 2, (width - 1) / 2]
        distance = (rows - middle[0]) * np.cos(angle) - (columns - middle[1]) * np.sin(angle)
        bar = np.exp(-((distance / (0.08 * min(height, width) + 0.5)) ** 2))  # (height, width), 1 on the bar
        pixels = bar[..., None] * rng.uniform(0.6, 1, channels) + rng.normal(0, noise, (height, width, channels))
        image = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
        values.append(_png(image) if encoded else image)
    splits = _share_out("synthetic_images", values, labels, classes, validation, test, split_seed)
    return Source("image", _class_names(classes), splits, channels=channels, origin="synthetic_images")


def synthetic_audio(
    *,
    classes: Size = 3,
    examples: Size = 90,
    rate: Hertz = 8000,
    seconds: Positive = 0.4,
    noise: Share = 0.1,
    seed: Seed = 0,
    validation: Share = 0.1,
    test: Share = 0.2,
    split_seed: Seed = 0,
) -> Source:
    """A tone in noise, int16; its frequency is the class, length, loudness and phase vary.

    Args:
        classes: frequencies, evenly spaced in octaves from an eightieth to a fifth of the sample rate.
        examples: of all classes together, dealt to them in turn.
        rate: samples per second, in Hz.
        seconds: the longest; the shortest is half of it.
        noise: standard deviation of the noise, as a part of full loudness.
        seed: of the sounds.
        validation: share of each class that chooses.
        test: share of each class that is only measured.
        split_seed: of the split.
    """
    import numpy as np

    longest = max(2, round(seconds * rate))
    values, labels = [], _labels(classes, examples)
    for i, label in enumerate(labels):
        rng = np.random.default_rng([seed, i])
        frequency = rate / 80 * 16 ** (label / max(1, classes - 1))
        time = np.arange(rng.integers(longest // 2, longest + 1)) / rate
        tone = rng.uniform(0.3, 0.8) * np.sin(2 * np.pi * (frequency * time + rng.uniform()))
        samples = np.clip(tone + rng.normal(0, noise, len(time)), -1, 1)
        values.append((samples * 32767).round().astype(np.int16))
    splits = _share_out("synthetic_audio", values, labels, classes, validation, test, split_seed)
    return Source("audio", _class_names(classes), splits, sample_rate=rate, origin="synthetic_audio")


def synthetic_speech(
    *,
    words: Size = 3,
    examples: Size = 120,
    rate: Hertz = 8000,
    seconds: Positive = 0.1,
    longest: Size = 4,
    noise: Share = 0.01,
    seed: Seed = 0,
    validation: Share = 0.1,
    test: Share = 0.2,
    split_seed: Seed = 0,
) -> Source:
    """Strings of tones with silence between, int16, and their transcripts; each frequency is a word of its own.

    Args:
        words: frequencies, evenly spaced in octaves from an eightieth to a fifth of the sample rate.
        examples: of all lengths together.
        rate: samples per second, in Hz.
        seconds: of a tone; half as much silence is before, between and after tones.
        longest: words in the longest transcript; the shortest has one.
        noise: standard deviation of the noise, as a part of full loudness.
        seed: of the sounds.
        validation: share that chooses.
        test: share that is only measured.
        split_seed: of the split.
    """
    import numpy as np

    tone = max(2, round(seconds * rate))
    values, texts = [], []
    for i in range(examples):
        rng = np.random.default_rng([seed, i])
        said = rng.integers(words, size=rng.integers(1, longest + 1))
        frequencies = rate / 80 * 16 ** (said / max(1, words - 1))
        tones = np.sin(2 * np.pi * frequencies[:, None] * np.arange(tone) / rate) * np.hanning(tone)  # (said, tone)
        before = np.pad(tones * rng.uniform(0.3, 0.8, (len(said), 1)), ((0, 0), (tone // 2, 0)))
        whole = np.pad(before.reshape(-1), (0, tone // 2))
        samples = np.clip(whole + rng.normal(0, noise, len(whole)), -1, 1)
        values.append((samples * 32767).round().astype(np.int16))
        texts.append(" ".join(map(_word, said.tolist())))
    splits = _share_out("synthetic_speech", values, texts, 0, validation, test, split_seed)
    return Source("audio", (), splits, sample_rate=rate, origin="synthetic_speech", task="transcription")


def synthetic_text(
    *,
    classes: Size = 2,
    examples: Size = 200,
    words: Size = 20,
    vocabulary: Size = 50,
    seed: Seed = 0,
    validation: Share = 0.1,
    test: Share = 0.2,
    split_seed: Seed = 0,
) -> Source:
    """Words without meaning, among them one to three signal words of the class.

    Args:
        classes: each has three signal words of its own.
        examples: of all classes together, dealt to them in turn.
        words: in the longest text; the shortest has a quarter of them.
        vocabulary: different words that say nothing about the class.
        seed: of the texts.
        validation: share of each class that chooses.
        test: share of each class that is only measured.
        split_seed: of the split.
    """
    import numpy as np

    values, labels = [], _labels(classes, examples)
    for i, label in enumerate(labels):
        rng = np.random.default_rng([seed, i])
        count = int(rng.integers(max(1, words // 4), words + 1))
        text = [_word(3 * classes + int(k)) for k in rng.integers(vocabulary, size=count)]
        for place in rng.choice(count, min(count, int(rng.integers(1, 4))), replace=False):
            text[place] = _word(3 * label + int(rng.integers(3)))
        values.append(" ".join(text))
    splits = _share_out("synthetic_text", values, labels, classes, validation, test, split_seed)
    return Source("text", _class_names(classes), splits, origin="synthetic_text")


synthetic_images.check = check_shares  # type: ignore[attr-defined]
synthetic_audio.check = check_shares  # type: ignore[attr-defined]
synthetic_speech.check = check_shares  # type: ignore[attr-defined]
synthetic_text.check = check_shares  # type: ignore[attr-defined]


def _labels(classes: int, examples: int) -> list[int]:
    if classes < 2:
        raise ToolkitError(f"data.classes is {classes}, so there is nothing to tell apart: write 2 or more.")
    return [i % classes for i in range(examples)]


def _word(number: int) -> str:
    """A word of syllables, another one for each number: `baba`, `babe` … with at least two of them."""
    syllables: list[str] = []
    while number or len(syllables) < 2:
        number, digit = divmod(number, len(_SYLLABLES))
        syllables.append(_SYLLABLES[digit])
    return "".join(reversed(syllables))


def _png(image: Any) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "png")
    return buffer.getvalue()


def _class_names(classes: int) -> tuple[str, ...]:
    return tuple(f"class_{i}" for i in range(classes))


def _share_out(
    name: str,
    values: list[Any],
    labels: list[int] | list[str],
    classes: int,
    validation: float,
    test: float,
    split_seed: int,
) -> dict[str, Examples]:
    refuse(check_shares({"validation": validation, "test": test}))
    return share_out(
        values,
        labels,
        [f"{name}-{i:06d}" for i in range(len(values))],
        {"test": test, "validation": validation},
        split_seed=split_seed,
        class_names=_class_names(classes),
        where=name,
    )
