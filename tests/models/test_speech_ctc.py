from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest

from toolkit import registry
from toolkit.data.spec import DataSpec
from toolkit.models.build import build
from toolkit.models.speech_ctc import speech_ctc_frames
from toolkit.models.weights import get_arrays, set_arrays
from toolkit.tasks import transcription


@pytest.fixture
def model(specs, trained):
    built = build("speech_ctc", {"mels": 12, "units": 5, "convolutions": (6,)}, specs["speech"])
    set_arrays(built, trained(get_arrays(built)), where="test")
    return built


@pytest.mark.every_backend
def test_an_utterance_has_the_same_loss_alone_and_padded_in_a_batch(model, specs, make_batch):
    """What a batch pads, of samples and of labels, changes no loss: frames past a clip's end are certain blanks."""
    inputs = make_batch(specs["speech"])
    labels = np.array([[1, 2, 1], [3, 3, 0], [4, 0, 0], [5, 1, 0], [6, 0, 0]], "int32")
    padded = {**inputs, "samples": np.pad(inputs["samples"], ((0, 0), (0, 2000)))}
    together = transcription.losses(model.predict_on_batch(padded), np.pad(labels, ((0, 0), (0, 4))))
    alone = []
    for i, length in enumerate(inputs["lengths"]):
        one = {"samples": inputs["samples"][i : i + 1, :length], "lengths": inputs["lengths"][i : i + 1]}
        alone.append(
            transcription.losses(model.predict_on_batch(one), labels[i : i + 1, : np.count_nonzero(labels[i])])
        )
    assert together.min() > 1  # nothing is certain here
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-6)


@pytest.mark.every_backend
def test_padding_adds_nothing_to_the_text(model, specs, make_batch):
    inputs = make_batch(specs["speech"])
    padded = {**inputs, "samples": np.pad(inputs["samples"], ((0, 0), (0, 2000)), constant_values=0.7)}
    found, expected = model.predict_on_batch(padded), model.predict_on_batch(inputs)
    assert found.shape[1] > expected.shape[1]
    for width in (1, 8):
        said = transcription.decode(expected, specs["speech"], beam_width=width)
        assert transcription.decode(found, specs["speech"], beam_width=width) == said
        assert any(said)


def test_frames_of_samples(specs):
    spec = dataclasses.replace(specs["speech"], sample_rate=8000)
    for arguments in ({}, {"convolutions": (3, 4)}, {"convolutions": (), "frame_ms": 32.0, "hop_ms": 16.0}):
        built = build("speech_ctc", {"mels": 12, "units": 2, "layers": 1, **arguments}, spec)
        for samples in (1, 279, 280, 8000):
            inputs = {"samples": np.zeros((1, samples), "float32"), "lengths": np.array([samples], "int32")}
            frames = registry.resolve("models", "speech_ctc").frames(samples, 8000, **arguments)
            assert built.predict_on_batch(inputs).shape == (1, frames, 7)
    assert speech_ctc_frames(8000, 8000) == 49  # half of 1 + (8000 − 200) // 80


def test_a_small_model_learns_to_write_two_tones():
    """Tones of two pitches with pauses between, in an order that only the sound tells."""
    spec = DataSpec(
        kind="audio",
        task="transcription",
        shape=(None,),
        dtype="float32",
        class_names=(),
        vocabulary=("high", "low"),
        units="words",
        sample_rate=4000,
        lengths=(4000,),
    )
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (64, 3)).astype("int32")  # 0 is a pause: labels of 0 to 3 words
    pitch = np.array([0, 1400, 300])[labels]  # (64, 3), in Hz
    time = np.arange(1000) / 4000
    samples = 0.3 * np.sin(2 * np.pi * pitch[:, :, None] * time) * np.hanning(1000) + rng.normal(0, 1e-3, (64, 3, 1000))
    inputs = {"samples": samples.reshape(64, 3000).astype("float32"), "lengths": np.full(64, 3000, "int32")}
    packed = np.array([[*row[row > 0], *row[row == 0]] for row in labels], "int32")
    built = build("speech_ctc", {"mels": 16, "units": 24, "layers": 1, "convolutions": (16,), "dropout": 0.0}, spec)
    built.compile(keras.optimizers.Adam(0.01), transcription.CTC())
    built.fit(inputs, packed, batch_size=16, epochs=80, verbose=0)
    expected = [transcription.to_text(row[row > 0], spec) for row in packed]
    found = transcription.decode(built.predict_on_batch(inputs), spec)
    right = sum(text == answer for text, answer in zip(expected, found, strict=True))
    assert right > 48  # of 64; the shares of words alone would give a twentieth
