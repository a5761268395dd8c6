"""Watched steps on small networks: every number against NumPy, every verdict on a network made to deserve it."""

import json
import math
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from toolkit import workflow
from toolkit.config import load
from toolkit.errors import Diverged, RunFailed
from toolkit.optimizers import Adam
from toolkit.runs import checkpoints, gradients
from toolkit.runs import run as runs
from toolkit.runs.run import Run
from toolkit.training import calls, keeper
from toolkit.training.feed import Feed
from toolkit.training.loop import fit
from toolkit.training.probe import make_probe
from toolkit.training.stop import Stopped
from toolkit.training.verdicts import judge, summary

every_backend = pytest.mark.every_backend

BATCHES, BATCH_SIZE, CLASSES = 6, 16, 3


def make_feed(x, y):
    """The same batches, (batches, batch, …), in every epoch."""
    batch = lambda number, step: (tf.constant(x[step]), tf.constant(y[step]))  # noqa: E731
    return Feed(
        batches=lambda number, step, count: tf.data.Dataset.from_tensor_slices((x, y)).repeat().skip(step).take(count),
        ids=lambda number, step: [f"{step}/{i}" for i in range(len(x[0]))],
        batch=batch,
        validation=tf.data.Dataset.from_tensor_slices((x[:1], y[:1])),
        batch_size=len(x[0]),
        per_epoch=len(x),
    )


def clusters(*shape):
    """Points about one centre for each class."""
    rng = np.random.default_rng(0)
    y = rng.integers(CLASSES, size=(BATCHES, BATCH_SIZE)).astype("int32")
    x = rng.normal(size=(CLASSES, *shape))[y] + 0.3 * rng.normal(size=(*y.shape, *shape))
    return x.astype("float32"), y


def train(folder, model, feed, *, optimizer, loss=None, epochs=3, every=1, run=None, **options):
    model.compile(optimizer, loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with run or Run.create("test", folder / "run") as run:
        run.write(runs.RECORD, "{}")
        fit(
            model,
            feed,
            run,
            save_weights=lambda model, epoch: None,
            epochs=epochs,
            best_metric="val_loss",
            watch_every=every,
            **options,
        )


def rows_of(folder):
    return [json.loads(line) for line in (folder / "run" / runs.GRADIENTS).read_text().splitlines()]


def judged(folder):
    return judge(gradients.read(folder / "run" / runs.GRADIENTS))


# --- the numbers ------------------------------------------------------------------------------------------------------


@every_backend
@pytest.mark.parametrize("block", [2, 1 << 16])
def test_gradients_updates_and_moments_are_those_of_adam_by_hand(tmp_path, monkeypatch, block):
    """A loss whose gradient is the mean of the inputs, whatever the weights: everything follows from the data."""
    monkeypatch.setattr("toolkit.training.watch._BLOCK", block)  # numbers looked at together: all three, or not
    rng = np.random.default_rng(1)
    x = rng.normal(size=(5, 4, 3)).astype("float32") * [[[1.0, 1e-2, 3.0]]]
    x = x.astype("float32")
    layer = keras.layers.Dense(1, use_bias=False, name="line", kernel_initializer=keras.initializers.Constant(0.5))
    model = keras.Sequential([keras.Input((3,)), layer])
    train(
        tmp_path,
        model,
        make_feed(x, np.zeros((5, 4), "int32")),
        optimizer=Adam(0.1),
        loss=lambda y_true, y_pred: ops.mean(y_pred, axis=-1),
        epochs=1,
        every=2,
    )

    m = v = np.zeros(3)
    w = np.full(3, 0.5)
    expected = []
    for t, batch in enumerate(x.astype("float64"), start=1):
        g = batch.mean(axis=0)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        ratio = (m / (1 - 0.9**t)) / np.sqrt(v / (1 - 0.999**t))
        new = w - 0.1 * ratio
        sizes = np.linalg.norm(g), np.linalg.norm(new - w) / np.linalg.norm(w), np.abs(ratio).max()
        expected.append((t, *sizes))
        w = new
    found = [
        (row["step"], *(row["layers"]["line"][name] for name in ("gradient_norm", "update_ratio", "moment_ratio")))
        for row in rows_of(tmp_path)
    ]
    np.testing.assert_allclose(found, expected[::2], rtol=2e-5)


def test_a_moment_without_its_square_has_no_ratio(tmp_path):
    """With β₂ = 0 the second moment forgets at once, and the first does not."""
    x = np.array([[[1, 1]], [[1, 0]]], "float32")
    layer = keras.layers.Dense(1, use_bias=False, name="line")
    train(
        tmp_path,
        keras.Sequential([keras.Input((2,)), layer]),
        make_feed(x, np.zeros((2, 1), "int32")),
        optimizer=Adam(0.1, beta_1=0.9, beta_2=0.0),
        loss=lambda y_true, y_pred: ops.mean(y_pred, axis=-1),
        epochs=1,
    )
    # Of the first weight m̂ is 1 and v̂ is 1; of the second m̂ is 0.09 / 0.19 and v̂ is 0.
    assert [row["layers"]["line"]["moment_ratio"] for row in rows_of(tmp_path)] == pytest.approx([1, 1], rel=1e-5)


@every_backend
def test_the_gradient_is_that_of_the_step_itself_with_its_dropout_and_its_class_weights(tmp_path):
    """SGD moves each weight by rate times gradient, so the update tells what gradient the step had."""
    x, y = clusters(5)
    layers = [
        keras.layers.Dense(8, activation="tanh", name="first"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dropout(0.5, name="drop"),
        keras.layers.Dense(CLASSES, name="logits"),
    ]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), *layers])
    sizes = {layer.name: math.hypot(*(np.linalg.norm(w) for w in layer.get_weights()[:2])) for layer in layers}
    weights = {0: 1.0, 1: 5.0, 2: 0.2}
    train(tmp_path, model, make_feed(x, y), optimizer=keras.optimizers.SGD(0.1), epochs=1, class_weights=weights)
    first = rows_of(tmp_path)[0]["layers"]
    assert first.keys() == {"first", "norm", "logits"}
    for name, measured in first.items():
        assert measured["gradient_norm"] * 0.1 == pytest.approx(measured["update_ratio"] * sizes[name], rel=1e-4), name
        assert "moment_ratio" not in measured


@every_backend
def test_the_share_of_zeros_is_that_after_each_relu(tmp_path):
    x, y = clusters(5)
    given = keras.Input((5,))
    hidden = keras.layers.Dense(8, activation="relu", name="inside")(given)
    bent = keras.layers.ReLU(name="behind")(keras.layers.Dense(8, name="plain")(hidden))
    leaky = keras.layers.ReLU(negative_slope=0.1, name="leaky")(bent)
    model = keras.Model(given, keras.layers.Dense(CLASSES, name="logits")(leaky))
    inside, plain = (model.get_layer(name).get_weights() for name in ("inside", "plain"))
    train(tmp_path, model, make_feed(x, y), optimizer=Adam(), epochs=1)
    first = np.maximum(x[0] @ inside[0] + inside[1], 0)
    second = np.maximum(first @ plain[0] + plain[1], 0)
    found = {name: m["zero_share"] for name, m in rows_of(tmp_path)[0]["layers"].items() if "zero_share" in m}
    assert found == {"inside": pytest.approx(np.mean(first == 0)), "behind": pytest.approx(np.mean(second == 0))}


def test_the_step_of_several_micro_batches_is_watched_at_its_last(tmp_path):
    x, y = clusters(5)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(CLASSES, name="logits")])
    optimizer = Adam(gradient_accumulation_steps=4)
    train(tmp_path, model, make_feed(x, y), optimizer=optimizer, epochs=3, every=8)
    # windows end after micro-batches 4, 10, 16, 22; the one that is due after 16 is cut by the end of the epoch
    assert [row["step"] for row in rows_of(tmp_path)] == [4, 10]
    assert all(row["layers"]["logits"]["update_ratio"] > 0 for row in rows_of(tmp_path))


def test_a_skipped_step_tells_its_gradient_and_no_update(tmp_path):
    x, y = clusters(5)
    x[2] = np.nan
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(CLASSES, name="logits")])
    train(tmp_path, model, make_feed(x, y), optimizer=Adam(), epochs=1, on_non_finite="skip")
    assert [row["step"] for row in rows_of(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert rows_of(tmp_path)[2]["layers"] == {"logits": {"gradient_norm": math.inf}}
    (verdict,) = judged(tmp_path)
    assert (verdict.kind, verdict.step) == ("exploding", 3)
    assert "layer logits has a gradient or an update that is not finite" in verdict.text


def rooted():
    """The derivative of the root is infinite at 0: inputs of zeros spoil the gradient of the layer before it alone."""
    root = keras.layers.Activation(lambda values: ops.sqrt(ops.abs(values)), name="root")
    first = keras.layers.Dense(4, use_bias=False, name="first", kernel_initializer=keras.initializers.Constant(0.5))
    last = keras.layers.Dense(CLASSES, name="logits", kernel_initializer=keras.initializers.GlorotUniform(seed=0))
    return keras.Sequential([keras.Input((5,)), first, root, last])


@every_backend
@pytest.mark.parametrize(("every", "steps"), [(1, [1, 2, 3]), (100, [1, 3])])
def test_the_step_that_ends_a_training_is_measured_due_or_not_and_its_layer_is_told(tmp_path, every, steps):
    x, y = clusters(5)
    x[2] = 0
    with pytest.raises(Diverged, match="step 3 of epoch 1 gave a gradient that is not finite"):
        train(tmp_path, rooted(), make_feed(x, y), optimizer=keras.optimizers.SGD(1e-3), every=every)
    assert [row["step"] for row in rows_of(tmp_path)] == steps
    last = rows_of(tmp_path)[-1]["layers"]
    assert last["first"] == {"gradient_norm": math.inf}
    assert math.isfinite(last["logits"]["gradient_norm"])
    assert "update_ratio" not in last["logits"]
    (verdict,) = judged(tmp_path)
    assert (verdict.kind, verdict.step, verdict.layers) == ("exploding", 3, ("first",))
    assert "no layer explodes" not in "".join(summary(gradients.read(tmp_path / "run" / runs.GRADIENTS)))


@every_backend
def test_a_run_that_goes_on_after_such_a_step_has_its_row_once(tmp_path):
    x, y = clusters(5)
    x[2] = 0
    with pytest.raises(Diverged):
        train(tmp_path / "parts", rooted(), make_feed(x, y), optimizer=Adam(), epochs=1)
    broken = checkpoints.newest(tmp_path / "parts" / "run" / checkpoints.FOLDER, report=pytest.fail)
    for name, options in (
        ("parts", {"run": Run._taken(tmp_path / "parts" / "run"), "resume_from": broken}),
        ("whole", {}),
    ):
        skipping = {"optimizer": Adam(), "epochs": 1, "on_non_finite": "skip"}
        train(tmp_path / name, rooted(), make_feed(x, y), **skipping, **options)
    assert [row["step"] for row in rows_of(tmp_path / "parts")] == [1, 2, 3, 4, 5, 6]
    for ours, theirs in zip(rows_of(tmp_path / "parts"), rows_of(tmp_path / "whole"), strict=True):
        assert ours["layers"] == theirs["layers"]


def test_batches_of_several_lengths_are_traced_once():
    """A trace of a recurrent network takes as long as several steps."""
    traced = []

    class Noted(keras.layers.Layer):
        def call(self, inputs):
            traced.append(inputs.shape)
            return inputs

    layers = [Noted(), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(CLASSES)]
    model = keras.Sequential([keras.Input((None, 2)), *layers])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    probe = make_probe(model, None, (tf.TensorSpec((4, None, 2)), tf.TensorSpec((4,), tf.int32)))
    del traced[:]  # those of building the model
    for length in (5, 9, 7):
        norms, _ = probe(tf.ones((4, length, 2)), tf.zeros((4,), tf.int32))
        assert (norms > 0).all()
    assert traced == [(4, None, 2)]


def test_scalars_reach_tensorboard(tmp_path):
    x, y = clusters(5)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(CLASSES, name="logits")])
    train(tmp_path, model, make_feed(x, y), optimizer=Adam(), epochs=1, every=3)
    (events,) = (tmp_path / "run" / "tensorboard").glob("events*")
    found = {}
    for record in tf.data.TFRecordDataset(str(events)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        found |= {(value.tag, event.step): tf.make_ndarray(value.tensor) for value in event.summary.value}
    for row in rows_of(tmp_path):
        assert found["gradients/logits/gradient_norm", row["step"]] == pytest.approx(
            row["layers"]["logits"]["gradient_norm"], rel=1e-5
        )


# --- the verdicts -----------------------------------------------------------------------------------------------------


def sigmoids():
    hidden = [keras.layers.Dense(16, activation="sigmoid", name=f"hidden{i}") for i in range(1, 21)]
    return keras.Sequential([keras.Input((5,)), *hidden, keras.layers.Dense(CLASSES, name="logits")])


def recurrent():
    """Its recurrent matrix stretches by 1.5, over 40 points of time by 1e7."""
    stretching = keras.initializers.Orthogonal(gain=1.5, seed=0)
    cell = keras.layers.SimpleRNN(16, activation="linear", recurrent_initializer=stretching, name="rnn")
    return keras.Sequential([keras.Input((40, 5)), cell, keras.layers.Dense(CLASSES, name="logits")])


def rectified(bias=0.0):
    options = {"activation": "relu", "kernel_initializer": "he_normal"}
    hidden = [keras.layers.Dense(16, name=f"hidden{i}", **options) for i in range(1, 6)]
    hidden[2].bias_initializer = keras.initializers.Constant(bias)
    return keras.Sequential([keras.Input((5,)), *hidden, keras.layers.Dense(CLASSES, name="logits")])


@every_backend
def test_twenty_layers_of_sigmoid_vanish(tmp_path):
    train(tmp_path, sigmoids(), make_feed(*clusters(5)), optimizer=Adam(1e-3))
    (verdict,) = judged(tmp_path)
    assert (verdict.kind, verdict.step, verdict.layers[0]) == ("vanishing", 1, "hidden1")
    assert "hidden20" not in verdict.layers
    assert verdict.text.startswith("vanishing gradient: since step 1 layer hidden1 has ")
    assert (
        "of the gradient of the output layer logits (so, too, hidden2, hidden3, hidden4, hidden5 and " in verdict.text
    )


@every_backend
def test_a_recurrent_network_explodes(tmp_path):
    with pytest.raises(RunFailed, match="not finite"):
        train(tmp_path, recurrent(), make_feed(*clusters(40, 5)), optimizer=keras.optimizers.SGD(0.1))
    (verdict,) = judged(tmp_path)
    assert (verdict.kind, verdict.step) == ("exploding", 1)
    assert "rnn" in verdict.layers
    assert "times its own size" in verdict.text
    assert "set optimizer.global_clipnorm" in verdict.text


@every_backend
def test_it_does_not_where_gradients_are_clipped(tmp_path):
    optimizer = keras.optimizers.SGD(0.1, global_clipnorm=1.0)
    train(tmp_path, recurrent(), make_feed(*clusters(40, 5)), optimizer=optimizer)
    assert judged(tmp_path) == []


@every_backend
def test_a_layer_that_gives_only_zeros_is_dead(tmp_path):
    train(tmp_path, rectified(bias=-1000.0), make_feed(*clusters(5)), optimizer=Adam(1e-3))
    (verdict,) = judged(tmp_path)
    assert (verdict.kind, verdict.step, verdict.layers) == ("dead", 1, ("hidden3", "hidden4", "hidden5"))
    assert verdict.text.startswith("dead layer: since step 1 layer hidden3 gives only zeros after its ReLU")


@every_backend
def test_nothing_is_told_of_a_healthy_network(tmp_path):
    train(tmp_path, rectified(), make_feed(*clusters(5)), optimizer=Adam(1e-2), epochs=4)
    assert judged(tmp_path) == []


# --- the run around it ------------------------------------------------------------------------------------------------

# What could go wrong together: dropout, batch norm, augmentation, averages, windows that do not come out even.
IMAGES = """
seed: 3
data:
  {source: synthetic_images, classes: 3, examples: 150, height: 12, width: 12, batch_size: 16,
   augmentation: {shift: 0.1, flip: horizontal}}
model: {name: simple_cnn, filters: [4, 4], dropout: 0.3, batch_norm: true}
optimizer: {name: adam, learning_rate: 1e-2, use_ema: true, ema_momentum: 0.8, gradient_accumulation_steps: 2}
training: {epochs: 2, backend: %s, log_every: 4, class_weights: balanced}
"""
AUDIO = """
data: {source: synthetic_audio, classes: 2, examples: 60, seconds: 0.1, batch_size: 8}
model: {name: speech_lstm, units: 8, mels: 8, dropout: 0.3}
optimizer: {name: adam, learning_rate: 1e-2}
training: {epochs: 1, backend: %s, log_every: 3}
"""
TIMES = {"seconds", "examples_per_second", "data_wait_share"}


def make_config(folder, text, *overrides):
    path = folder / "small.yaml"
    path.write_text(text % os.environ["KERAS_BACKEND"])
    return load(path, overrides)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A run that was watched in every step."""
    folder = tmp_path_factory.mktemp("watched")
    return workflow.train(
        make_config(folder, IMAGES, "training.watch=gradients", "training.watch_every=1"), run_dir=folder / "run"
    )


def rows(run, name):
    lines = (run / name).read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]


def assert_same_training(run, other):
    assert rows(run, "metrics.jsonl") == rows(other, "metrics.jsonl")
    ours, theirs = (checkpoints.newest(folder / checkpoints.FOLDER, report=pytest.fail) for folder in (run, other))
    assert ours.arrays.keys() == theirs.arrays.keys()
    for name, value in theirs.arrays.items():
        np.testing.assert_array_equal(ours.arrays[name], value, err_msg=name)
    assert (run / "weights.safetensors").read_bytes() == (other / "weights.safetensors").read_bytes()


@every_backend
def test_a_watched_training_is_the_same_to_the_bit(tmp_path, watched):
    workflow.train(make_config(tmp_path, IMAGES), run_dir=tmp_path / "run")
    assert_same_training(watched, tmp_path / "run")
    assert not (tmp_path / "run" / runs.GRADIENTS).exists()
    assert [row["step"] for row in rows(watched, runs.GRADIENTS)] == [2, 4, 6, 8, 10, 12]


@every_backend
def test_a_watched_recurrent_training_is_the_same_to_the_bit(tmp_path):
    for name, options in (("watched", ["training.watch=gradients", "training.watch_every=2"]), ("other", [])):
        workflow.train(make_config(tmp_path, AUDIO, *options), run_dir=tmp_path / name)
    assert_same_training(tmp_path / "watched", tmp_path / "other")
    layers = rows(tmp_path / "watched", runs.GRADIENTS)[0]["layers"]
    assert list(layers) == ["recurrent1", "logits"]


@every_backend
def test_a_resumed_run_has_each_row_once(tmp_path, watched, monkeypatch):
    """Killed after its eighth batch, when the last checkpoint is of the third: five rows are too many."""
    options = ["training.watch=gradients", "training.watch_every=1", "training.checkpoint.every_steps=3"]
    config = make_config(tmp_path, IMAGES, *options)
    original = keeper.Keep.on_train_batch_end

    class Killed(BaseException):
        pass

    def patched(self, batch, logs=None):
        if self.keeper.position.trained == 5:
            raise Killed
        original(self, batch, logs)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(keeper.Keep, "on_train_batch_end", patched)
        workflow.train(config, run_dir=tmp_path / "run")
    assert [row["step"] for row in rows(tmp_path / "run", runs.GRADIENTS)] == [2, 4, 6]
    workflow.resume(tmp_path / "run")
    assert rows(tmp_path / "run", runs.GRADIENTS) == rows(watched, runs.GRADIENTS)
    assert_same_training(tmp_path / "run", watched)


def test_watching_may_begin_and_end_with_a_resume(tmp_path, watched, monkeypatch):
    monkeypatch.setattr(calls, "LENGTH", 0)  # so that there is an end of a call at each step
    original = keeper.Keep.on_train_batch_end

    def patched(self, batch, logs=None):
        if self.keeper.position.trained in to_come:
            to_come.remove(self.keeper.position.trained)
            signal.raise_signal(signal.SIGTERM)
        original(self, batch, logs)

    to_come = [5, 9]
    monkeypatch.setattr(keeper.Keep, "on_train_batch_end", patched)
    with pytest.raises(Stopped):
        workflow.train(make_config(tmp_path, IMAGES), run_dir=tmp_path / "run")
    with pytest.raises(Stopped):
        workflow.resume(tmp_path / "run", overrides=["training.watch=gradients", "training.watch_every=1"])
    workflow.resume(tmp_path / "run", overrides=["training.watch=null"])
    assert rows(tmp_path / "run", runs.GRADIENTS) == rows(watched, runs.GRADIENTS)[3:5]
    assert_same_training(tmp_path / "run", watched)


def test_the_verdict_is_told_at_the_end_and_in_the_log(watched):
    said = (watched / runs.LOG).read_text()
    assert "gradients: no layer explodes, vanishes or is dead (measured 6 steps in " in said
