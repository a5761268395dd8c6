"""A space is checked key by key and bound by bound before anything is trained."""

import pytest

from toolkit.config import load
from toolkit.errors import ToolkitError
from toolkit.studies.space import read_space

CONFIG = """
data: {source: synthetic_images, batch_size: 16}
model: {name: simple_cnn, filters: [4, 4], dropout: 0.1}
optimizer: {name: adam, learning_rate: 1e-2}
training: {epochs: 3}
"""


@pytest.fixture
def space(tmp_path):
    def read(text, *overrides):
        (tmp_path / "small.yaml").write_text(CONFIG)
        (tmp_path / "space.yaml").write_text(text)
        return read_space(tmp_path / "space.yaml", tmp_path / "small.yaml", overrides)

    return read


class LowestTrial:
    """Draws the lower bound, or the first choice."""

    def __init__(self):
        self.params = {}

    def suggest_categorical(self, name, choices):
        self.params[name] = choices[0]

    def suggest_int(self, name, low, high):
        self.params[name] = low

    def suggest_float(self, name, low, high, *, log):
        self.params[name] = float(low)


def test_what_is_drawn_is_what_the_config_then_has(space, tmp_path):
    found = space(
        "optimizer.learning_rate: {log: [1e-4, 1]}\n"
        "model.dropout: {uniform: [0.25, 0.5]}\n"
        "data.batch_size: {int: [8, 32]}\n"
        "model.filters: {choice: [[4, 8], [16, 16]]}\n"
        "optimizer.schedule: {choice: [{name: cosine, warmup_steps: 3}, null]}\n"
        "training.epochs: {int: [2, 9]}\n",
        "seed=7",
    )
    trial = LowestTrial()
    for dimension in found.dimensions:
        dimension.draw(trial)
    config = load(tmp_path / "small.yaml", found.settings(trial.params))
    assert config.optimizer.optimizer.arguments["learning_rate"] == 1e-4
    assert (config.model.arguments["dropout"], config.model.arguments["filters"]) == (0.25, (4, 8))
    assert (config.data.options.batch_size, config.training.epochs, config.seed) == (8, 2, 7)
    assert (config.optimizer.schedule.name, config.optimizer.schedule.arguments["warmup_steps"]) == ("cosine", 3)
    assert found.epochs == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# nothing\n", r"space.yaml:1: the file is empty, allowed: a mapping from keys of the config to ranges"),
        ("{}", r"space.yaml:1: the space is empty, needed: a mapping from keys"),
        ("- 1\n", r"space.yaml:1: found \[1\], allowed: a mapping from keys"),
        ("modl.dropout: {uniform: [0, 1]}", r"space.yaml:1: modl: there is no such key \(did you mean 'model'\?\)"),
        (
            "model.droput: {uniform: [0, 0.1]}",
            r"space.yaml:1: model.droput: there is no such key \(did you mean 'dropo",
        ),
        (
            "\nmodel.dropout: {uniform: [0.5, 1]}",
            r"space.yaml:2: model.dropout: found 1.0, allowed: a number in \[0, 1\)",
        ),
        ("optimizer.name: {choice: [adam, adom]}", r"space.yaml:1: optimizer.name: found 'adom' \(did you mean 'adam'"),
        ("data.batch_size: {uniform: [8, 64]}", r"space.yaml:1: data.batch_size: found 8.0, allowed: a whole number"),
        ("data.batch_size: {int: [8, 64.5]}", r"data.batch_size.int: found \[8, 64.5\], allowed: two whole numbers"),
        ("model.dropout: {uniform: [0.5, 0.1]}", r"allowed: two numbers, \[low, high\], the first below the second"),
        ("model.dropout: {uniform: [0.5]}", r"found \[0.5\], allowed: two numbers"),
        ("model.dropout: {uniform: [0, .inf]}", r"found \[0, .inf\], allowed: two numbers"),
        ("model.dropout: {uniform: [false, true]}", r"found \[false, true\], allowed: two numbers"),
        ("model.dropout: {uniform: 0.5}", r"found 0.5, allowed: two numbers"),
        ("model.dropout: {choice: [0.5]}", r"found \[0.5\], allowed: a list of two or more different values"),
        ("model.dropout: {choice: [0.5, 0.5]}", r"allowed: a list of two or more different values"),
        ("model.dropout: {choise: [0.5, 0.1]}", r"model.dropout.choise: there is no such key \(did you mean 'choice'"),
        ("model.dropout: 0.5", r"model.dropout: found 0.5, allowed: one of {log: \[low, high\]}"),
        ("model.dropout: {int: [0, 1], log: [1, 2]}", r"allowed: one of {log: \[low, high\]}"),
        ("optimizer.learning_rate: {log: [0, 1]}", r"found \[0, 1\], allowed: two numbers above 0"),
        ("optimizer.learning_rate: {uniform: [0, 1]}", r"learning_rate: found a rate of 0, at which nothing is learnt"),
        (
            "optimizer.learning_rate: {choice: [0.1, 0]}",
            r"learning_rate: found a rate of 0, at which nothing is learnt",
        ),
        ("training.best_metric: {choice: [val_loss, loss]}", "the trials are compared by val_loss, whose meaning this"),
        ("training.label_smoothing: {uniform: [0, 0.1]}", "use training.best_metric=val_accuracy"),
        (
            "optimizer.ema_momentum: {uniform: [0.5, 0.9]}",
            "space.yaml:1: optimizer.ema_momentum: has no effect without",
        ),
        ("extends: {choice: [a.yaml, b.yaml]}", "space.yaml:1: extends: only a config can extend a file"),
        ("seed: {int: [0, 1]}\nseed: {int: [0, 2]}", "space.yaml:2: seed: the key stands here a second time"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(space, text, message):
    with pytest.raises(ToolkitError, match=message) as raised:
        space(text)
    assert raised.value.exit_code == 2


def test_all_that_is_wrong_is_told_at_once(space):
    with pytest.raises(ToolkitError) as raised:
        space(
            "modl.dropout: {choice: [1, 2]}\nmodel.dropout: {uniform: [0, 1.5]}\noptimizer.name: {choice: [adam, adom]}"
        )
    assert len(str(raised.value).splitlines()) == 3


def test_the_validation_part_chooses(space):
    with pytest.raises(ToolkitError, match="training.best_metric is accuracy, which is measured on the training part"):
        space("model.dropout: {uniform: [0, 0.1]}", "training.best_metric=accuracy")
    found = space("training.label_smoothing: {uniform: [0, 0.1]}", "training.best_metric=val_accuracy")
    assert found.metric == "val_accuracy"
