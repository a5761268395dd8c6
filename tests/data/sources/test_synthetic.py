"""Made data: of the promised form, the same for the same seed, and learnable without a network."""

import io

import numpy as np
import pytest
from PIL import Image

from toolkit.data.sources.synthetic import synthetic_audio, synthetic_images, synthetic_speech, synthetic_text
from toolkit.errors import ToolkitError


def plain(source):
    return [
        (name, np.asarray(value).tobytes() if not isinstance(value, str | bytes) else value, label)
        for part in source.splits.values()
        for name, value, label in zip(part.ids, part.values, part.labels, strict=True)
    ]


def test_images():
    source = synthetic_images(classes=4, examples=80, height=12, width=20, channels=3)
    assert (source.kind, source.channels, len(source.class_names)) == ("image", 3, 4)
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 56, "validation": 8, "test": 16}
    arrays = synthetic_images(classes=4, examples=80, height=12, width=20, channels=3, encoded=False)
    for encoded, array in zip(source.splits["test"].values, arrays.splits["test"].values, strict=True):
        assert array.shape == (12, 20, 3)
        assert array.dtype == np.uint8
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), array)
    grey = synthetic_images(examples=9).splits["test"].values[0]
    assert np.asarray(Image.open(io.BytesIO(grey))).shape == (16, 16)


def test_audio():
    source = synthetic_audio(examples=30, rate=4000, seconds=0.2)
    assert (source.kind, source.sample_rate) == ("audio", 4000)
    values = [value for part in source.splits.values() for value in part.values]
    assert all(value.dtype == np.int16 and value.ndim == 1 and 400 <= len(value) <= 800 for value in values)
    assert len({len(value) for value in values}) > 10


def test_speech():
    source = synthetic_speech(words=2, examples=40, rate=4000, seconds=0.2, longest=3)
    assert (source.kind, source.task, source.class_names, source.sample_rate) == ("audio", "transcription", (), 4000)
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 28, "validation": 4, "test": 8}
    for part in source.splits.values():
        for samples, text in zip(part.values, part.labels, strict=True):
            assert samples.dtype == np.int16
            assert len(samples) == 400 + 1200 * len(text.split())
    said = {word for part in source.splits.values() for text in part.labels for word in text.split()}
    assert len(said) == 2


def test_text():
    source = synthetic_text(examples=40, words=12)
    values = [value for part in source.splits.values() for value in part.values]
    assert source.kind == "text"
    assert all(3 <= len(value.split()) <= 12 for value in values)


@pytest.mark.parametrize("make", [synthetic_images, synthetic_audio, synthetic_speech, synthetic_text])
def test_equal_seeds_give_equal_examples(make):
    assert plain(make()) == plain(make())
    assert plain(make()) != plain(make(seed=1))
    moved = make(split_seed=1)
    assert sorted(plain(moved)) == sorted(plain(make()))
    assert list(moved.splits["test"].ids) != list(make().splits["test"].ids)


@pytest.mark.parametrize("make", [synthetic_images, synthetic_audio, synthetic_text])
def test_what_cannot_be_made_is_refused(make):
    with pytest.raises(ToolkitError, match="data.classes is 1"):
        make(classes=1)
    with pytest.raises(ToolkitError, match="at least 3 examples"):
        make(classes=4, examples=8)
    with pytest.raises(ToolkitError, match="leave nothing to train with"):
        make(validation=0.5, test=0.5)


def accuracy(features, source):
    """Test accuracy of a linear classifier."""
    from sklearn.linear_model import LogisticRegression

    train, test = source.splits["train"], source.splits["test"]
    model = LogisticRegression(max_iter=1000).fit(features(train.values), train.labels)
    return model.score(features(test.values), test.labels)


def test_a_linear_classifier_learns_each():
    def spectra(values):
        return [
            np.log1p(np.abs(np.fft.rfft(value, 4096)).reshape(-1)[:2048].reshape(64, 32).mean(1)) for value in values
        ]

    def gradients(values):
        images = np.stack(values)[..., 0] / 255.0
        down, right = np.diff(images, axis=1)[:, :, :-1], np.diff(images, axis=2)[:, :-1]
        return np.stack([(down * right).mean((1, 2)), (down**2 - right**2).mean((1, 2))], axis=1) * 100

    assert accuracy(gradients, synthetic_images(examples=300, encoded=False)) > 0.95
    assert accuracy(spectra, synthetic_audio()) > 0.95

    source = synthetic_text()
    vocabulary = sorted({word for part in source.splits.values() for text in part.values for word in text.split()})

    def bags(values):
        return [[text.split().count(word) for word in vocabulary] for text in values]

    assert accuracy(bags, source) > 0.9
