"""Files that are made to harm whoever opens them: kept within limits, left out with a reason, never run or followed."""

import os
import pickle
import re
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.faults.hostile import child, pictures, sounds
from toolkit.data import load as loading
from toolkit.data import reading, text
from toolkit.data.contents import read_regular
from toolkit.data.examples import Examples
from toolkit.data.files import read_files
from toolkit.data.image import Unreadable
from toolkit.data.load import TooManyBadExamples, load
from toolkit.data.sources import csv as csv_source
from toolkit.data.sources.folder import folder
from toolkit.data.spec import DataSpec
from toolkit.errors import ToolkitError

pytestmark = pytest.mark.long

GIGABYTE = 1 << 30
IMPORTS = """
    import pathlib
    import numpy as np
    import soundfile, soxr, PIL.Image, PIL.ImageOps
    import toolkit.data.sources.csv, toolkit.data.sources.folder, toolkit.data.sources.synthetic
    from toolkit.data import reading
    from toolkit.data.examples import Examples
    from toolkit.data.load import load
    load("synthetic_images", {"classes": 2, "examples": 20, "height": 8, "width": 8})  # loads what it loads late
    load("synthetic_text", {"classes": 2, "examples": 20})
"""
NOBODY_WAITS = pytest.mark.timeout(120)  # a reader that waits for a pipe would wait for ever


def good_files(root: Path, suffix: str = ".png", count: int = 10) -> Path:
    """A folder of two classes that can be read."""
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(count):
            form = {".png": "PNG", ".wav": "WAV"}[suffix]
            make = (
                pictures.encoded(pictures.picture(i), form)
                if suffix == ".png"
                else sounds.encoded(sounds.tone(i), form)
            )
            (root / name / f"{i:03d}{suffix}").write_bytes(make)
    return root


def verdicts(root: Path, options: str, **limits) -> child.Answer:
    """What `load` makes of a folder, in a process of its own."""
    return child.run(
        IMPORTS,
        f"""
        data = load("folder", {{"path": {str(root)!r}}}, max_bad_fraction=1.0, {options})
        answer["bad"] = {{bad.id: bad.reason for _, bad in data.bad}}
        answer["good"] = sorted(id for split in data.splits.values() for id in split.ids)
        """,
        **limits,
    )


@pytest.mark.parametrize(
    ("corpus", "suffix", "options"),
    [(pictures, ".png", "image_size=(16, 16)"), (sounds, ".wav", "sample_rate=8000")],
    ids=["pictures", "sounds"],
)
def test_every_hostile_file_is_read_within_limits_or_left_out_with_its_reason(tmp_path, corpus, suffix, options):
    root = good_files(tmp_path / "data", suffix)
    hostile = corpus.hostile()
    for i, (name, (content, _)) in enumerate(hostile.items()):
        (root / ("cat", "dog")[i % 2] / name).write_bytes(content)
    answer = verdicts(root, options, timeout=120)
    bad = {Path(name).name: reason for name, reason in answer.found["bad"].items()}
    good = {Path(name).name for name in answer.found["good"]}
    wrong = {}
    for name, (_, expected) in hostile.items():
        as_expected = re.search(expected, bad.get(name, "")) if expected else name in good
        if not as_expected:
            wrong[name] = bad.get(name, "was read")
    assert not wrong, f"{len(hostile) - len(wrong)} / {len(hostile)} passed"
    assert good >= {f"{i:03d}{suffix}" for i in range(10)}
    assert not any(re.search(r"\b0x[0-9a-f]{4}|\n", reason) for reason in bad.values())
    assert answer.peak < 1.5 * GIGABYTE
    assert answer.seconds < 60


@pytest.mark.parametrize("suffix", [".png", ".wav"])
def test_memory_does_not_grow_with_the_number_of_cores(tmp_path, suffix):
    """Sixteen threads, each with a file just below the limit: alone one takes half a gigabyte."""
    root, options = tmp_path / "data", "image_size=(8, 8)" if suffix == ".png" else "sample_rate=8000"
    content = (
        pictures.png(8000, 8000, pictures.zeros(184))
        if suffix == ".png"
        else sounds.wav(bytes(60_000_000), rate=120_000)
    )
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(6):
            (root / name / f"{i}{suffix}").write_bytes(content)
    answer = child.run(
        IMPORTS,
        f"""
        os.sched_getaffinity = lambda pid: range(16)
        data = load("folder", {{"path": {str(root)!r}}}, {options})
        answer["read"] = sum(len(split) for split in data.splits.values())
        """,
        timeout=300,
        address_space=24 * GIGABYTE,  # should the budget be gone, the test is to fail, not the machine
    )
    assert answer.found["read"] == 12
    assert answer.peak < 1.8 * GIGABYTE


def test_sounds_that_grow_in_decoding_go_to_disk(tmp_path, monkeypatch):
    """The sizes of the files say 40 kB, the samples take 19 MB."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            (tmp_path / "data" / name / f"{i}.flac").write_bytes(sounds.silence(200 + i, 8000))
    told = []
    monkeypatch.setattr(loading, "available_memory", lambda: 40_000_000)  # a quarter of which a table may take
    data = load("folder", {"path": str(tmp_path / "data")}, report=told.append)
    assert any("goes to disk" in line for line in told)
    assert isinstance(data.splits["train"].table.flat, np.memmap)
    assert sum(len(split) for split in data.splits.values()) == 8
    with pytest.raises(
        ToolkitError, match=r"does not fit into the [\d,]+ bytes of memory that are free: set data.cache"
    ):
        monkeypatch.setattr(loading, "available_memory", lambda: 10_000_000)
        load("folder", {"path": str(tmp_path / "data")}, cache="memory")


# Leaving the folder --------------------------------------------------------------------------------------------------


def bad_of(root: Path) -> dict[str, str]:
    return {bad.id: bad.reason for bad in folder(path=str(root)).splits["train"].bad}


@NOBODY_WAITS
def test_links_pipes_and_devices_in_a_folder_are_named_and_not_opened(tmp_path):
    root = good_files(tmp_path / "data")
    outside = tmp_path / "outside"
    (outside / "more").mkdir(parents=True)
    (outside / "secret.png").write_bytes(pictures.encoded(pictures.picture(99), "PNG"))
    (root / "cat" / "out.png").symlink_to(outside / "secret.png")
    (root / "cat" / "relative.png").symlink_to("../../outside/secret.png")
    (root / "cat" / "by-two.png").symlink_to(root / "cat" / "out.png")
    (root / "cat" / "passwd.png").symlink_to("/etc/passwd")
    (root / "cat" / "zero.png").symlink_to("/dev/zero")
    (root / "cat" / "loop.png").symlink_to(root / "cat" / "loop.png")
    (root / "cat" / "itself").symlink_to(root / "cat")
    (root / "dog" / "more").symlink_to(outside / "more")
    (root / "bird").symlink_to(outside)
    os.mkfifo(root / "dog" / "pipe.png")
    (root / "dog" / "twice.png").symlink_to(root / "dog" / "003.png")  # stays within: allowed
    expected = {
        **dict.fromkeys(
            ["cat/out.png", "cat/relative.png", "cat/by-two.png", "cat/passwd.png", "cat/zero.png", "dog/more"],
            f"a symbolic link out of {root}",
        ),
        "cat/loop.png": "a symbolic link to nothing",
        "cat/itself": "a symbolic link to a folder, which is not followed",
        "bird": "lies beside the folders of classes, not in one",
        "dog/pipe.png": "no regular file",
    }
    assert bad_of(root) == expected
    data = load("folder", {"path": str(root)}, max_bad_fraction=0.5)
    assert {bad.id: bad.reason for _, bad in data.bad} == expected
    ids = {id for split in data.splits.values() for id in split.ids}
    assert len(ids) == 21
    assert "dog/twice.png" in ids
    # The same for files to predict, where a folder is given.
    spec = DataSpec(kind="image", shape=(8, 8, 3), dtype="uint8", class_names=("cat", "dog"))
    read = read_files(spec, [root])
    assert {str(Path(bad.id).relative_to(root)) for bad in read.bad} == {
        name for name in expected if name.endswith(".png")
    }
    assert len(read) == 21


@NOBODY_WAITS
def test_the_folder_of_a_split_may_not_be_a_link(tmp_path):
    outside = good_files(tmp_path / "outside")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(outside)
    with pytest.raises(ToolkitError, match=r"data/train is a symbolic link, and links to folders are not followed"):
        folder(path=str(tmp_path / "data"))
    (tmp_path / "by-name").symlink_to(outside)
    assert folder(path=str(tmp_path / "by-name")).origin == f"folder {outside}"  # who gives the path, means it


@NOBODY_WAITS
def test_what_takes_a_files_place_after_it_was_listed_is_not_waited_for(tmp_path):
    root = good_files(tmp_path / "data")
    made = folder(path=str(root)).splits["train"]
    victim, other = made.values[0], made.values[1]
    victim.unlink()
    os.mkfifo(victim)
    other.unlink()
    other.symlink_to("/dev/zero")
    made.values[2].write_bytes(b"")
    made.values[3].unlink()
    decoding = reading.image_decoding([made], (8, 8), 3)
    read = reading.read_table("train", made, decoding, to_disk=False, report=lambda line: None)
    assert [(bad.id, bad.reason) for bad in read.bad] == [
        (made.ids[0], "no regular file"),
        (made.ids[1], "no regular file"),
        (made.ids[2], "the file is empty"),
        (made.ids[3], "No such file or directory"),
    ]


@NOBODY_WAITS
def test_a_pipe_that_comes_between_looking_and_opening_is_not_waited_for(tmp_path, monkeypatch):
    file = tmp_path / "x.png"
    file.write_bytes(b"x" * 10)
    before = file.stat()
    file.unlink()
    os.mkfifo(file)
    monkeypatch.setattr(Path, "stat", lambda self: before)
    with pytest.raises(Unreadable, match="no regular file"):
        read_regular(file, 100)


@NOBODY_WAITS
def test_files_without_a_size_or_beyond_the_limit_are_not_read_whole(tmp_path):
    sparse = tmp_path / "sparse.png"
    with sparse.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Unreadable, match="1,099,511,627,776 bytes, at most 512,000,000 are read"):
        read_regular(sparse, reading.MAX_BYTES)
    if Path("/proc/self/maps").exists():  # no size by its entry, content when read
        with pytest.raises(Unreadable, match="empty"):
            read_regular(Path("/proc/self/maps"), 100)


@pytest.mark.parametrize("key", ["path", "validation_path"])
@NOBODY_WAITS
def test_a_pipe_or_device_as_table_is_refused(tmp_path, key):
    table = tmp_path / "rows.csv"
    table.write_text("text,label\n" + "".join(f"word {i},{'ab'[i % 2]}\n" for i in range(20)))
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    for name in ("pipe.csv", "zero.csv"):
        arguments = {"path": str(table), key: str(tmp_path / name)}
        with pytest.raises(ToolkitError, match=rf"data.{key}: .*{name} is no regular file: write what it gives"):
            csv_source.csv(**arguments)
    spec = DataSpec(kind="image", shape=(8, 8, 3), dtype="uint8", class_names=("a", "b"))
    with pytest.raises(ToolkitError, match="pipe.csv is no regular file"):
        read_files(spec, [tmp_path / "pipe.csv"])


def test_nothing_is_opened_outside_of_the_folder_and_nothing_is_run(tmp_path):
    """An audit hook sees every file that Python opens, every process and every connection."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(pictures.encoded(pictures.picture(7), "PNG"))
    root = good_files(tmp_path / "data")
    (root / "cat" / "out.png").symlink_to(outside / "secret.png")
    (root / "cat" / "$(touch ran).png").write_bytes(b"$(touch ran)")
    (root / "cat" / "pickle.png").write_bytes(pickle.dumps(os.getcwd))
    texts = [
        "../../etc/passwd",
        "/etc/passwd",
        f"file://{outside}/secret.png",
        str(outside / "secret.png"),
        "=cmd|' /C calc'!A0",
        "$(touch ran)",
        "`touch ran`",
        "__import__('os').system('touch ran')",
        "{{7*7}}",
        "!!python/object/apply:os.system [touch ran]",
        "http://127.0.0.1:9/x",
    ]
    rows = [f'"{words}",{"ab"[i % 2]}' for i, words in enumerate(texts * 3)]
    (tmp_path / "rows.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    answer = child.run(
        IMPORTS,
        f"""
        data = load("folder", {{"path": {str(root)!r}}}, max_bad_fraction=0.5)
        answer["pictures"] = sum(len(split) for split in data.splits.values())
        data = load("csv", {{"path": {str(tmp_path / "rows.csv")!r}, "text": "path"}})
        answer["texts"] = sum(len(split) for split in data.splits.values())
        """,
        timeout=120,
        watched=True,
        folder=tmp_path,
    )
    assert (answer.found["pictures"], answer.found["texts"]) == (20, len(rows))
    assert answer.found["events"] == []
    mine = [Path(name) for name in answer.found["opened"] if Path(name).is_relative_to(tmp_path)]
    assert {path.relative_to(tmp_path).parts[0] for path in mine} == {"data", "rows.csv"}
    assert not any(name.startswith(("/etc/passwd", str(outside))) for name in answer.found["opened"])
    assert not (tmp_path / "ran").exists()


def test_a_folder_deeper_than_python_can_call_is_walked_or_refused(tmp_path):
    root = good_files(tmp_path / "data")
    (root / "cat" / "/".join(["d"] * 900)).mkdir(parents=True)
    (root / "cat" / "/".join(["d"] * 900) / "x.png").write_bytes(pictures.encoded(pictures.picture(), "PNG"))
    assert sum(len(part) for part in folder(path=str(root)).splits.values()) == 21
    here = os.open(root / "cat" / "/".join(["d"] * 900), os.O_RDONLY)
    try:
        for _ in range(1500):  # beyond the length that a path may have
            os.mkdir("d", dir_fd=here)
            inner = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
        with pytest.raises(ToolkitError, match=r"data.path: .* cannot be read \(File name too long\)") as caught:
            folder(path=str(root))
        assert len(str(caught.value)) < 500
    finally:
        os.close(here)
        os.system(f"rm -rf '{root}'")  # shutil.rmtree cannot, pytest's clean-up neither


def test_names_that_act_on_a_terminal_are_escaped(tmp_path):
    root = good_files(tmp_path / "data")
    (root / "cat" / "\x1b[2J\x1b]0;owned\x07.png").write_bytes(b"x")
    (root / "cat" / "two\nlines.png").write_bytes(b"x")
    with pytest.raises(TooManyBadExamples) as caught:
        load("folder", {"path": str(root)}, max_bad_fraction=0.0)
    assert str(caught.value).isprintable()
    assert {bad.id for _, bad in caught.value.bad} >= {r"cat/two\nlines.png"} or len(caught.value.bad) == 1
    data = load("folder", {"path": str(root)}, max_bad_fraction=1.0)
    assert {bad.id for _, bad in data.bad} == {r"cat/\x1b[2J\x1b]0;owned\x07.png", r"cat/two\nlines.png"}


# Texts and tables ----------------------------------------------------------------------------------------------------


@NOBODY_WAITS
def test_combining_marks_do_not_take_hours(tmp_path):
    """Half a million of them: bringing these into order takes time with the square of their number."""
    piled = "a" + "\u0301\u0327" * 240_000
    assert len(piled.encode()) <= text.MAX_BYTES
    values = ["good film", piled, "z\u0351\u0327" * 200, "e\u0301t\u0301e"]
    examples = Examples(values, np.zeros(4, np.int64), ["a", "b", "c", "d"])
    read = reading.read_texts("x", examples, lambda given: text.learn(given, 100, 50)[1], lambda line: None)
    assert [(bad.id, bad.reason) for bad in read.bad] == [("b", "more than 256 combining marks on one character")]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda file: file.truncate(3 << 30), "3,221,225,472 bytes, at most 2,000,000,000 are read"),
        (lambda file: file.write(b"x" * 40_000_000), "line 2 has 16,000,000 characters or more"),
        (lambda file: file.truncate(60_000_000), "line 2 has 16,000,000 characters or more"),
        (lambda file: file.write(b'"' + b"word,a\n" * 5_000_000), "a quotation mark opens on line 2"),
        (lambda file: file.write(b'a,"b"c\n' * 10), "row-2: "),
        (lambda file: file.write(b"," * 1_000_000 + b"\n"), "1000001 fields instead of 2"),
    ],
    ids=["3 GB", "one line", "zeros", "open quotation", "broken quotations", "million fields"],
)
@NOBODY_WAITS
def test_a_table_that_is_none_stops_with_one_sentence_and_little_memory(tmp_path, make, match):
    with (tmp_path / "rows.csv").open("wb") as file:
        file.write(b"text,label\n")
        make(file)
    answer = child.run(
        """
        from toolkit.data.sources.csv import csv
        from toolkit.errors import ToolkitError
        """,
        f"""
        try:
            csv(path={str(tmp_path / "rows.csv")!r})
        except ToolkitError as error:
            answer["error"] = str(error)
        """,
        timeout=60,
    )
    assert re.search(match, answer.found["error"])
    assert "\n" not in answer.found["error"]
    assert answer.peak < 300_000_000


def test_a_text_file_beyond_the_limit_is_not_read(tmp_path):
    spec = DataSpec(
        kind="text",
        shape=(None,),
        dtype="int32",
        class_names=("a", "b"),
        vocabulary=("", "[unk]", "good"),
        lengths=(4,),
    )
    with (tmp_path / "large.txt").open("wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "good.txt").write_text("good")
    read = read_files(spec, [tmp_path])
    assert [Path(id).name for id in read.ids] == ["good.txt"]
    assert [bad.reason for bad in read.bad] == ["1,099,511,627,776 bytes, at most 1,000,000 are read"]


def test_a_budget_lets_in_what_fits_and_what_needs_more_than_there_is_alone():
    from toolkit.data.budget import Budget

    budget = Budget(100)

    def start(amount):
        entered = threading.Event()

        def work():
            with budget.take(amount):
                entered.set()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return entered

    with budget.take(60):
        assert start(40).wait(10)
        waiting = [start(41), start(500)]
        assert not any(entered.wait(0.2) for entered in waiting)
    assert all(entered.wait(10) for entered in waiting)
    with budget.take(500):
        assert not start(1).wait(0.2)
