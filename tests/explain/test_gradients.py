"""`toolkit gradients` on runs of the walk: what a person reads, sees, and is refused."""

import json
import os
import shutil

import keras
import pytest
from PIL import Image

from toolkit import cli, workflow
from toolkit.config import load
from toolkit.errors import ToolkitError
from toolkit.runs import gradients

CONFIG = """
data: {source: synthetic_images, classes: 3, examples: 120, height: 12, width: 12, batch_size: 16}
model: {name: simple_cnn, filters: [4, 4]}
optimizer: {name: adam, learning_rate: 1e-3}
training: {epochs: 1, backend: %s, watch: gradients, watch_every: 1}
"""


def vanishing():
    """A network of a person's own: twenty layers of sigmoid."""
    image = keras.Input((12, 12, 1), dtype="uint8", name="image")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(image))
    for i in range(1, 21):
        x = keras.layers.Dense(16, activation="sigmoid", name=f"hidden{i}")(x)
    return keras.Model({"image": image}, keras.layers.Dense(3, name="logits")(x))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    (folder / "small.yaml").write_text(CONFIG % os.environ["KERAS_BACKEND"])
    return workflow.train(load(folder / "small.yaml"), run_dir=folder / "run", model=vanishing())


def run_command(*arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return ended.value.code


def test_the_verdict_is_told_at_the_end_of_training_and_by_the_command(trained, capsys):
    sentence = "vanishing gradient: since step 1 layer hidden1 has "
    assert sentence in (trained / "log.txt").read_text()
    assert run_command("gradients", trained) == 0
    said = capsys.readouterr().out
    assert sentence in said
    assert f"the picture is {trained / 'gradients.png'}" in said


def test_the_picture_has_a_row_for_each_layer_and_shows_where_the_gradient_fades(trained):
    """The first layers, which get next to nothing, are darker than the last."""
    run_command("gradients", trained)
    with Image.open(trained / "gradients.png") as picture:
        width, height = picture.size
        pixels = picture.convert("L")
    assert width == 1080
    # the first panel lies in the upper third, about the middle of the picture's width
    column = [pixels.getpixel((width // 2, y)) for y in range(height)]
    panel = column[60 : height // 3 - 40]
    assert sum(panel[:60]) < 0.6 * sum(panel[-60:])


def test_a_run_that_was_not_watched_is_refused(trained, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    (copy / "gradients.jsonl").unlink()
    (copy / "gradients.png").unlink(missing_ok=True)
    assert run_command("gradients", copy) == 2
    assert "was not watched (gradients.jsonl is missing): train with --set training.watch=gradients" in (
        capsys.readouterr().err
    )
    assert not (copy / "gradients.png").exists()
    assert run_command("gradients", tmp_path / "none") == 2
    assert "there is no run directory" in capsys.readouterr().err


def test_names_of_others_speak_to_no_terminal(trained, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    layers = {"\x1b[2J{0}" + "long" * 100: {"gradient_norm": 0.0}, "logits": {"gradient_norm": 1.0}}
    row = gradients.make_row(epoch=1, step=1, clipped=False, seconds=0.1, layers=layers)
    (copy / "gradients.jsonl").write_text(json.dumps(row) + "\n")
    assert run_command("gradients", copy) == 0
    said = capsys.readouterr().out
    assert "layer \\x1b[2J{0}long" in said
    assert all(len(line) < 400 for line in said.splitlines())


def test_a_whole_number_that_no_float_holds_is_refused(tmp_path):
    row = gradients.make_row(epoch=1, step=1, clipped=False, seconds=0.1, layers={"logits": {"gradient_norm": 1.0}})
    row["layers"]["logits"]["gradient_norm"] = 10**400
    (tmp_path / "gradients.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ToolkitError, match=r"gradients.jsonl:1 is no row of gradients.jsonl"):
        gradients.read(tmp_path / "gradients.jsonl")


@pytest.mark.parametrize("value", ["true", "{gradients: true}", "weights"])
def test_only_gradients_can_be_watched(tmp_path, value, capsys):
    (tmp_path / "small.yaml").write_text(CONFIG % os.environ["KERAS_BACKEND"])
    assert run_command("configs", "validate", "small.yaml") == 0
    assert run_command("train", "small.yaml", "--set", f"training.watch={value}") == 2
    assert "training.watch: found" in capsys.readouterr().err
