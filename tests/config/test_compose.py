"""`extends` and `--set`: which value wins, and where its problem is told."""

# ruff: noqa: E501 - messages stand here as people see them
from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.config import load
from toolkit.errors import ToolkitError

BASE = """\
name: base
seed: 5
data:
  source: library
  name: cats
  test: {index: 0-4, speaker: theo}
  batch_size: 16
  augmentation: {flip: both, shift: 0.1}
model:
  name: net
  filters: [8, 16]
  dropout: 0.5
optimizer:
  name: adam
  beta_1: 0.5
  clipnorm: 1
  schedule: {name: cosine, warmup_steps: 7}
training:
  epochs: 3
"""


@pytest.fixture
def child(configs):
    """Loads a file that extends BASE."""
    configs.write(BASE, "base.yaml")
    return lambda text, *overrides: configs.load(f"extends: base.yaml\n{text}", *overrides)


def test_child_alone_is_its_parent_under_another_name(configs, child):
    config = child("")

    assert config.to_dict() == {**load("base.yaml").to_dict(), "name": "c"}
    assert load("base.yaml").name == "base"


def test_mappings_are_merged(child):
    config = child("data: {batch_size: 4, augmentation: {shift: 0.2}}\nmodel: {dropout: 0.1}\n")

    assert config.data.options.batch_size == 4
    assert config.data.options.augmentation.shift == 0.2
    assert config.data.options.augmentation.flip == "both"
    assert config.data.source.arguments["name"] == "cats"
    assert config.model.arguments["dropout"] == 0.1
    assert config.model.arguments["filters"] == (8, 16)
    assert config.seed == 5


@pytest.mark.parametrize("override", ["data.augmentation={}", "optimizer.schedule={}", "model={}"])
def test_empty_mapping_over_a_full_one_is_refused(child, override: str):
    with pytest.raises(ToolkitError, match=f"^--set {override}: [a-z.]+: an empty mapping changes nothing of what"):
        child("", override)


def test_null_takes_away_what_is_optional(child):
    config = child("data: {augmentation: null}\noptimizer: {schedule: null}\n")

    assert config.data.options.augmentation is None
    assert config.optimizer.schedule is None


def test_lists_and_arguments_of_builders_are_replaced_whole(child):
    config = child("data: {test: {speaker: lucas}}\nmodel: {filters: [4]}\n")

    assert config.model.arguments["filters"] == (4,)
    assert config.data.source.arguments["test"] == {"speaker": "lucas"}


def test_another_component_starts_from_its_own_defaults_and_shared_options_stay(child):
    config = child("optimizer: {name: sgd}\ndata: {source: folder, path: x}\nmodel: {name: linear}\n")

    assert config.optimizer.optimizer.arguments == {"learning_rate": 0.01}
    assert config.optimizer.options.clipnorm == 1
    assert config.optimizer.schedule.name == "cosine"
    assert config.optimizer.schedule.arguments["warmup_steps"] == 7
    assert config.data.source.arguments["test"] == 0.2
    assert config.data.options.batch_size == 16
    assert config.model.arguments == {"schema": "none"}


def test_same_name_again_changes_nothing(child):
    assert child("optimizer: {name: adam}\n").optimizer.optimizer.arguments["beta_1"] == 0.5


def test_null_takes_a_schedule_away_and_a_mapping_brings_it_back(configs, child):
    assert child("optimizer: {schedule: null}\n").optimizer.schedule is None
    configs.write("extends: base.yaml\noptimizer: {schedule: null}\n", "middle.yaml")
    config = configs.load("extends: middle.yaml\noptimizer: {schedule: {name: step, every: 3}}\n")
    assert config.optimizer.schedule.arguments == {"every": 3, "factor": 0.5}


def test_paths_are_relative_to_the_file_that_extends(configs):
    configs.write(BASE, "shared/base.yaml")
    configs.write("extends: ../base.yaml\nseed: 6\n", "shared/deep/middle.yaml")

    assert configs.load("extends: shared/deep/middle.yaml\n").seed == 6
    assert configs.load(f"extends: {Path('shared/base.yaml').resolve()}\n").seed == 5


def test_problem_is_told_where_the_value_stands(configs):
    configs.write(BASE.replace("dropout: 0.5", "dropout: 5"), "base.yaml")

    lines = configs.problems("extends: base.yaml\nmodel:\n  filters: [0]\ntraining: {epochs: 0}\n")

    assert sorted(lines) == [
        "base.yaml:12: model.dropout: found 5, allowed: a number in [0, 1)",
        "c.yaml:3: model.filters[0]: found 0, allowed: a whole number from 1 to 2147483647",
        "c.yaml:4: training.epochs: found 0, allowed: a whole number from 1 to 2147483647",
    ]


def test_problem_that_a_child_repairs_is_none(configs, child):
    configs.write(BASE.replace("dropout: 0.5", "dropout: 5"), "base.yaml")

    assert configs.load("extends: base.yaml\nmodel: {dropout: 0}\n").model.arguments["dropout"] == 0


def test_circle_is_shown(configs):
    configs.write("extends: two.yaml\n", "one.yaml")
    configs.write("extends: three.yaml\n", "two.yaml")
    configs.write("\nextends: one.yaml\n", "three.yaml")

    with pytest.raises(ToolkitError) as caught:
        load("one.yaml")
    assert str(caught.value) == (
        "three.yaml:2: extends: the files extend one another in a circle "
        "(one.yaml → two.yaml → three.yaml → one.yaml): cut it"
    )


def test_file_that_extends_itself_through_a_link_is_a_circle(configs):
    Path("link.yaml").symlink_to("c.yaml")

    assert "in a circle (c.yaml → link.yaml)" in configs.problems("extends: link.yaml\n")[0]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("nowhere.yaml", "there is no file 'nowhere.yaml': the path is relative to this file"),
        ("[a.yaml, b.yaml]", "found ['a.yaml', 'b.yaml'], allowed: the path of one YAML file"),
        ("", "found nothing (null), allowed: the path of one YAML file"),
        ("x" * 5000, "there is no file 'xxx"),
        ('"a\\tb"', "there is no file 'a\\tb"),
        ("3", "found 3, allowed: the path of one YAML file"),
    ],
)
def test_extends_that_leads_nowhere_is_told(configs, value: str, told: str):
    assert configs.problems(f"seed: 1\nextends: {value}\n")[0].startswith(f"c.yaml:2: extends: {told}")


def test_broken_parent_is_told_with_its_own_name(configs):
    configs.write("data: [\n", "base.yaml")

    assert configs.problems("extends: base.yaml\n")[0].startswith("base.yaml:2: data: this is not YAML")


# --set ----------------------------------------------------------------------------------------------------------------


def test_overrides_win_over_the_file_and_are_read_as_yaml(child):
    config = child(
        "training: {epochs: 9}\n",
        "training.epochs=11",
        "optimizer.learning_rate=3e-4",
        "model.filters=[1, 2, 3]",
        "data.augmentation.flip=null",
        "training.early_stopping={monitor: val_accuracy}",
        "training.precision = mixed_bfloat16",
        "data.name='007'",
    )

    assert config.training.epochs == 11
    assert config.optimizer.optimizer.arguments["learning_rate"] == 3e-4
    assert config.model.arguments["filters"] == (1, 2, 3)
    assert config.data.options.augmentation.flip is None
    assert config.data.options.augmentation.shift == 0.1
    assert config.training.early_stopping.monitor == "val_accuracy"
    assert config.training.precision == "mixed_bfloat16"
    assert config.data.source.arguments["name"] == "007"


def test_later_override_wins(child):
    assert child("", "seed=1", "seed=2").seed == 2


@pytest.mark.parametrize("order", [1, -1])
def test_order_of_a_new_name_and_its_arguments_does_not_matter(child, order: int):
    config = child("", *["optimizer.name=sgd", "optimizer.learning_rate=0.5"][::order])

    assert config.optimizer.optimizer.arguments == {"learning_rate": 0.5}


def test_override_reaches_into_an_argument(child):
    assert child("", "data.test.index=5-9").data.source.arguments["test"] == {"index": "5-9", "speaker": "theo"}


def test_mapping_as_override_is_merged_into_the_structure_alone(child):
    config = child("", "data={batch_size: 2, test: {speaker: lucas}}")

    assert config.data.options.batch_size == 2
    assert config.data.source.arguments["name"] == "cats"
    assert config.data.source.arguments["test"] == {"speaker": "lucas"}


def test_override_repairs_the_file(configs, complete: str):
    assert configs.load(f"{complete}seed: wrong\n", "seed=1").seed == 1
    assert configs.load(
        complete.replace("data:", "# data:").replace("  source", "#").replace("  path", "#"),
        "data={source: folder, path: x}",
    )


def test_problem_of_an_override_names_the_override(configs, complete: str):
    lines = configs.problems(
        f"{complete}seed: -1\n",
        "model.dropout=1.5",
        "model.dropuot=0.5",
        "nothing",
        "=3",
        "a..b=3",
        "extends=x.yaml",
        "extends.more=x.yaml",
        "data.path=[",
        "model.filters=!!python/none 3",
        "training.precision.bits=16",
        "model.cell='${NO_SUCH_VARIABLE}'",
    )

    assert sorted(lines) == sorted(
        [
            "c.yaml:8: seed: found -1, allowed: a whole number from 0 to 2147483647",
            "--set model.dropout=1.5: model.dropout: found 1.5, allowed: a number in [0, 1)",
            "--set model.dropuot=0.5: model.dropuot: there is no such key (did you mean 'dropout'?), allowed: name, filters, "
            "dropout, cell, bias, scale, copy",
            "--set nothing: allowed: KEY=VALUE with a dotted key, as in optimizer.learning_rate=3e-4",
            "--set =3: allowed: KEY=VALUE with a dotted key, as in optimizer.learning_rate=3e-4",
            "--set a..b=3: allowed: KEY=VALUE with a dotted key, as in optimizer.learning_rate=3e-4",
            "--set extends=x.yaml: only a file can extend another: write a file with `extends`",
            "--set extends.more=x.yaml: only a file can extend another: write a file with `extends`",
            "--set data.path=[: data.path: this is not YAML (while parsing a flow node expected the node content, but found "
            "'<stream end>'): check indentation, colons and quotes",
            "--set model.filters=!!python/none 3: model.filters: found the tag !!python/none: remove it; tags are not allowed",
            "--set training.precision.bits=16: training.precision: found {bits: 16}, allowed: one of float32, mixed_bfloat16, auto",
            "--set model.cell='${NO_SUCH_VARIABLE}': model.cell: the environment variable NO_SUCH_VARIABLE is not set: set it, "
            "or give a default, ${NO_SUCH_VARIABLE:…}",
        ]
    )


def test_entry_of_a_list_cannot_be_set(child):
    with pytest.raises(
        ToolkitError, match=r"model\.filters is a list, and lists are replaced whole: set model\.filters=\[…\]"
    ):
        child("", "model.filters.0=4")
