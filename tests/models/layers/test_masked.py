from __future__ import annotations

import keras
import numpy as np
import pytest

from toolkit.models.layers.masked import (
    CertainBlanks,
    MaskedPooling,
    PaddingMask,
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
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_pooling_sees_valid_steps_alone(sequence, pooling):
    sequence[1, 4:] = 1e4
    expected = [getattr(sequence[i, :length], pooling)(0) for i, length in enumerate([6, 4, 1])]
    np.testing.assert_allclose(numpy(MaskedPooling(pooling)(sequence, VALID)), expected, rtol=1e-6)
    negative = numpy(
        MaskedPooling(pooling)(-np.abs(sequence), VALID)
    )  # a maximum that takes padding for 0 is wrong here
    assert (negative < 0).all()
    assert not numpy(MaskedPooling(pooling)(sequence, np.zeros_like(VALID))).any()


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
