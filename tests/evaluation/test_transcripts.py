"""Error rates against sums by hand and a plain dynamic programme."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from scipy import stats

from toolkit.errors import RunFailed, ToolkitError
from toolkit.evaluation.table import confusions_table, transcription_table, transcripts_table
from toolkit.evaluation.transcripts import Confusion, evaluate, measure, transcribe
from toolkit.tasks.objective import Objective

WORDS = ("one", "two", "three")


def distance(said: list[str], written: list[str]) -> int:
    """Levenshtein's, by the textbook."""
    row = list(range(len(written) + 1))
    for i, one in enumerate(said, 1):
        above, row = row, [i]
        for j, other in enumerate(written, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (one != other)))
    return row[-1]


def figures(answers, texts):
    return measure(answers, texts, losses=np.ones(len(texts)), split="test", seconds=1.0, decoding="greedy")


def test_rates_are_edits_per_unit_of_what_was_said():
    found = figures(["one too", "", "five six seven"], ["one two three", "four", "five seven"])
    # two → too, three left out, four left out, six put in: four of six words
    assert (found.words.substitutions, found.words.deletions, found.words.insertions) == (1, 2, 1)
    assert found.words.reference == 6
    assert found.words.rate == pytest.approx(4 / 6)
    # w → o; " three"; "four"; " six"
    assert found.characters.rate == pytest.approx((1 + 6 + 4 + 4) / (13 + 4 + 10))
    assert found.right == 0
    assert set(found.confusions) == {
        Confusion(said="two", written="too", times=1),
        Confusion(said="three", written="", times=1),
        Confusion(said="four", written="", times=1),
        Confusion(said="", written="six", times=1),
    }


def test_rates_are_the_smallest_number_of_edits_on_random_texts():
    rng = np.random.default_rng(0)
    texts, answers = ([list(rng.choice(WORDS, rng.integers(1, 8))) for _ in range(200)] for _ in range(2))
    found = figures([" ".join(row) for row in answers], [" ".join(row) for row in texts])
    words = sum(map(distance, texts, answers))
    assert found.words.rate * found.words.reference == pytest.approx(words)
    assert found.words.substitutions + found.words.deletions + found.words.insertions == words
    assert sum(one.times for one in found.confusions) == words
    assert [one.times for one in found.confusions] == sorted((one.times for one in found.confusions), reverse=True)
    letters = sum(distance(list(" ".join(a)), list(" ".join(b))) for a, b in zip(texts, answers, strict=True))
    assert found.characters.rate * found.characters.reference == pytest.approx(letters)


def test_the_interval_covers_the_rate_of_the_population():
    """In 200 samples of 100 recordings, one in ten of which is wrong word by word: 95 % of the intervals hold 0.1."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        wrong = np.repeat(rng.random((100, 1)) < 0.1, 4, axis=1)  # errors come together, as of one speaker
        answers = [" ".join(np.where(row, "x", "one")) for row in wrong]
        low, high = figures(answers, ["one one one one"] * 100).words.interval
        held += low <= 0.1 <= high
    assert 180 <= held <= 198


@pytest.mark.parametrize("n", [1, 3, 500])
def test_no_errors_have_the_exact_bound_of_none_in_so_many_recordings(n):
    same = figures(["one two"] * n, ["one two"] * n)
    exact = stats.binomtest(0, n).proportion_ci(0.95, method="exact")
    for found in (same.words, same.characters):
        assert found.rate == 0
        assert found.interval == pytest.approx((exact.low, exact.high), abs=1e-12)
    assert same.right == 1


@pytest.mark.parametrize(
    ("answer", "text", "n"), [("", "one two", 4), ("one", "one two", 1), ("one", "one two", 4), ("a b c", "one", 4)]
)
def test_equal_recordings_still_have_an_interval(answer, text, n):
    found = figures([answer] * n, [text] * n).words
    low, high = found.interval
    share = stats.binomtest(0, n).proportion_ci(0.95, method="exact").high  # of recordings that may be otherwise
    assert low == pytest.approx((1 - share) * found.rate)
    assert high == pytest.approx((1 - share) * found.rate + share * max(found.rate, 1))
    assert low < found.rate <= high


class Echo:
    """Logits are the inputs."""

    def predict_on_batch(self, inputs):
        return inputs["logits"]


OBJECTIVE = Objective(
    loss=None,
    metrics=[],
    label_dtype="int32",
    decode=lambda logits: [" ".join(WORDS[int(frame)] for frame in row[:, 0]) for row in logits],
    losses=lambda logits, labels: labels[:, 0].astype("float64"),
)


def batches(*, labelled=True):
    """Two batches with different numbers of frames."""
    first = {"logits": np.array([[[0], [1]], [[2], [2]]], "float32")}
    second = {"logits": np.array([[[0], [1], [2]]], "float32")}
    if not labelled:
        return [first, second]
    return [(first, np.array([[1, 0], [2, 2]])), (second, np.array([[6, 1, 1]]))]


def test_files_hold_figures_and_answers(tmp_path):
    texts = ["one two", "three two", "one two three"]
    found = evaluate(Echo(), OBJECTIVE, batches(), texts=texts, ids=["a", 'b"', "c"], directory=tmp_path, split="test")
    assert found.loss == 3
    assert found.words.rate == pytest.approx(1 / 7)
    assert found.right == pytest.approx(2 / 3)
    assert found.decoding == "greedy"
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["task"] == "transcription"
    assert written["words"]["rate"] == found.words.rate
    assert written["confusions"] == [{"said": "two", "written": "three", "times": 1}]
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {"id": 'b"', "text": "three two", "answer": "three three"}
    other = {"texts": texts, "ids": list("abc"), "directory": tmp_path, "split": "train", "weights": "last"}
    assert evaluate(Echo(), OBJECTIVE, batches(), **other, beam_width=8).decoding == "beam search, width 8"
    assert {path.name for path in tmp_path.iterdir()} == {
        "evaluation.json",
        "predictions.csv",
        "evaluation-train-last-beam8.json",
        "predictions-train-last-beam8.csv",
    }


def test_what_does_not_belong_together_is_refused(tmp_path):
    to = {"directory": tmp_path, "split": "test"}
    with pytest.raises(ValueError, match="hold 3 recordings, not the 4 that are named"):
        evaluate(Echo(), OBJECTIVE, batches(), texts=["a"] * 4, ids=list("abcd"), **to)
    with pytest.raises(ToolkitError, match="the split 'test' has no example"):
        evaluate(Echo(), OBJECTIVE, [], texts=[], ids=[], **to)
    bad = [({"logits": np.array([[[np.nan]]], "float32")}, np.array([[1]]))]
    with pytest.raises(RunFailed, match="not finite for 1 of 1 examples, first 'clip'"):
        evaluate(Echo(), OBJECTIVE, bad, texts=["one"], ids=["clip"], **to)
    assert list(tmp_path.iterdir()) == []


def test_recordings_without_labels_give_their_texts():
    found = transcribe(Echo(), OBJECTIVE, batches(labelled=False), ids=list("abc"))
    assert found == ["one two", "three three", "one two three"]


def test_tables_fit_80_columns_and_print_texts_as_they_are(capsys):
    from rich.console import Console

    said = "[red]one[/red] " * 12
    console = Console(width=80)
    console.print(transcripts_table(["folder/" * 9 + "clip.wav", "b.wav"], [said, "\x1b[31mtwo"]))
    found = figures(["[b]", "two", ""], ["one", "two", "three"])
    console.print(transcription_table(found), confusions_table(found), confusions_table(found, limit=1))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "\x1b[31m" not in printed
    assert "".join(printed.split()).count("[red]one[/red]") == 12
    assert "66.67 %" in printed
    assert "1 substituted, 1 left out, 0 put in, of 3 words" in printed
    assert "the 1 most frequent of 2 kinds of errors" in printed
