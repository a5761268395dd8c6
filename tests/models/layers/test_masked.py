from __future__ import annotations

import keras
import numpy as np
import pytest

from toolkit.models.layers.masked import (
    CertainBlanks,
    MaskedPooling,
    PaddingMask,
    SpectrumMasking,
    StridedConvolution,
    UtteranceNormalization,
)
from toolkit.models.layers.position_embedding import PositionEmbedding

numpy = keras.ops.convert_to_numpy
VALID = np.arange(6) < np.array([6, 4, 1])[:, None]


@pytest.fixture
def sequence():
    return np.random.default_rng(0).normal(3, 2, (3, 6, 5)).astype("float32")


@pytest.mark.every_backend
def test_each_clip_is_normalized_over_its_own_valid_frames(sequence):
    sequence[1, 4:] = 1e4
    found = numpy(UtteranceNormalization(epsilon=1e-9)(sequence, VALID))
    for i, length in enumerate([6, 4]):
        clip = sequence[i, :length].astype("float64")
        expected = (clip - clip.mean(0)) / clip.std(0)
        np.testing.assert_allclose(found[i, :length], expected, rtol=0, atol=1e-5)
        assert not found[i, length:].any()
    assert not found[2].any()  # one frame: nothing varies


@pytest.mark.every_backend
def test_all_features_of_a_clip_may_be_divided_by_one_deviation(sequence):
    sequence *= [1, 2, 3, 4, 5]
    sequence[1, 4:] = 1e4
    found = numpy(UtteranceNormalization(epsilon=1e-9, shared_variance=True)(sequence, VALID))
    for i, length in enumerate([6, 4]):
        clip = sequence[i, :length].astype("float64")
        expected = (clip - clip.mean(0)) / np.sqrt(clip.var(0).mean())
        np.testing.assert_allclose(found[i, :length], expected, rtol=0, atol=1e-5)
        assert not found[i, length:].any()


@pytest.mark.every_backend
@pytest.mark.parametrize("pooling", ["mean", "max", "sqrtn"])
def test_pooling_sees_valid_steps_alone(sequence, pooling):
    sequence[1, 4:] = 1e4
    pool = {"mean": np.mean, "max": np.max, "sqrtn": lambda steps, axis: np.sum(steps, axis) / np.sqrt(len(steps))}
    expected = [pool[pooling](sequence[i, :length], axis=0) for i, length in enumerate([6, 4, 1])]
    np.testing.assert_allclose(numpy(MaskedPooling(pooling)(sequence, VALID)), expected, rtol=1e-6)
    negative = numpy(
        MaskedPooling(pooling)(-np.abs(sequence), VALID)
    )  # a maximum that takes padding for 0 is wrong here
    assert (negative < 0).all()
    assert not numpy(MaskedPooling(pooling)(sequence, np.zeros_like(VALID))).any()


@pytest.mark.every_backend
@pytest.mark.parametrize(("width", "stride"), [(5, 2), (4, 3), (1, 2)])
def test_a_strided_convolution_sees_valid_steps_alone_and_stands_on_every_nth(sequence, width, stride):
    sequence[1, 4:] = 1e4
    layer = StridedConvolution(7, width=width, stride=stride)
    layer(sequence, VALID)
    kernel, bias = (numpy(weight).astype("float64") for weight in layer.weights)
    bias = np.linspace(-0.5, 0.5, 7)
    layer.weights[1].assign(bias)
    for padded in (sequence, np.pad(sequence, ((0, 0), (0, 3), (0, 0)), constant_values=9.0)):
        found, valid = map(numpy, layer(padded, np.pad(VALID, ((0, 0), (0, padded.shape[1] - 6)))))
        assert found.shape == (3, -(-padded.shape[1] // stride), 7)
        for i, length in enumerate([6, 4, 1]):
            clip = np.zeros((20, 5))
            clip[8 : 8 + length] = sequence[i, :length]
            starts = range(8 - (width - 1) // 2, 8 + length - (width - 1) // 2, stride)
            expected = [np.maximum(0, np.einsum("wc,wco->o", clip[at : at + width], kernel) + bias) for at in starts]
            np.testing.assert_array_equal(valid[i], np.arange(len(valid[i])) < len(expected))
            np.testing.assert_allclose(found[i, : len(expected)], expected, rtol=0, atol=1e-5)


@pytest.mark.every_backend
def test_padding_is_token_0_but_for_the_first():
    tokens = np.array([[5, 1, 0, 0], [0, 0, 0, 0], [1, 2, 3, 4]], "int32")
    found = numpy(PaddingMask()(tokens))
    assert found.tolist() == [[True, True, False, False], [True, False, False, False], [True] * 4]


@pytest.mark.every_backend
def test_positions_are_added_and_no_longer_ones_accepted(sequence):
    layer = PositionEmbedding(6)
    np.testing.assert_allclose(numpy(layer(sequence)) - sequence, [numpy(layer.embeddings)] * 3, atol=1e-6)
    np.testing.assert_allclose(
        numpy(layer(sequence[:, :2])) - sequence[:, :2], [numpy(layer.embeddings)[:2]] * 3, atol=1e-6
    )
    with pytest.raises(ValueError, match="7 positions, more than the 6"):
        layer(np.zeros((1, 7, 5), "float32"))


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="pooling is 'median': use one of mean, max"):
        MaskedPooling("median")


@pytest.mark.every_backend
def test_frames_past_the_end_are_certain_blanks(sequence):
    found = numpy(CertainBlanks()(sequence, VALID))
    np.testing.assert_array_equal(found[VALID], sequence[VALID])
    assert found[~VALID].tolist() == [[1e4, -1e4, -1e4, -1e4, -1e4]] * 7


@pytest.mark.every_backend
def test_ranges_of_bands_and_of_time_are_silenced_in_training_alone():
    lengths = np.array([40, 25, 1] * 100)
    clips, valid = np.ones((300, 40, 12), "float32"), np.arange(40) < lengths[:, None]
    layer = SpectrumMasking(bands=4, time=0.3, seed=1)
    np.testing.assert_array_equal(numpy(layer(clips, valid)), clips)
    found = numpy(layer(clips, valid, training=True))
    widths, shares = [], []
    for clip, length in zip(found, lengths, strict=True):
        time, bands = (clip == 0).all(axis=1), (clip == 0).all(axis=0)
        np.testing.assert_array_equal(clip == 0, time[:, None] | bands[None, :])
        assert not time[length:].any()  # only what is sound
        widths.append(bands.sum())
        shares.append(time.sum() / length)
    assert 0 < np.mean(widths) < max(widths) == 8  # two ranges of 0 to 4
    assert 0 < np.mean(shares) < max(shares) <= 0.6
    counts = np.bincount(np.argwhere((found == 0).all(axis=1))[:, 1], minlength=12)
    assert counts.min() > 0
    assert not np.array_equal(numpy(layer(clips, valid, training=True)), found)


@pytest.mark.every_backend
def test_wide_ranges_may_cover_all_bands_and_no_range_none():
    clips, valid = np.ones((50, 6, 5), "float32"), np.ones((50, 6), bool)
    assert (numpy(SpectrumMasking(bands=99, time=0.0)(clips, valid, training=True)) == 0).all(axis=(1, 2)).any()
    np.testing.assert_array_equal(numpy(SpectrumMasking(bands=0, time=0.0)(clips, valid, training=True)), clips)
