"""Part of the data is damaged: the run goes on with the rest, names what it left out, and stops above the budget.

Damage comes from seeds; each test says "passed / attempted" where it counts.
"""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.faults.hostile import child, damage, pictures, sounds
from toolkit import workflow
from toolkit.config import load as load_config
from toolkit.data import audio, image
from toolkit.data.load import TooManyBadExamples, load
from toolkit.errors import RunFailed, ToolkitError

pytestmark = pytest.mark.long

SEED = 20
COUNT = 1000
SHARES = (0.001, 0.01, 0.1, 1.0)
ROW_DAMAGE = {
    "not UTF-8": lambda text, label: text.encode()[:3] + b"\xff\xfe," + label.encode(),
    "a field too many": lambda text, label: f"{text},{label},{label}".encode(),
    "a field too few": lambda text, label: text.encode(),
    "no text": lambda text, label: f" ,{label}".encode(),
    "no label": lambda text, label: f"{text},".encode(),
    "NUL": lambda text, label: text.encode() + b"\0," + label.encode(),
}


class Corpus:
    """Examples of two classes on disk: `damage(names, seed)` spoils some, `load` is what a run does with them."""

    def __init__(self, root, count=COUNT):
        self.root, self.count = root, count
        self.names = [self.name(i) for i in range(count)]

    def chosen(self, share, seed):
        """Names of the share that is to be damaged."""
        rng = np.random.default_rng(seed)
        return sorted(rng.choice(self.names, max(1, round(share * self.count)), replace=False).tolist())

    def load(self, max_bad_fraction):
        return load(self.source, self.arguments, max_bad_fraction=max_bad_fraction)


class Files(Corpus):
    """A folder per class."""

    source = "folder"

    def name(self, i):
        return f"{'ab'[i % 2]}/{i:04d}{self.suffix}"

    def write(self):
        for i, name in enumerate(self.names):
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.content(i))
        self.arguments = {"path": str(self.root)}

    def spoil(self, names, seed):
        rng = np.random.default_rng(seed)
        for name in names:
            path = self.root / name
            spoilt = damage.SURE[str(rng.choice(list(damage.SURE)))](path.read_bytes(), rng)
            path.write_bytes(spoilt)


class Jpegs(Files):
    suffix = ".jpg"

    def content(self, i):
        return pictures.encoded(pictures.picture(i), "JPEG")

    def check(self, table, row, name):
        np.testing.assert_array_equal(table.rows[row], image.decode((self.root / name).read_bytes(), None, 3))


class Wavs(Files):
    suffix = ".wav"

    def content(self, i):
        return sounds.encoded(sounds.tone(i, 0.05), "WAV")

    def check(self, table, row, name):
        np.testing.assert_array_equal(table.row(row), audio.decode((self.root / name).read_bytes(), sounds.RATE))


class Rows(Corpus):
    """A CSV file. The header stands on line 1, so row i on line i + 2."""

    source = "csv"

    def name(self, i):
        return f"row-{i + 2}"

    def write(self):
        self.root.mkdir()
        self.lines = [(f"word{i % 50} number {i}", "ab"[i % 2]) for i in range(self.count)]
        self.arguments = {"path": str(self.root / "rows.csv")}
        self.spoil([], 0)

    def spoil(self, names, seed):
        rng = np.random.default_rng(seed)
        rows = [b"text,label"]
        for name, line in zip(self.names, self.lines, strict=True):
            kind = str(rng.choice(list(ROW_DAMAGE)))
            rows.append(ROW_DAMAGE[kind](*line) if name in names else ",".join(line).encode())
        (self.root / "rows.csv").write_bytes(b"\n".join(rows) + b"\n")

    def check(self, table, row, name):
        assert len(table.row(row)) == 3 + (self.lines[int(name[4:]) - 2][0].startswith("word"))


class Records(Corpus):
    """A dataset of TFDS in one file; names are those that TFDS gives records by their place in it."""

    source = "tfds"

    def name(self, i):
        return f"tiny_records-train.tfrecord-00000-of-00001__{i}"

    def write(self):
        import tensorflow_datasets as tfds

        count = self.count

        class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version("1.0.0")
            name = "tiny_records"
            pkg_dir_path = tfds.core.Path(self.root.parent)

            def _info(self):
                features = {
                    "image": tfds.features.Image(shape=(16, 16, 3)),
                    "label": tfds.features.ClassLabel(num_classes=2),
                }
                return self.dataset_info_from_configs(
                    features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
                )

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples()}

            def _generate_examples(self):
                for i in range(count):
                    yield i, {"image": np.asarray(pictures.picture(i)), "label": i % 2}

        Builder(data_dir=str(self.root)).download_and_prepare()
        (self.file,) = self.root.rglob("*.tfrecord*")
        self.arguments = {
            "name": "tiny_records",
            "data_dir": str(self.root),
            "train": "train[:70%]",
            "validation": "train[70%:80%]",
            "test": "train[80%:]",
        }

    def spoil(self, names, seed):
        rng = np.random.default_rng(seed)
        content = bytearray(self.file.read_bytes())
        places = {int(name.rpartition("__")[2]) for name in names}
        position = number = 0
        while position < len(content):
            length = int.from_bytes(content[position : position + 8], "little")
            if number in places:  # a bit within the record or in its checksum; its length stays whole
                content[position + 12 + int(rng.integers(length + 4))] ^= 1 << int(rng.integers(8))
            position, number = position + 16 + length, number + 1
        self.file.write_bytes(content)

    def check(self, table, row, name):
        assert table.rows[row].shape == (16, 16, 3)


KINDS = {"JPEG": Jpegs, "WAV": Wavs, "CSV rows": Rows, "TFRecord": Records}
LONG = ("WAV", "TFRecord", ".progressive.jpg", ".png", ".gif", ".bmp", ".webp", ".flac", ".ogg")


def some_long(names):
    """All of them, those that `make test` can do without as long tests."""
    return [pytest.param(name) if name in LONG else name for name in names]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A corpus of each kind, undamaged, made when it is asked for."""
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = KINDS[kind](tmp_path_factory.mktemp("whole") / "data")
            made[kind].write()
        return made[kind]

    return get


@pytest.fixture
def corpus(whole, tmp_path):
    """A copy of one kind, to damage."""

    def copy(kind):
        original = whole(kind)
        shutil.copytree(original.root, tmp_path / "data")
        made = KINDS[kind](tmp_path / "data")
        replaced = {key: value.replace(str(original.root), str(made.root)) for key, value in original.arguments.items()}
        made.arguments = replaced
        for extra in ("lines", "file"):
            if hasattr(original, extra):
                setattr(made, extra, getattr(original, extra))
        if kind == "TFRecord":
            (made.file,) = made.root.rglob("*.tfrecord*")
        return made

    return copy


@pytest.mark.parametrize("share", SHARES, ids=lambda share: f"{share:.1%}")
@pytest.mark.parametrize("kind", some_long(KINDS))
def test_the_damaged_are_left_out_and_named_and_the_budget_holds(corpus, kind, share):
    made = corpus(kind)
    names = made.chosen(share, seed=SEED)
    made.spoil(names, seed=SEED)
    if share == 1.0:
        with pytest.raises(ToolkitError) as caught:
            made.load(max_bad_fraction=0.9)
        assert "\n" not in str(caught.value)
        return
    data = made.load(max_bad_fraction=0.5)
    assert sorted(bad.id for _, bad in data.bad) == names, f"seed {SEED}"
    assert all(bad.reason for _, bad in data.bad)
    passed = attempted = 0
    for split in data.splits.values():
        assert len(split) == len(split.table) == len(split.labels)
        for row, (name, label) in enumerate(zip(split.ids, split.labels, strict=True)):
            attempted += 1
            made.check(split.table, row, name)
            passed += name not in names and (kind == "TFRecord" or label == made.names.index(name) % 2)
    assert (passed, attempted) == (COUNT - len(names), COUNT - len(names)), f"seed {SEED}: {passed} / {attempted}"
    bad = {name: sum(split == name for split, _ in data.bad) for name in data.splits}
    fraction = max(bad[name] / (bad[name] + len(split)) for name, split in data.splits.items())
    assert sum(len(split) for split in made.load(max_bad_fraction=fraction).splits.values()) == attempted
    with pytest.raises(
        TooManyBadExamples, match=r"of \d+ examples .* cannot be used, and data.max_bad_fraction"
    ) as over:
        made.load(max_bad_fraction=fraction * 0.99)
    assert "\n" not in str(over.value)
    assert {bad.id for _, bad in over.value.bad} <= set(names)


CONFIGS = {
    "JPEG": ("simple_cnn, filters: [4]", ""),
    "WAV": ("speech_lstm, units: 4, mels: 8", ""),
    "CSV rows": ("text_transformer, width: 8, heads: 2, feed_forward: 8", ""),
    "TFRecord": ("simple_cnn, filters: [4]", ""),
}


def config_for(made, kind, tmp_path, max_bad_fraction):
    data = {"source": made.source, **made.arguments, "batch_size": 16, "max_bad_fraction": max_bad_fraction}
    lines = [f"  {key}: {json.dumps(value)}" for key, value in data.items()]
    path = tmp_path / "run.yaml"
    path.write_text(
        "\n".join(["data:", *lines, f"model: {{name: {CONFIGS[kind][0]}}}", "optimizer: {name: adam}"])
        + f"\ntraining: {{epochs: 1, backend: {os.environ['KERAS_BACKEND']}}}\n"
    )
    return path


def listed(run_dir):
    with (run_dir / "bad_examples.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_trains_on_the_rest_and_lists_the_damaged(corpus, tmp_path, kind):
    made = corpus(kind)
    names = made.chosen(0.1, seed=SEED + 1)
    made.spoil(names, seed=SEED + 1)
    run = workflow.train(load_config(config_for(made, kind, tmp_path, 0.5)), run_dir=tmp_path / "run")
    rows = listed(run)
    assert sorted(row["id"] for row in rows) == names, f"seed {SEED + 1}"
    assert all(row["reason"] and row["split"] for row in rows)
    assert json.loads((run / "record.json").read_text())["bad_examples"] == len(names) == COUNT // 10
    assert f"{len(names)} examples were left out in all" in (run / "log.txt").read_text()
    counts = json.loads((run / "data_spec.json").read_text())["examples"]
    assert sum(counts.values()) == COUNT - len(names)
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        answered = [row["id"] for row in csv.DictReader(file)]
    assert len(answered) == counts["test"]
    assert not set(answered) & set(names)
    with pytest.raises(RunFailed, match=r"All are listed in .*over/bad_examples\.csv"):
        workflow.train(load_config(config_for(made, kind, tmp_path, 0.0)), run_dir=tmp_path / "over")
    assert {path.name for path in (tmp_path / "over").iterdir()} == {"bad_examples.csv"}
    assert {row["id"] for row in listed(tmp_path / "over")} <= set(names)


def test_the_command_stops_above_the_budget_with_one_sentence(corpus, tmp_path):
    made = corpus("JPEG")
    names = made.chosen(0.1, seed=SEED + 2)
    made.spoil(names, seed=SEED + 2)
    config = config_for(made, "JPEG", tmp_path, 0.01)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from toolkit.cli import main; main()",
            "train",
            str(config),
            "--run-dir",
            str(tmp_path / "run"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert "cannot be used, and data.max_bad_fraction allows 1.0%" in done.stderr
    assert {row["id"] for row in listed(tmp_path / "run")} <= set(names)


ENCODERS = {
    ".jpg": lambda i: pictures.encoded(pictures.picture(i, (40, 30)), "JPEG"),
    ".progressive.jpg": lambda i: pictures.encoded(pictures.picture(i, (40, 30)), "JPEG", progressive=True),
    ".png": lambda i: pictures.encoded(pictures.picture(i, (40, 30)), "PNG"),
    ".gif": lambda i: pictures.encoded(pictures.picture(i, (40, 30)), "GIF"),
    ".bmp": lambda i: pictures.encoded(pictures.picture(i, (40, 30)), "BMP"),
    ".webp": lambda i: pictures.encoded(pictures.picture(i, (40, 30)), "WEBP"),
    ".wav": lambda i: sounds.encoded(sounds.tone(i), "WAV"),
    ".flac": lambda i: sounds.encoded(sounds.tone(i), "FLAC"),
    ".ogg": lambda i: sounds.encoded(sounds.tone(i), "OGG"),
}
MUTANTS = 400
GIGABYTE = 1 << 30


@pytest.mark.parametrize("suffix", some_long(ENCODERS))
def test_no_damage_ends_hangs_or_fills_the_process(suffix, tmp_path):
    """Each damaged file becomes a row or a reason. A crash, a traceback, 5 seconds or a gigabyte fail the test."""
    rng = np.random.default_rng(SEED + 3)
    good = [ENCODERS[suffix](i) for i in range(8)]
    kinds = list(damage.ANY.values())
    for i in range(MUTANTS):
        (tmp_path / f"{i:04d}{suffix}").write_bytes(kinds[i % len(kinds)](good[i % len(good)], rng))
    answer = child.run(
        """
        import pathlib
        import numpy as np
        import soundfile, soxr, PIL.Image, PIL.ImageOps
        from toolkit.data import reading
        from toolkit.data.examples import Examples
        """,
        f"""
        paths = sorted(pathlib.Path({str(tmp_path)!r}).iterdir())
        answer["slowest"], answer["outcomes"] = 0.0, []
        for path in paths:
            start = time.monotonic()
            one = Examples([path], np.zeros(1, np.int64), [path.name])
            if {suffix in (".wav", ".flac", ".ogg")}:
                decoding, _ = reading.audio_decoding([one], 8000, None)
            else:
                decoding = reading.image_decoding([one], (24, 24), 3)
            read = reading.read_table("one", one, decoding, to_disk=False, report=lambda line: None)
            answer["outcomes"].append("row" if len(read.table) else read.bad[0].reason)
            answer["slowest"] = max(answer["slowest"], time.monotonic() - start)
        """,
        timeout=300,
    )
    outcomes = answer.found["outcomes"]
    passed = sum(outcome == "row" or (bool(outcome.strip()) and "0x" not in outcome) for outcome in outcomes)
    assert (passed, len(outcomes)) == (MUTANTS, MUTANTS), f"seed {SEED + 3}: {passed} / {MUTANTS}"
    assert outcomes.count("row") < MUTANTS, "the damage was none"
    assert answer.found["slowest"] < 5
    assert answer.peak < GIGABYTE
    sure = [outcome for i, outcome in enumerate(outcomes) if kinds[i % len(kinds)] in damage.SURE.values()]
    assert "row" not in sure


def test_a_picture_is_read_by_its_content_whatever_its_name_says(tmp_path):
    corpus = Jpegs(tmp_path / "data", 30)
    corpus.write()
    odd = corpus.root / "a" / "0000.jpg"
    odd.write_bytes(pictures.encoded(pictures.picture(0), "PNG"))
    data = corpus.load(max_bad_fraction=0.0)
    assert data.bad == ()
    (row,) = [
        split.table.rows[split.ids.index("a/0000.jpg")] for split in data.splits.values() if "a/0000.jpg" in split.ids
    ]
    np.testing.assert_array_equal(row, np.asarray(pictures.picture(0)))


@pytest.mark.parametrize("share", [0.3, 0.98])
def test_damage_that_leaves_nothing_of_a_split_or_of_a_class_is_a_clear_stop(tmp_path, share):
    corpus = Jpegs(tmp_path / "data", 60)
    corpus.write()
    names = [name for name in corpus.names if name.startswith("b/")] if share < 0.5 else corpus.names
    corpus.spoil(names, seed=SEED)
    with pytest.raises(ToolkitError, match="holds a single class|is empty") as caught:
        corpus.load(max_bad_fraction=1.0)
    assert "\n" not in str(caught.value)
