from __future__ import annotations

import csv
import io

import numpy as np
import pandas
import pytest
from scipy.special import softmax

from toolkit.errors import RunFailed, ToolkitError
from toolkit.evaluation.predict import Prediction, predict, refuse_existing, write_new


@pytest.mark.every_backend
def test_probabilities_are_the_softmax_of_the_logits(noisy):
    only_inputs = noisy.batches.map(lambda inputs, labels: inputs)
    done = []
    found = predict(noisy.model, noisy.objective, only_inputs, report=done.append)
    assert found.dtype == np.float64
    assert done[-1] == 50
    np.testing.assert_allclose(found, softmax(noisy.logits.astype("float64"), axis=1), rtol=1e-6)
    np.testing.assert_array_equal(predict(noisy.model, noisy.objective, noisy.batches), found)


def test_plain_arrays_do_as_batches(noisy):
    batches = [{"samples": noisy.logits[:7]}, {"samples": noisy.logits[7:]}]
    np.testing.assert_allclose(predict(noisy.model, noisy.objective, batches), softmax(noisy.logits, axis=1), rtol=1e-5)


def test_an_output_that_is_not_finite_is_named(trial):
    one = trial([[0, 0], [np.nan, 0]], [0, 0], ids=["a.png", "b.png"])
    with pytest.raises(RunFailed, match=r"1 of 2 examples, first 'b.png'"):
        predict(one.model, one.objective, one.batches, ids=one.ids)
    with pytest.raises(RunFailed, match="first number 1"):
        predict(one.model, one.objective, one.batches)


def test_nothing_to_predict_is_said(noisy):
    with pytest.raises(ToolkitError, match="nothing to predict"):
        predict(noisy.model, noisy.objective, [])


def test_table_of_predictions(tmp_path):
    ids = ["a,b.png", 'c"d".png', "e\nf.png", "猫.png", "[red]x.png"]
    shares = softmax(np.random.default_rng(0).normal(size=(5, 3)), axis=1)
    write_new(tmp_path / "table.csv", Prediction(ids, shares, ("cat", "dog", "file")).to_csv())
    table = pandas.read_csv(tmp_path / "table.csv")
    assert list(table) == ["file", "answer", "probability", "p(cat)", "p(dog)", "p(file)"]
    assert list(table["file"]) == ids
    assert list(table["answer"]) == [("cat", "dog", "file")[best] for best in shares.argmax(axis=1)]
    np.testing.assert_allclose(table.iloc[:, 3:], shares, rtol=1e-6)
    np.testing.assert_allclose(table["probability"], shares.max(axis=1), rtol=1e-6)


def test_an_existing_table_is_never_overwritten(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("mine")
    for refuse in (
        lambda: refuse_existing(path),
        lambda: write_new(path, "theirs"),
    ):
        with pytest.raises(ToolkitError, match=r"table.csv exists already"):
            refuse()
    assert path.read_text() == "mine"


def test_a_table_into_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ToolkitError, match="there is no folder"):
        write_new(tmp_path / "no" / "table.csv", "a")


def test_small_probabilities_keep_their_digits():
    table = Prediction(["a"], np.array([[1 - 1e-9, 1e-9]]), ("x", "y")).to_csv()
    row = list(csv.reader(io.StringIO(table)))[1]
    assert float(row[4]) == pytest.approx(1e-9)


def test_a_prediction_knows_its_answers():
    prediction = Prediction(["a", "b"], np.array([[0.2, 0.8], [0.6, 0.4]]), ("cat", "dog"))
    assert prediction.answers == ["dog", "cat"]
