"""Every YAML file that is shipped, and how people come by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.config import load, shipped
from toolkit.errors import ToolkitError

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").rglob("*.yaml"))
FIRST_LINE = "# yaml-language-server: $schema="


def test_there_are_shipped_configs():
    assert len(CONFIGS) > 0
    assert sorted(shipped.shipped_configs().values()) == CONFIGS
    assert {"quickstart", "mnist_cnn", "cats_vs_dogs_cnn", "spoken_digit_lstm", "imdb_transformer"} <= set(
        shipped.shipped_configs()
    )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_config_is_valid_and_its_resolved_form_too(path: Path, tmp_path: Path):
    config = load(path)
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(config.to_yaml(), encoding="utf-8")

    assert load(resolved) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_first_line_leads_editors_to_the_schema(path: Path):
    first = path.read_text(encoding="utf-8").splitlines()[0]

    assert first.startswith(FIRST_LINE)
    assert (path.parent / first.removeprefix(FIRST_LINE)).resolve() == shipped.folder() / "schema.json"
    assert shipped.summary(path), "the line below says what the config is for; `configs ls` prints it"


@pytest.mark.parametrize(
    ("name", "values", "key", "problem"),
    [
        ("mnist_cnn", ["model.filters=[]"], "model.filters", "filters is empty"),
        ("cats_vs_dogs_cnn", ["model.blocks=[[8], []]"], "model.blocks", "give at least one block, and each block"),
        ("spoken_digit_lstm", ["model.hop_ms=30"], "model.hop_ms", "hop_ms is 30.0, longer than model.frame_ms"),
        ("imdb_transformer", ["model.width=10", "model.heads=4"], "model.width", "make width a multiple of heads"),
        ("mnist_cnn", ["optimizer.exclude_from_decay=[(]"], "optimizer.exclude_from_decay", "no regular expression"),
        ("mnist_cnn", ["optimizer.decay_biases_and_norms=false"], "optimizer.decay_biases_and_norms", "has no effect"),
        ("mnist_cnn", ["optimizer.schedule={name: step}"], "optimizer.schedule.every", "give one of the two"),
    ],
)
def test_what_needs_no_data_is_told_before_any_is_read(name: str, values: list[str], key: str, problem: str):
    with pytest.raises(ToolkitError) as caught:
        load(shipped.find_config(name), values)

    assert str(caught.value).startswith(f"--set {values[0]}: {key}: ")
    assert problem in str(caught.value)


def test_config_is_found_by_path_or_by_name():
    mine = Path("mnist_cnn.yaml")
    mine.write_text("seed: 1\n")

    assert shipped.find_config("mnist_cnn") == shipped.shipped_configs()["mnist_cnn"]
    assert shipped.find_config("mnist_cnn.yaml") == mine


def test_folder_of_the_same_name_does_not_hide_a_shipped_config():
    Path("mnist_cnn").mkdir()

    assert shipped.find_config("mnist_cnn") == shipped.shipped_configs()["mnist_cnn"]


@pytest.mark.parametrize(
    ("given", "near"), [("mnist_cn", "mnist_cnn"), ("quickstart.yaml", "quickstart"), ("quickstrat", "quickstart")]
)
def test_near_miss_of_a_name_is_told(given: str, near: str):
    with pytest.raises(
        ToolkitError, match=rf"'{given}' is neither a file nor .* \(did you mean '{near}'\?\): give a path, or one of"
    ):
        shipped.find_config(given)


@pytest.mark.parametrize("given", ["", "a\0b", "x" * 5000, "../..", "\udcff"])
def test_strange_names_are_told_too(given: str):
    with pytest.raises(ToolkitError, match="is neither a file nor the name"):
        shipped.find_config(given)


# Copies ---------------------------------------------------------------------------------------------------------------


def test_copy_is_valid_and_points_to_the_schema():
    (copy,) = shipped.copy_config("mnist_cnn")

    assert copy == Path("mnist_cnn.yaml")
    assert load(copy) == load(shipped.shipped_configs()["mnist_cnn"])
    line = copy.read_text().splitlines()[0]
    assert Path(line.removeprefix(FIRST_LINE)) == shipped.folder() / "schema.json"
    assert Path(line.removeprefix(FIRST_LINE)).is_file()


def test_copy_goes_where_it_is_told():
    Path("here").mkdir()

    assert shipped.copy_config("mnist_cnn", Path("here")) == [Path("here/mnist_cnn.yaml")]
    assert shipped.copy_config("mnist_cnn", Path("new/mine.yaml")) == [Path("new/mine.yaml")]
    assert load("new/mine.yaml").name == "mine"


def test_copy_overwrites_nothing():
    Path("mnist_cnn.yaml").write_text("mine")
    Path("dangling.yaml").symlink_to("nowhere")

    for target in (None, Path("dangling.yaml")):
        with pytest.raises(ToolkitError, match="exists already and is never overwritten"):
            shipped.copy_config("mnist_cnn", target)
    assert Path("mnist_cnn.yaml").read_text() == "mine"


def test_copy_that_cannot_be_written_is_told():
    Path("file").write_text("")

    with pytest.raises(ToolkitError, match=r"file/x.yaml cannot be written \(.*\): give another destination"):
        shipped.copy_config("mnist_cnn", Path("file/x.yaml"))


def test_copy_brings_what_it_extends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, configs, complete: str):
    monkeypatch.setattr(shipped, "folder", lambda: tmp_path / "shipped")
    configs.write(f"{FIRST_LINE}../schema.json\n{complete}", "shipped/parts/base.yaml")
    configs.write("extends: parts/base.yaml\nseed: 4\n", "shipped/special.yaml")

    copies = shipped.copy_config("special", Path("mine/own.yaml"))

    assert copies == [Path("mine/own.yaml"), Path("mine/parts/base.yaml")]
    assert load("mine/own.yaml").seed == 4
    assert load("mine/own.yaml").model.name == "net"
    with pytest.raises(ToolkitError, match=r"base.yaml exists already"):
        shipped.copy_config("special", Path("mine/other.yaml"))
    assert not Path("mine/other.yaml").exists()
