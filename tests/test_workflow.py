"""The walks from end to end, on small made-up data."""

import csv
import itertools
import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from toolkit import workflow
from toolkit.config import load
from toolkit.errors import RunFailed, ToolkitError
from toolkit.runs import arrays

every_backend = pytest.mark.every_backend

IMAGES = """
seed: 3
data: {source: synthetic_images, classes: 3, examples: 150, height: 12, width: 12, batch_size: 16}
model: {name: simple_cnn, filters: [4, 4], dropout: 0.1}
optimizer: {name: adam, learning_rate: 1e-2, schedule: {name: cosine, warmup_steps: 2}}
training: {epochs: 3, backend: %s, log_every: 2}
"""
AUDIO = """
data: {source: synthetic_audio, classes: 2, examples: 60, seconds: 0.1, batch_size: 8}
model: {name: speech_lstm, units: 8, mels: 8}
optimizer: {name: adam, learning_rate: 1e-2}
training: {epochs: 2, backend: %s}
"""
TEXT = """
data: {source: synthetic_text, classes: 2, examples: 80, batch_size: 8}
model: {name: text_transformer, width: 8, heads: 2, feed_forward: 8}
optimizer: {name: adam, learning_rate: 1e-2}
training: {epochs: 2, backend: %s}
"""


SPEECH = """
data: {source: synthetic_speech, words: 3, examples: 160, transcript_units: words, batch_size: 16, buckets: 1}
model: {name: speech_ctc, convolutions: [16], layers: 1, units: 24, mels: 16, dropout: 0.0}
optimizer: {name: adam, learning_rate: 1e-2, global_clipnorm: 1.0}
training: {epochs: 12, backend: %s}
"""


@pytest.fixture
def config(tmp_path):
    def make(text, *overrides):
        path = tmp_path / "small.yaml"
        path.write_text(text % os.environ["KERAS_BACKEND"])
        return load(path, overrides)

    return make


def network(scale=1.0):
    """A model that no config names."""
    import keras

    image = keras.Input((12, 12, 1), dtype="uint8", name="image")
    x = keras.layers.Flatten()(keras.layers.Rescaling(scale / 255)(image))
    return keras.Model({"image": image}, keras.layers.Dense(3, name="logits")(x))


def read_json(path):
    return json.loads(path.read_text())


def rows_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained run on pictures, shared by the tests that only read it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "small.yaml").write_text(IMAGES % os.environ["KERAS_BACKEND"])
    return workflow.train(load(folder / "small.yaml"), run_dir=folder / "run")


def test_a_run_leaves_what_the_documentation_lists(trained):
    assert {path.name for path in trained.iterdir()} == {
        "config.yaml",
        "data_spec.json",
        "record.json",
        "weights.safetensors",
        "last.safetensors",
        "checkpoints",
        "metrics.jsonl",
        "tensorboard",
        "log.txt",
        "evaluation.json",
        "predictions.csv",
        "curves.png",
        "confusion.png",
    }
    record = read_json(trained / "record.json")
    assert record["state"] == "finished"
    assert record["backend"] == os.environ["KERAS_BACKEND"]
    assert set(record["fingerprints"]) == {"train", "validation", "test"}
    spec = read_json(trained / "data_spec.json")
    # A tenth and a fifth of 150 are for validation and test.
    assert spec["examples"] == {"train": 105, "validation": 15, "test": 30}


@every_backend
def test_it_learns_and_the_figures_are_those_of_the_predictions(trained):
    evaluation = read_json(trained / "evaluation.json")
    with (trained / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = np.mean([row["answer"] == row["label"] for row in rows])
    assert evaluation["examples"] == len(rows) == 30
    assert evaluation["accuracy"] == pytest.approx(right)
    assert right > 0.6  # bars in three places; guessing gives a third
    loss = -np.mean([math.log(float(row[f"p({row['label']})"])) for row in rows])
    assert evaluation["loss"] == pytest.approx(loss, rel=1e-4)


@every_backend
def test_the_kept_weights_are_those_of_the_best_validation_and_of_the_last(trained, tmp_path, capsys):
    run = shutil.copytree(trained, tmp_path / "run")
    losses = [row["val_loss"] for row in rows_of(run) if row["kind"] == "epoch"]
    assert workflow.evaluate(run, split="validation").loss == pytest.approx(min(losses), rel=1e-4)
    assert workflow.evaluate(run, split="validation", weights="last").loss == pytest.approx(losses[-1], rel=1e-4)
    capsys.readouterr()
    workflow.evaluate(run, weights="last")
    assert "weights of the last epoch" in capsys.readouterr().out
    figures = {path.name for path in run.glob("evaluation*")}
    assert figures == {
        "evaluation.json",
        "evaluation-last.json",
        "evaluation-validation.json",
        "evaluation-validation-last.json",
    }
    assert (run / "evaluation.json").read_bytes() == (trained / "evaluation.json").read_bytes()


def test_evaluating_again_gives_the_same(trained):
    before = (trained / "predictions.csv").read_text()
    workflow.evaluate(trained)
    assert (trained / "predictions.csv").read_text() == before


@every_backend
def test_predict_answers_files_as_the_evaluation_did(trained, tmp_path):
    from toolkit import registry

    source = registry.resolve("sources", "synthetic_images")(classes=3, examples=150, height=12, width=12)
    test = source.splits["test"]
    folder = tmp_path / "pictures"
    folder.mkdir()
    for id, value in zip(test.ids, test.values, strict=True):
        (folder / f"{id.replace('/', '_')}.png").write_bytes(value)
    (folder / "broken.png").write_bytes(b"no picture")
    prediction = workflow.predict(trained, files=[folder], output=tmp_path / "table.csv")
    with (trained / "predictions.csv").open(newline="") as file:
        known = {row["id"].replace("/", "_"): row["answer"] for row in csv.DictReader(file)}
    with (tmp_path / "table.csv").open(newline="") as file:
        answers = {Path(row["file"]).stem: row["answer"] for row in csv.DictReader(file)}
    assert answers == known
    assert [Path(name).name for name, _ in prediction.bad] == ["broken.png"]


@every_backend
@pytest.mark.parametrize("text", [AUDIO, TEXT], ids=["audio", "text"])
def test_sounds_and_texts_walk_the_same_way(config, text, tmp_path):
    directory = workflow.train(config(text), run_dir=tmp_path / "run")
    losses = [row["loss"] for row in rows_of(directory) if row["kind"] == "epoch"]
    assert losses[1] < losses[0]
    if text is TEXT:
        prediction = workflow.predict(directory, texts=["some words", ""])
        np.testing.assert_allclose(prediction.probabilities.sum(axis=1), 1)


@every_backend
def test_the_same_config_gives_the_same_bits(config, tmp_path):
    first = workflow.train(config(IMAGES), run_dir=tmp_path / "first", steps=8)
    second = workflow.train(config(IMAGES), run_dir=tmp_path / "second", steps=8)
    assert (first / "weights.safetensors").read_bytes() == (second / "weights.safetensors").read_bytes()
    other = workflow.train(config(IMAGES, "seed=4"), run_dir=tmp_path / "other", steps=8)
    assert (first / "weights.safetensors").read_bytes() != (other / "weights.safetensors").read_bytes()


@every_backend
def test_averages_accumulation_clipping_and_smoothing_go_together(config, tmp_path):
    directory = workflow.train(
        config(
            IMAGES,
            "optimizer.use_ema=true",
            "optimizer.ema_momentum=0.5",
            "optimizer.gradient_accumulation_steps=4",
            "optimizer.global_clipnorm=1.0",
            "optimizer.weight_decay=0.01",
            "training.label_smoothing=0.1",
            "training.class_weights=balanced",
            "data.augmentation={shift: 0.1, erasing: 0.5}",
        ),
        run_dir=tmp_path / "run",
    )
    epochs = [row for row in rows_of(directory) if row["kind"] == "epoch"]
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    # The averages were measured, and are kept.
    last = workflow.evaluate(directory, split="validation", weights="last")
    assert last.accuracy == pytest.approx(epochs[-1]["val_accuracy"])
    # 6 batches an epoch make 2 steps of up to 4, so 6 in all; the cosine's last is close to nothing.
    assert epochs[-1]["learning_rate"] < 0.2 * 1e-2


@every_backend
def test_windows_are_trained_on_and_whole_pictures_answered(config, tmp_path):
    photos = ("model={name: cat_dog_cnn, stem: 4, blocks: [[5], [6]]}", "training.epochs=1")
    directory = workflow.train(
        config(IMAGES, *photos, "data.augmentation={crop: [8, 10], flip: horizontal}"), run_dir=tmp_path / "run"
    )
    assert workflow.evaluate(directory).examples == 30
    with pytest.raises(ToolkitError, match=r"model.name is simple_cnn, which takes pictures of 12x12 only, but .*crop"):
        workflow.train(config(IMAGES, "data.augmentation={crop: [8, 10]}"), run_dir=tmp_path / "other")
    assert not (tmp_path / "other" / "weights.safetensors").exists()


@every_backend
def test_fine_tuning_takes_what_fits_and_keeps_what_is_frozen(trained, config, tmp_path):
    directory = workflow.train(
        config(
            IMAGES,
            f"training.init_from={trained}",
            "training.freeze=[block1_conv]",
            "data.classes=4",
            "training.epochs=1",
            "optimizer.schedule.warmup_steps=0",
        ),
        run_dir=tmp_path / "run",
    )
    old, _ = arrays.load(trained / "weights.safetensors")
    new, _ = arrays.load(directory / "weights.safetensors")
    frozen = [key for key in new if key.startswith("block1_conv/")]
    assert frozen
    for key in frozen:
        np.testing.assert_array_equal(new[key], old[key])
    assert any(not np.array_equal(new[key], old[key]) for key in new if key.startswith("block2_conv/"))
    assert "new: logits" in (directory / "log.txt").read_text()


def test_the_path_of_a_config_will_do(tmp_path):
    (tmp_path / "small.yaml").write_text(IMAGES % os.environ["KERAS_BACKEND"])
    directory = workflow.train(str(tmp_path / "small.yaml"), run_dir=str(tmp_path / "run"), steps=2)
    assert workflow.evaluate(str(directory)).examples == 30


def test_a_layer_that_is_not_there_is_told_and_leaves_nothing(config, tmp_path):
    with pytest.raises(ToolkitError, match="training.freeze names 'blok1_conv'.*did you mean 'block1_conv'"):
        workflow.train(config(IMAGES, "training.freeze=[blok1_conv]"), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@every_backend
def test_a_diverging_run_stops_with_a_sentence_and_says_so_in_its_record(config, tmp_path):
    place = r"step 1 of epoch 1 gave a loss that is not finite: layer rescaling\w* gives .* for \d+ of 16 examples \("
    with pytest.raises(RunFailed, match=place):
        workflow.train(config(IMAGES), run_dir=tmp_path / "run", model=network(scale=255e37))
    assert read_json(tmp_path / "run" / "record.json")["state"] == "failed"


def test_changed_data_is_not_evaluated(config, tmp_path):
    folder = tmp_path / "pictures"
    from PIL import Image

    for name, shade in (("dark", 10), ("light", 240)):
        (folder / name).mkdir(parents=True)
        for i in range(12):
            Image.new("L", (8, 8), shade + i).save(folder / name / f"{i}.png")
    text = IMAGES.replace(
        "source: synthetic_images, classes: 3, examples: 150, height: 12, width: 12, batch_size: 16",
        f"source: folder, path: {folder}, batch_size: 4",
    )
    directory = workflow.train(config(text, "training.epochs=1", "optimizer.schedule=null"), run_dir=tmp_path / "run")
    for path in folder.rglob("*.png"):
        Image.new("L", (8, 8), 77).save(path)
    with pytest.raises(ToolkitError, match="the test part is not the one .* was trained beside"):
        workflow.evaluate(directory)


def test_a_run_without_its_record_is_not_evaluated(trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    (copy / "record.json").write_text("[]")
    with pytest.raises(ToolkitError, match="record.json holds no fingerprints"):
        workflow.evaluate(copy)
    (copy / "record.json").unlink()
    with pytest.raises(ToolkitError, match="record.json cannot be read"):
        workflow.evaluate(copy)
    assert {path.name for path in copy.iterdir()} == {path.name for path in trained.iterdir()} - {"record.json"}


def test_a_text_longer_than_any_in_train_is_cut(config, tmp_path):
    lines = ["text,label"]
    for i in range(60):
        lines.append(f"{'good' if i % 2 else 'bad'} film,{'yes' if i % 2 else 'no'}")
    (tmp_path / "train.csv").write_text("\n".join(lines))
    (tmp_path / "other.csv").write_text("text,label\n" + "good film " * 40 + ",yes\nbad film,no\n")
    text = TEXT.replace(
        "source: synthetic_text, classes: 2, examples: 80, batch_size: 8",
        "source: csv, path: train.csv, validation_path: other.csv, test_path: other.csv, batch_size: 8",
    )
    directory = workflow.train(config(text), run_dir=tmp_path / "run")
    trained = read_json(directory / "evaluation.json")
    assert trained["examples"] == 2
    assert workflow.evaluate(directory).loss == pytest.approx(trained["loss"], rel=1e-5)  # reads the same tokens again


def test_a_model_with_other_inputs_is_told(config, tmp_path):
    import keras

    samples = keras.Input((None,), name="samples")
    logits = keras.layers.Conv1D(4, 400, strides=200, name="logits")(samples[:, :, None])
    told = r"one of your own, which takes 'samples', but audio data come as 'samples' and 'lengths': name its inputs so"
    with pytest.raises(ToolkitError, match=told):
        workflow.train(config(SPEECH), run_dir=tmp_path / "run", model=keras.Model({"samples": samples}, logits))
    pixels = keras.Input((12, 12, 1), dtype="uint8", name="pixels")
    answers = keras.layers.Dense(3)(keras.layers.Flatten()(pixels))
    with pytest.raises(ToolkitError, match="which takes 'pixels', but image data come as 'image': name its inputs so"):
        workflow.train(config(IMAGES), run_dir=tmp_path / "run", model=keras.Model({"pixels": pixels}, answers))


def test_a_model_of_another_width_is_told(config, tmp_path):
    with pytest.raises(ToolkitError, match=r"the model is one of your own, which gives float32 of shape \(None, 3\)"):
        workflow.train(config(IMAGES, "data.classes=4"), run_dir=tmp_path / "run", model=network())
    assert not (tmp_path / "run").exists()


def test_too_many_bad_examples_stop_the_run_and_are_listed(config, tmp_path):
    folder = tmp_path / "pictures"
    from PIL import Image

    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(10):
            Image.new("L", (8, 8), i).save(folder / name / f"{i}.png")
        (folder / name / "broken.png").write_bytes(b"\x89PNG no more")
    text = IMAGES.replace(
        "source: synthetic_images, classes: 3, examples: 150, height: 12, width: 12, batch_size: 16",
        f"source: folder, path: {folder}, batch_size: 4, image_size: [8, 8]",
    )
    with pytest.raises(RunFailed, match=r"cannot be used, and data.max_bad_fraction allows 1.0%.*bad_examples.csv"):
        workflow.train(config(text), run_dir=tmp_path / "run")
    listed = (tmp_path / "run" / "bad_examples.csv").read_text().splitlines()
    assert listed[0] == "split,id,reason"
    assert any("broken.png" in line for line in listed[1:])


def test_what_two_splits_share_is_listed(config, tmp_path):
    from PIL import Image

    pictures = {(split, name): i for i, (split, name) in enumerate(itertools.product(("train", "test"), ("a", "b")))}
    for (split, name), first in pictures.items():
        folder = tmp_path / "pictures" / split / name
        folder.mkdir(parents=True)
        for i in range(10):
            Image.new("L", (8, 8), 10 * first + i).save(folder / f"{i}.png")
    shutil.copy(tmp_path / "pictures/train/a/3.png", tmp_path / "pictures/test/b/copy.png")
    text = IMAGES.replace(
        "source: synthetic_images, classes: 3, examples: 150, height: 12, width: 12, batch_size: 16",
        f"source: folder, path: {tmp_path / 'pictures'}, batch_size: 4, image_size: [8, 8]",
    )
    directory = workflow.train(config(text, "training.epochs=1"), run_dir=tmp_path / "run")
    with (directory / "duplicates.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["split"], row["id"]) for row in rows] == [("test", "test/b/copy.png")]
    assert rows[0]["also_in"] in ("train", "validation")
    assert sum(read_json(directory / "record.json")["duplicates"].values()) == 1


def test_a_batch_larger_than_the_training_part_is_told(config, tmp_path):
    with pytest.raises(ToolkitError, match="data.batch_size is 500, but the train split holds 105"):
        workflow.train(config(IMAGES, "data.batch_size=500"), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@every_backend
def test_a_backend_that_the_environment_contradicts_is_told(config, tmp_path):
    other = "jax" if os.environ["KERAS_BACKEND"] != "jax" else "torch"
    with pytest.raises(ToolkitError, match=f"training.backend is {other} but the environment variable KERAS_BACKEND"):
        workflow.train(config(IMAGES, f"training.backend={other}"), run_dir=tmp_path / "run")


@every_backend
def test_a_model_of_ones_own_is_trained_and_evaluated(config, tmp_path):
    directory = workflow.train(config(IMAGES), run_dir=tmp_path / "run", model=network())
    first = read_json(directory / "evaluation.json")["loss"]
    assert workflow.evaluate(directory, model=network()).loss == pytest.approx(first)


@every_backend
def test_speech_becomes_text(tmp_path, config, capsys):
    """Train, evaluate with another decoding, and write down files."""
    import soundfile

    from toolkit.data.sources.synthetic import synthetic_speech

    run = workflow.train(config(SPEECH), run_dir=tmp_path / "run")
    figures = read_json(run / "evaluation.json")
    with (run / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert figures["examples"] == len(rows) == 32
    assert figures["right"] == np.mean([row["answer"] == row["text"] for row in rows])
    assert figures["words"]["rate"] < 0.2  # silence alone is wrong in every word
    assert not (run / "confusion.png").exists()
    searched = workflow.evaluate(run, beam_width=8)
    assert searched.decoding == "beam search, width 8"
    assert searched.loss == pytest.approx(figures["loss"], rel=1e-5)
    assert "word error rate" in capsys.readouterr().out
    part = synthetic_speech(words=3, examples=160).splits["test"]
    for i in range(2):
        soundfile.write(tmp_path / f"{i}.wav", part.values[i], 8000)
    found = workflow.predict(run, files=[tmp_path / "0.wav", tmp_path / "1.wav"], output=tmp_path / "texts.csv")
    answers = {row["id"]: row["answer"] for row in rows}
    assert found.texts == [answers[id] for id in part.ids[:2]]
    with (tmp_path / "texts.csv").open(newline="") as file:
        assert [row["text"] for row in csv.DictReader(file)] == found.texts
    workflow.predict(run, files=[tmp_path / "0.wav"])
    assert found.texts[0] in capsys.readouterr().out


@every_backend
def test_speech_becomes_characters(tmp_path, config):
    """Transcripts of up to 19 characters, so that batches of labels have two widths."""
    import soundfile

    from toolkit.data.sources.synthetic import synthetic_speech

    text = config(SPEECH, "data.transcript_units=characters", "training.epochs=2", "data.batch_size=4")
    run = workflow.train(text, run_dir=tmp_path / "run")
    figures = read_json(run / "evaluation.json")
    assert math.isfinite(figures["loss"])
    assert workflow.evaluate(run).loss == pytest.approx(figures["loss"], rel=1e-5)
    with (run / "predictions.csv").open(newline="") as file:
        answers = {row["id"]: row["answer"] for row in csv.DictReader(file)}
    part = synthetic_speech(words=3, examples=160).splits["test"]
    assert max(map(len, part.labels)) > 16 > min(map(len, part.labels))
    soundfile.write(tmp_path / "0.wav", part.values[0], 8000)
    assert workflow.predict(run, files=[tmp_path / "0.wav"]).texts == [answers[part.ids[0]]]


@pytest.mark.filterwarnings("ignore:(.|\\n)*The structure of `inputs`")  # Keras's, of a model that takes a part
@pytest.mark.parametrize("named", [True, False])
def test_frames_of_a_model_of_ones_own_are_counted(tmp_path, config, named):
    import keras

    samples, lengths = keras.Input((None,), name="samples"), keras.Input((), dtype="int32", name="lengths")
    slow = keras.layers.Conv1D(4, 3200, strides=1600, padding="same", name="logits")(samples[:, :, None])
    inputs = {"samples": samples, "lengths": lengths}
    run = workflow.train(
        config(SPEECH, "data.max_bad_fraction=0.9", "training.epochs=1"),
        run_dir=tmp_path / "run",
        model=keras.Model(inputs if named else samples, slow),
    )
    with (run / "bad_examples.csv").open(newline="") as file:
        assert all("its transcript needs" in row["reason"] for row in csv.DictReader(file))
    assert read_json(run / "record.json")["bad_examples"] > 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.best_metric=val_accuracy",
            "training.best_metric is val_accuracy, but the data is for transcription",
        ),
        ("training.plateau={monitor: accuracy}", "training.plateau.monitor is accuracy"),
        ("training.class_weights=balanced", "training.class_weights is set, but the data is for transcription"),
        ("training.label_smoothing=0.1", "training.label_smoothing is 0.1"),
        ("model={name: speech_lstm}", "model.name is speech_lstm, which gives one answer per example"),
    ],
)
def test_what_transcription_does_not_have_is_refused(tmp_path, config, override, message):
    with pytest.raises(ToolkitError, match=message):
        workflow.train(config(SPEECH, override), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_recordings_too_short_for_their_transcript_are_left_out(tmp_path, config):
    """Frames of 160 ms are too few for words of 150 ms; the run names whose, and what would help."""
    with pytest.raises(RunFailed, match=r"cannot be used, .*let the model make more frames \(model.convolutions"):
        workflow.train(config(SPEECH, "model.convolutions=[4, 4, 4, 4]"), run_dir=tmp_path / "none")
    short = ("model.convolutions=[4, 4, 4, 4]", "data.max_bad_fraction=0.9", "training.epochs=1")
    run = workflow.train(config(SPEECH, *short), run_dir=tmp_path / "run")
    with (run / "bad_examples.csv").open(newline="") as file:
        bad = list(csv.DictReader(file))
    assert bad
    assert all("its transcript needs" in row["reason"] for row in bad)
    assert math.isfinite(read_json(run / "evaluation.json")["loss"])
