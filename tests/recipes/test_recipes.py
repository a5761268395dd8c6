"""Every shipped config trains, on made-up data where its own is not at hand."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from toolkit import workflow
from toolkit.config import load
from toolkit.config.shipped import folder
from toolkit.config.writer import to_text
from toolkit.studies.reproduce import QUICK, reproduce_quickly

RECIPES = sorted(folder().rglob("*.yaml"))

# The kind of data that a recipe is for, as small as it can be.
PICTURES = {"source": "synthetic_images", "classes": 2, "examples": 40, "channels": 3, "batch_size": 8}
STAND_INS = {
    "images": {**PICTURES, "height": 32, "width": 32},
    "photos": {**PICTURES, "height": 112, "width": 112},  # windows of 96 fit into them
    "audio": {"source": "synthetic_audio", "classes": 2, "examples": 40, "seconds": 0.1, "batch_size": 8},
    "speech": {
        "source": "synthetic_speech", "examples": 40, "seconds": 0.4, "transcript_units": "words", "batch_size": 8
    },
    "text": {"source": "synthetic_text", "classes": 2, "examples": 40, "batch_size": 8},
}  # fmt: skip
KIND = {
    "mnist_dense": "images",
    "simple_cnn": "images",
    "cat_dog_cnn": "photos",
    "speech_lstm": "audio",
    "speech_ctc": "speech",
    "text_transformer": "text",
}


def test_there_are_recipes():
    assert {"quickstart", "mnist_cnn", "cats_vs_dogs_cnn", "spoken_digit_lstm", "imdb_transformer"} <= {
        path.stem for path in RECIPES
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_trains_two_steps(path, tmp_path):
    recipe = load(path)
    assert recipe.training.backend == "tensorflow"  # what the tests of recipes run on
    small = tmp_path / path.name
    whole = recipe.to_dict()
    # The data section as a whole is another one; everything else is the recipe's.
    data = {**STAND_INS[KIND[recipe.model.name]], "augmentation": whole["data"]["augmentation"]}
    small.write_text(to_text({**whole, "data": data}))
    config = load(small)
    assert config.model == recipe.model
    assert config.optimizer == recipe.optimizer
    warmup = "optimizer.schedule.warmup_steps=1"  # a hundred steps of warming up are more than there are here
    directory = workflow.train(load(small, [warmup]), run_dir=tmp_path / "run", steps=2)
    evaluation = json.loads((directory / "evaluation.json").read_text())
    assert evaluation["examples"] == 8
    assert np.isfinite(evaluation["loss"])


def toolkit(*arguments, cwd):
    """The command line as a person uses it."""
    code = "import sys; from toolkit.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "tensorflow", reason="shipped configs name this backend")
class TestYourOwnData:
    """A folder or a table of one's own, a copied config, and no Python."""

    def train(self, config, given, tmp_path, *overrides):
        toolkit("configs", "copy", config, ".", cwd=tmp_path)
        sets = [argument for override in (f"data.path={given}", *overrides) for argument in ("--set", override)]
        said = toolkit("train", f"{config}.yaml", "--run-dir", "run", *sets, cwd=tmp_path)
        assert str(tmp_path / "run") in said
        return json.loads((tmp_path / "run" / "evaluation.json").read_text())

    def answers(self, tmp_path, *arguments):
        toolkit("predict", "run", *arguments, "--output", "answers.csv", cwd=tmp_path)
        with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as file:
            return [(row["file"], row["answer"]) for row in csv.DictReader(file)]

    def test_pictures(self, tmp_path):
        from PIL import Image

        rng = np.random.default_rng(0)
        for name, shade in (("day", 200), ("night", 40)):
            (tmp_path / "pictures" / name).mkdir(parents=True)
            for i in range(40):
                size = rng.integers(20, 60, 2)  # sizes differ, as those of photos do
                pixels = np.clip(rng.normal(shade, 20, (*size, 3)), 0, 255).astype("uint8")
                Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{i}.{('jpg', 'png', 'webp')[i % 3]}")
        evaluation = self.train(
            "my_images", "pictures", tmp_path, "data.image_size=[32, 32]", "training.epochs=5", "data.batch_size=8"
        )
        assert evaluation["accuracy"] > 0.9
        answers = self.answers(tmp_path, "pictures/night")
        assert len(answers) == 40
        assert sum(answer == "night" for _, answer in answers) > 36

    def test_sounds(self, tmp_path):
        import soundfile

        rng = np.random.default_rng(0)
        for name, direction in (("falling", -1), ("rising", 1)):  # a steady tone would be normalised away
            (tmp_path / "sounds" / name).mkdir(parents=True)
            for i in range(30):
                rate = (8000, 16000)[i % 2]  # rates differ, too
                time = np.arange(int(rate * rng.uniform(0.15, 0.3))) / rate
                phase = 1000 * time + direction * 4000 * time * (time - time[-1]) / 2
                tone = 0.5 * np.sin(2 * np.pi * phase) + rng.normal(0, 0.02, len(time))
                soundfile.write(tmp_path / "sounds" / name / f"{i}.{('wav', 'flac', 'ogg')[i % 3]}", tone, rate)
        evaluation = self.train("my_sounds", "sounds", tmp_path, "training.epochs=12", "data.batch_size=4")
        assert evaluation["accuracy"] > 0.9

    def test_sentences(self, tmp_path):
        rng = np.random.default_rng(0)
        words = ["it", "was", "a", "film", "about", "a", "dog", "and", "the", "sea"]
        with (tmp_path / "texts.tsv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t")
            writer.writerow(["text", "label"])
            for i in range(200):
                label = ("gut", "schlecht")[i % 2]
                signal = ("wonderful", "dreadful")[i % 2]
                sentence = [*rng.choice(words, 8), signal]
                rng.shuffle(sentence)
                writer.writerow([" ".join(sentence), label])
        evaluation = self.train("my_texts", "texts.tsv", tmp_path, "optimizer.learning_rate=5e-3")
        assert evaluation["accuracy"] > 0.9
        assert self.answers(tmp_path, "--text", "a wonderful dog", "--text", "a dreadful sea") == [
            ("1", "gut"),
            ("2", "schlecht"),
        ]

    def test_speech(self, tmp_path):
        """Strings of three tones, one for each letter, written in letters."""
        import soundfile

        rng = np.random.default_rng(0)
        (tmp_path / "clips").mkdir()
        rows = []
        for i in range(160):
            said = rng.integers(3, size=rng.integers(1, 5))
            rate = (16000, 8000)[i % 2]
            time = np.arange(rate // 10) / rate
            tones = np.sin(2 * np.pi * 400 * 2.0 ** said[:, None] * time) * np.hanning(len(time))
            samples = np.pad(tones, ((0, 0), (len(time) // 2, len(time) // 2))).reshape(-1)
            soundfile.write(tmp_path / "clips" / f"{i}.wav", 0.5 * samples + rng.normal(0, 0.005, len(samples)), rate)
            rows.append((f"{i}.wav", "".join("abc"[letter] for letter in said)))
        with (tmp_path / "clips" / "table.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("file", "text"), *rows])
        small = ("convolutions=[16]", "layers=1", "units=24", "mels=16", "dropout=0.0")
        evaluation = self.train(
            "my_speech",
            "clips/table.csv",
            tmp_path,
            *(f"model.{value}" for value in small),
            "optimizer.learning_rate=1e-2",
            "training.epochs=15",
        )
        assert evaluation["characters"]["rate"] < 0.1
        toolkit("predict", "run", "clips", "--output", "answers.csv", cwd=tmp_path)
        with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as file:
            answers = {row["file"].rpartition("/")[2]: row["text"] for row in csv.DictReader(file)}
        assert sum(answers[name] == text for name, text in rows) > 140


@pytest.mark.long
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "tensorflow", reason="shipped configs name this backend")
def test_quickstart_reaches_what_the_readme_says(tmp_path):
    directory = workflow.train(load(folder() / "quickstart.yaml"), run_dir=tmp_path / "run")
    evaluation = json.loads((directory / "evaluation.json").read_text())
    assert evaluation["examples"] == 1000
    assert [one["support"] for one in evaluation["classes"]] == [100] * 10
    assert evaluation["accuracy"] >= 0.96


@pytest.mark.long
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "tensorflow", reason="shipped configs name this backend")
@pytest.mark.parametrize("recipe", QUICK)
def test_recipes_reach_their_floors_on_real_data(recipe, tfds_dir, tmp_path):
    """Shortened; whole trainings take minutes each, and stand in docs/results.md."""
    reproduce_quickly([recipe], root=tmp_path)
