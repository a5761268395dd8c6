from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from toolkit.errors import ToolkitError
from toolkit.models.build import build
from toolkit.models.speech_input import count_log_mel_frames
from toolkit.models.weights import get_arrays, set_arrays

numpy = keras.ops.convert_to_numpy
EAGERLY = keras.backend.backend() != "jax"  # which would compile every operation by itself


def by_hand(frames, weights):
    """The states of an LSTM in float64, gates in Keras's order: input, forget, cell, output."""
    kernel, recurrent, bias = (weights[f"recurrent1/cell/{name}"] for name in ("kernel", "recurrent_kernel", "bias"))
    state = carry = np.zeros(recurrent.shape[0])
    states = []
    for frame in frames:
        i, f, c, o = np.split(frame @ kernel + state @ recurrent + bias, 4)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        carry = f * carry + i * np.tanh(c)
        state = o * np.tanh(carry)
        states.append(state)
    return np.array(states)


@pytest.mark.every_backend
@pytest.mark.parametrize("pooling", ["mean", "max", "last"])
def test_logits_come_from_the_states_over_valid_frames(specs, make_batch, trained, pooling):
    spec = specs["audio"]
    model = build("speech_lstm", {"mels": 12, "units": 5, "pooling": pooling}, spec)
    weights = trained(get_arrays(model))
    set_arrays(model, weights, where="test")
    inputs = make_batch(spec)
    normalized = keras.Model(model.input, model.get_layer("normalize").output)(inputs)
    expected = []
    for frames, length in zip(numpy(normalized).astype("float64"), inputs["lengths"], strict=True):
        states = by_hand(
            frames[: count_log_mel_frames(int(length), spec.sample_rate, frame_ms=25.0, hop_ms=10.0)], weights
        )
        pooled = states[-1] if pooling == "last" else getattr(states, pooling)(0)
        expected.append(pooled @ weights["logits/kernel"] + weights["logits/bias"])
    np.testing.assert_allclose(model.predict_on_batch(inputs), expected, rtol=0, atol=1e-5)


@pytest.mark.every_backend
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_both_directions_end_where_the_clip_ends(specs, trained, cell):
    """What follows a clip moves neither the last state of reading forwards nor that of reading backwards."""
    spec = specs["audio"]
    model = build("speech_lstm", {"mels": 12, "units": 5, "cell": cell, "bidirectional": True, "pooling": "last"}, spec)
    weights = trained(get_arrays(model))
    set_arrays(model, weights, where="test")
    frames = np.random.default_rng(0).normal(size=(1, 9, 12)).astype("float32")
    both = model.get_layer("recurrent1")
    padded = np.concatenate([frames, np.full((1, 4, 12), 7.0, "float32")], axis=1)
    valid = np.arange(13)[None] < 9
    forward = numpy(both.forward_layer(frames))[0]
    backward = numpy(both.backward_layer(frames))[0]
    np.testing.assert_allclose(numpy(both(padded, mask=valid))[0], [*forward, *backward], rtol=0, atol=1e-6)


@pytest.mark.every_backend
@pytest.mark.parametrize("pooling", ["mean", "max", "last"])
def test_very_short_and_silent_clips_are_finite(specs, pooling):
    spec = specs["audio"]
    model = build("speech_lstm", {"mels": 12, "units": 3, "pooling": pooling}, spec)
    samples = np.zeros((4, 900), "float32")
    samples[:2] = 0.5
    inputs = {"samples": samples, "lengths": np.array([1, 99, 900, 0], "int32")}
    assert np.isfinite(model.predict_on_batch(inputs)).all()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=EAGERLY)
    model.train_on_batch(inputs, np.arange(4, dtype="int32"))
    assert all(np.isfinite(array).all() for array in get_arrays(model).values())


@pytest.mark.every_backend
def test_what_stands_behind_a_clip_is_never_heard(specs, make_batch):
    spec = specs["audio"]
    model = build("speech_lstm", {"mels": 12, "units": 5}, spec)
    inputs = make_batch(spec)
    noise = np.where(np.arange(900) < inputs["lengths"][:, None], inputs["samples"], np.float32(0.9))
    found = model.predict_on_batch({**inputs, "samples": noise})
    np.testing.assert_array_equal(found, model.predict_on_batch(inputs))


def test_frames_of_samples(specs):
    spec = dataclasses.replace(specs["audio"], sample_rate=8000)
    assert count_log_mel_frames(8000, 8000, frame_ms=25, hop_ms=10) == 98  # (8000 - 200) // 80 + 1
    assert count_log_mel_frames(8000, 8000, frame_ms=32, hop_ms=16) == 61  # (8000 - 256) // 128 + 1
    assert count_log_mel_frames(3, 8000, frame_ms=25, hop_ms=10) == 1
    model = build("speech_lstm", {"mels": 12, "units": 5, "frame_ms": 32, "hop_ms": 16}, spec)
    inputs = {"samples": np.zeros((1, 8000), "float32"), "lengths": np.array([8000], "int32")}
    features = keras.Model(model.input, model.get_layer("log_mel").output[0])(inputs)
    assert features.shape[1] == 61


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"frame_ms": 0.3, "hop_ms": 0.3}, "model.frame_ms is 0.3 .* 4000 samples per second"),
        ({"hop_ms": 0.1}, "model.hop_ms 0.1"),
        ({"hop_ms": 40.0}, "model.hop_ms is 40.0, longer than model.frame_ms with 25.0"),
        ({"high_hz": 2001.0}, "model.high_hz 2001.0, but bands lie between 0 and half of the sample rate, 2000 Hz"),
        ({"low_hz": 500.0, "high_hz": 400.0}, "model.high_hz is 400, not above model.low_hz with 500: raise it"),
        ({"mels": 70}, "model.mels is 70, so many that some bands"),
    ],
)
def test_settings_that_cannot_be_are_refused(specs, arguments, message):
    with pytest.raises(ToolkitError, match=message):
        build("speech_lstm", arguments, specs["audio"])
