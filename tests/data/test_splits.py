"""Which example stands in which split: expressions against TFDS's own arithmetic, selectors, shares."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from toolkit.data.selections import Selection, conflicts, field_pattern, parse_slices
from toolkit.data.splits import assign, by_share, check_shares, in_order
from toolkit.errors import ToolkitError

SELECTION = TypeAdapter(Selection)


def positions(selections, counts, records=None, where="made"):
    return {
        name: {split: found.tolist() for split, found in parts.items()}
        for name, parts in assign(selections, counts, records or {}, where).items()
    }


@pytest.mark.parametrize(
    "value",
    [
        "train",
        "train[:80%]",
        "train[80%:90%]",
        "train[1000:2000]",
        "train[-10%:]",
        "train[12.5%:]",
        "train+test",
        "train[:10%] + test[-100:]",
        {"index": "0-4"},
        {"index": 3},
        {"speaker": "theo"},
        {"speaker": ["theo", "jackson"], "index": [0, "2-4"]},
    ],
)
def test_a_selection_comes_back_as_it_was_written(value):
    assert SELECTION.validate_json(json.dumps(value), strict=True) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("train[:120%]", "percent outside -100..100"),
        ("train[-101%:]", "percent outside -100..100"),
        ("train[90%:80%]", "is empty"),
        ("train[50%:50%]", "is empty"),
        ("train[100%:]", "is empty"),
        ("train[:0]", "is empty"),
        ("train[200:100]", "is empty"),
        ("train[-5:-10]", "is empty"),
        ("train[-10%:80%]", "is empty"),
        ("train[10%:2000]", "mixes percents and positions"),
        ("train[0:1.5]", "position that is not whole"),
        ("train[:]", "has no bounds: write 'train'"),
        ("train[5]", "is no split expression"),
        ("train[:50shard]", "is no split expression"),
        ("train[:80%", "is no split expression"),
        ("", "is no split expression"),
        ("train+", "is no split expression"),
        ("train[:60%]+train[50%:]", "takes examples of 'train' twice"),
        (0.8, "neither a split expression nor a selector"),
        (None, "neither a split expression nor a selector"),
        (["train"], "neither a split expression nor a selector"),
        ({}, "neither a split expression nor a selector"),
        ({"index": []}, "its list is empty"),
        ({"index": "4-0"}, "runs backwards: write 0-4"),
        ({"index": True}, "'index' is True"),
        ({"index": 0.5}, "'index' is 0.5"),
        ({"index": {"from": 0}}, "'index' is"),
    ],
)
def test_what_is_no_selection_is_refused_with_its_reason(value, text):
    with pytest.raises(ValidationError) as caught:
        SELECTION.validate_json(json.dumps(value), strict=True)
    (error,) = caught.value.errors()  # one message, not one per form
    assert text in error["msg"]


def test_the_schema_knows_both_forms():
    expression, selector = SELECTION.json_schema()["anyOf"]
    assert expression["type"] == "string"
    assert selector["type"] == "object"
    import re

    # What an editor accepts by the pattern is what the validator parses, up to bounds.
    for good in ("train", "train[:80%]", "train[-10%:]", "train[1000:2000]", "a+b[10:]"):
        assert re.fullmatch(expression["pattern"], good), good
    for bad in ("train[5]", "train[:80%", "", "train[:x]"):
        assert not re.fullmatch(expression["pattern"], bad), bad


BOUND = st.one_of(st.none(), st.integers(-100, 100), st.sampled_from([12.5, 33.3, -66.7]))


@given(count=st.integers(1, 300), start=BOUND, stop=BOUND)
def test_percents_are_rounded_as_tfds_rounds(count, start, stop):
    """The oracle is TFDS's ReadInstruction with its default rounding."""
    from tensorflow_datasets.core import splits as tfds_splits

    text = (
        "train"
        if start is None and stop is None
        else (f"train[{'' if start is None else f'{start}%'}:{'' if stop is None else f'{stop}%'}]")
    )
    try:
        (part,) = parse_slices(text)
    except ValueError:
        return
    info = tfds_splits.SplitInfo(name="train", shard_lengths=[count], num_bytes=0, filename_template=None)
    (expected,) = tfds_splits.ReadInstruction.from_spec(text).to_absolute({"train": info})
    assert part.bounds(count) == (expected.from_ or 0, count if expected.to is None else expected.to)


@pytest.mark.parametrize("text", ["train[3:7]", "train[:-3]", "train[-4:]", "train[-6:-2]", "train[-8:9]", "train[2:]"])
def test_positions_count_as_in_python(text):
    start, stop = (int(bound) if bound else None for bound in text[6:-1].split(":"))
    expected = list(range(10))[start:stop]
    assert positions({"test": text}, {"train": 10})["test"]["train"] == expected


def test_slices_of_one_split_are_disjoint_and_complete():
    found = positions(
        {"train": "train[:80%]", "validation": "train[80%:90%]", "test": "train[90%:]"}, {"train": 24_998}
    )
    # 24,998 photos: 80 % = 19,998.4, 90 % = 22,498.2
    assert [len(found[name]["train"]) for name in ("train", "validation", "test")] == [19_998, 2_500, 2_500]
    assert [i for parts in found.values() for i in parts["train"]] == list(range(24_998))


def test_a_sum_takes_from_several_splits_and_all_from_every_one():
    found = positions({"train": "train+extra[:2]", "test": "extra[2:]"}, {"train": 3, "extra": 4})
    assert found == {"train": {"train": [0, 1, 2], "extra": [0, 1]}, "test": {"extra": [2, 3]}}
    assert positions({"train": "all"}, {"a": 1, "b": 2}) == {"train": {"a": [0], "b": [0, 1]}}


RECORDS = [
    {"digit": str(digit), "speaker": speaker, "index": str(index)}
    for index in range(10)
    for speaker in ("jackson", "theo")
    for digit in range(3)
]


def test_selectors_are_taken_out_first_and_slices_cut_the_rest():
    found = positions(
        {"train": "train[:90%]", "validation": "train[90%:]", "test": {"index": "0-4"}},
        {"train": len(RECORDS)},
        {"train": RECORDS},
    )
    assert found["test"]["train"] == list(range(30))  # indices 0 to 4 come first in RECORDS
    assert found["train"]["train"] == list(range(30, 57))
    assert found["validation"]["train"] == list(range(57, 60))


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [
        ({"speaker": "theo"}, lambda row: row["speaker"] == "theo"),
        ({"index": 7}, lambda row: row["index"] == "7"),
        ({"index": ["0-1", 9]}, lambda row: row["index"] in "019"),
        ({"speaker": ["theo"], "digit": "1-2"}, lambda row: row["speaker"] == "theo" and row["digit"] in "12"),
    ],
)
def test_a_selector_wants_all_its_fields(selector, wanted):
    found = positions({"test": selector}, {"train": len(RECORDS)}, {"train": RECORDS})
    assert found["test"]["train"] == [i for i, row in enumerate(RECORDS) if wanted(row)]


@pytest.mark.parametrize(
    ("selections", "text"),
    [
        ({"test": "tset"}, r"no split 'tset' \(did you mean 'test'\?\): it has train, test"),
        ({"test": "test[:70]"}, "70 lies outside its 40 examples"),
        ({"test": "test[-30:5]"}, "holds no example"),
        ({"test": "test[0%:1%]"}, "holds no example"),
        ({"train": "train[:20]", "test": "train[10%:]"}, r"data.train \(train\[:20\]\) and data.test .* share 14"),
        ({"train": "train[:20]", "test": "train[-50:]"}, "share 10 examples of 'train'"),
        ({"test": {"speaker": "teo"}}, r"no example has speaker 'teo' \(did you mean 'theo'\?\): there are jackson"),
        ({"test": {"index": "8-12"}, "validation": {"index": "11-12"}}, "no example has index '11-12'"),
        ({"test": {"spaeker": "theo"}}, r"no field 'spaeker' \(did you mean 'speaker'\?\)"),
        ({"test": {"index": "0-4"}, "validation": {"speaker": "theo"}}, r"\{index: 0-4\}.*\{speaker: theo\}.* 15"),
    ],
)  # fmt: skip
def test_parts_that_cannot_be_cut_are_refused(selections, text):
    with pytest.raises(ToolkitError, match=text):
        positions(selections, {"train": len(RECORDS), "test": 40}, {"train": RECORDS})


@pytest.mark.parametrize(
    ("train", "test", "overlap"),
    [
        ("train[:80%]", "train[80%:]", False),
        ("train[:80%]", "train[79%:]", True),
        ("train[:80%]", "train[-20%:]", False),
        ("train[:80%]", "train[-21%:]", True),
        ("train", "train[99%:]", True),
        ("train", "train[-1:]", True),
        ("train[:100]", "train[100:]", False),
        ("train[:100]", "train[99:200]", True),
        ("train", "test", False),
        ("train[:50%]+test[:10%]", "test[5%:]", True),
        ("train[:100]", "train[50%:]", False),  # only the count can tell: found when it is read
        ("train[:100]", "train[-10:]", False),
        ("train", {"index": 3}, False),  # slices cut what selectors leave
    ],
)
def test_overlaps_that_are_sure_show_before_anything_is_read(train, test, overlap):
    found = conflicts({"train": train, "test": test})
    assert bool(found) == overlap
    if overlap:
        ((key, text),) = found
        assert key == "test"
        assert train in text
        assert test in text


@given(
    st.lists(
        st.sampled_from(["train[:30%]", "train[30%:70%]", "train[70%:]", "train[10:20]", "train[:-5]", "train[-7:]"]),
        min_size=2,
        max_size=3,
        unique=True,
    ),
    st.integers(20, 60),
)
def test_whatever_is_assigned_is_disjoint(expressions, count):
    selections = dict(zip(("train", "validation", "test"), expressions, strict=False))
    try:
        found = positions(selections, {"train": count})
    except ToolkitError as error:
        assert "share" in str(error) or "holds no example" in str(error)
        return
    everything = [i for parts in found.values() for i in parts["train"]]
    assert len(set(everything)) == len(everything)
    assert not conflicts(selections)


def test_fields_of_file_names():
    pattern = field_pattern("{digit}_{speaker}_{index}.wav")
    assert pattern.fullmatch("7_theo_32.wav").groupdict() == {"digit": "7", "speaker": "theo", "index": "32"}
    assert pattern.fullmatch("7_theo_32.mp3") is None
    for wrong in ("plain.wav", "{a}{b}.wav", "{a}_{a}.wav", "{a}_{}.wav", "{a_b.wav"):
        with pytest.raises(ValueError, match="'"):
            field_pattern(wrong)


def by_hand(ids, labels, validation, test, seed):
    """The rule, written once more: per class, sorted by sha256, test first."""
    import hashlib

    splits = {}
    for label in set(labels):
        members = [name for name, own in zip(ids, labels, strict=True) if own == label]
        members.sort(key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).hexdigest())
        tests, validations = round(len(members) * test), round(len(members) * validation)
        for i, name in enumerate(members):
            splits[name] = "test" if i < tests else "validation" if i < tests + validations else "train"
    return splits


def share(ids, labels, seed=0, validation=0.1, test=0.2, classes=2):
    parts = by_share(
        ids,
        np.asarray(labels),
        {"test": test, "validation": validation},
        split_seed=seed,
        class_names=[f"class_{i}" for i in range(classes)],
        where="made",
    )
    return {ids[i]: name for name, found in parts.items() for i in found}


IDS, LABELS = [f"file-{i}" for i in range(150)], [0] * 100 + [1] * 50


def test_shares_are_exact_in_each_class():
    found = share(IDS, LABELS)
    assert found == by_hand(IDS, LABELS, 0.1, 0.2, seed=0)
    for label, sizes in ((0, (70, 10, 20)), (1, (35, 5, 10))):
        own = [found[name] for name, other in zip(IDS, LABELS, strict=True) if other == label]
        assert tuple(own.count(split) for split in ("train", "validation", "test")) == sizes


@pytest.mark.parametrize(("count", "sizes"), [(14, (10, 1, 3)), (15, (10, 2, 3)), (16, (11, 2, 3)), (17, (12, 2, 3))])
def test_shares_are_rounded_to_whole_examples(count, sizes):
    found = list(share([str(i) for i in range(count)], [0] * count, classes=1).values())
    assert tuple(found.count(split) for split in ("train", "validation", "test")) == sizes


def test_the_split_depends_on_seed_and_id_and_not_on_the_order():
    order = np.random.default_rng(0).permutation(len(IDS))
    assert share([IDS[i] for i in order], [LABELS[i] for i in order]) == share(IDS, LABELS)
    assert share(IDS, LABELS, seed=1) != share(IDS, LABELS)


def test_another_class_or_another_validation_share_leaves_the_test_part_alone():
    before = share(IDS, LABELS)
    wider = share(IDS, LABELS, validation=0.3)
    assert {name for name in IDS if before[name] == "test"} == {name for name in IDS if wider[name] == "test"}
    more = share([*IDS, *(f"new-{i}" for i in range(40))], LABELS + [2] * 40, classes=3)
    assert {name: more[name] for name in IDS} == before


def test_a_new_file_moves_two_others_at_most():
    before = share(IDS, LABELS)
    for i in range(20):
        after = share([*IDS, f"new-{i}"], [*LABELS, 0])
        assert sum(after[name] != before[name] for name in IDS) <= 2


@pytest.mark.parametrize("count", range(3, 12))
@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.2), (0.45, 0.5), (0.01, 0.01)])
def test_a_small_class_is_in_every_split(count, validation, test):
    found = share([str(i) for i in range(count)], [0] * count, validation=validation, test=test, classes=1)
    assert set(found.values()) == {"train", "validation", "test"}
    assert len(found) == count


def test_a_class_that_is_too_small_is_named():
    with pytest.raises(ToolkitError, match=r"at least 3 examples, one for each of train, .*'class_1' \(2\)"):
        share([str(i) for i in range(12)], [0] * 10 + [1] * 2)


def test_without_classes_all_examples_are_one_stratum():
    def whole(ids):
        parts = by_share(
            ids,
            np.zeros(len(ids), int),
            {"test": 0.2, "validation": 0.1},
            split_seed=0,
            class_names=(),
            where="made",
        )
        return {ids[i]: name for name, found in parts.items() for i in found}

    assert whole(IDS) == share(IDS, [0] * len(IDS), classes=1)
    with pytest.raises(ToolkitError, match="made holds 2 examples that can be used, but needs at least 3"):
        whole(IDS[:2])


def test_shares_that_leave_nothing():
    assert check_shares({"validation": 0.1, "test": 0.2}) == []
    assert [key for key, _ in check_shares({"validation": 0.0, "test": 0.2})] == ["validation"]
    ((key, text),) = check_shares({"validation": 0.5, "test": 0.5})
    assert key == "test"
    assert "leave nothing to train with" in text


def test_names_are_sorted_by_value_where_they_are_numbers():
    assert in_order(["10", "9", "2", "9"]) == ("2", "9", "10")
    assert in_order(["b", "10", "a"]) == ("10", "a", "b")
