"""Tiny datasets that TFDS itself prepares, offline, into a folder of the test run."""

import io
import types
from pathlib import Path
from unittest import mock

import numpy as np
import pytest


def png(values) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.asarray(values, np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def rows(kind: str, split: str) -> list[dict]:
    """What each tiny dataset holds, in the order of its keys."""
    if kind == "pictures":
        count = 20 if split == "train" else 6
        return [
            {"image": png(np.full((3, 4, 3), i)), "image/filename": f"{split}/{i}.png", "label": i % 2}
            for i in range(count)
        ]
    if kind == "sounds":
        return [
            {"audio": np.arange(5 + i) * 100 - 200, "audio/filename": f"{i % 3}_{who}_{i // 6}.wav", "label": i % 3}
            for i, who in enumerate(["ann", "bob"] * 15)
        ]
    texts = [f"text {i} of {split}, ünïcode" for i in range(12)]
    texts[3] = "" if split == "train" else texts[3]
    return [{"text": text, "stars": 10 * (i % 3) + 5, "lengths": [1.0, 2.0]} for i, text in enumerate(texts)]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A data_dir with `tiny_pictures`, `tiny_sounds` and `tiny_texts`."""
    import tensorflow_datasets as tfds

    # TFDS shuffles by key when it writes; the tests below read through TFDS's own reader where order matters.
    forms = {
        "pictures": (
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "image/filename": tfds.features.Text(),
                "label": tfds.features.ClassLabel(names=["even", "odd"]),
            },
            ("image", "label"),
            ("train", "test"),
        ),
        "sounds": (
            {
                "audio": tfds.features.Audio(sample_rate=4000),
                "audio/filename": tfds.features.Text(),
                "label": tfds.features.ClassLabel(num_classes=3),
            },
            ("audio", "label"),
            ("train",),
        ),
        "texts": (
            {
                "text": tfds.features.Text(),
                "stars": tfds.features.Scalar(np.int32),
                "lengths": tfds.features.Tensor(shape=(2,), dtype=np.float32),
            },
            None,
            ("train", "test"),
        ),
    }
    folder = tmp_path_factory.mktemp("tfds")
    for kind, (features, supervised, splits) in forms.items():

        class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
            VERSION = tfds.core.Version("1.2.0")
            name = f"tiny_{kind}"

            def _info(self, features=features, supervised=supervised):
                return self.dataset_info_from_configs(
                    features=tfds.features.FeaturesDict(features), supervised_keys=supervised
                )

            def _split_generators(self, dl_manager, splits=splits):
                return {split: self._generate_examples(split) for split in splits}

            def _generate_examples(self, split, kind=kind):
                for i, row in enumerate(rows(kind, split)):
                    yield i, {**row, "image": io.BytesIO(row["image"])} if kind == "pictures" else row

        Builder(data_dir=str(folder)).download_and_prepare()
    return folder


SENTENCES = ["MISTER QUILTER IS", "NOR IS MISTER", "HE TELLS US", "HE HAS GRAVE DOUBTS", "", "LINNELL'S PICTURES"]
SPEECH_RATE = {"librispeech": 16_000, "ljspeech": 22_050}


def flac(samples, rate: int) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC")
    return buffer.getvalue()


def utterances(name: str, split: str) -> list[dict]:
    """What the small datasets of speech hold, with the features that TFDS's own have."""
    found = []
    for i, text in enumerate(SENTENCES):
        samples = (np.arange(400 + 10 * i) * (7 + len(split)) % 2000 - 1000).astype(np.int16)
        if name == "librispeech":
            speaker = {"train_clean100": 19, "dev_clean": 84, "test_clean": 61}[split]
            row = {"speaker_id": speaker, "chapter_id": 198, "id": f"{speaker}-198-{i:04d}", "text": text}
        else:
            plain = text.lower().capitalize()
            row = {"id": f"LJ001-{i:04d}", "text": plain.replace("Nor", "1"), "text_normalized": plain}
        found.append({**row, "speech": samples})
    return found


def recordings(indices=range(12), speakers=("ann", "bob")) -> list[dict]:
    """As TFDS's spoken_digit: a file name says digit, speaker and index, and here the samples do, too."""
    return [
        {
            "audio": np.full(100 + 10 * digit + index, 1000 * digit + 10 * index + (who == "bob")),
            "label": digit,
            "audio/filename": f"{digit}_{who}_{index}.wav",
        }
        for who in speakers
        for digit in range(10)
        for index in indices
    ]


def prepare(folder: Path, name: str, splits: dict[str, list[dict]]) -> None:
    """Let TFDS's own builder prepare other examples than it would download."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=str(folder))
    generators = {split: enumerate(rows) for split, rows in splits.items()}
    with mock.patch.object(type(builder), "_split_generators", return_value=generators):
        builder.download_and_prepare()


@pytest.fixture(scope="session")
def speech(tmp_path_factory) -> Path:
    """A data_dir with a small librispeech (sounds as arrays, and as FLAC files), ljspeech and spoken_digit."""
    folder = tmp_path_factory.mktemp("speech")
    parts = ("train_clean100", "dev_clean", "test_clean")
    spoken = {split: utterances("librispeech", split) for split in parts}
    prepare(folder, "librispeech", spoken)
    rate = SPEECH_RATE["librispeech"]
    files = {
        split: [{**row, "speech": io.BytesIO(flac(row["speech"], rate))} for row in rows]
        for split, rows in spoken.items()
    }
    prepare(folder, "librispeech/lazy_decode", files)
    prepare(folder, "ljspeech", {"train": utterances("ljspeech", "train")})
    prepare(folder, "spoken_digit", {"train": recordings()})
    return folder


@pytest.fixture(scope="session")
def making():
    """The functions above (pytest's importlib mode lets no test import its conftest)."""
    return types.SimpleNamespace(utterances=utterances, recordings=recordings, prepare=prepare)
