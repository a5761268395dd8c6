"""What cannot be looked at is told in a sentence, and what strangers wrote does no harm."""

import os
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from toolkit import workflow
from toolkit.cli import main
from toolkit.config import load
from toolkit.errors import ToolkitError
from toolkit.explain.look.walk import look

DENSE = """
data: {source: synthetic_images, classes: 3, examples: 60, height: 12, width: 12, batch_size: 8}
model: {name: mnist_dense, hidden: 4}
optimizer: {name: adam, learning_rate: 1e-2}
training: {epochs: 1, backend: BACKEND}
"""


def train(folder, text, **options):
    (folder / "config.yaml").write_text(text.replace("BACKEND", os.environ["KERAS_BACKEND"]))
    return workflow.train(load(folder / "config.yaml"), run_dir=folder / "run", **options)


@pytest.fixture(scope="module")
def dense_run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("dense"), DENSE)


@pytest.fixture
def run(dense_run, tmp_path):
    return shutil.copytree(dense_run, tmp_path / "copy")


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != "log.txt"}


def refused(capsys, directory, *arguments):
    """The sentence, after a look that exits with 2 and leaves all as it was."""
    before = contents(directory)
    with pytest.raises(SystemExit) as exit:
        main(["look", str(directory), *arguments])
    assert exit.value.code == 2
    assert contents(directory) == before
    assert not (directory / "look").exists()
    return " ".join(capsys.readouterr().err.split())


def test_a_run_without_weights(run, capsys):
    (run / "weights.safetensors").unlink()
    assert "is not the directory of a trained run (weights.safetensors is missing)" in refused(capsys, run)


def test_filters_of_a_model_without_convolutions(run, capsys):
    told = refused(capsys, run, "--only", "filters")
    assert "the filters of a convolution over pictures (Conv2D), which the model mnist_dense has not" in told
    assert "use attributions or mistakes" in told


def test_an_example_that_is_not_there(run, capsys):
    known = next(iter((run / "predictions.csv").read_text().splitlines()[1:])).split(",")[0].strip('"')
    told = refused(capsys, run, "--example", known.replace("-", "_"))
    assert "is no example of the test part, which holds 12" in told
    assert f"'{known}'" in told


def test_lists_that_are_not_about_an_example(run, capsys):
    assert "--only mistakes is not about single examples" in refused(
        capsys, run, "--only", "mistakes", "--example", "synthetic_images-000001"
    )


def test_an_unknown_kind_is_told_by_click():
    from toolkit.cli import cli

    result = CliRunner().invoke(cli, ["look", "run", "--only", "filter"])
    assert result.exit_code == 2
    assert "'filters', 'maps'" in result.output


def test_a_folder_of_pictures_that_leads_elsewhere_is_not_followed(run, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.png").write_bytes(b"mine")
    (run / "look").symlink_to(elsewhere)
    with pytest.raises(ToolkitError, match="is a symbolic link"):
        look(run)
    (run / "look").unlink()
    (run / "look").write_text("a file")
    with pytest.raises(ToolkitError, match="look is a file, which train does not make it"):
        look(run)
    assert [path.name for path in elsewhere.iterdir()] == ["mine.png"]


def test_the_last_line_says_where_the_pictures_are(run, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["look", str(run), "--only", "mistakes"])
    assert exit.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith(f"pictures are in {run / 'look'}")


def network(kind):
    import keras

    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3), keras.layers.ReLU(), keras.layers.Flatten(),
              keras.layers.Dense(3)]  # fmt: skip
    if kind == "sequential":
        return keras.Sequential([keras.Input((12, 12, 1), dtype="uint8"), *layers])
    if kind == "graph":
        x = image = keras.Input((12, 12, 1), dtype="uint8", name="image")
        for layer in layers:
            x = layer(x)
        return keras.Model({"image": image}, x)

    class Own(keras.Model):
        def call(self, image):
            return image

    return Own()


def test_a_model_of_ones_own_is_looked_into_where_it_has_the_layers(tmp_path):
    directory = train(tmp_path, DENSE, model=network("graph"), steps=3)
    paths = look(directory, model=network("graph"))
    assert {"filters", "maps", "gradcam", "attributions"} <= {path.stem.partition("-")[0] for path in paths}


def test_a_sequential_model_is_a_graph():
    from keras import ops

    from toolkit.explain.look import graph

    model = network("sequential")
    graph.check(model)
    activated = graph.activated(model, graph.convolutions(model)[0])
    assert activated is model.layers[2]
    inputs = {"image": np.ones((2, 12, 12, 1), "uint8")}
    maps, logits = graph.reader(model, [activated.output, *model.outputs])(inputs)
    assert maps.shape == (2, 10, 10, 4)
    again = graph.rest(model, [activated.output])([ops.convert_to_tensor(maps)], *graph.in_order(model, inputs))
    np.testing.assert_allclose(ops.convert_to_numpy(again), logits, rtol=1e-5)


def test_a_class_of_ones_own_has_no_graph():
    from toolkit.explain.look import graph

    with pytest.raises(ToolkitError, match=r"the model is a Own, whose layers make no graph .*: build it with"):
        graph.check(network("class"))


def test_names_of_strangers_neither_leave_the_folder_nor_speak(tmp_path, capsys):
    from PIL import Image

    names = ["$\\frac{", "esc\x1b[31m"]
    rng = np.random.default_rng(0)
    for label, name in enumerate(names):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 40, (8, 8, 3)) + 200 * label
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "pictures" / name / f"$x^ ..\x07{i} é.png")
    text = DENSE.replace(
        "source: synthetic_images, classes: 3, examples: 60, height: 12, width: 12",
        f"source: folder, path: {tmp_path / 'pictures'}",
    ).replace("name: mnist_dense, hidden: 4", "name: simple_cnn, filters: [2], units: 2")
    directory = train(tmp_path, text)
    capsys.readouterr()
    paths = look(directory)
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "\x07" not in told
    assert len(paths) > 4
    for path in paths:
        assert path.parent == directory / "look"
        assert path.name.isascii()
        assert path.name.isprintable()
