"""The baselines learn what a linear model can, and choose by the validation part alone."""

import dataclasses

import numpy as np
import pytest

from toolkit.data.load import load
from toolkit.evaluation.transcripts import word_error_rate
from toolkit.studies import baselines as module
from toolkit.studies.baselines import _pieces, baseline, transcript_baseline

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


def test_speech_is_told_piece_by_piece_and_the_tests_texts_are_never_seen():
    data = load("synthetic_speech", {"examples": 200}, transcript_units="words", frames=lambda samples, rate: samples)
    found = transcript_baseline(data)
    test = data.splits["test"]
    assert found.name.startswith("cut at pauses")
    assert word_error_rate(found.texts, test.texts) < 0.5
    silent = dataclasses.replace(test, labels=np.zeros_like(test.labels), texts=["nothing"] * len(test))
    again = transcript_baseline(dataclasses.replace(data, splits={**data.splits, "test": silent}))
    assert again.texts == found.texts


def with_labels(data, split, **values):
    return dataclasses.replace(data, splits={**data.splits, split: dataclasses.replace(data.splits[split], **values)})


def answering(data, split):
    """`data` whose test part is another one."""
    other = dataclasses.replace(data.splits[split], name="test")
    return dataclasses.replace(data, splits={**data.splits, "test": other})


@pytest.mark.parametrize("wanted", [0, 1])
def test_the_validation_part_chooses_the_strength(wanted, monkeypatch):
    data, strengths = load("synthetic_images", {"classes": 3, "examples": 900}), (1e-7, 1e3)

    def answers(*among, of=data):
        monkeypatch.setattr(module, "STRENGTHS", {"image": among})
        return baseline(of).answers

    other = answers(strengths[1 - wanted], of=answering(data, "validation"))
    right = with_labels(data, "validation", labels=answers(strengths[wanted], of=answering(data, "validation")))
    alone = [answers(strength) for strength in strengths]
    assert (alone[0] != alone[1]).any() and (right.splits["validation"].labels != other).any()
    np.testing.assert_array_equal(answers(*strengths, of=right), alone[wanted])


@pytest.mark.parametrize("wanted", [0, 1])
def test_the_validation_part_chooses_where_speech_is_cut(wanted, monkeypatch):
    given = {"examples": 200}, {"transcript_units": "words", "frames": lambda samples, rate: samples}
    data, pauses = load("synthetic_speech", given[0], **given[1]), (6, 1000)
    monkeypatch.setattr(module, "QUIET", (0.35,))

    def texts(*among, of=data):
        monkeypatch.setattr(module, "PAUSE", among)
        return transcript_baseline(of).texts

    right = with_labels(data, "validation", texts=texts(pauses[wanted], of=answering(data, "validation")))
    alone = [texts(pause) for pause in pauses]
    assert alone[0] != alone[1]
    assert texts(*pauses, of=right) == alone[wanted]


def test_there_is_none_for_characters():
    assert transcript_baseline(load("synthetic_speech", {"examples": 30}, frames=lambda samples, rate: samples)) is None


def test_a_recording_is_cut_where_it_is_quiet_for_long():
    loud = np.zeros(60)
    loud[10:20] = loud[22:30] = loud[40:50] = 1.0  # 2 quiet frames, then 10
    loud[55:57] = 1.0  # a click
    frames = np.arange(60)[:, None] * 1e-6 + loud[:, None]
    cut = [(round(piece[0, 0] % 1 * 1e6), len(piece)) for piece in _pieces(frames, 0.5, 3)]
    assert cut == [(10, 20), (40, 10)]
    assert [len(piece) for piece in _pieces(frames, 0.5, 1)] == [10, 8, 10]
    assert _pieces(np.zeros((20, 4)), 0.5, 3) == []
