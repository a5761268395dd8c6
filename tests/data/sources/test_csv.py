"""Tables of sentences, made here: CSV and TSV, and rows that cannot be used."""

import csv as standard
import random
from pathlib import Path

import pytest

from toolkit.data.sources.csv import csv
from toolkit.errors import ToolkitError

SENTENCES = [(f"a {'good' if i % 2 else 'bad'} film, number {i}", "pos" if i % 2 else "neg") for i in range(20)]


def table(path, rows=SENTENCES, header=("text", "label"), delimiter=",", **form):
    with path.open("w", newline="", encoding=form.pop("encoding", "utf-8")) as file:
        writer = standard.writer(file, delimiter=delimiter, **form)
        writer.writerows([header, *rows] if header else rows)
    return str(path)


def by_id(source):
    return {
        name: (text, source.class_names[label])
        for part in source.splits.values()
        for name, text, label in zip(part.ids, part.values, part.labels, strict=True)
    }


def bad(source):
    return {row.id: row.reason for part in source.splits.values() for row in part.bad}


def test_a_csv_with_a_header(tmp_path):
    source = csv(path=table(tmp_path / "films.csv"))
    assert (source.kind, source.class_names) == ("text", ("neg", "pos"))
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 14, "validation": 2, "test": 4}
    assert by_id(source) == {f"row-{i + 2}": row for i, row in enumerate(SENTENCES)}  # line 1 is the header
    assert not bad(source)


def test_a_tsv_without_a_header_and_other_columns_between(tmp_path):
    rows = [(i, label, "x", text) for i, (text, label) in enumerate(SENTENCES)]
    path = table(tmp_path / "films.TSV", rows, header=None, delimiter="\t")
    assert by_id(csv(path=path, header=False, text="4", label="2")) == {
        f"row-{i + 1}": row for i, row in enumerate(SENTENCES)
    }


def test_a_delimiter_that_the_suffix_does_not_tell(tmp_path):
    path = table(tmp_path / "films.txt", delimiter=";")
    assert len(by_id(csv(path=path, delimiter=";"))) == 20
    with pytest.raises(ToolkitError, match=r"films.txt ends in neither .csv, .tsv, .tab.*give it in data.delimiter"):
        csv(path=path)


def test_quotes_a_bom_line_breaks_blank_lines_and_letters_of_every_kind(tmp_path):
    rows = [
        ('he said "no", twice', "neg"),
        ("first line\nsecond line", "pos"),
        ("schön – 良い 🎬", "pos"),
        ("   ok ", " neg "),
        *SENTENCES,
    ]
    path = table(tmp_path / "a.csv", rows, encoding="utf-8-sig")
    with (tmp_path / "a.csv").open("a", encoding="utf-8") as file:
        file.write("\r\n\r\nlast one,pos\r\n")
    found = by_id(csv(path=path))
    assert found["row-2"] == ('he said "no", twice', "neg")
    assert found["row-3"] == ("first line\nsecond line", "pos")
    assert found["row-5"] == ("schön – 良い 🎬", "pos")  # the row before it takes two lines
    assert found["row-6"] == ("   ok ", "neg")  # labels are stripped, texts are not
    assert found["row-29"] == ("last one", "pos")


def test_rows_that_cannot_be_used_are_named_with_their_line(tmp_path):
    path = tmp_path / "a.csv"
    lines = [b"text,label", *(f'"{text}",{label}'.encode() for text, label in SENTENCES)]
    lines += [b"three,fields,here", b"one field", b",pos", b"  ,neg", b"no label,", b"caf\xe9,pos", b"nul\0,neg"]
    lines += [b'"quoted" badly,pos', b"fine again,pos"]
    path.write_bytes(b"\n".join(lines) + b"\n")
    source = csv(path=str(path))
    assert bad(source) == {
        "row-22": "3 fields instead of 2",
        "row-23": "1 fields instead of 2",
        "row-24": "the text is empty",
        "row-25": "the text is empty",
        "row-26": "the label is empty",
        "row-27": "the text is not UTF-8",
        "row-28": "the text holds a NUL byte",
        "row-29": "',' expected after '\"'",
    }
    assert by_id(source)["row-30"] == ("fine again", "pos")
    assert len(by_id(source)) == 21


def test_a_text_longer_than_the_csv_modules_limit(tmp_path):
    limit = standard.field_size_limit()
    long = "word " * 40_000
    assert len(long) > limit
    found = by_id(csv(path=table(tmp_path / "a.csv", [(long, "pos"), *SENTENCES])))
    assert found["row-2"] == (long, "pos")
    assert standard.field_size_limit() == limit


def test_quotation_marks_as_ordinary_characters(tmp_path):
    path = tmp_path / "a.tsv"
    rows = [('"Unclosed quote', "neg"), ('5" disk', "pos"), *SENTENCES]
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    # Read with quotes, one mark would swallow every following row.
    with pytest.raises(ToolkitError, match=r"a quotation mark opens on line 2 and is not closed .*data.quotes: false"):
        csv(path=str(path))
    found = by_id(csv(path=str(path), quotes=False))
    assert found["row-2"] == ('"Unclosed quote', "neg")
    assert len(found) == 22


def test_files_of_their_own_for_validation_and_test(tmp_path):
    extra = table(tmp_path / "v.tsv", [("so so", "pos"), ("", "neg")], delimiter="\t")
    source = csv(path=table(tmp_path / "a.csv"), validation_path=extra)
    assert list(source.splits["validation"].ids) == ["validation-row-2"]
    assert source.splits["validation"].bad[0].id == "validation-row-3"
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 16, "validation": 1, "test": 4}
    both = csv(path=table(tmp_path / "a.csv"), validation_path=extra, test_path=extra)
    assert len(both.splits["train"]) == 20
    assert list(both.splits["test"].ids) == ["test-row-2"]
    with pytest.raises(ToolkitError, match="validation has no effect beside validation_path: remove one of the two"):
        csv(path=table(tmp_path / "a.csv"), validation_path=extra, validation=0.3)
    with pytest.raises(ToolkitError, match="data.split_seed has no effect, since csv .* has all splits already"):
        csv(path=table(tmp_path / "a.csv"), validation_path=extra, test_path=extra, split_seed=1)
    with pytest.raises(
        ToolkitError, match=r"w.csv, test-row-2: the label 'posi' \(did you mean 'pos'\?\) does not occur"
    ):
        csv(path=table(tmp_path / "a.csv"), test_path=table(tmp_path / "w.csv", [("x", "posi")]))


def test_the_split_follows_the_line_of_a_row(tmp_path):
    source = csv(path=table(tmp_path / "a.csv"))
    again = csv(path=table(tmp_path / "b.csv"))
    assert {name: part.ids for name, part in source.splits.items()} == {name: p.ids for name, p in again.splits.items()}
    assert csv(path=table(tmp_path / "a.csv"), split_seed=3).splits["test"].ids != source.splits["test"].ids


def test_what_is_wrong_is_said_in_one_sentence(tmp_path):
    path = table(tmp_path / "films.csv")

    def refused(message, /, **arguments):
        with pytest.raises(ToolkitError, match=message) as caught:
            csv(**{"path": path, **arguments})
        assert "\n" not in str(caught.value)

    refused(r"data.path: there is no file .*film.csv \(did you mean 'films.csv'\?\)", path=str(tmp_path / "film.csv"))
    refused("is a folder, not a file", path=str(tmp_path))
    refused(
        r"data.text: .* has no column 'texts' \(did you mean 'text'\?\); its header, .* has 'text', 'label'",
        text="texts",
    )
    refused(r"separated by ';', has 'text,label'", delimiter=";")
    refused("data.label: without a header columns have numbers", header=False, text="1")
    refused("data.label: .* has no column 3, its first row has 2 fields", header=False, text="1", label="3")
    refused("data.delimiter: delimiter is '||'".replace("|", r"\|"), delimiter="||")
    refused("text and label are both the column 'text'", label="text")
    refused("leave nothing to train with", validation=0.5, test=0.6)
    twice = table(tmp_path / "twice.csv", header=("text", "text"))
    refused("has 2 columns 'text'", path=twice)
    refused("only the class 'pos'", path=table(tmp_path / "one.csv", [(f"t{i}", "pos") for i in range(9)]))
    refused("holds no row that can be used:", path=table(tmp_path / "none.csv", []))
    refused(r"no row that can be used \(row-2: the text is empty\)", path=table(tmp_path / "bad.csv", [("", "a")]))
    refused(r"at least 3 examples.*'neg' \(1\)", path=table(tmp_path / "few.csv", [*[("a", "pos")] * 5, ("b", "neg")]))
    (tmp_path / "empty.csv").write_bytes(b"")
    refused("holds no row that can be used", path=str(tmp_path / "empty.csv"))
    table(tmp_path / "wide.csv", encoding="utf-16")
    refused("is UTF-16: save it as UTF-8", path=str(tmp_path / "wide.csv"))


def test_a_table_that_must_not_be_read_is_told(tmp_path, monkeypatch):
    path = table(tmp_path / "films.csv")
    opened = Path.open

    def forbidden(self, *arguments, **options):  # root may read everything
        if self.name == "films.csv":
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(ToolkitError, match=r"films.csv cannot be read \(Permission denied\): allow it"):
        csv(path=path)


def test_any_bytes_give_a_source_or_a_clear_sentence(tmp_path):
    """Rows damaged at random: never another exception, never a lost row without a word."""
    rng = random.Random(0)
    table(tmp_path / "a.csv")
    whole = (tmp_path / "a.csv").read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(len(damaged))] = rng.choice(b'"\n\r,\0\xff\xc3 x')
        (tmp_path / "b.csv").write_bytes(damaged)
        try:
            source = csv(path=str(tmp_path / "b.csv"))
        except ToolkitError as error:
            assert "\n" not in str(error)
            continue
        assert len(by_id(source)) + len(bad(source)) >= 10
