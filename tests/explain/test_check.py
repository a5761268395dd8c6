"""Faults are planted, each alone, and named; what is sound gets no warning."""

import itertools
import os
import random
import re
import time

import numpy as np
import pytest
import soundfile
from PIL import Image

from toolkit import cli, stages
from toolkit.config import load
from toolkit.errors import ToolkitError
from toolkit.explain import check as module
from toolkit.explain.check import check
from toolkit.explain.copies import find_copies
from toolkit.explain.findings import of_classes, of_copies, of_memory, of_pace
from toolkit.explain.trial import Pace, _validation_seconds

every_backend = pytest.mark.every_backend

ONE_STEP = 90  # of the 105 examples of train in MADE["image"]
OPTIMIZER = "optimizer: {name: adam, learning_rate: 1e-2}\n"
PICTURES = """
data: {source: folder, path: %s, batch_size: 8}
model: {name: simple_cnn, filters: [4, 4]}
training: {epochs: 2}
"""
TEXTS = """
data: {source: csv, path: train.csv, test_path: test.csv, batch_size: 8}
model: {name: text_transformer, width: 8, heads: 2, feed_forward: 8}
training: {epochs: 2}
"""
MADE = {
    "image": """
data: {source: synthetic_images, classes: 3, examples: 150, height: 12, width: 12, batch_size: 16}
model: {name: simple_cnn, filters: [4, 4], dropout: 0.1}
""",
    "audio": """
data: {source: synthetic_audio, classes: 2, examples: 60, seconds: 0.1, batch_size: 8}
model: {name: speech_lstm, units: 8, mels: 8}
""",
    "text": """
data: {source: synthetic_text, classes: 2, examples: 80, batch_size: 8}
model: {name: text_transformer, width: 8, heads: 2, feed_forward: 8}
""",
    "speech": """
data: {source: synthetic_speech, words: 3, examples: 60, transcript_units: words, batch_size: 8, buckets: 1}
model: {name: speech_ctc, convolutions: [16], layers: 1, units: 24, mels: 16, dropout: 0.0}
""",
}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """What is measured of a small model is measured quickly."""
    monkeypatch.setattr(module, "_PACE_SECONDS", 0.2)
    monkeypatch.setattr(module, "_HEART_SECONDS", 120)  # on a busy machine, too


@pytest.fixture
def config(tmp_path):
    def make(text, *overrides):
        (tmp_path / "small.yaml").write_text(text + OPTIMIZER)
        return load(tmp_path / "small.yaml", [f"training.backend={os.environ['KERAS_BACKEND']}", *overrides])

    return make


def picture(number, size=32):
    """A picture like no other: coarse patches and fine grain."""
    rng = np.random.default_rng(number)
    patches = rng.integers(0, 256, (8, 8, 3), np.uint8)
    wide = np.asarray(Image.fromarray(patches).resize((size, size), Image.Resampling.BICUBIC))
    return np.clip(wide + rng.normal(0, 10, wide.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def pictures(tmp_path):
    """A folder of 48 pictures in all: two classes, three splits."""
    numbers = itertools.count()
    for split, count in {"train": 12, "validation": 6, "test": 6}.items():
        for name in ("cat", "dog"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(picture(next(numbers))).save(folder / f"{i}.png")
    return tmp_path / "pictures"


def seen(config):
    """The data of a config, and what is said of its examples."""
    stages.set_up(config)
    data = stages.read_data(config, lambda line: None)
    return [*of_copies(data, find_copies(data)), *of_classes(data)]


def of(found, about):
    return [finding for finding in found if finding.about == about]


def warnings_of(found):
    """What is not ok, but for the pace: the machine that tests run on may be busy."""
    return [finding for finding in found if finding.level != "ok" and finding.about != "a step"]


@every_backend
@pytest.mark.parametrize("kind", MADE)
def test_what_is_sound_gets_no_warning(kind, config, tmp_path):
    random.seed(1)
    expected = random.random()
    random.seed(1)
    found = check(config(MADE[kind]))
    assert warnings_of(found) == []
    assert random.random() == expected  # the caller's generator is where it was
    about = {finding.about for finding in found}
    assert about >= {"examples", "copies", "contact sheet", "start", "one batch", "gradients", "a step", "memory"}
    assert {path.name for path in tmp_path.iterdir()} == {"small.yaml", "small-check.png"}
    with Image.open("small-check.png") as sheet:
        assert min(sheet.size) > 400


def test_copies_between_splits_are_named_exact_and_near(pictures, config):
    """One file stands in train and test, one more was saved as JPEG at another size, under another class."""
    (pictures / "test/cat/copy.png").write_bytes((pictures / "train/cat/3.png").read_bytes())
    with Image.open(pictures / "train/dog/4.png") as image:
        image.resize((48, 48)).save(pictures / "test/cat/near.jpg", quality=85)
    found = seen(config(PICTURES % pictures, "data.image_size=[32, 32]"))
    (line,) = [finding for finding in of(found, "copies") if "of test" in finding.text]
    assert line.level == "wrong"  # 2 of 14 are more than one in fifty
    assert "2 of test (14.29 %) also stand in train (1 exactly, 1 nearly, 1 with another label)" in line.text
    assert "test/cat/copy.png as train/cat/3.png" in line.text
    assert "test/cat/near.jpg as train/dog/4.png" in line.text


def test_copies_within_a_split_are_a_note(pictures, config):
    (pictures / "train/cat/again.png").write_bytes((pictures / "train/cat/3.png").read_bytes())
    found = seen(config(PICTURES % pictures))
    (line,) = warnings_of(found)
    assert (line.level, line.about) == ("note", "copies")
    assert "1 of train stand in it before (1 exactly)" in line.text


def test_pictures_that_differ_in_colour_alone_are_no_copies(tmp_path, config):
    """The same pictures stand in every split, in each in another colour."""
    for channel, split in enumerate(("train", "validation", "test")):
        for i in range(12):
            folder = tmp_path / "pictures" / split / ("cat", "dog")[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            rows = np.zeros((32, 32, 3), np.uint8)
            rows[..., channel] = picture(i)[..., 0]
            Image.fromarray(rows).save(folder / f"{i}.png")
    assert warnings_of(seen(config(PICTURES % "pictures"))) == []


def test_texts_that_differ_in_case_marks_and_a_few_words_are_copies(tmp_path, config):
    rng = np.random.default_rng(0)
    words = np.array([f"w{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(200)])
    rows = [" ".join(rng.choice(words, 40)) for _ in range(60)]
    near = rows[5].upper().split()
    (tmp_path / "train.csv").write_text("text,label\n" + "".join(f"{row},{i % 2}\n" for i, row in enumerate(rows[:40])))
    tests = [*rows[40:], " ".join(near[:-1]) + "!"]
    (tmp_path / "test.csv").write_text("text,label\n" + "".join(f'"{row}",{i % 2}\n' for i, row in enumerate(tests)))
    found = seen(config(TEXTS))
    copies = [finding for finding in of(found, "copies") if finding.level != "ok"]
    assert len(copies) == 1  # the original stands in train or in validation, which is cut from the same table
    assert "1 of test (4.76 %)" in copies[0].text and "1 nearly" in copies[0].text
    assert "test-row-22 as row-7" in copies[0].text


def test_a_sound_that_is_quieter_and_has_silence_around_it_is_a_copy(tmp_path, config):
    rng = np.random.default_rng(0)
    numbers = {"train": 12, "validation": 6, "test": 6}
    for split, count in numbers.items():
        for name in ("low", "high"):
            folder = tmp_path / "sounds" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                chirp = np.sin(np.cumsum(rng.uniform(0.05, 1.5, 8).repeat(400))) * rng.uniform(0.2, 1, 8).repeat(400)
                soundfile.write(folder / f"{i}.wav", 0.5 * chirp + rng.normal(0, 0.01, 3200), 8000)
    samples, rate = soundfile.read(tmp_path / "sounds/train/low/1.wav")
    soundfile.write(tmp_path / "sounds/test/low/copy.wav", np.pad(0.4 * samples, (500, 900)), rate)
    text = "data: {source: folder, path: sounds, batch_size: 8}\nmodel: {name: speech_lstm, units: 8, mels: 8}\n"
    copies = [finding for finding in of(seen(config(text)), "copies") if finding.level != "ok"]
    assert ["test/low/copy.wav as train/low/1.wav" in finding.text for finding in copies] == [True]


def test_labels_that_are_all_one_are_wrong(tmp_path, config):
    for name in ("train", "test"):
        rows = "".join(f"{chr(97 + i)} good film,{'bad' if name == 'test' and i else 'good'}\n" for i in range(20))
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{rows}")
    (line,) = check(config(TEXTS))
    assert line.level == "wrong"
    assert "good" in line.text


def test_classes_that_are_missing_or_rare_are_named(pictures, config):
    for path in (pictures / "test/dog").iterdir():
        path.unlink()
    for path in sorted((pictures / "train/dog").iterdir())[1:]:
        path.unlink()
    found = of(seen(config(PICTURES % pictures)), "classes")
    assert [(finding.level, finding.text) for finding in found] == [
        ("note", "train has few examples of dog (1)"),
        ("note", "test has no example of dog"),
    ]


@pytest.mark.parametrize(("allowed", "level"), [(0.5, "note"), (0.01, "wrong")])
def test_a_broken_file_is_named_and_the_rest_is_checked_all_the_same(pictures, config, allowed, level):
    whole = (pictures / "train/cat/3.png").read_bytes()
    (pictures / "train/cat/3.png").write_bytes(whole[: len(whole) // 2])
    text = PICTURES % pictures
    found = check(config(text, f"data.max_bad_fraction={allowed}"))
    (line,) = of(found, "examples")
    assert line.level == level
    assert "train/cat/3.png" in line.text
    assert of(found, "memory")


def network(middle=lambda x: x, *, scale=1.0):
    """A model of one's own, with `middle` between its two layers."""
    import keras

    image = keras.Input((12, 12, 1), dtype="uint8", name="image")
    x = keras.layers.Flatten()(keras.layers.Rescaling(scale / 255)(image))
    x = keras.layers.Dense(8, activation="relu", name="first")(x)
    return keras.Model({"image": image}, keras.layers.Dense(3, name="logits")(middle(x)))


def stop():
    """A layer that lets no gradient through."""
    import keras

    class Stop(keras.layers.Layer):
        def call(self, x):
            return keras.ops.stop_gradient(x)

    return Stop()


@every_backend
def test_a_layer_that_is_cut_off_is_named_and_the_model_is_left_as_it_was(config):
    model = network(stop())
    before = [np.array(value) for value in model.get_weights()]
    (line,) = of(check(config(MADE["image"]), model=model), "gradients")
    assert (line.level, line.text) == ("wrong", "no gradient reaches first/kernel, first/bias")
    for value, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, kept)


@every_backend
def test_a_model_that_is_cut_off_as_a_whole_is_told_and_not_timed(config):
    import keras

    inner = network()
    model = keras.Model(inner.input, stop()(inner.output))
    before = [np.array(value) for value in model.get_weights()]
    found = check(config(MADE["image"]), model=model)
    assert [(finding.level, finding.about) for finding in found[-2:]] == [
        ("wrong", "one batch"),
        ("wrong", "gradients"),
    ]
    assert found[-1].text == "no gradient reaches first/kernel, first/bias, logits/kernel and 1 more"
    for value, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, kept)


def test_examples_that_contradict_one_another_are_not_learnt_by_heart(tmp_path, config):
    """Every text has both labels: of each the first is taken, and can be learnt."""
    texts = [f"a film {word} and {word} to the end" for word in ("long", "short", "dull", "bright", "old", "new")]
    for name, times in {"train": 12, "test": 1}.items():
        rows = "".join(f"{text},{label}\n" for text in times * texts for label in ("good", "bad"))
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{rows}")
    made = config(TEXTS, "data.batch_size=32")
    stages.set_up(made)
    line = next(line for line in module._findings(made, None, tmp_path / "sheet.png") if line.about == "one batch")
    assert line.level == "ok"


@pytest.mark.parametrize("most", [2, 9])
def test_examples_are_different_where_one_of_their_inputs_is(most):
    inputs = {"samples": np.array([[1, 0], [1, 0], [1, 0], [2, 0], [1, 0]]), "lengths": np.array([1, 1, 2, 1, 2])}
    assert module._different(inputs, most=most) == [0, 2, 3][:most]


def test_a_model_that_cannot_learn_is_told(config):
    import keras

    (line,) = of(check(config(MADE["image"]), model=network(lambda x: keras.ops.zeros_like(x))), "one batch")
    assert line.level == "wrong"


@pytest.mark.parametrize(("scale", "level"), [(1.0, "ok"), (1e3, "note"), (float("inf"), "wrong")])
def test_the_loss_at_the_start_is_held_against_guessing(config, scale, level):
    (line,) = of(check(config(MADE["image"]), model=network(scale=scale)), "start")
    assert line.level == level
    assert "ln(3) is 1.1" in line.text


@every_backend
@pytest.mark.parametrize("batch_size", [16, ONE_STEP])
def test_a_slow_source_is_told(config, monkeypatch, batch_size):
    from toolkit.data.batches import TrainingBatches

    quick = TrainingBatches.batches

    def slow(*arguments, **options):
        import tensorflow as tf

        def late(inputs, labels):
            (kept,) = tf.py_function(lambda x: [time.sleep(0.05), x][1:], [labels], [labels.dtype])
            return inputs, tf.ensure_shape(kept, labels.shape)

        return quick(*arguments, **options).map(late).prefetch(1)

    monkeypatch.setattr(TrainingBatches, "batches", slow)
    found = check(config(MADE["image"], f"data.batch_size={batch_size}"))
    (line,) = of(found, "a step")
    assert line.level == "note"
    assert "waiting for data" in line.text
    (line,) = of(found, "training")
    assert ("of 1 steps" in line.text) == (batch_size == ONE_STEP)


@every_backend
def test_steps_are_timed_that_do_not_compile_even_where_an_epoch_has_one(config, monkeypatch):
    monkeypatch.setattr(module, "_PACE_SECONDS", 120)  # further epochs come until there are steps enough
    found = check(config(MADE["image"], f"data.batch_size={ONE_STEP}"))
    (line,) = of(found, "a step")
    steps = int(re.search(r"mean of (\d+)", line.text)[1])
    assert 4 <= steps <= 8


def test_a_validation_is_timed_once_its_batches_are_compiled(monkeypatch):
    """Compiling for a batch of another size takes 100 s here, and a batch 1 s."""
    import tensorflow as tf

    clock, known = [0.0], set()

    class Model:
        def evaluate(self, batches, verbose):
            for batch in batches.as_numpy_iterator():
                clock[0] += 1.0 if len(batch) in known else 100.0
                known.add(len(batch))

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    assert _validation_seconds(Model(), tf.data.Dataset.range(11).batch(4)) == 3
    assert _validation_seconds(Model(), tf.data.Dataset.range(40).batch(4)) == 10


def test_a_training_is_the_sum_of_its_parts(config):
    pace = Pace(step=0.5, waiting=0.05, validation=20.0, compiling=10.0, steps=9)
    step, training = of_pace(config(MADE["image"], "training.epochs=6"), 100, pace)
    assert step.text == "500 ms, mean of 9: 10 % waiting for data, 90 % computing"
    assert training.text == "about 7 min: 6 epochs of 100 steps and 20 s of validation"  # 10 + 6 · (50 + 20) s


def test_a_memory_that_hardly_suffices_is_a_note():
    assert of_memory(2**30, room=4 * 2**30).level == "ok"
    assert of_memory(int(3.5 * 2**30), room=4 * 2**30).level == "note"


def test_the_command_tells_by_its_exit_code(tmp_path, pictures, capsys):
    text = PICTURES % pictures
    (tmp_path / "small.yaml").write_text(text + OPTIMIZER)
    backend = f"training.backend={os.environ['KERAS_BACKEND']}"
    assert cli._run(["check", "small.yaml", "--set", backend]) == 0
    assert "ok     gradients" in capsys.readouterr().out
    (pictures / "train/cat/3.png").write_bytes(b"no picture")
    assert cli._run(["check", "small.yaml", "--output", "sheet.png"]) == 1
    out = capsys.readouterr().out
    assert "train/cat/3.png" in out and "1 wrong" in out
    assert (tmp_path / "sheet.png").exists()
    assert cli._run(["check", "small.yaml", "--output", "sheet.png"]) == 2
    assert "sheet.png exists already" in capsys.readouterr().err


def test_a_sheet_of_an_earlier_check_is_replaced_and_that_is_said(config):
    check(config(MADE["image"]))
    (line,) = of(check(config(MADE["image"])), "contact sheet")
    assert "in place of the one before" in line.text


def test_what_train_would_refuse_is_told(config):
    found = check(config(MADE["text"], "data.augmentation={flip: horizontal}"))
    assert found[-1].level == "wrong"
    assert "data.augmentation.flip" in found[-1].text
    with pytest.raises(ToolkitError, match="optimizer"):
        check(config(MADE["image"], "optimizer.learning_rate=fast"))
