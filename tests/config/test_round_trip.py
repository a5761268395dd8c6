"""What a run writes down is read back as the same config."""

# ruff: noqa: E501 - values that trap a writer stand on one line
from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from toolkit.config import RunConfig, load, load_run
from toolkit.config.nodes import Problems
from toolkit.config.options import Augmentation, DataOptions, EarlyStopping, OptimizerOptions, TrainingOptions
from toolkit.config.reader import read_text
from toolkit.config.run_config import Component, DataConfig, OptimizerConfig
from toolkit.config.writer import to_text
from toolkit.errors import ToolkitError

text = st.text(
    st.characters(
        exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\ufffe\uffff", include_characters="\n\t"
    ),
    max_size=20,
)
tricky = st.sampled_from(
    ["", " ", "1e-3", "010", "no", "null", "~", ".nan", "0x1", "-", "- a", "a: b", "#", "a #b", "'", '"', "\\", "${HOME}", "$${X}",
     "$$${", "${", "*a", "&a", "!!int", "%", "@", "`", "|", ">", "---", "...", "{", "[a]", "a,b", "\n", "a\n", "\ufeff", "é", "😀", "?"]
)  # fmt: skip
words = text | tricky
share = st.floats(0, 1, exclude_max=True)
size = st.integers(1, 2**31 - 1)
positive = st.floats(0, 1e12, exclude_min=True)


def maybe(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


data = st.builds(
    DataOptions,
    batch_size=size,
    image_size=maybe(st.tuples(size, size)),
    max_bad_fraction=share,
    cache=st.sampled_from(["auto", "memory", "disk"]),
    augmentation=st.builds(
        Augmentation,
        flip=maybe(st.just("both")),
        shift=share,
        rotation=st.floats(0, 180),
        crop=maybe(st.tuples(size, size)),
    ),
)
optimizer_options = st.builds(
    OptimizerOptions, weight_decay=maybe(positive), clipnorm=maybe(positive), use_ema=st.booleans()
)
training = st.builds(
    TrainingOptions,
    epochs=size,
    early_stopping=maybe(st.builds(EarlyStopping, patience=size, min_delta=st.floats(0, 1e12))),
    init_from=maybe(words),
    freeze=st.lists(words, max_size=3).map(tuple),
)
selection = words.filter(lambda value: "120%" not in value) | st.dictionaries(
    st.from_regex(r"[a-z_]{1,8}", fullmatch=True).filter(lambda key: key not in ("true", "false", "null")),
    words,
    max_size=3,
)
library = st.fixed_dictionaries(
    {"name": words, "train": st.just("a"), "test": selection.filter(lambda v: v != "a"), "fields": maybe(words)}
)
net = st.fixed_dictionaries(
    {"filters": st.lists(size, max_size=4), "dropout": share, "cell": st.sampled_from(["lstm", "gru"]), "bias": st.booleans(),
     "scale": maybe(positive), "copy": st.booleans()}
)  # fmt: skip
adam = st.fixed_dictionaries({"learning_rate": st.floats(0, 1e6), "beta_1": share})
step = st.fixed_dictionaries({"every": size, "factor": share})
run_configs = st.builds(
    RunConfig,
    name=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,10}", fullmatch=True),
    seed=st.integers(0, 2**31 - 1),
    data=st.builds(DataConfig, st.builds(Component, st.just("library"), library), data),
    model=st.builds(Component, st.just("net"), net),
    optimizer=st.builds(
        OptimizerConfig,
        st.builds(Component, st.just("adam"), adam),
        maybe(st.builds(Component, st.just("step"), step)),
        optimizer_options,
    ),
    training=training,
)


# Not shrunk when it fails, which takes minutes; the test below finds small examples of the same faults.
@settings(max_examples=80, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(run_configs)
def test_written_config_is_read_back_as_the_same(components, config: RunConfig):
    Path("some.yaml").write_bytes(config.to_yaml().encode())

    assert load("some.yaml") == config


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), plain, min_size=1))
def test_any_plain_tree_is_written_as_yaml_that_means_it(tree: dict):
    problems = Problems()

    node = read_text(to_text(tree), "f", problems)

    problems.raise_if_any()
    assert json.dumps(node.plain()) == json.dumps(tree)  # tells 1 from 1.0 and True


def test_what_no_config_can_hold_is_not_written():
    with pytest.raises(TypeError, match=r"a config cannot hold \{1\} \(set\)"):
        to_text({"a": {1}})


def test_dictionary_has_the_layout_of_the_file_and_plain_values(configs, complete: str):
    tree = configs.load(complete, "optimizer.schedule={name: cosine}").to_dict()

    assert list(tree) == ["name", "seed", "data", "model", "optimizer", "training"]
    assert tree["data"]["source"] == "folder"
    assert tree["model"]["filters"] == [32, 64]
    assert tree["optimizer"]["schedule"] == {"name": "cosine", "warmup_steps": 0, "final_share": 0.0}
    json.dumps(tree)


def test_variables_are_written_with_the_values_they_had(configs, complete: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WHERE", "/then/${x}")
    config = configs.load(complete.replace("pictures", "${WHERE}"))
    monkeypatch.setenv("WHERE", "/now")

    Path("again.yaml").write_text(config.to_yaml())

    assert load("again.yaml").data.source.arguments["path"] == "/then/${x}"


def test_run_keeps_the_name_of_the_config_it_began_with(configs, complete: str):
    config = load(configs.write(complete, "my cats & dogs.v2.yaml"))
    assert config.name == "my-cats-dogs.v2"
    configs.write(config.to_yaml(), "runs/one/config.yaml")

    assert load_run("runs/one") == config
    assert load_run(Path("runs/one")).name == "my-cats-dogs.v2"


def test_folder_that_holds_no_run_is_told(configs, complete: str):
    Path("empty").mkdir()

    for folder in ("empty", "nowhere"):
        with pytest.raises(
            ToolkitError, match=rf"^{folder} holds no run \(config.yaml is missing\): give a run directory"
        ):
            load_run(folder)


def test_damaged_config_of_a_run_is_told(configs, complete: str):
    configs.write(complete, "run/config.yaml")
    assert load_run("run").name == "config"
    configs.write("data: [", "run/config.yaml")

    with pytest.raises(ToolkitError, match=r"^run/config.yaml:1: data: this is not YAML"):
        load_run("run")
    shutil.rmtree("run")


def test_configs_that_differ_in_one_argument_are_not_equal(configs, complete: str):
    config = configs.load(complete)

    assert configs.load(complete, "model.dropout=0.31") != config
    assert dataclasses.replace(config, seed=1) != config


def test_without_defaults_what_a_file_leaves_out_stays_out(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(
        "data: {source: synthetic_images, classes: 4, batch_size: 16, augmentation: {flip: horizontal, shift: 0}}\n"
        "model: {name: simple_cnn, filters: [32, 64], units: 9}\n"
        "optimizer: {name: adam, schedule: {name: cosine}}\n"
        "training: {epochs: 10, checkpoint: {keep: 3}}\n"
    )
    assert load(path).to_dict(defaults=False) == {
        "name": "small",
        "seed": 0,
        "data": {"source": "synthetic_images", "classes": 4, "batch_size": 16, "augmentation": {"flip": "horizontal"}},
        "model": {"name": "simple_cnn", "units": 9},  # [32, 64] is what the signature has
        "optimizer": {"name": "adam", "schedule": {"name": "cosine"}},
        "training": {"checkpoint": {"keep": 3}},
    }
