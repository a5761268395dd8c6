"""Sections against signatures: what is filled in, and how each kind of mistake is told."""

# ruff: noqa: E501 - messages stand here as people see them
from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle

import pytest
from pydantic import BaseModel, ValidationError

from toolkit import registry
from toolkit.config.options import TrainingOptions
from toolkit.config.schema import argument_texts, model_of
from toolkit.types import Share

WHOLE = "a whole number from 1 to 2147483647"


def test_every_default_is_filled_in(configs, complete: str):
    config = configs.load(complete)

    assert config.name == "c"
    assert config.seed == 0
    assert config.data.source.name == "folder"
    assert config.data.source.arguments == {"path": "pictures", "validation": 0.1, "test": 0.2, "split_seed": 0}
    assert config.data.options.batch_size == 32
    assert config.model.name == "net"
    assert config.model.arguments == {
        "filters": (32, 64), "dropout": 0.3, "cell": "lstm", "bias": True, "scale": None, "copy": False
    }  # fmt: skip
    assert config.optimizer.optimizer.arguments == {"learning_rate": 1e-3, "beta_1": 0.9}
    assert config.optimizer.schedule is None
    assert config.training == TrainingOptions()


def test_whole_number_becomes_a_float_where_one_is_asked(configs, complete: str):
    config = configs.load(complete, "model.dropout=0", "optimizer.learning_rate=1", "data.augmentation.rotation=10")

    for value in (
        config.model.arguments["dropout"],
        config.optimizer.optimizer.arguments["learning_rate"],
        config.data.options.augmentation.rotation,
    ):
        assert type(value) is float


def test_config_cannot_be_changed(configs, complete: str):
    config = configs.load(complete)

    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1
    with pytest.raises(TypeError):
        config.model.arguments["dropout"] = 0.9
    with pytest.raises(ValidationError):
        config.training.epochs = 3


def test_config_can_be_copied_and_sent_to_another_process(configs, complete: str):
    config = configs.load(
        complete.replace("folder", "library").replace("path: pictures", "name: x\n  test: {index: '1'}")
    )

    assert pickle.loads(pickle.dumps(config)) == config
    assert copy.deepcopy(config) == config
    with pytest.raises(TypeError):
        copy.deepcopy(config).data.source.arguments["test"]["index"] = "2"


# One wrong value each; the line is the whole message.
WRONG = {
    "model.dropout=1.5": "found 1.5, allowed: a number in [0, 1)",
    "model.dropout='0.3'": "found '0.3', allowed: a number in [0, 1)",
    "model.dropout=true": "found true, allowed: a number in [0, 1)",
    "model.dropout=.nan": "found .nan, allowed: a number in [0, 1)",
    "model.dropout=-.inf": "found -.inf, allowed: a number in [0, 1)",
    "model.dropout=1e999": "found 1e999, allowed: a number in [0, 1)",
    "model.dropout=": "found nothing (null), allowed: a number in [0, 1)",
    "model.dropout=[0.1]": "found [0.1], allowed: a number in [0, 1)",
    "model.dropout={a: 1}": "found {a: 1}, allowed: a number in [0, 1)",
    "model.bias=yes": "found 'yes', allowed: true or false",
    "model.bias=1": "found 1, allowed: true or false",
    "model.cell=gruu": "found 'gruu' (did you mean 'gru'?), allowed: one of lstm, gru",
    "model.cell=3": "found 3, allowed: one of lstm, gru",
    "model.scale=0": "found 0, allowed: a number in (0, 1e+12], or null",
    "model.filters=8": f"found 8, allowed: a list, each {WHOLE}",
    "model.filters={a: 8}": f"found {{a: 8}}, allowed: a list, each {WHOLE}",
    "data.batch_size=32.0": f"found 32.0, allowed: {WHOLE}",
    "data.batch_size=-1": f"found -1, allowed: {WHOLE}",
    "data.batch_size=1_000": f"found '1_000', allowed: {WHOLE}",
    "data.batch_size=99999999999999999999999": f"found 99999999999999999999999, allowed: {WHOLE}",
    "data.path=3": "found 3, allowed: text",
    "data.path=null": "found nothing (null), allowed: text",
    "data.image_size=64": f"found 64, allowed: a list of 2 entries, each {WHOLE}, or null",
    "data.image_size=[64]": f"found [64], allowed: a list of 2 entries, each {WHOLE}, or null",
    "data.image_size=[1, 2, 3]": f"found [1, 2, 3], allowed: a list of 2 entries, each {WHOLE}, or null",
    "data.augmentation=false": "found false, allowed: a mapping with the keys flip, shift, zoom, rotation, crop, colour, erasing, speed, noise, or null",
    "data.augmentation.rotation=181": "found 181, allowed: a number in [0, 180]",
    "optimizer.learning_rate=-1": "found -1, allowed: a number in [0, 1000000]",
    "optimizer.schedule=cosine": "found 'cosine', allowed: a mapping with the key name",
    "training.best_metric=val_los": "found 'val_los' (did you mean 'val_loss'?), allowed: one of val_loss, val_accuracy, loss, "
    "accuracy",
    "training.precision=16": "found 16, allowed: one of float32, mixed_bfloat16, auto",
    "training.class_weights=balance": "found 'balance' (did you mean 'balanced'?), allowed: balanced, or null",
    "training.freeze=dense": "found 'dense', allowed: a list, each text",
    "training.early_stopping=5": "found 5, allowed: a mapping with the keys monitor, patience, min_delta, or null",
    "model=net": "found 'net', allowed: a mapping with the key name",
    "model=[]": "found [], allowed: a mapping with the key name",
    "training=": "found nothing (null), allowed: a mapping",
    "model.name=nett": "found 'nett' (did you mean 'net'?), allowed: one of net, linear",
    "model.name=[net]": "found ['net'], allowed: one of net, linear",
    "data.source=foldr": "found 'foldr' (did you mean 'folder'?), allowed: one of folder, library",
    "optimizer.name=": "found nothing (null), allowed: one of adam, sgd",
    "name=../up": "found '../up': a name has up to 200 letters, digits, '.', '_' and '-', and begins with a letter or digit",
    "seed=1.0": "found 1.0, allowed: a whole number from 0 to 2147483647",
}


@pytest.mark.parametrize("override", WRONG)
def test_wrong_value_is_told_in_plain_words(configs, complete: str, override: str):
    key = override.partition("=")[0]

    assert configs.problems(complete, override) == [f"--set {override}: {key}: {WRONG[override]}"]


def test_entries_of_lists_are_told_one_by_one(configs, complete: str):
    text = complete.replace("name: net", "name: net\n  filters:\n    - 8\n    - no\n    - 0")

    assert configs.problems(text) == [
        f"c.yaml:8: model.filters[1]: found 'no', allowed: {WHOLE}",
        f"c.yaml:9: model.filters[2]: found 0, allowed: {WHOLE}",
    ]


def test_unknown_keys_come_before_missing_ones_with_what_is_valid(configs):
    lines = configs.problems(
        """\
modle: {}
data:
  source: folder
  pth: x
  augmentation: {flipp: both}
optimizer:
  name: adam
  schedule:
    name: step
    evry: 3
"""
    )

    assert lines == [
        "c.yaml:1: modle: there is no such key (did you mean 'model'?), allowed: extends, name, seed, data, model, optimizer, "
        "training",
        "c.yaml:4: data.pth: there is no such key (did you mean 'path'?), allowed: source, path, validation, test, split_seed, "
        "augmentation, batch_size, buckets, cache, evaluation_batch_size, image_size, max_bad_fraction, max_tokens, "
        "sample_rate, transcript_units, vocabulary_size",
        "c.yaml:5: data.augmentation.flipp: there is no such key (did you mean 'flip'?), allowed: flip, shift, zoom, rotation, crop, "
        "colour, erasing, speed, noise",
        "c.yaml:10: optimizer.schedule.evry: there is no such key (did you mean 'every'?), allowed: name, every, factor",
        "c.yaml:1: model: the section is missing, needed: a mapping with at least the key name",
        "c.yaml:2: data.path: the key is missing, needed: text",
        f"c.yaml:8: optimizer.schedule.every: the key is missing, needed: {WHOLE}",
    ]


def test_section_without_its_name_is_told(configs):
    assert configs.problems("data: {batch_size: 0}\nmodel: {}\noptimizer: {schedule: {}}\n") == [
        f"c.yaml:1: data.batch_size: found 0, allowed: {WHOLE}",
        "c.yaml:1: data.source: the key is missing, needed: one of folder, library",
        "c.yaml:2: model.name: the key is missing, needed: one of net, linear",
        "c.yaml:3: optimizer.name: the key is missing, needed: one of adam, sgd",
        "c.yaml:3: optimizer.schedule.name: the key is missing, needed: one of cosine, step",
    ]


def test_problems_of_every_stage_come_together(configs):
    lines = configs.problems(
        """\
seed: 1
seed: 2
data:
  source: folder
  path: ${NO_SUCH_VARIABLE}
  batch_size: !!str 3
model: {name: net, dropout: 2}
optimizer: {name: sgd, clipnorm: 1, clipvalue: 1}
training: {epochs: .nan}
"""
    )

    assert [line.partition(": ")[2].partition(":")[0] for line in lines] == [
        "seed", "data.path", "data.batch_size", "model.dropout", "optimizer.clipvalue", "training.epochs"
    ]  # fmt: skip


# Rules across keys ----------------------------------------------------------------------------------------------------


def test_one_way_of_clipping_at_most(configs, complete: str):
    assert configs.load(complete, "optimizer.clipvalue=1").optimizer.options.clipvalue == 1
    assert configs.problems(f"{complete}  global_clipnorm: 2\n  clipnorm: 1\n") == [
        "c.yaml:8: optimizer.global_clipnorm: only one way of clipping can be used, and optimizer.clipnorm is set already: "
        "remove one of the two"
    ]


def test_accumulation_needs_an_optimizer_that_can_finish_a_window(configs, complete: str):
    steps = "optimizer.gradient_accumulation_steps"

    assert configs.load(complete, f"{steps}=4").optimizer.options.gradient_accumulation_steps == 4
    assert configs.load(complete, "optimizer.name=sgd", f"{steps}=1")
    assert configs.problems(complete, "optimizer.name=sgd", f"{steps}=4") == [
        f"--set {steps}=4: {steps}: sgd cannot finish an incomplete window: remove the key, or use one of adam"
    ]


def test_momentum_of_an_average_that_is_not_kept_is_refused(configs, complete: str):
    assert configs.load(complete, "optimizer.use_ema=true", "optimizer.ema_momentum=0.9")
    assert configs.load(complete, "optimizer.ema_momentum=0.99"), "the default may be written out"
    assert (
        "has no effect without optimizer.use_ema: true" in configs.problems(complete, "optimizer.ema_momentum=0.9")[0]
    )


def test_type_with_a_validator_speaks_for_itself(configs, complete: str):
    text = complete.replace("folder\n  path: pictures", "library\n  name: x\n  train: train[:120%]")

    assert configs.problems(text) == [
        "c.yaml:4: data.train: found 'train[:120%]': the slice ends at 120 %, which is more than there is"
    ]


def test_type_with_a_validator_takes_text_or_mapping(configs, complete: str):
    text = complete.replace("folder\n  path: pictures", "library\n  name: x\n  train: {index: 0-4}")

    assert configs.load(text).data.source.arguments["train"] == {"index": "0-4"}
    assert configs.problems(text, "data.train=[a]") == [
        "--set data.train=[a]: data.train: found ['a'], allowed: text, or a mapping"
    ]


def test_check_of_a_source_is_told_at_its_key(configs, complete: str):
    text = complete.replace("folder\n  path: pictures", "library\n  name: x\n  test: train")

    assert configs.problems(text) == ["c.yaml:4: data.test: train and test overlap"]


# Signatures -----------------------------------------------------------------------------------------------------------


def test_names_that_pydantic_uses_itself_are_ordinary_keys(configs, complete: str):
    def odd(
        spec, *, copy: bool = False, schema: str = "", model_config: int = 0, json: Share = 0, validate: int = 1
    ): ...

    model = model_of(odd)

    assert model.model_validate_json('{"copy": true, "model_config": 3}')
    assert configs.load(complete, "model.copy=true").model.arguments["copy"] is True


def test_docstring_describes_the_arguments():
    doc = """Do it.

    Longer: text.

    Args:
        one: the first,
            continued: here.
        two: the second.

    Raises:
        ValueError: never.
    """

    assert argument_texts(inspect.cleandoc(doc)) == {"one": "the first, continued: here.", "two": "the second."}
    assert argument_texts("No arguments.") == {}


def test_keyword_without_annotation_is_the_functions_fault():
    def careless(*, size=3): ...

    with pytest.raises(TypeError, match="careless: annotate size"):
        model_of(careless)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in registry.SHIPPED for name in registry.names(kind)])
def test_defaults_of_registered_functions_are_what_their_own_types_allow(kind: str, name: str):
    model: type[BaseModel] = model_of(registry.resolve(kind, name))
    defaults = {field.alias: field.default for field in model.model_fields.values() if not field.is_required()}
    required = {field.alias for field in model.model_fields.values() if field.is_required()}

    missing = set()
    try:
        model.model_validate(defaults, strict=True)
    except ValidationError as error:
        missing = {finding["loc"][0] for finding in error.errors() if finding["type"] == "missing"}
        wrong = [finding for finding in error.errors() if finding["type"] != "missing"]
    else:
        wrong = []
    assert wrong == []
    assert missing == required
