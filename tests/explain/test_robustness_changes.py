"""Each change does what its description says, in the amount that its level says."""

from __future__ import annotations

import hashlib
import io
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.data import text
from toolkit.explain.robustness import attack, pictures, sounds, texts
from toolkit.explain.robustness.change import DEFINITIONS, SEVERITIES, random_of

RATE = 8000


def numbers(seed=0):
    return np.random.default_rng(seed)


def picture(height=24, width=30, channels=3):
    """A bright blob on a smooth ground, with some texture."""
    rows, columns = np.mgrid[:height, :width]
    blob = 160 * np.exp(-((rows - height / 2) ** 2 + (columns - width / 2) ** 2) / 20)
    values = blob[..., None] + 40 + 20 * np.sin(columns / 2)[..., None] + np.arange(channels) * 10
    return values.astype(np.uint8)


def change(name, image, severity=3, seed=0):
    return pictures.CHANGES[name](image, severity, numbers(seed))


def floats(image):
    return image.astype(float) / 255


def middle(image):
    """Row and column of the centre of brightness."""
    weights = image[..., 0].astype(float)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return (weights * rows).sum() / weights.sum(), (weights * columns).sum() / weights.sum()


def spread(image):
    """The covariance of (row, column) under the brightness."""
    weights = image[..., 0].astype(float)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.cov(np.stack([rows.ravel(), columns.ravel()]), aweights=weights.ravel(), ddof=0)


def dot(side=41, width=0):
    image = np.zeros((side, side, 1), np.uint8)
    half = side // 2
    image[half - width : half + width + 1, half - width : half + width + 1] = 255
    return image


def test_other_levels_have_another_number():
    tables = (pictures._LEVELS, sounds._LEVELS, texts._LEVELS)
    told = repr([[(apply.__name__, levels) for apply, levels in table.items()] for table in tables])
    told += repr((attack.NAMES, attack.PGD_STEPS, attack._REACH))
    found = DEFINITIONS, hashlib.sha256(told.encode()).hexdigest()[:16]
    assert found == (1, "6c11acf495d04690"), "raise DEFINITIONS, or old figures join new ones; then write both here"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", list(pictures.CHANGES))
def test_a_changed_picture_is_a_picture_and_each_severity_is_worse(name, channels):
    image = picture(channels=channels)
    kept = image.copy()
    far = []
    for severity in SEVERITIES:
        found = [change(name, image, severity, seed) for seed in range(8)]
        assert all(one.shape == image.shape and one.dtype == np.uint8 for one in found)
        np.testing.assert_array_equal(found[0], change(name, image, severity, 0))
        far.append(np.mean([np.abs(floats(one) - floats(image)).mean() for one in found]))
    np.testing.assert_array_equal(image, kept)
    assert far[0] > 0
    # Blocks of 8 pixels fall so or so: JPEG's loss does not rise at each step in a picture as small as this.
    assert all(later > 0.9 * earlier for earlier, later in itertools.pairwise(far))
    assert far[0] < far[2] < far[4]


@pytest.mark.parametrize("name", list(pictures.CHANGES))
def test_a_tiny_picture_can_be_changed_too(name):
    for severity in SEVERITIES:
        assert change(name, np.full((1, 2, 1), 9, np.uint8), severity).shape == (1, 2, 1)


def test_noises_have_the_strength_of_their_level():
    grey = np.full((200, 200, 1), 128, np.uint8)
    value = 128 / 255
    for severity, deviation in zip((1, 2), (0.08, 0.12), strict=True):
        assert floats(change("gaussian_noise", grey, severity)).std() == pytest.approx(deviation, rel=0.02)
    for severity, photons in zip((1, 2), (60, 25), strict=True):
        assert floats(change("shot_noise", grey, severity)).std() == pytest.approx(math.sqrt(value / photons), rel=0.02)
    for severity, share in zip((1, 5), (0.03, 0.27), strict=True):
        hit = change("impulse_noise", grey, severity)
        assert (hit != 128).mean() == pytest.approx(share, rel=0.05)
        assert set(np.unique(hit)) == {0, 128, 255}
        assert (hit == 255).sum() == pytest.approx((hit == 0).sum(), rel=0.15)


def test_a_blurred_dot_has_the_size_of_its_kernel():
    # A disc of radius r has variance r²/4 along each axis, a line of length l l²/12 along itself.
    image = dot(101)
    radius = 0.07 * 101
    assert np.diag(spread(change("defocus_blur", image, 5))) == pytest.approx([radius**2 / 4] * 2, rel=0.05)
    length = 0.2 * 101
    across, along = np.sort(np.linalg.eigvalsh(spread(change("motion_blur", image, 5))))
    assert along == pytest.approx(length**2 / 12, rel=0.05)
    assert across < 0.3


def test_blur_keeps_a_flat_picture_flat():
    flat = np.full((9, 12, 3), 77, np.uint8)
    np.testing.assert_array_equal(change("defocus_blur", flat, 5), flat)
    np.testing.assert_array_equal(change("motion_blur", flat, 5), flat)


def test_brightness_adds_to_the_value_and_keeps_hue_and_saturation():
    import colorsys

    image = picture()
    found = floats(change("brightness", image, 2))
    for row, column in ((0, 0), (5, 11), (12, 15)):
        hue, saturation, value = colorsys.rgb_to_hsv(*floats(image)[row, column])
        expected = colorsys.hsv_to_rgb(hue, saturation, min(value + 0.2, 1))
        assert found[row, column] == pytest.approx(expected, abs=0.6 / 255)
    black = np.zeros((2, 2, 1), np.uint8)
    np.testing.assert_array_equal(change("brightness", black, 5), np.full((2, 2, 1), 128))


def test_contrast_keeps_the_mean_and_shrinks_the_rest():
    image = picture()
    found = floats(change("contrast", image, 2))
    mean = floats(image).mean(axis=(0, 1))
    assert found.mean(axis=(0, 1)) == pytest.approx(mean, abs=1 / 255)
    assert (found - mean).std() / (floats(image) - mean).std() == pytest.approx(0.3, rel=0.02)


def test_fog_hides_but_does_not_outshine():
    image = picture()
    for severity in SEVERITIES:
        found = change("fog", image, severity)
        assert found.max() <= image.max()
    cloud = pictures._plasma(60, numbers())
    assert cloud.min() == 0
    assert cloud.max() == 1
    steps = np.abs(np.diff(cloud, axis=1)).mean()
    assert steps < 0.25 * np.abs(cloud - np.roll(cloud, 30, axis=1)).mean()  # cloudy: near points are alike


def test_jpeg_is_that_of_pillow():
    from PIL import Image

    image = picture()
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "jpeg", quality=18)
    np.testing.assert_array_equal(change("jpeg", image, 2), np.asarray(Image.open(buffer)))


def test_pixelation_leaves_so_many_pixels():
    noisy = numbers().integers(0, 256, (40, 60, 1)).astype(np.uint8)
    found = change("pixelation", noisy, 5)[..., 0].astype(int)
    # A quarter of 40 x 60 is 10 x 15: rows and columns change at 9 and 14 places.
    assert (np.diff(found, axis=0) != 0).any(axis=1).sum() == 9
    assert (np.diff(found, axis=1) != 0).any(axis=0).sum() == 14
    np.testing.assert_array_equal(found[0, :4], noisy[:4, :4, 0].mean().round())


def test_geometry_moves_turns_and_scales_by_its_level():
    square = dot(61, width=8)
    for seed in range(4):
        row, column = middle(change("shift", square, 3, seed))
        assert math.hypot(row - 30, column - 30) == pytest.approx(0.15 * 61, abs=0.05)
        area = change("scale", square, 4, seed).sum() / square.sum()
        assert max(area, 1 / area) == pytest.approx(1.5**2, rel=0.07)
    bar = np.zeros((61, 61, 1), np.uint8)
    bar[29:32, 10:51] = 255
    for seed in range(4):
        covariance = spread(change("rotation", bar, 3, seed))
        vectors = np.linalg.eigh(covariance)[1][:, -1]  # the long axis, (row, column)
        assert abs(math.degrees(math.atan(vectors[0] / vectors[1]))) == pytest.approx(30, abs=0.5)
        upright = change("shear", bar.transpose(1, 0, 2), 3, seed)
        covariance = spread(upright)
        assert abs(covariance[0, 1] / covariance[0, 0]) == pytest.approx(0.3, abs=0.01)  # columns per row


def test_occlusion_hides_one_square_in_the_mean_colour():
    image = numbers().integers(0, 256, (30, 50, 3)).astype(np.uint8)
    found = change("occlusion", image, 4)
    hidden = np.all(found == np.rint(image.mean(axis=(0, 1))), axis=2)
    rows, columns = np.flatnonzero(hidden.any(axis=1)), np.flatnonzero(hidden.any(axis=0))
    assert hidden.sum() == 15 * 15  # half of the shorter side
    assert len(rows) == len(columns) == 15
    np.testing.assert_array_equal(found[~hidden], image[~hidden])


def tone(frequency=440.0, seconds=0.5, loudness=0.4):
    time = np.arange(round(seconds * RATE)) / RATE
    return (loudness * np.sin(2 * np.pi * frequency * time) * 32767).astype(np.int16)


def heard(name, samples, severity, seed=0):
    return sounds.changes(RATE)[name](samples, severity, numbers(seed))


def frequency(samples):
    """Of the loudest part, in Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 17))
    return spectrum.argmax() * RATE / (1 << 17)


@pytest.mark.parametrize("name", sounds.NAMES)
def test_a_changed_sound_is_a_sound(name):
    for samples in (tone(), tone(seconds=0.01), np.zeros(500, np.int16), np.ones(1, np.int16)):
        kept = samples.copy()
        for severity in SEVERITIES:
            found = heard(name, samples, severity)
            assert found.dtype == np.int16 and found.ndim == 1 and len(found)
            assert name == "speed" or len(found) == len(samples)
            np.testing.assert_array_equal(found, heard(name, samples, severity))
        np.testing.assert_array_equal(samples, kept)
    assert not np.array_equal(heard(name, tone(), 1)[:4000], tone()[:4000])


@pytest.mark.parametrize("name", ["white_noise", "pink_noise"])
def test_noise_has_the_signal_to_noise_ratio_of_its_level(name):
    samples = tone(seconds=4, loudness=0.2).astype(float)
    for severity, decibels in zip(SEVERITIES, (20, 15, 10, 5, 0), strict=True):
        noise = heard(name, samples.astype(np.int16), severity) - samples
        assert 10 * np.log10((samples**2).mean() / (noise**2).mean()) == pytest.approx(decibels, abs=0.1)
    power = np.abs(np.fft.rfft(noise)) ** 2  # 0.25 Hz a bin
    low, high = power[400:800].sum(), power[1600:3200].sum()  # an octave each, two octaves apart
    # Pink: the same in each octave; white: four times as much two octaves higher.
    assert high / low == pytest.approx(1 if name == "pink_noise" else 4, rel=0.25)


def test_loudness_pace_and_pitch_change_by_their_level():
    samples = tone()
    assert np.abs(heard("gain", samples, 2)).max() / samples.max() == pytest.approx(10 ** (-12 / 20), rel=1e-3)
    clipped = heard("clipping", samples, 3)
    assert np.abs(clipped).max() / samples.max() == pytest.approx(0.2, rel=1e-3)
    np.testing.assert_array_equal(clipped[np.abs(samples) < 1000], samples[np.abs(samples) < 1000])
    for seed in range(4):
        played = heard("speed", samples, 3, seed)
        factor = len(samples) / len(played)
        assert max(factor, 1 / factor) == pytest.approx(1.3, rel=1e-2)
        assert frequency(played) == pytest.approx(440 * factor, rel=1e-2)
        sung = frequency(heard("pitch", samples, 4, seed))
        assert abs(12 * np.log2(sung / 440)) == pytest.approx(5, abs=0.1)
        shifted = heard("time_shift", samples, 4, seed)
        by = round(0.2 * len(samples))
        later, earlier = np.r_[np.zeros(by), samples[:-by]], np.r_[samples[by:], np.zeros(by)]
        assert np.array_equal(shifted, later) or np.array_equal(shifted, earlier)


def test_a_band_limit_takes_what_is_above_and_keeps_what_is_below():
    limit = 0.4 * RATE / 2
    low, high = tone(limit / 2), tone(limit * 2)
    power = lambda samples: (samples[400:].astype(float) ** 2).mean()  # noqa: E731
    assert power(heard("band_limit", low, 3)) == pytest.approx(power(low), rel=0.02)
    assert power(heard("band_limit", high, 3)) < 1e-3 * power(high)


def test_an_echo_decays_by_60_db_in_its_time():
    click = np.zeros(2 * RATE, np.int16)
    click[0] = 30000
    answer = heard("reverberation", click, 4).astype(float)
    left = 10 * np.log10(np.maximum(np.cumsum(answer[::-1] ** 2)[::-1], 1)[1:])  # Schroeder's backward integral
    start, end = round(0.1 * RATE), round(0.5 * RATE)
    slope = (left[start] - left[end]) / 0.4  # dB per second
    assert 60 / slope == pytest.approx(0.9, rel=0.1)
    assert (answer[1:] ** 2).sum() == pytest.approx(answer[0] ** 2, rel=0.05)


WORDS = text.tokenize("The film wasn't bad, but its 2nd half drags: a quiet zoo, quite good at the end! " * 4)
KNOWN = frozenset(WORDS)


def written(name, severity, words=WORDS, seed=0):
    return texts.changes(KNOWN)[name](list(words), severity, numbers(seed))


@pytest.mark.parametrize("name", texts.NAMES)
def test_a_changed_text_has_a_word_at_least(name):
    for words in (["a"], ["."], ["猫"], ["don't", "."], WORDS):
        for severity in SEVERITIES:
            found = written(name, severity, words)
            assert found and all(found)
            assert found == written(name, severity, words)
            assert text.tokenize(" ".join(found))


@given(st.text(max_size=60))
def test_words_joined_by_spaces_are_the_same_words_again(value):
    words = text.tokenize(value)
    assert text.tokenize(" ".join(words)) == words


def test_typing_errors_hit_a_neighbouring_key():
    # By eye, from a keyboard.
    near = {"q": "wa", "g": "fhtyvb", "p": "ol", "z": "asx", "m": "njk", "s": "adwezx"}
    for letter, expected in near.items():
        assert set(texts._neighbours()[letter]) == set(expected)
    changed = total = 0
    for seed in range(50):
        for word, found in zip(WORDS, written("typos", 4, seed=seed), strict=True):
            assert len(word) == len(found)
            for old, new in zip(word, found, strict=True):
                total += old in texts._neighbours()
                changed += old != new
                assert old == new or new in texts._neighbours()[old]
    assert changed / total == pytest.approx(0.1, rel=0.05)


def test_words_are_dropped_swapped_cut_and_made_unknown_in_the_share_of_the_level():
    count = len(WORDS)
    numbered = [f"word{i}" for i in range(count)]
    lengths = [len(written("dropped_words", 3, numbered, seed)) for seed in range(50)]
    assert count - np.mean(lengths) == pytest.approx(0.2 * count, rel=0.02)
    kept = written("dropped_words", 5, numbered)
    assert kept == sorted(kept, key=numbered.index)
    swapped = written("swapped_words", 1, numbered)
    assert sorted(swapped) == sorted(numbered) and swapped != numbered
    assert written("truncation", 3, numbered) == numbered[: round(0.4 * count)]
    unseen = written("unseen_words", 5)
    assert sum(word not in KNOWN for word in unseen) == pytest.approx(0.5 * count, abs=1)
    assert sum(one != other for one, other in zip(unseen, WORDS, strict=True)) == pytest.approx(0.5 * count, abs=1)


def test_capitals_are_nothing_to_a_tokenizer_without_them():
    loud = written("upper_case", 5)
    assert loud == [word.upper() for word in WORDS]
    assert text.tokenize(" ".join(loud)) == WORDS


def test_random_numbers_depend_on_all_four_and_nothing_else():
    first = random_of(0, "jpeg", 1, "a").random()
    assert random_of(0, "jpeg", 1, "a").random() == first
    others = [(1, "jpeg", 1, "a"), (0, "fog", 1, "a"), (0, "jpeg", 2, "a"), (0, "jpeg", 1, "b"), (0, "jpeg", 11, "")]
    assert len({first, *(random_of(*other).random() for other in others)}) == 6
