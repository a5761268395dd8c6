import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from toolkit.config.options import Augmentation
from toolkit.data.augment import KINDS as CHANGED
from toolkit.data.augment import augment
from toolkit.data.augment_sounds import augment_sounds
from toolkit.data.batches import TrainingBatches, check_augmentation, evaluation_batches
from toolkit.data.load import load
from toolkit.data.order import permutation
from toolkit.errors import ToolkitError

AUGMENTATION = {
    "image": {"flip": "horizontal", "shift": 0.1, "zoom": 0.1, "rotation": 5.0, "colour": 0.2, "erasing": 0.5},
    "audio": {"speed": 0.2, "noise": 0.3},
}
KINDS = ["image", "audio", "text"]


@pytest.fixture
def loaded(given, request):
    def of(kind, **options):
        given(request.getfixturevalue(f"{kind}_source"))
        return load("x", {}, **options)

    return of


def training_batches(split, spec, *, epoch, step=0, count=None, **options):
    """All that are left of an epoch, or `count`."""
    per_epoch = len(split) // options["batch_size"]
    return TrainingBatches(split, spec, **options).batches(epoch, step, per_epoch - step if count is None else count)


def batch_ids(split, spec, *, epoch, step, **options):
    return TrainingBatches(split, spec, **options).ids(epoch, step)


def listed(batches):
    """Every batch as ({name: array}, labels)."""
    return [({name: np.array(x) for name, x in inputs.items()}, np.array(y)) for inputs, y in batches]


def same(a, b):
    assert len(a) == len(b) > 0
    for (inputs, labels), (others, other_labels) in zip(a, b, strict=True):
        assert inputs.keys() == others.keys()
        for name in inputs:
            np.testing.assert_array_equal(inputs[name], others[name])
        np.testing.assert_array_equal(labels, other_labels)


def test_transcripts_are_as_wide_as_the_longest_of_a_batch_needs():
    data = load("synthetic_speech", {"examples": 60, "longest": 4}, transcript_units="words", frames=lambda n, rate: n)
    split, lengths = data.splits["train"], [1] * 8 + [16] * 8 + [17] * 8 + [40] * 8
    rng = np.random.default_rng(0)
    whole = np.zeros((len(split), 40), np.int32)
    for row, length in zip(whole, lengths, strict=False):
        row[:length] = rng.integers(1, 4, length)
    wide = dataclasses.replace(split, labels=whole)
    found = [labels for _, labels in listed(evaluation_batches(wide, data.spec, batch_size=8))]
    assert [part.shape[1] for part in found[:4]] == [16, 16, 32, 40]
    assert (np.concatenate([np.pad(part, ((0, 0), (0, 40 - part.shape[1]))) for part in found]) == whole).all()
    for labels, ids in (
        (labels, batch_ids(wide, data.spec, batch_size=4, seed=3, epoch=1, step=step))
        for step, (_, labels) in enumerate(listed(training_batches(wide, data.spec, batch_size=4, seed=3, epoch=1)))
    ):
        rows = whole[[wide.ids.index(id) for id in ids]]
        assert (np.pad(labels, ((0, 0), (0, 40 - labels.shape[1]))) == rows).all()
        assert labels.shape[1] == next(width for width in (16, 32, 40) if width >= np.count_nonzero(rows, 1).max())
    narrow = training_batches(split, data.spec, batch_size=4, seed=3, epoch=1).element_spec[1]
    assert narrow.shape == (4, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_hold_what_the_model_takes(loaded, kind):
    data = loaded(kind)
    batches = training_batches(data.splits["train"], data.spec, batch_size=6, seed=0, epoch=0)
    assert batches.cardinality() == 6  # of 40 examples
    inputs, labels = batches.element_spec
    expected = {
        "image": {"image": ("uint8", (6, 12, 16, 3))},
        "audio": {"samples": ("float32", (6, None)), "lengths": ("int32", (6,))},
        "text": {"tokens": ("int32", (6, None))},
    }[kind]
    assert {name: (x.dtype.name, tuple(x.shape)) for name, x in inputs.items()} == expected
    assert labels.dtype.name == "int32" and labels.shape == (6,)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_its_example(loaded, kind):
    data = loaded(kind)
    train = data.splits["train"]
    for step, (inputs, labels) in enumerate(listed(training_batches(train, data.spec, batch_size=7, seed=3, epoch=2))):
        order = permutation(3, 2, 40, np.arange(step * 7, step * 7 + 7)).numpy()
        assert batch_ids(train, data.spec, batch_size=7, seed=3, epoch=2, step=step) == [f"train-{i}" for i in order]
        np.testing.assert_array_equal(labels, train.labels[order])
        for row, i in enumerate(order):
            if kind == "image":
                np.testing.assert_array_equal(inputs["image"][row], train.table.rows[i])
                continue
            x, values = next(iter(inputs.values()))[row], train.table.row(i)
            if kind == "audio":
                assert inputs["lengths"][row] == len(values)
                values = values / 32768
            np.testing.assert_array_equal(x[: len(values)], values.astype(x.dtype))
            assert not x[len(values) :].any()


@pytest.mark.parametrize("kind", ["audio", "text"])
def test_a_batch_is_padded_to_the_first_edge_that_holds_it(loaded, kind):
    data = loaded(kind)
    edges = (data.spec.lengths[-1] // 3, data.spec.lengths[-1] // 2, data.spec.lengths[-1])
    spec = dataclasses.replace(data.spec, lengths=edges)
    widths = set()
    for inputs, _ in listed(training_batches(data.splits["train"], spec, batch_size=2, seed=0, epoch=0)):
        x = next(iter(inputs.values()))
        longest = inputs["lengths"].max() if kind == "audio" else (x != 0).sum(axis=1).max()
        assert x.shape[1] == min(edge for edge in edges if edge >= longest)
        widths.add(x.shape[1])
    assert widths == set(edges)


def test_sounds_beyond_the_last_edge_are_padded_to_a_multiple_of_it(loaded):
    data = loaded("audio")
    table = data.splits["test"].table
    longest = int(table.lengths.max())
    samples, lengths = table.gather(np.arange(13), [100, longest // 3])
    assert samples.shape == (13, -(-longest // (longest // 3)) * (longest // 3))
    np.testing.assert_array_equal(lengths, table.lengths)


@pytest.mark.parametrize("kind", KINDS)
def test_skipping_gives_the_tail_of_the_epoch(loaded, kind):
    data = loaded(kind)
    options = {"batch_size": 6, "seed": 1, "epoch": 4, "augmentation": AUGMENTATION.get(kind)}
    whole = listed(training_batches(data.splits["train"], data.spec, **options))
    same(listed(training_batches(data.splits["train"], data.spec, step=4, **options)), whole[4:])
    assert listed(training_batches(data.splits["train"], data.spec, step=6, **options)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_epoch_follows(loaded, kind):
    data = loaded(kind)
    options = {"batch_size": 6, "seed": 1, "augmentation": AUGMENTATION.get(kind)}
    epochs = [listed(training_batches(data.splits["train"], data.spec, epoch=epoch, **options)) for epoch in (2, 3, 4)]
    found = listed(training_batches(data.splits["train"], data.spec, epoch=2, step=5, count=8, **options))
    same(found, [*epochs[0][5:], *epochs[1], *epochs[2][:1]])


def test_each_epoch_leaves_out_others(loaded):
    data = loaded("image")
    train = data.splits["train"]
    left = []
    for epoch in range(6):
        ids = [
            id for step in range(3) for id in batch_ids(train, data.spec, batch_size=12, seed=0, epoch=epoch, step=step)
        ]
        assert len(set(ids)) == 36
        left.append(set(train.ids) - set(ids))
    assert len(set.union(*left)) > 12 and len({frozenset(ids) for ids in left}) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_leaves_nothing_out_and_keeps_the_order(loaded, kind):
    data = loaded(kind)
    test = data.splits["test"]
    batches = listed(evaluation_batches(test, data.spec, batch_size=5))
    assert [len(labels) for _, labels in batches] == [5, 5, 3]
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), test.labels)
    if kind == "image":
        np.testing.assert_array_equal(np.concatenate([inputs["image"] for inputs, _ in batches]), test.table.rows)
    assert len(listed(evaluation_batches(test, data.spec, batch_size=100))) == 1


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_a_table_on_disk_gives_the_same_batches(loaded, kind):
    options = {"batch_size": 6, "seed": 0, "epoch": 1}
    batches = []
    for cache in ("memory", "disk", "disk"):
        data = loaded(kind, cache=cache)
        batches.append(listed(training_batches(data.splits["train"], data.spec, **options)))
    same(batches[0], batches[1])
    same(batches[0], batches[2])


def test_augmentation_belongs_to_the_example_not_to_its_place(loaded):
    data = loaded("image")
    train = data.splits["train"]
    options = {"batch_size": 6, "seed": 2, "epoch": 3}
    batches = listed(training_batches(train, data.spec, augmentation=AUGMENTATION["image"], **options))
    for step, (inputs, _) in enumerate(batches):
        for id, row in zip(batch_ids(train, data.spec, step=step, **options), inputs["image"], strict=True):
            i = train.ids.index(id)
            alone = augment(tf.constant(train.table.rows[i : i + 1]), 2, 3, [i], **AUGMENTATION["image"])
            np.testing.assert_array_equal(row, alone[0])
            assert (row != train.table.rows[i]).any()


def test_sounds_are_changed_with_their_lengths_and_alone_alike(loaded):
    data = loaded("audio")
    train = data.splits["train"]
    options = {"batch_size": 6, "seed": 2, "epoch": 3}
    [first, *_] = listed(training_batches(train, data.spec, augmentation=AUGMENTATION["audio"], **options))
    ids = batch_ids(train, data.spec, step=0, **options)
    for id, row, length in zip(ids, first[0]["samples"], first[0]["lengths"], strict=True):
        i = train.ids.index(id)
        sound = train.table.row(i).astype("float32")[None] / 32768
        before = tf.constant([sound.shape[1]], tf.int32)
        alone, lengths = augment_sounds(tf.constant(sound), before, 2, 3, [i], edges=(1,), **AUGMENTATION["audio"])
        if lengths[0] < before[0]:  # a slower one is bounded by the edges, which are others here
            assert length == lengths[0]
            np.testing.assert_array_equal(row[:length], alone[0, :length])
        assert not row[length:].any() and row[:length].any()


@pytest.mark.parametrize(
    ("kind", "key", "changes"),
    [("audio", "shift", "pictures"), ("text", "shift", "pictures"), ("image", "speed", "sounds")],
)
def test_each_kind_of_data_has_its_own_augmentation(loaded, kind, key, changes):
    data = loaded(kind)
    check_augmentation(data.spec, {"flip": None, "shift": 0.0, "noise": 0.0})
    with pytest.raises(ToolkitError, match=rf"data\.augmentation\.{key} changes {changes}, but the data is {kind}"):
        training_batches(
            data.splits["train"], data.spec, batch_size=4, seed=0, epoch=0, augmentation={"flip": None, key: 0.1}
        )


def test_training_sees_windows_and_evaluation_whole_pictures(loaded):
    data = loaded("image")
    height, width, channels = data.spec.shape
    options = {"batch_size": 4, "seed": 0, "epoch": 0}
    crop = (height - 3, width - 1)
    inputs, _ = next(iter(training_batches(data.splits["train"], data.spec, augmentation={"crop": crop}, **options)))
    assert inputs["image"].shape == (4, *crop, channels)
    inputs, _ = next(iter(evaluation_batches(data.splits["train"], data.spec, batch_size=4)))
    assert inputs["image"].shape == (4, height, width, channels)
    with pytest.raises(
        ToolkitError, match=rf"crop is {height}x{width + 1}, larger than the pictures of {height}x{width}"
    ):
        check_augmentation(data.spec, {"crop": (height, width + 1)})


def test_every_option_of_the_config_changes_one_kind():
    assert list(CHANGED) == list(Augmentation.model_fields)


@pytest.mark.parametrize("kind", ["image", "audio"])
def test_a_table_is_read_in_place(loaded, kind):
    """Nothing is copied, neither at the start nor per epoch: a change of the array shows in the batches."""
    data = loaded(kind)
    train = data.splits["train"]
    rows = train.table.rows if kind == "image" else train.table.flat
    batches = evaluation_batches(train, data.spec, batch_size=40)
    assert any(x.any() for x in listed(batches)[0][0].values())
    rows[:] = 0
    (inputs, _), *_ = listed(batches)
    assert not inputs["image" if kind == "image" else "samples"].any()


# A process per backend: a model whose train step only notes what `fit` hands it.
RECEIVE = """
import hashlib
import keras
import numpy as np
from toolkit.data.batches import TrainingBatches
from toolkit.data.load import load

class Receiver(keras.Model):
    def note(self, data):
        inputs, labels = data[:2]
        for name, value in [*sorted(inputs.items()), ("labels", labels)]:
            value = np.ascontiguousarray(keras.ops.convert_to_numpy(value))
            self.sha.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
        self.steps += 1

    def train_step(self, *arguments):  # (data), or on JAX (state, data)
        self.note(arguments[-1])
        logs = {"seen": keras.ops.zeros(())}
        return (logs, arguments[0]) if len(arguments) == 2 else logs

for source in ("synthetic_images", "synthetic_audio", "synthetic_text"):
    data = load(source, {"examples": 60})
    augmentation = AUGMENTATION.get(data.spec.kind)
    training = TrainingBatches(data.splits["train"], data.spec, batch_size=8, seed=5, augmentation=augmentation)
    x = keras.Input((2,))
    receiver = Receiver(x, keras.layers.Dense(1)(x))
    receiver.sha, receiver.steps = hashlib.sha256(), 0
    receiver.compile(run_eagerly=True)
    receiver.fit(training.batches(1, 1, 4), shuffle=False, verbose=0)
    print(source, receiver.steps, receiver.sha.hexdigest())
"""


def test_the_three_backends_receive_the_same_bits():
    script = RECEIVE.replace("AUGMENTATION", repr(AUGMENTATION))
    started = {
        backend: subprocess.Popen(
            [sys.executable, "-c", script],
            env={**os.environ, "KERAS_BACKEND": backend},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for backend in ("tensorflow", "jax", "torch")
    }
    received = {}
    for backend, process in started.items():
        received[backend], errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    # 42 of 60 examples to train, batches of 8, the first one skipped.
    lines = [line.split() for line in received["tensorflow"].splitlines()]
    assert [line[1] for line in lines] == ["4", "4", "4"]
    assert received["tensorflow"] == received["jax"] == received["torch"]
