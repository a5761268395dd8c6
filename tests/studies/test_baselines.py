"""The baselines learn what a linear model can, and choose by the validation part alone."""

import dataclasses

import numpy as np
import pytest

from toolkit.data.load import load
from toolkit.studies.baselines import baseline

SOURCES = {
    "pixels": ("synthetic_images", {"classes": 3, "examples": 300, "height": 40, "width": 36}),
    "averaged log-mel": ("synthetic_audio", {"classes": 3, "examples": 150, "seconds": 0.1}),
    "TF-IDF of words and pairs": ("synthetic_text", {"classes": 2, "examples": 300}),
}


@pytest.mark.parametrize("name", SOURCES)
def test_it_beats_guessing_and_never_sees_the_tests_labels(name):
    data = load(*SOURCES[name])
    found = baseline(data)
    test = data.splits["test"]
    assert found.name == f"logistic regression on {name}"
    assert found.answers.shape == test.labels.shape
    assert np.mean(found.answers == test.labels) > 1.5 / len(data.spec.class_names)
    other = dataclasses.replace(test, labels=np.zeros_like(test.labels))
    again = baseline(dataclasses.replace(data, splits={**data.splits, "test": other}))
    np.testing.assert_array_equal(again.answers, found.answers)
