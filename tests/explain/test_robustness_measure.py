"""Calibration, flips, corruption errors and samples, beside figures by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from toolkit.data.load import Split
from toolkit.data.tables import ImageTable
from toolkit.errors import ToolkitError
from toolkit.evaluation.transcripts import word_error_rate
from toolkit.explain.robustness import document, measure
from toolkit.explain.robustness.changed import sample


def shares(confidences, answers, classes=2):
    """Probabilities whose largest is the confidence, of the answer."""
    rows = np.full((len(confidences), classes), 0.0)
    for row, confidence, answer in zip(rows, confidences, answers, strict=True):
        row[:] = (1 - confidence) / (classes - 1)
        row[answer] = confidence
    return rows


def test_calibration_error_by_hand():
    # Ten answers of confidence 0.95, nine right; ten of 0.75, five right: (0.05 · 10 + 0.25 · 10) ÷ 20.
    found = measure.of_classes(
        shares([0.95] * 10 + [0.75] * 10, [0] * 20), np.array([0] * 9 + [1] + [0] * 5 + [1] * 5), None
    )
    assert found.error == pytest.approx(0.3)
    assert found.accuracy == pytest.approx(0.7)
    assert found.calibration_error == pytest.approx(0.15)
    full = {i: one for i, one in enumerate(found.reliability) if one.examples}
    assert set(full) == {11, 14}  # 0.75 lies in (11/15, 12/15], 0.95 in (14/15, 1]
    assert (full[14].examples, full[14].accuracy) == (10, 0.9)
    assert full[11].confidence == pytest.approx(0.75)


def test_calibration_error_is_that_of_the_definition_on_any_answers():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([0.3] * 5, 3000)
    labels = random.integers(5, size=3000)
    found = measure.of_classes(probabilities, labels, None)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert found.calibration_error == pytest.approx(expected, rel=1e-9)
    assert sum(one.examples for one in found.reliability) == 3000


def test_the_surest_answers_and_those_on_an_edge_have_their_bin():
    found = measure.of_classes(shares([1.0, 9 / 15, 0.5], [0, 0, 0]), np.zeros(3, int), None)
    assert [i for i, one in enumerate(found.reliability) if one.examples] == [7, 8, 14]


def test_flips_are_answers_that_changed_right_or_wrong():
    clean = np.array([0, 1, 0, 1])
    found = measure.of_classes(shares([0.9] * 4, [1, 1, 0, 0]), np.array([1, 1, 0, 1]), clean)
    assert (found.flips, found.error) == (0.5, 0.25)
    assert measure.of_classes(shares([0.9] * 4, clean), np.zeros(4, int), None).flips == 0


def test_transcripts_are_counted_in_words():
    said = ["one two three", "four"]
    written = ["one too three four", ""]
    # One word is wrong, one is put in, one is left out: three errors in four words.
    assert word_error_rate(written, said) == 0.75
    found = measure.of_transcripts(written, said, clean=["one two three", ""])
    assert (found.error, found.flips, found.calibration_error, found.reliability) == (0.75, 0.5, None, ())


def test_pooled_bins_are_those_of_all_answers_together():
    random = np.random.default_rng(1)
    parts = [(random.dirichlet([0.5] * 3, size), random.integers(3, size=size)) for size in (70, 200)]
    together = measure.of_classes(np.concatenate([p for p, _ in parts]), np.concatenate([y for _, y in parts]), None)
    found = measure.pooled([measure.of_classes(p, y, None) for p, y in parts])
    for one, other in zip(found, together.reliability, strict=True):
        assert one.examples == other.examples
        assert (one.confidence, one.accuracy) == (
            (None, None) if not other.examples else pytest.approx((other.confidence, other.accuracy))
        )


def figures(error):
    return measure.Figures(error=error, flips=0.0, calibration_error=0.0, reliability=())


def robustness(clean, errors, **setting):
    """Of changes by name: the errors at severity 1, 2 ….  An attack is always among them."""
    return document.Robustness(
        split="test",
        examples=10,
        task="classification",
        setting=document.Setting(
            **{
                "fingerprint": "f",
                "weights": "w",
                "backend": "jax",
                "seed": 0,
                "limit": None,
                "definitions": 1,
                **setting,
            }
        ),
        clean=figures(clean),
        passes=tuple(
            document.Pass(change=name, strength=i, figures=figures(error))
            for name, row in {**errors, "fgsm": (1.0,)}.items()
            for i, error in enumerate(row, start=1)
        ),
        attacks=("fgsm", "pgd"),
        comparison=None,
        seconds=1.0,
    )


def test_mean_corruption_error_by_hand(tmp_path):
    own = robustness(0.1, {"fog": (0.2, 0.4), "jpeg": (0.1, 0.2)})
    other = robustness(0.2, {"fog": (0.3, 0.5), "jpeg": (0.3, 0.7)})
    found = document.compare(own, other, tmp_path)
    # fog: 0.6 ÷ 0.8, jpeg: 0.3 ÷ 1.0; relative: (0.1 + 0.3) ÷ (0.1 + 0.3), (0 + 0.1) ÷ (0.1 + 0.5).
    assert found.corruption_errors == pytest.approx({"fog": 0.75, "jpeg": 0.3})
    assert found.mean_corruption_error == pytest.approx(0.525)
    assert found.relative_mean_corruption_error == pytest.approx((1 + 1 / 6) / 2)
    assert own.mean_error() == pytest.approx(0.9 / 4)  # attacks are no corruptions


def test_a_baseline_without_errors_is_no_measure(tmp_path):
    found = document.compare(robustness(0.1, {"fog": (0.2,)}), robustness(0.0, {"fog": (0.0,)}), tmp_path)
    assert found.corruption_errors == {"fog": None}
    assert found.mean_corruption_error is None
    assert found.relative_mean_corruption_error is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"fingerprint": "g"}, "another test part"),
        ({"seed": 7}, "--seed 7"),
        ({"limit": 30}, "--limit 30"),
        ({"definitions": 2}, "other definitions of the changes"),
    ],
)
def test_a_baseline_of_other_examples_is_refused(setting, message, tmp_path):
    own = robustness(0.1, {"fog": (0.2,)}).setting
    with pytest.raises(ToolkitError, match=f"--baseline .* was measured with {message}"):
        document.check_comparable(robustness(0.1, {"fog": (0.2,)}, **setting), own, [("fog", 1)], tmp_path)
    with pytest.raises(ToolkitError, match="not measured under 1 of these changes .first: fog of severity 2"):
        document.check_comparable(robustness(0.1, {"fog": (0.2,)}), own, [("fog", 1), ("fog", 2)], tmp_path)
    document.check_comparable(
        robustness(0.1, {"fog": (0.2,)}, weights="others", backend="torch"), own, [("fog", 1)], tmp_path
    )


def test_what_is_written_is_what_is_read(tmp_path):
    own = robustness(0.1, {"fog": (0.2, 0.4), "jpeg": (0.1, 0.2)}, limit=10)
    own = dataclasses.replace(own, comparison=document.compare(own, own, tmp_path))
    own.write(tmp_path / document.FILE)
    assert document.read(tmp_path / document.FILE) == own


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "has format None"),
        ('{"format": 1}', "has format 1, this version reads 2: remove the file and run `toolkit robustness` again"),
        ('{"format": 2}', "split: Field required"),
        ('{"format": 2, "split": "\\u001b[31m"}', "split: Input should be 'test'"),
    ],
)
def test_a_file_of_others_is_refused_in_one_sentence(content, message, tmp_path):
    (tmp_path / document.FILE).write_text(content)
    with pytest.raises(ToolkitError, match=message) as caught:
        document.read(tmp_path / document.FILE)
    assert str(caught.value).isprintable()


def split_of(labels):
    ids = [f"id{i}" for i in range(len(labels))]
    table = ImageTable(np.zeros((len(labels), 1, 1, 1), np.uint8))
    return Split("test", table, np.array(labels), ids, fingerprint="f", digests=[b""] * len(labels))


def test_a_sample_has_each_class_in_its_share():
    split = split_of([0] * 60 + [1] * 30 + [2] * 10)
    for seed in range(20):
        found = sample(split, 20, seed)
        assert len(set(found)) == 20 and (np.diff(found) > 0).all()
        counts = np.bincount(split.labels[found], minlength=3)
        assert np.abs(counts - [12, 6, 2]).max() <= 1
    assert sample(split, 20, 0).tolist() != sample(split, 20, 1).tolist()
    assert sample(split, 20, 0).tolist() == sample(split, 20, 0).tolist()
    np.testing.assert_array_equal(sample(split, None, 0), np.arange(100))
    np.testing.assert_array_equal(sample(split, 500, 0), np.arange(100))
