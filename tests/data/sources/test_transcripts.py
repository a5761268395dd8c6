"""Sounds with a table of transcripts, made here: LJSpeech's form, others, and rows that cannot be used."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from toolkit.data.load import load
from toolkit.data.sources.transcripts import transcripts
from toolkit.errors import ToolkitError

SAID = {f"clips/{i:02d}.wav": f"Sentence number {i}, please." for i in range(20)}
FEW = {name: SAID[name] for name in list(SAID)[:6]}


def sound(path: Path, level: int = 0, rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(800, level, np.int16), rate)


def corpus(root: Path, said=SAID, lines=None, name="table.csv") -> str:
    """The sounds, and a CSV beside them with a row for each and then `lines`."""
    for i, file in enumerate(said):
        sound(root / file, i)
    rows = ["file,text", *(f'{file},"{text}"' for file, text in said.items()), *(lines or [])]
    (root / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(root / name)


def by_id(source):
    return {
        id: (value, text)
        for part in source.splits.values()
        for id, value, text in zip(part.ids, part.values, part.labels, strict=True)
    }


def bad(source):
    return {row.id: row.reason for part in source.splits.values() for row in part.bad}


def test_a_table_beside_its_sounds(tmp_path):
    source = transcripts(path=corpus(tmp_path))
    assert (source.kind, source.task, source.class_names) == ("audio", "transcription", ())
    assert (source.sample_rate, source.origin) == (None, f"transcripts {tmp_path / 'table.csv'}")
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 14, "validation": 2, "test": 4}
    assert by_id(source) == {name: (tmp_path / name, text) for name, text in SAID.items()}
    assert not bad(source)


def test_ljspeech_as_it_is_downloaded(tmp_path):
    root = tmp_path / "LJSpeech-1.1"
    rows = []
    for i in range(10):
        sound(root / "wavs" / f"LJ001-{i:04d}.wav", i, 22_050)
        said = f'in being "comparatively" modern ({i} B.C.)', f'in being "comparatively" modern {i} before Christ'
        rows.append("|".join((f"LJ001-{i:04d}", *said)))
    (root / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    form = {"header": False, "delimiter": "|", "quotes": False, "suffix": ".wav", "file": "1", "text": "3"}
    arguments = {"path": str(root / "metadata.csv"), "folder": str(root / "wavs"), **form}
    found = by_id(transcripts(**arguments))
    assert found == {
        f"LJ001-{i:04d}.wav": (root / "wavs" / f"LJ001-{i:04d}.wav", rows[i].split("|")[2]) for i in range(10)
    }
    data = load("transcripts", arguments, transcript_units="words")
    assert data.spec.sample_rate == 22_050
    assert {"before", "christ", "comparatively"} <= set(data.spec.vocabulary)
    assert data.splits["test"].texts[0].startswith("in being comparatively modern")
    row = data.splits["test"].table.row(0)
    assert set(row.tolist()) == {int(data.splits["test"].ids[0][6:10])}  # the sound of this row


def test_common_voice_has_tabs_and_a_folder_of_clips(tmp_path):
    for name in FEW:
        sound(tmp_path / name)
    rows = ["client_id\tpath\tsentence", *(f"x\t{Path(name).name}\t{text}" for name, text in FEW.items())]
    (tmp_path / "train.tsv").write_text("\n".join(rows) + "\n")
    arguments = {"path": str(tmp_path / "train.tsv"), "folder": str(tmp_path / "clips")}
    found = by_id(transcripts(**arguments, file="path", text="sentence", quotes=False))
    assert {f"clips/{id}": text for id, (_, text) in found.items()} == FEW


def test_rows_that_cannot_be_used_are_named(tmp_path):
    root = tmp_path / "corpus"
    outside = tmp_path / "secret.wav"
    sound(outside)
    for link, target in (("out.wav", outside), ("gone.wav", root / "nothing.wav"), ("loop.wav", root / "loop.wav")):
        root.mkdir(exist_ok=True)
        (root / link).symlink_to(target)
    (root / "elsewhere").symlink_to(tmp_path)
    (tmp_path / "back").symlink_to(root)
    (root / "folder.wav").mkdir()
    os.mkfifo(root / "pipe.wav")
    sound(root / "real.wav")
    (root / "inside.wav").symlink_to(root / "real.wav")
    lines = [
        "missing.wav,said",
        "../secret.wav,said",
        f"{outside},said",
        "out.wav,said",
        "elsewhere/secret.wav,said",
        "gone.wav,said",
        "loop.wav,said",
        "folder.wav,said",
        "pipe.wav,said",
        f"{'n' * 300}.wav,said",
        "silent.wav,",
        ",said",
        "one,two,three",
        "./clips/../clips/00.wav,said again",
        "inside.wav,a link within is fine",
        "../back/real.wav,out and in again",
    ]
    source = transcripts(path=corpus(root, FEW, lines))
    out = f"lies outside of {root}"
    assert bad(source) == {
        "row-8": f"there is no file 'missing.wav' in {root}",
        "row-9": f"the file 'secret.wav' {out}",
        "row-10": f"the file 'secret.wav' {out}",
        "row-11": f"the file 'out.wav' {out}",
        "row-12": f"the file 'secret.wav' {out}",
        "row-13": "the file 'gone.wav': a symbolic link to nothing",
        "row-14": "the file 'loop.wav': a symbolic link to nothing",
        "row-15": "the file 'folder.wav': no regular file",
        "row-16": "the file 'pipe.wav': no regular file",
        "row-17": f"the file '{'n' * 300}.wav': File name too long",
        "row-18": "the transcript is empty",
        "row-19": "the file name is empty",
        "row-20": "3 fields instead of 2",
        "row-21": "the file '00.wav' has a row already, row-2",
        "row-23": f"the file 'real.wav' {out}",
    }
    assert by_id(source).keys() == FEW.keys() | {"inside.wav"}


def test_bytes_that_are_not_utf_8_are_bad(tmp_path):
    path = Path(corpus(tmp_path, FEW))
    with path.open("ab") as file:
        file.write(b"clips/05.wav,caf\xe9\ncaf\xe9.wav,said\n")
    assert bad(transcripts(path=str(path))) == {
        "row-8": "the transcript is not UTF-8",
        "row-9": "the file name is not UTF-8",
    }


def test_sounds_that_cannot_be_decoded_count_with_the_rows(tmp_path):
    path = corpus(tmp_path, lines=["missing.wav,said", "broken.wav,said"])
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    data = load("transcripts", {"path": path}, max_bad_fraction=0.3)  # one of four in test
    assert {bad.id: bad.reason for _, bad in data.bad} == {
        "row-22": f"there is no file 'missing.wav' in {tmp_path}",
        "broken.wav": "not a sound in a known format (WAV, FLAC, OGG)",
    }


def test_tables_of_their_own_for_validation_and_test(tmp_path):
    train = corpus(tmp_path, FEW)
    more = corpus(tmp_path, {"more/1.wav": "one", "more/2.wav": "two"}, ["clips/00.wav,said in train"], "more.csv")
    source = transcripts(path=train, test_path=more)
    assert list(source.splits["test"].ids) == ["more/1.wav", "more/2.wav"]
    # A sound of train cannot be a test.
    assert bad(source) == {"test-row-4": "the file '00.wav' has a row already, row-2"}
    assert {name: len(part) for name, part in source.splits.items()} == {"train": 5, "validation": 1, "test": 2}
    third = corpus(tmp_path, {"third/1.wav": "x"}, name="third.csv")
    both = transcripts(path=train, test_path=more, validation_path=third)
    assert len(both.splits["train"]) == 6 and list(both.splits["validation"].ids) == ["third/1.wav"]
    with pytest.raises(ToolkitError, match="data.split_seed has no effect"):
        transcripts(path=train, test_path=more, validation_path=third, split_seed=1)


def test_ids_tell_files_of_two_folders_apart(tmp_path):
    train = corpus(tmp_path / "train", FEW)
    test = corpus(tmp_path / "test", FEW)
    source = transcripts(path=train, test_path=test)
    assert set(source.splits["test"].ids) == {f"test/{name}" for name in FEW}
    assert {id for name in ("train", "validation") for id in source.splits[name].ids} == {f"train/{n}" for n in FEW}
    assert bad(source) == {}


def test_the_split_follows_the_name_of_the_file(tmp_path):
    source = transcripts(path=corpus(tmp_path / "a"))
    turned = transcripts(path=corpus(tmp_path / "b", dict(reversed(SAID.items()))))
    assert {n: sorted(p.ids) for n, p in source.splits.items()} == {n: sorted(p.ids) for n, p in turned.splits.items()}
    assert transcripts(path=corpus(tmp_path / "a"), split_seed=1).splits["test"].ids != source.splits["test"].ids


def test_what_is_wrong_is_said_in_one_sentence(tmp_path):
    path = corpus(tmp_path, FEW)

    def refused(message, /, **arguments):
        with pytest.raises(ToolkitError, match=message) as caught:
            transcripts(**{"path": path, **arguments})
        assert "\n" not in str(caught.value)

    refused(r"data.path: there is no file .*tabel.csv \(did you mean 'table.csv'\?\)", path=str(tmp_path / "tabel.csv"))
    refused(r"data.folder: there is no folder .*clip \(did you mean 'clips'\?\)", folder=str(tmp_path / "clip"))
    refused("data.folder: .* is a file, not a folder", folder=path)
    refused(r"data.text: .* has no column 'txt' \(did you mean 'text'\?\)", text="txt")
    refused("data.file: without a header columns have numbers", header=False, text="2")
    refused("data.text: file and text are both the column 'text'", file="text")
    refused("data.suffix: suffix is 'wav': write .* with its dot", suffix="wav")
    refused("data.delimiter: delimiter is '::'", delimiter="::")
    refused("data.validation: validation is 0", validation=0.0)
    refused(
        r"names no sound that can be used \(row-2: there is no file '00.wav.wav' in .*\): correct data.folder, "
        r"data.file or data.suffix",
        suffix=".wav",
    )
    refused(r"can be used \(test-row-2: the file '00.wav' has a row already, row-2\): give another", test_path=path)
    (tmp_path / "gaps.csv").write_text("file,text\nnowhere.wav,\ngone.wav,one\n", encoding="utf-8")
    refused(r"\(row-3: there is no file 'gone.wav' in .*\): correct", path=str(tmp_path / "gaps.csv"))
    refused("data.path: x.* cannot be looked at \\(File name too long\\): correct the path", path="x" * 300)
    few = corpus(tmp_path / "few", {"1.wav": "one", "2.wav": "two"})
    refused("holds 2 examples that can be used, but needs at least 3, one for each of train, test, valid", path=few)
