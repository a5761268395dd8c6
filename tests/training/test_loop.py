"""The loop on a small network, fed with fixed batches, against `train_on_batch` and NumPy."""

import contextlib
import dataclasses
import json
import math
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from toolkit.errors import RunFailed, ToolkitError
from toolkit.optimizers import Adam
from toolkit.optimizers.schedules import Cosine
from toolkit.runs import checkpoints
from toolkit.runs import run as runs
from toolkit.runs.run import Run
from toolkit.training import calls, keeper
from toolkit.training.feed import Feed
from toolkit.training.loop import fit
from toolkit.training.recorder import StepRecorder, TensorBoard

pytestmark = pytest.mark.every_backend

BATCHES, BATCH_SIZE, FEATURES, CLASSES = 5, 4, 3, 2
SEVERAL = keras.backend.backend() == "tensorflow"  # where a call makes several steps


@pytest.fixture(params=["one step a call", "many steps a call"] if SEVERAL else ["one step a call"])
def length(request, monkeypatch):
    """Runs a test with calls of a step each, and with calls as long as they may be."""
    monkeypatch.setattr(calls, "LENGTH", 0 if request.param == "one step a call" else 1e9)
    return request.param


every_length = pytest.mark.usefixtures("length")


def make_batches(epoch):
    rng = np.random.default_rng(epoch)
    x = rng.normal(size=(BATCHES, BATCH_SIZE, FEATURES)).astype("float32")
    return x, (x.sum(axis=-1) > 0).astype("int32")


def batches_of(make):
    """`Feed.batches` where `make` gives an epoch's inputs and labels."""

    def batches(epoch, step, count):
        epochs = [make(number) for number in range(epoch, epoch + 1 + (step + count) // BATCHES)]
        x, y = (np.concatenate(parts)[step:][:count] for parts in zip(*epochs, strict=True))
        return tf.data.Dataset.from_tensor_slices((x, y))

    return batches


def make_feed():
    """Batches that depend on the epoch alone."""
    x, y = make_batches(99)
    return Feed(
        batches=batches_of(make_batches),
        ids=lambda number, step: [f"{number}/{step}/{i}" for i in range(BATCH_SIZE)],
        batch=lambda number, step: tuple(tf.constant(part[step]) for part in make_batches(number)),
        validation=tf.data.Dataset.from_tensor_slices((x, y)),
        batch_size=BATCH_SIZE,
        per_epoch=BATCHES,
    )


def make_model(**options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((FEATURES,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(CLASSES)]
    )
    model.compile(
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9, **options),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    return model


def weights_of(model):
    return [np.array(ops.convert_to_numpy(weight)) for weight in model.weights]


def train(model, tmp_path, *, feed=None, epochs=3, best_metric="val_loss", save=lambda model, epoch: None, **options):
    with Run.create("test", tmp_path / "run") as run:
        run.write(runs.RECORD, "{}")
        return fit(
            model, feed or make_feed(), run, save_weights=save, epochs=epochs, best_metric=best_metric, **options
        )


def rows(tmp_path, kind):
    lines = (tmp_path / "run" / runs.METRICS).read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


@every_length
def test_it_trains_every_batch_of_every_epoch_once(tmp_path):
    model, by_hand = make_model(), make_model()
    train(model, tmp_path)
    for epoch in range(3):
        for x, y in zip(*make_batches(epoch), strict=True):
            by_hand.train_on_batch(x, y)
    for ours, theirs in zip(weights_of(model), weights_of(by_hand), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)  # one step moves a weight by about 1e-2


@every_length
def test_rows_hold_what_happened_between_them(tmp_path):
    model, by_hand = make_model(), make_model()
    outcome = train(model, tmp_path, epochs=2, log_every=2)
    losses = []
    for epoch in range(2):
        for x, y in zip(*make_batches(epoch), strict=True):
            losses.append(float(by_hand.train_on_batch(x, y, return_dict=True)["loss"]))
            by_hand.reset_metrics()
    steps, epochs = rows(tmp_path, "step"), rows(tmp_path, "epoch")
    assert [row["step"] for row in steps] == [2, 4, 6, 8, 10]
    # The row of step 6 holds only what its own epoch has trained so far: a mean does not reach over the border.
    expected = [np.mean(losses[a:b]) for a, b in [(0, 2), (2, 4), (5, 6), (6, 8), (8, 10)]]
    np.testing.assert_allclose([row["loss"] for row in steps], expected, rtol=1e-4)
    assert [(row["epoch"], row["step"]) for row in epochs] == [(1, 5), (2, 10)]
    np.testing.assert_allclose([row["loss"] for row in epochs], [np.mean(losses[:5]), np.mean(losses[5:])], rtol=1e-4)
    assert epochs[-1]["val_loss"] == pytest.approx(
        float(model.evaluate(make_feed().validation, verbose=0, return_dict=True)["loss"]), rel=1e-5
    )
    assert epochs[-1]["learning_rate"] == pytest.approx(0.1)
    assert (outcome.epochs, outcome.micro_batches) == (2, 10)


def test_the_weights_of_the_best_epoch_are_kept(tmp_path):
    kept = []
    outcome = train(make_model(), tmp_path, epochs=4, save=lambda model, epoch: kept.append(weights_of(model)))
    losses = [row["val_loss"] for row in rows(tmp_path, "epoch")]
    assert outcome.best.epoch == int(np.argmin(losses)) + 1
    assert len(kept) == sum(loss < min(losses[:i], default=math.inf) for i, loss in enumerate(losses))


def test_averages_go_on_over_epochs_and_are_what_is_validated_and_kept(tmp_path):
    model, by_hand = make_model(use_ema=True, ema_momentum=0.8), make_model()
    kept = []
    train(model, tmp_path, save=lambda model, epoch: kept.append(weights_of(model)), best_metric="val_loss")
    averages, expected = None, []  # Keras starts an average at the weights after the first step
    for epoch in range(3):
        for x, y in zip(*make_batches(epoch), strict=True):
            by_hand.train_on_batch(x, y)
            new = weights_of(by_hand)
            averages = [0.8 * a + 0.2 * b for a, b in zip(averages or new, new, strict=True)]
        expected.append(averages)
    for ours, theirs in zip(weights_of(model), weights_of(by_hand), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)  # the weights themselves were never overwritten
    best = int(np.argmin([row["val_loss"] for row in rows(tmp_path, "epoch")]))
    for ours, theirs in zip(kept[-1], expected[best], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_a_call_ends_wherever_something_is_due(tmp_path, monkeypatch, length):
    """At the ends of epochs, rows and checkpoints, and nowhere else once it is known how long a step takes."""
    ends = []
    original = keeper.Keep.on_train_batch_end

    def noted(self, batch, logs=None):
        original(self, batch, logs)
        ends.append(self.keeper.position.trained)

    monkeypatch.setattr(keeper.Keep, "on_train_batch_end", noted)
    train(make_model(), tmp_path, epochs=4, log_every=7, checkpoint={"every_steps": 4})
    many = [1, 3, 4, 5, 7, 8, 10, 12, 14, 15, 16, 20]  # the first call makes one step, each later one twice as many
    assert ends == (many if length == "many steps a call" else list(range(1, 4 * BATCHES + 1)))
    assert [row["step"] for row in rows(tmp_path, "step")] == [7, 14]


# --- numbers that are not finite --------------------------------------------------------------------------------------


class Root(keras.layers.Layer):
    """√|x|, whose gradient at 0 is infinite."""

    def call(self, x):
        return ops.sqrt(ops.abs(x))


def make_delicate_model(rate=0.05):
    """Everything that a skipped step must leave alone: weights, averages, statistics, seeds, metrics."""
    keras.utils.set_random_seed(1)
    layers = [
        keras.layers.Dense(4, use_bias=False, name="first"),
        Root(name="root"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dropout(0.2, seed=3),
        keras.layers.Dense(CLASSES, name="logits"),
    ]
    model = keras.Sequential([keras.Input((FEATURES,)), *layers])
    model.compile(
        optimizer=Adam(rate, use_ema=True, ema_momentum=0.5),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )
    return model


def spoilt_feed(value, *, place=2, leave_out=False):
    """A batch of the second epoch holds `value` (NaN spoils the loss, 0 only the gradient), or is not there."""

    def make(number):
        x, y = make_batches(number)
        if number == 1:
            x[place] = value
            if leave_out:
                x, y = np.delete(x, place, axis=0), np.delete(y, place, axis=0)
        return x, y

    batch = lambda number, step: tuple(tf.constant(part[step]) for part in make(number))  # noqa: E731
    return dataclasses.replace(make_feed(), batches=batches_of(make), batch=batch)


@every_length
@pytest.mark.parametrize(("value", "place"), [(math.nan, 2), (math.inf, 2), (0.0, 2), (math.nan, BATCHES - 1)])
def test_a_skipped_step_leaves_everything_as_if_it_had_not_been(tmp_path, value, place):
    skipping, without = make_delicate_model(), make_delicate_model()
    train(skipping, tmp_path / "a", feed=spoilt_feed(value, place=place), epochs=2, on_non_finite="skip")
    # The other run ends one batch earlier: as a limit, which is in micro-batches.
    left_out = spoilt_feed(value, place=place, leave_out=True)
    train(without, tmp_path / "b", feed=left_out, epochs=2, limit=2 * BATCHES - 1)
    for ours, theirs in zip(weights_of(skipping), weights_of(without), strict=True):
        assert np.isfinite(ours).all()
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(skipping.optimizer.variables, without.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs))
    (_, ours), (_, theirs) = (rows(tmp_path / name, "epoch") for name in "ab")
    for metric in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert ours[metric] == theirs[metric]
    said = (tmp_path / "a" / "run" / runs.LOG).read_text()
    what = "gradient" if value == 0 else "loss"
    assert (
        f"skipped step {place + 1} of epoch 2, whose {what} is not finite (1 of at most 10); its examples: "
        f"1/{place}/0, 1/{place}/1" in said
    )


@every_length
def test_rows_leave_skipped_steps_out(tmp_path):
    for name, leave_out, options in [("a", False, {"on_non_finite": "skip"}), ("b", True, {"limit": 9})]:
        model, feed = make_delicate_model(Cosine(0.05, total_steps=20)), spoilt_feed(math.nan, leave_out=leave_out)
        train(model, tmp_path / name, feed=feed, epochs=2, log_every=1, **options)
    ours, theirs = (rows(tmp_path / name, "step") for name in "ab")
    assert [row["step"] for row in ours] == [1, 2, 3, 4, 5, 6, 7, 9, 10]
    for metric in ("loss", "learning_rate"):
        np.testing.assert_allclose([row[metric] for row in ours], [row[metric] for row in theirs], rtol=1e-6)


@every_length
@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (
            math.nan,
            r"a loss that is not finite: the input of the batch is not finite in 4 of 4 examples \(1/2/0, 1/2/1,",
        ),
        (1e38, r"a loss that is not finite: layer (first|root|norm) gives numbers that are not finite for 4 of 4 ex"),
        (0.0, r"a gradient that is not finite: the gradient of first/kernel is not finite"),
    ],
)
def test_a_step_that_is_not_finite_stops_with_its_place_and_cause(tmp_path, value, cause):
    model = make_delicate_model()
    if value == 1e38:
        model.get_layer("first").kernel.assign(np.full((FEATURES, 4), 1e5))
    with pytest.raises(RunFailed, match=rf"step 3 of epoch 2 gave {cause}.* --set training.on_non_finite=skip"):
        train(model, tmp_path, feed=spoilt_feed(value))
    said = (tmp_path / "run" / runs.LOG).read_text()
    assert "step 3 of epoch 2 has the examples 1/2/0, 1/2/1, 1/2/2, 1/2/3\n" in said
    folder = tmp_path / "run" / "checkpoints"
    # saved as it was before the step, and finite
    kept = checkpoints.load(folder / checkpoints.names(folder)[-1])
    assert kept.state["position"]["trained"] == BATCHES + 2
    assert all(np.isfinite(value).all() for value in kept.arrays.values() if value.dtype.kind == "f")


@every_length
def test_a_step_that_is_not_finite_draws_nothing(tmp_path):
    """What is saved before it is, random numbers included, what a training has that ends there."""
    found = []
    for name, feed, options in [("a", spoilt_feed(math.nan), {}), ("b", make_feed(), {"limit": BATCHES + 2})]:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dropout(0.5), keras.layers.Dense(CLASSES)])
        model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        with contextlib.suppress(RunFailed):
            train(model, tmp_path / name, feed=feed, **options)
        folder = tmp_path / name / "run" / "checkpoints"
        found.append(checkpoints.load(folder / checkpoints.names(folder)[-1]))
    broken, ended = found
    assert broken.state["position"]["trained"] == ended.state["position"]["trained"] == BATCHES + 2
    assert broken.arrays.keys() == ended.arrays.keys()
    for key, value in ended.arrays.items():
        if not key.startswith("metrics/"):  # those of the other were reset by its last validation
            np.testing.assert_array_equal(broken.arrays[key], value, key)


@every_length
def test_one_skipped_step_too_many_stops(tmp_path):
    model = make_delicate_model()
    model.get_layer("logits").bias.assign([0.0, math.nan])  # so that every step is one
    message = r"step 3 of epoch 1 .* \(2 steps were skipped before\): the weight .* --set training.max_skipped=4"
    with pytest.raises(RunFailed, match=message):
        train(model, tmp_path, on_non_finite="skip", max_skipped=2)


class Pair(keras.layers.Layer):
    """Two outputs, of which one has no row per example, as `LogMel` gives features and a mask."""

    def call(self, x):
        return ops.log(x), ops.mean(x, axis=0) > 0

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype), keras.KerasTensor(x.shape[1:], "bool")


def test_a_layer_with_two_outputs_is_named(tmp_path):
    given = keras.Input((FEATURES,))
    first, _ = Pair(name="pair")(given)
    model = keras.Model(given, keras.layers.Dense(CLASSES)(first))
    model.compile(Adam(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(RunFailed, match="layer pair gives numbers that are not finite for "):
        train(model, tmp_path)


def test_a_validation_that_is_not_finite_stops(tmp_path):
    x, y = make_batches(99)
    x[1] = math.nan
    feed = dataclasses.replace(make_feed(), validation=tf.data.Dataset.from_tensor_slices((x, y)))
    with pytest.raises(RunFailed, match="the validation loss became nan after epoch 1: lower optimizer.learning_rate"):
        train(make_model(), tmp_path, feed=feed)


def test_a_weight_that_is_not_finite_is_named(tmp_path):
    model = make_delicate_model()
    model.get_layer("logits").bias.assign([0.0, math.nan])
    with pytest.raises(RunFailed, match="step 1 of epoch 1 gave a loss that is not finite: the weight logits/bias is"):
        train(model, tmp_path)


def test_early_stopping_ends_the_training(tmp_path):
    model = make_model()
    model.optimizer.learning_rate = 0.0
    outcome = train(model, tmp_path, epochs=9, early_stopping={"monitor": "val_loss", "patience": 2, "min_delta": 0.0})
    assert outcome.epochs == 3
    assert "stopped early: val_loss has not improved for 2 epochs" in (tmp_path / "run" / runs.LOG).read_text()


@pytest.mark.parametrize(("limit", "epochs"), [(3, 1), (5, 1), (7, 2)])
def test_a_limit_ends_a_smoke_run_after_so_many_batches(tmp_path, limit, epochs):
    outcome = train(make_model(), tmp_path, epochs=9, limit=limit)
    assert (outcome.micro_batches, outcome.epochs) == (limit, epochs)
    assert rows(tmp_path, "epoch")[-1]["step"] == limit


@every_length
def test_weights_of_classes_are_those_of_keras(tmp_path):
    weights = {0: 0.25, 1: 3.0}
    ours, theirs = make_model(), make_model()
    train(ours, tmp_path, epochs=2, class_weights=weights)
    for epoch in range(2):
        batches = make_feed().batches(epoch, 0, BATCHES)
        theirs.fit(batches, class_weight=weights, shuffle=False, verbose=0)
    for mine, other in zip(weights_of(ours), weights_of(theirs), strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-6)  # one step moves a weight by about 1e-2


only_several = pytest.mark.skipif(not SEVERAL, reason="elsewhere Keras makes the calls")


@only_several
def test_one_iterator_serves_all_epochs(tmp_path):
    feed, asked = make_feed(), []

    def batches(*place):
        asked.append(place)
        return feed.batches(*place)

    train(make_model(), tmp_path, feed=dataclasses.replace(feed, batches=batches), epochs=4)
    assert asked == [(0, 0, 4 * BATCHES)]


@every_length
def test_waiting_is_told(tmp_path):
    feed, never = make_feed(), threading.Event()

    def slow(x, y, place):
        """Late in the second epoch."""
        (kept,) = tf.py_function(
            lambda y, place: [never.wait(0.2 * (int(place) // BATCHES == 1)), y][1:], [y, place], [y.dtype]
        )
        return x, tf.ensure_shape(kept, y.shape)

    def batches(epoch, step, count):
        places = tf.data.Dataset.range(epoch * BATCHES + step, 9 * BATCHES)
        zipped = tf.data.Dataset.zip(feed.batches(epoch, step, count), places)
        return zipped.map(lambda batch, place: slow(*batch, place))

    train(make_model(), tmp_path, feed=dataclasses.replace(feed, batches=batches))
    waited = [row["data_wait_share"] * row["seconds"] for row in rows(tmp_path, "epoch")]
    assert waited[1] > 0.6 and max(waited[0], waited[2]) < 0.4  # the first may come while epoch 1 is validated


def test_waiting_of_other_epochs_is_not_counted():
    waited = [7.0]
    state = {"steps": 2, "seconds": 4.0, "waited": 1.0}  # of this epoch, in another process
    recorder = StepRecorder(
        epoch=2,
        first_step=BATCHES,
        batch_size=BATCH_SIZE,
        log_every=50,
        append=lambda row: None,
        bar=None,
        waited=lambda: waited[0],
        learning_rate=lambda trained: 0.1,
        state=state,
    )
    waited[0] = 8.0
    assert recorder.speed()["data_wait_share"] == (1.0 + 1.0) / 4.0
    assert recorder.state()["waited"] == 2.0


@only_several
def test_a_train_function_of_ones_own_makes_every_step(tmp_path, monkeypatch):
    monkeypatch.setattr(calls, "LENGTH", 1e9)
    made = []

    class Own(keras.Sequential):
        def make_train_function(self, force=False):
            super().make_train_function(force)
            step = self.train_function
            self.train_function = lambda iterator: made.append(1) or step(iterator)

    model = Own([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)])
    model.compile(Adam(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    train(model, tmp_path, epochs=1)
    assert len(made) == BATCHES


@only_several
def test_a_model_that_runs_eagerly_still_does(tmp_path):
    seen = []

    class Seen(keras.layers.Layer):
        def call(self, x):
            seen.append(tf.executing_eagerly())
            return x

    model = keras.Sequential([keras.Input((FEATURES,)), Seen(), keras.layers.Dense(CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(Adam(), loss, run_eagerly=True)
    train(model, tmp_path, epochs=1)
    assert sum(seen) >= BATCHES


def test_class_weights_scale_the_loss(tmp_path):
    model, by_hand = make_model(), make_model()
    train(model, tmp_path, epochs=1, class_weights={0: 3.0, 1: 3.0})
    by_hand.optimizer.learning_rate = 0.3  # three times every loss moves SGD as three times the rate
    for x, y in zip(*make_batches(0), strict=True):
        by_hand.train_on_batch(x, y)
    for ours, theirs in zip(weights_of(model), weights_of(by_hand), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_a_metric_that_is_not_measured_is_told(tmp_path):
    with pytest.raises(ToolkitError, match=r"training.best_metric is 'val_acuracy'.*did you mean 'val_accuracy'"):
        train(make_model(), tmp_path, best_metric="val_acuracy")


def test_scalars_reach_tensorboard(tmp_path):
    train(make_model(), tmp_path, epochs=2)
    (events,) = (tmp_path / "run" / "tensorboard").glob("events*")
    tags = set()
    for record in tf.data.TFRecordDataset(str(events)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        tags |= {(value.tag, event.step) for value in event.summary.value}
    assert {("epoch/val_loss", 5), ("epoch/val_loss", 10)} <= tags


def test_a_row_is_there_for_tensorboard_at_once(tmp_path):
    with contextlib.closing(TensorBoard(tmp_path)) as board:
        board.write({"kind": "step", "step": 3, "loss": 0.5, "accuracy": 0.25})
        (events,) = tmp_path.glob("events*")
        _, record = tf.data.TFRecordDataset(str(events))  # the first tells the version
        event = tf.compat.v1.Event.FromString(record.numpy())
    assert event.step == 3
    values = {value.tag: float(tf.make_ndarray(value.tensor)) for value in event.summary.value}
    assert values == {"step/loss": 0.5, "step/accuracy": 0.25}
