from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.signal
import tensorflow as tf

from toolkit.models.layers.log_mel import LogMel, count_frames, mel_filters

numpy = keras.ops.convert_to_numpy


def by_hand(clip, *, rate, frame, hop, fft, mels, low, high, floor):
    """Float64: scipy's spectra of whole frames, TensorFlow's mel matrix."""
    window = scipy.signal.get_window("hann", frame)
    starts = range(0, max(len(clip) - frame, 0) + 1, hop)
    frames = np.stack([np.pad(clip, (0, frame))[start : start + frame] for start in starts])
    _, _, spectra = scipy.signal.stft(
        frames, window=window, nperseg=frame, noverlap=0, nfft=fft, boundary=None, padded=False, scaling="spectrum"
    )
    power = np.abs(spectra[..., 0] * window.sum()) ** 2
    matrix = tf.signal.linear_to_mel_weight_matrix(mels, fft // 2 + 1, rate, low, high, dtype=tf.float64).numpy()
    return np.log(power @ matrix + floor)


@pytest.mark.every_backend
def test_features_are_log_mel_of_each_whole_frame():
    rate = 8000
    rng = np.random.default_rng(0)
    lengths = np.array([2111, 1400, 200, 77, 1], "int32")
    time = np.arange(2111) / rate
    samples = (0.3 * np.sin(2 * np.pi * 440 * time) + rng.normal(0, 0.01, (5, 2111))).astype(
        "float32"
    )  # no zeros after
    layer = LogMel(sample_rate=rate, frame_ms=25, hop_ms=10, mels=30, low_hz=60, high_hz=3600)
    features, valid = (numpy(tensor) for tensor in layer(samples, lengths))
    assert features.shape == (5, 24, 30)  # (2111 - 200) // 80 + 1
    assert features.dtype == np.float32
    for row, length, is_valid in zip(features, lengths, valid, strict=True):
        clip = samples[list(lengths).index(length), :length].astype("float64")
        expected = by_hand(clip, rate=rate, frame=200, hop=80, fft=256, mels=30, low=60, high=3600, floor=1e-6)
        assert is_valid.sum() == len(expected)
        assert is_valid[: len(expected)].all()
        # Values span 12; a symmetric window, a power of 1 or frames off by one sample are more than 0.01 away.
        np.testing.assert_allclose(row[: len(expected)], expected, rtol=0, atol=1e-3)


@pytest.mark.every_backend
def test_what_is_far_below_the_loudest_of_its_own_clip_is_raised():
    rate, lengths = 8000, np.array([2000, 1070], "int32")
    time = np.arange(2000) / rate
    quiet = np.random.default_rng(0).normal(0, 1e-4, (2, 2000))
    samples = (quiet + np.array([[0.5], [0.01]]) * np.sin(2 * np.pi * 440 * time)).astype("float32")
    samples[1, 1000:] = quiet[1, 1000:] * 1e4  # loud: padding, but for 70 samples in no whole frame
    plain, valid = (numpy(tensor) for tensor in LogMel(sample_rate=rate, mels=20)(samples, lengths))
    found = numpy(LogMel(sample_rate=rate, mels=20, top_db=30)(samples, lengths)[0])
    for features, raised, within in zip(plain, found, valid, strict=True):
        least = features[within].max() - 3 * np.log(10)  # 30 dB are a factor of 1,000
        assert (features[within] < least).any()
        np.testing.assert_allclose(raised[within], np.maximum(features[within], least), rtol=0, atol=1e-5)


@pytest.mark.every_backend
def test_float32_whatever_the_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = LogMel(sample_rate=4000)
    finally:
        keras.config.set_dtype_policy("float32")
    samples = np.random.default_rng(0).normal(0, 0.1, (2, 600)).astype("float32")
    lengths = np.array([600, 300], "int32")
    found, _ = layer(samples, lengths)
    expected, _ = LogMel(sample_rate=4000)(samples, lengths)
    np.testing.assert_array_equal(numpy(found), numpy(expected))


@pytest.mark.every_backend
def test_a_batch_shorter_than_a_frame_has_one():
    features, valid = LogMel(sample_rate=8000)(np.zeros((2, 50), "float32"), np.array([50, 0], "int32"))
    assert features.shape == (2, 1, 40)
    assert numpy(valid).all()
    np.testing.assert_allclose(numpy(features), np.log(1e-6), rtol=1e-6)  # silence is the floor


def test_mel_filters_are_those_of_tensorflow():
    for bins, mels, rate, low, high in [(129, 40, 8000, 20.0, 4000.0), (257, 80, 16000, 0.0, 7600.0)]:
        found = mel_filters(bins=bins, mels=mels, sample_rate=rate, low_hz=low, high_hz=high)
        expected = tf.signal.linear_to_mel_weight_matrix(mels, bins, rate, low, high, dtype=tf.float64).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("samples", "frames"), [(0, 1), (1, 1), (200, 1), (279, 1), (280, 2), (359, 2), (360, 3)])
def test_only_whole_frames_count_and_at_least_one(samples, frames):
    assert count_frames(samples, frame=200, hop=80) == frames
    assert numpy(count_frames(np.array([samples], "int32"), frame=200, hop=80)).tolist() == [frames]


def test_shapes_are_known_before_anything_runs():
    samples, lengths = keras.Input((1000,), name="samples"), keras.Input((), dtype="int32", name="lengths")
    features, valid = LogMel(sample_rate=8000, mels=33)(samples, lengths)
    assert (features.shape, features.dtype) == ((None, 11, 33), "float32")
    assert (valid.shape, valid.dtype) == ((None, 11), "bool")


def test_config_holds_every_setting():
    settings = {
        "sample_rate": 6000,
        "frame_ms": 30.0,
        "hop_ms": 12.0,
        "mels": 17,
        "low_hz": 50.0,
        "high_hz": 2500.0,
        "floor": 1e-4,
    }
    again = LogMel.from_config(LogMel(**settings, name="ears").get_config())
    assert again.name == "ears"
    assert {name: getattr(again, name) for name in settings} == settings
