"""The tables of results: statistics against SciPy, judgements, and documents that say what was measured."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import stats

from toolkit.config import load
from toolkit.config.shipped import find_config
from toolkit.errors import ToolkitError
from toolkit.studies import document as documents
from toolkit.studies import reproduce as reproducing
from toolkit.studies import results
from toolkit.studies.reproduce import BEGIN, BY_HAND, END, RECIPES, keep, write_documents
from toolkit.studies.results import Count, Errors, Heard, Row


def row(right=950, seed=0, recipe="mnist_cnn", **values):
    given = {
        "config": "c",
        "fingerprints": {"test": "f"},
        "last": Count(right - 10, 1000),
        "apart": Count(right, 1000),
        "validation": (0.96, 0.94),
        "epochs": (3, 5),
        "baseline": "logistic regression on pixels",
        "baseline_right": 900,
        "only_ours": 70,
        "only_baseline": 20,
        "parameters": 1234,
        "seconds": 90.0,
        "machine": "2 cores, a processor",
        "commit": "0123456789ab",
    }
    return Row(recipe=recipe, seed=seed, **{"best": Count(right, 1000), **given, **values})


def heard(wrong=30, seed=0, **values):
    given = {
        "config": "c",
        "fingerprints": {"test": "f"},
        "interval": (0.02, 0.045),
        "characters": Errors(90, 5000),
        "beam": Errors(wrong - 2, 1000),
        "last": Errors(wrong + 5, 1000),
        "recordings": 250,
        "right": 225,
        "validation": (0.31, 0.42),
        "epochs": (8, 15),
        "parameters": 685_000,
        "seconds": 600.0,
        "machine": "2 cores, a processor",
        "commit": "0123456789ab",
    }
    return Heard(recipe="spoken_digits_ctc", seed=seed, words=Errors(wrong, 1000), **{**given, **values})


@pytest.mark.parametrize(("right", "examples"), [(0, 10), (10, 10), (937, 1000), (8644, 10000)])
def test_interval_is_wilsons(right, examples):
    expected = stats.binomtest(right, examples).proportion_ci(0.95, method="wilson")
    assert results.wilson(right, examples) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_mcnemar_is_a_coin_thrown_for_each_example_on_which_two_differ():
    assert results.mcnemar(5, 1) == pytest.approx(2 * (1 + 6) / 64)
    assert results.mcnemar(1, 5) == results.mcnemar(5, 1)
    assert results.mcnemar(4, 4) == 1.0
    assert results.mcnemar(0, 0) == 1.0


def test_better_is_said_only_where_the_test_supports_it():
    assert results.against_baseline(row(only_ours=70, only_baseline=20)) == "better (p < 0.001)"
    assert results.against_baseline(row(only_ours=20, only_baseline=70)) == "worse (p < 0.001)"
    assert results.against_baseline(row(only_ours=14, only_baseline=11)) == "no difference shown (p = 0.690)"


def test_the_median_seed_is_compared():
    rows = [row(970, 0), row(950, 1), row(960, 2)]
    assert results.middle(rows) == rows[2]
    assert results.middle(rows[:2]) == rows[1]


@pytest.mark.parametrize(
    ("known", "again", "verdict"),
    [
        ([950], (950, 0), "same to the digit"),
        ([950], (951, 0), "within the spread"),  # of the interval from 93.5 to 96.2 %
        ([950], (964, 0), "not reproduced"),
        ([950, 952, 954], (952, 2), "within the spread"),
        ([950, 952, 954], (962, 2), "within the spread"),  # of the interval of 952, though the seeds agree better
        ([950, 952, 954], (967, 2), "not reproduced"),
        ([920, 980], (290, 2), "within the spread"),  # 12.706 · √1.5 deviations of 42.43 examples are 660.2
        ([920, 980], (289, 2), "not reproduced"),
        ([920, 960, 980], (802, 3), "within the spread"),  # 4.3027 · √(4/3) deviations of 30.55 are 151.8
        ([920, 960, 980], (801, 3), "not reproduced"),
        ([950, 952, 954], (952, 1), "same to the digit"),
        ([950, 952, 954], (952, 7), "within the spread"),
    ],
)
def test_judgement_of_a_training_anew(known, again, verdict):
    assert results.judge([row(right, seed) for seed, right in enumerate(known)], row(*again)) == verdict


@pytest.mark.parametrize("n", [2, 3, 6])
def test_of_trainings_alike_one_in_twenty_is_judged_wrong(n):
    """Drawn from one normal distribution, beside whose deviation the interval of a figure is nothing."""
    draws = np.random.default_rng(0).normal(500_000_000, 2_000_000, (1000, n + 1)).round().astype(int)
    rows = [[row(best=Count(int(right), 10**9), seed=seed) for seed, right in enumerate(drawn)] for drawn in draws]
    held = sum(results.judge(known, again) == "within the spread" for *known, again in rows)
    assert 930 <= held <= 970


def test_the_same_best_epoch_with_another_last_is_not_the_same():
    assert results.judge([row()], row(last=Count(1, 1000))) == "within the spread"


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [
        row(recipe="mnist_cnn", seed=1),
        row(recipe="mnist_cnn"),
        row(recipe="mnist_dense"),
        row(recipe="my_own"),
        row(variant="theo"),
    ]
    path = tmp_path / "results" / "results.json"
    results.write(path, [rows[4], rows[3], *rows[:3]])
    assert results.read(path) == [rows[2], rows[1], rows[0], rows[4], rows[3]]
    without = json.loads(path.read_text())
    del without["rows"][0]["variant"]  # as rows were before there were variants
    path.write_text(json.dumps(without))
    assert results.read(path)[0] == rows[2]
    assert results.read(tmp_path / "none.json") == []


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"format": 2, "rows": []}', '{"format": 1, "rows": [{}]}', '{"format": 1, "rows": [1]}']
)
def test_what_is_no_table_is_refused(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ToolkitError, match=r"results.json is no table of results .*: restore it"):
        results.read(tmp_path / "results.json")


def test_rows_that_several_write_at_once_are_all_kept(tmp_path):
    rows = [row(900 + i, recipe=f"recipe{i % 4}", variant=v, seed=i) for i in range(8) for v in ("", "theo")]
    with ThreadPoolExecutor(len(rows)) as pool:
        list(pool.map(lambda one: keep(tmp_path, one, {}), rows))
    kept = results.read(tmp_path / "results" / "results.json")
    assert sorted(kept, key=repr) == sorted(rows, key=repr)
    assert (tmp_path / "docs" / "results.md").read_text() == documents.document(kept)


@pytest.mark.parametrize("other", [{"config": "d"}, {"fingerprints": {"test": "g"}}, {"seed": 1, "config": "d"}])
def test_a_row_takes_the_place_of_what_another_config_or_other_data_gave(tmp_path, other):
    others = [row(recipe="mnist_dense", **other), row(variant="float32", **other), row(940, 2)]
    for one in (row(**other), *others, row(930), row(950)):
        keep(tmp_path, one, {})
    kept = results.read(tmp_path / "results" / "results.json")
    assert sorted(kept, key=repr) == sorted([*others, row(950)], key=repr)


def test_what_is_compared_is_of_one_config_and_one_data(tmp_path):
    now = {"float32": "now, in float32", "bfloat16": "now, in bfloat16"}
    own, whole = row(), row(variant="float32, shortened", config="a shorter one")
    old = [row(variant=name, seed=seed, config="before") for name in now for seed in (0, 1)]
    other = row(variant="bfloat16", config=now["bfloat16"], fingerprints={"test": "g"})
    first = [row(variant=name, seed=1, config=now[name]) for name in now]
    results.write(tmp_path / "results" / "results.json", [own, whole, *old, other, *first])
    new = row(variant="float32", config=now["float32"])
    keep(tmp_path, new, now)
    kept = results.read(tmp_path / "results" / "results.json")
    assert sorted(kept, key=repr) == sorted([own, whole, *first, new], key=repr)


def cells(text, recipe, table=0):
    """The row of a recipe in a table of the document, by the columns' names."""
    lines = text.splitlines()
    head = [i for i, line in enumerate(lines) if line.startswith("| recipe |")][table]
    names = [cell.strip() for cell in lines[head].strip("|").split("|")]
    found = next(line for line in lines[head:] if line.startswith(f"| `{recipe}` |"))
    return dict(zip(names, (cell.strip() for cell in found.strip("|").split("|")), strict=True))


def test_the_document_says_what_was_measured():
    rows = [row(940, 0), row(950, 1, seconds=150.0), row(960, 2, only_ours=1, only_baseline=1)]
    rows += [row(880, 0, "imdb_transformer", apart=Count(870, 990))]
    text = documents.document(rows)
    first = cells(text, "mnist_cnn")
    assert first["accuracy (95 % interval)"] == "**95.00 ± 1.00 %** (93.47 to 96.19)"
    assert first["last epoch"] == "94.00 ± 1.00 %"
    assert first["command"] == "`python scripts/reproduce.py mnist_cnn --seeds 0,1,2`"
    assert (first["without shared examples"], first["minutes of training"]) == ("none shared", "1.8")
    assert first["commit"] == "0123456789ab"
    other = cells(text, "imdb_transformer")
    assert other["accuracy (95 % interval)"].startswith("**88.00 %** (")
    assert other["without shared examples"] == "87.88 % (10 left out)"
    beside = cells(text, "mnist_cnn", table=1)
    assert beside["its accuracy"] == "90.00 %"
    assert beside["the recipe is"] == "better (p < 0.001)"
    assert "99.2 % (keras.io" in beside["published"]
    every = cells(text, "imdb_transformer", table=2)
    assert (every["seed"], every["best epoch"], every["machine"]) == ("0", "3 of 5", "2 cores, a processor")
    assert every["last epoch: validation, test"] == "94.00 %, 87.00 %"


def test_only_the_table_between_the_marks_of_the_readme_changes(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    write_documents(tmp_path, [row()])
    text = readme.read_text()
    assert text.startswith(f"before\n\n{BEGIN}\n| recipe |") and text.endswith(f"\n{END}\n\nafter\n")
    assert "old" not in text and "95.00 %" in text
    assert (tmp_path / "docs" / "results.md").read_text() == documents.document([row()])
    readme.write_text("no marks")
    write_documents(tmp_path, [row()])
    assert readme.read_text() == "no marks"


def test_what_is_written_by_hand_stays(tmp_path):
    write_documents(tmp_path, [row()])
    page = tmp_path / "docs" / "results.md"
    page.write_text(page.read_text() + f"\n{BY_HAND}\n\nnotes\n")
    write_documents(tmp_path, [row(), row(940, 1)])
    assert page.read_text() == documents.document([row(), row(940, 1)]) + f"\n{BY_HAND}\n\nnotes\n"


def test_speakers_have_a_table_of_their_own():
    speakers = [
        row(900, recipe="spoken_digit_lstm", variant="theo", baseline_right=700),
        row(800, recipe="spoken_digit_lstm", variant="george", baseline_right=500, only_ours=1, only_baseline=1),
        row(850, recipe="spoken_digit_gru", variant="theo"),
    ]
    text = documents.document([row(980, recipe="spoken_digit_lstm"), *speakers])
    lines = [line for line in text.partition("## Speakers never heard")[2].splitlines() if line.startswith("| `")]
    parts = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert parts[0][:6] == [
        "`spoken_digit_lstm`",
        "theo",
        "1,000",
        "**90.00 %** (87.98 to 91.71)",
        "70.00 %",
        "better (p < 0.001)",
    ]
    assert parts[1][5] == "no difference shown (p = 1.000)"
    assert parts[2][:5] == ["`spoken_digit_lstm`", "mean", "2,000", "**85.00 %**", "60.00 %"]
    assert [part[1] for part in parts[3:5]] == ["theo", "mean"]
    assert "| `spoken_digit_lstm`, without theo | 0 |" in text
    # The recipe's own figure, here and in README, holds the recipe's own rows alone.
    assert cells(text, "spoken_digit_lstm")["accuracy (95 % interval)"].startswith("**98.00 %**")
    short = documents.short([row(980, recipe="spoken_digit_lstm"), *speakers])
    assert "98.00 %" in short and "90.00 %" not in short
    assert "Speakers" not in documents.document([row()])


def test_speakers_count_alike_however_many_seeds_each_has():
    seeds = (("george", 600, 0), ("theo", 900, 0), ("theo", 920, 3))
    rows = [row(right, seed, "spoken_digit_lstm", variant=name, baseline_right=500) for name, right, seed in seeds]
    table = documents.document(rows).partition("## Speakers never heard")[2].partition("## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    assert lines[1].startswith("| `spoken_digit_lstm` | theo | 1,000 | **91.00 ± 1.41 %** (")
    assert lines[2].startswith("| `spoken_digit_lstm` | mean | 2,000 | **75.50 %** | 50.00 % |")
    assert len(lines) == 3


def test_precisions_have_a_table_of_their_own():
    pairs = [row(right, seed, variant="float32") for seed, right in enumerate((950, 952, 954))]
    pairs += [row(right, seed, variant="bfloat16") for seed, right in enumerate((949, 955, 951))]
    short = [heard(60, variant="bfloat16, shortened", interval=(0.05, 0.07))]
    short += [heard(30, variant="float32, shortened", interval=(0.02, 0.04))]
    text = documents.document([row(), *pairs, *short])
    found = [line for line in text.partition("## Precision")[2].splitlines() if line.startswith("| `")]
    half = stats.binomtest(952, 1000).proportion_ci(0.95, method="wilson")
    noise = (half.high - half.low) / 2 * 2**0.5 * 100
    assert found[0].startswith(
        "| `mnist_cnn` | the recipe | 0, 1, 2 | 95.20 ± 0.20 % | 95.17 ± 0.31 % | -0.03, within noise (± "
    )
    assert abs(float(found[0].partition("(± ")[2].partition(")")[0]) - noise) < 0.02
    told = "the quick form | 0 | 3.00 % | 6.00 % | +3.00, beyond noise (± 1.41)"
    assert found[1].startswith(f"| `spoken_digits_ctc` | {told}")
    assert "| `mnist_cnn`, bfloat16 | 2 |" not in text
    for part in (documents.short([row(), *pairs, *short]), text.partition("## Precision")[0]):
        assert "95.17" not in part and "6.00 %" not in part
    assert "## Precision" not in documents.document([row()])
    # The page is written after each training, the first of a pair too.
    for name, told in (("float32", "95.00 % | – | –"), ("bfloat16", "– | 95.00 % | –")):
        text = documents.document([row(950, variant=f"{name}, shortened")])
        assert f"| `mnist_cnn` | the quick form | 0 | {told} |" in text


def test_seeds_of_one_precision_alone_are_left_out_of_the_comparison():
    rows = [row(right, seed, variant="float32") for seed, right in enumerate((900, 999, 999))]
    rows += [row(910, variant="bfloat16"), row(500, variant="bfloat16, shortened")]
    text = documents.document(rows)
    assert "| `mnist_cnn` | the recipe | 0 | 90.00 % | 91.00 % | +1.00, within noise (± " in text
    assert "| `mnist_cnn` | the quick form | 0 | – | 50.00 % | – |" in text


def test_a_test_part_that_is_all_shared_is_told():
    assert cells(documents.document([row(apart=Count(0, 0))]), "mnist_cnn")["without shared examples"] == "all shared"


def test_published_figures_stand_beside_shipped_recipes():
    from toolkit.config.shipped import shipped_configs

    assert set(RECIPES) <= set(shipped_configs())


def test_the_documents_in_the_repository_are_those_of_its_results(repository):
    rows = results.read(repository / "results" / "results.json")
    written = (repository / "docs" / "results.md").read_text(encoding="utf-8").partition(f"\n{BY_HAND}")[0]
    assert written == documents.document(rows)
    assert f"{BEGIN}\n{documents.short(rows)}\n{END}" in (repository / "README.md").read_text(encoding="utf-8")
    assert json.dumps([dataclasses.asdict(one) for one in rows]).count("dirty") == 0
    for one in rows:  # what the shipped configs are now
        variants = {**reproducing.VARIANTS.get(one.recipe, {}), **reproducing.precisions(one.recipe)}
        of_row = load(find_config(one.recipe), variants[one.variant] if one.variant else ())
        assert one.config == reproducing.config_hash(of_row), (one.recipe, one.variant)


def test_speech_to_text_has_tables_of_its_own(tmp_path):
    rows = [row(), heard(), heard(36, 1, interval=(0.03, 0.055))]
    results.write(tmp_path / "results.json", rows)
    assert results.read(tmp_path / "results.json") == rows
    text = documents.document(rows)
    line = next(line for line in text.splitlines() if "spoken_digits_ctc --seeds 0,1" in line)
    for figure in ("250, 1,000", "**3.30 ± 0.42 %** (2.50 to 5.00)", "3.10 ± 0.42 %", "3.80 ± 0.42 %", "1.80 ± 0.00 %"):
        assert figure in line
    assert "| `spoken_digits_ctc` | 1 | 8 of 15 | 0.3100 | 3.60 % | 0.4200, 4.10 % | 10.0 |" in text
    assert "**3.30 ± 0.42 %**" in documents.short(rows)
    assert "Speech to text" not in documents.document([row()])


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((0.05, 0.08), "better (the intervals are apart)"),
        ((0.04, 0.08), "no difference shown"),
        ((0.01, 0.019), "worse"),
    ],
)
def test_a_baseline_of_speech_to_text_stands_beside_it(tmp_path, interval, verdict):
    with_it = heard(baseline="cut at pauses", baseline_words=Errors(60, 1000), baseline_interval=interval)
    results.write(tmp_path / "results.json", [with_it])
    assert results.read(tmp_path / "results.json") == [with_it]
    low, high = interval
    assert f"| 6.00 % ({100 * low:.2f} to {100 * high:.2f}): the recipe is {verdict}" in documents.document([with_it])


@pytest.mark.parametrize(
    ("again", "verdict"),
    [((30, 0), "same to the digit"), ((44, 0), "within the spread"), ((46, 1), "not reproduced")],
)
def test_judgement_of_a_transcription_trained_anew(again, verdict):
    assert results.judge([heard()], heard(*again)) == verdict
