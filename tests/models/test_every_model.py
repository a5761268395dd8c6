"""What every registered model must hold: a new one is tested on the day it is registered."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from toolkit import registry
from toolkit.data.spec import DataSpec
from toolkit.errors import ToolkitError
from toolkit.models.build import build
from toolkit.models.weights import get_arrays, set_arrays
from toolkit.tasks.objective import objective

JAX = keras.backend.backend() == "jax"  # it compiles every operation by itself where it may not compile the model


def logits(model, inputs):
    """What the model gives; the certain blanks past a clip's end, beside which all else would look small, are 0."""
    found = model.predict_on_batch(inputs) if JAX else keras.ops.convert_to_numpy(model(inputs, training=False))
    return without_certain_blanks(found)


def without_certain_blanks(found):
    return np.where(np.abs(found) == 1e4, 0, found) if found.ndim == 3 else found


def compiled(model, spec, *, jit=False):
    loss = objective(spec).loss
    model.compile(keras.optimizers.SGD(0.5), loss, jit_compile=jit or JAX, run_eagerly=not jit and not JAX)
    return model


@pytest.mark.every_backend
def test_a_batch_gives_the_float32_logits_that_the_data_ask_for(case, spec, make_batch):
    model = build(*case, spec)
    inputs = make_batch(spec)
    assert {name: tensor.dtype for name, tensor in model.input.items()} == {
        name: array.dtype.name for name, array in inputs.items()
    }
    assert [layer.name for layer in model.layers if isinstance(layer, keras.layers.Dense)][-1] == "logits"
    found = logits(model, inputs)
    assert found.shape == (5, 7) if spec.task == "classification" else (5, found.shape[1], 7)
    assert found.dtype == np.float32
    assert np.ptp(found[:, 0] if found.ndim == 3 else found, axis=0).min() > 0  # the answer depends on the input


# Weights of each model with its defaults, on data of the usual size: 28x28x1, 128x128x3, 8 kHz, 20,000 words.
DIGITS = DataSpec(kind="image", shape=(28, 28, 1), dtype="uint8", class_names=tuple("0123456789"))
PHOTOS = DataSpec(kind="image", shape=(128, 128, 3), dtype="uint8", class_names=("cat", "dog"))
SOUNDS = DataSpec(
    kind="audio", shape=(None,), dtype="float32", class_names=tuple("0123456789"), sample_rate=8000, lengths=(4000,)
)
DIGIT_NAMES = dataclasses.replace(
    SOUNDS, task="transcription", class_names=(), vocabulary=tuple("abcdefghij"), units="words"
)
TEXTS = DataSpec(
    kind="text", shape=(None,), dtype="int32", class_names=("bad", "good"), vocabulary=("",) * 20_000, lengths=(256,)
)
COUNTS = [
    # 784·128 + 128, 128·10 + 10
    ("mnist_dense", {}, DIGITS, 100_480 + 1_290),
    # 3·3·1·32 + 32, 3·3·32·64 + 64, 7·7·64·128 + 128, 128·10 + 10
    ("simple_cnn", {}, DIGITS, 320 + 18_496 + 401_536 + 1_290),
    # the same, each convolution with 4 numbers per channel in place of its bias
    ("simple_cnn", {"batch_norm": True}, DIGITS, 288 + 128 + 18_432 + 256 + 401_536 + 1_290),
    # two convolutions to a pooling: 3·3·32·32 + 32 and 3·3·64·64 + 64 more than with one
    ("simple_cnn", {"convolutions": 2}, DIGITS, 320 + 9_248 + 18_496 + 36_928 + 401_536 + 1_290),
    # 5·5·3·32; 3·3·(32·64 + 64·96 + 96·128 + 128·192 + 192·256 + 256·256); 4·(32+64+96+128+192+256+256); 256·2 + 2
    ("cat_dog_cnn", {}, PHOTOS, 2_400 + 1_437_696 + 4_096 + 514),
    # LSTM: 4·128·(40 + 128 + 1); 128·10 + 10
    ("speech_lstm", {}, SOUNDS, 86_528 + 1_290),
    # two directions of a GRU, 3·64·(40 + 64 + 2), then of 3·64·(128 + 64 + 2); 128·10 + 10
    ("speech_lstm", {"cell": "gru", "units": 64, "layers": 2, "bidirectional": True}, SOUNDS, 40_704 + 74_496 + 1_290),
    # 5·40·96 + 96, 5·96·128 + 128; norms of 2·96 and 2·128; LSTM: 4·128·(128 + 128 + 1); 128·10 + 10
    ("speech_lstm", {"convolutions": (96, 128)}, SOUNDS, 19_296 + 61_568 + 448 + 131_584 + 1_290),
    # 5·40·128 + 128; a norm of 2·128; two directions of an LSTM, 4·128·(128 + 128 + 1), then of 4·128·(256 + 128 + 1);
    # 256·11 + 11
    ("speech_ctc", {}, DIGIT_NAMES, 25_728 + 256 + 263_168 + 394_240 + 2_827),
    # 20,000·64; 256·64; attention 4·64·64; 64·128 + 128, 128·64 + 64; three norms of 2·64; 64·2 + 2
    ("text_transformer", {}, TEXTS, 1_280_000 + 16_384 + 16_384 + 8_320 + 8_256 + 384 + 130),
    # a convolution more: 5·64·64 + 64
    ("text_transformer", {"ngram": 5, "stride": 2}, TEXTS, 1_329_858 + 20_544),
    # post: the norm at the end is missing
    ("text_transformer", {"norm": "post"}, TEXTS, 1_280_000 + 16_384 + 16_384 + 8_320 + 8_256 + 256 + 130),
]


@pytest.mark.parametrize(("name", "arguments", "spec", "count"), COUNTS)
def test_number_of_weights(name, arguments, spec, count):
    assert build(name, arguments, spec).count_params() == count


def test_every_model_has_its_number_of_weights_pinned():
    assert {name for name, *_ in COUNTS} == set(registry.names("models"))


@pytest.mark.every_backend
def test_every_weight_moves_in_a_step(case, spec, make_batch, labels):
    model = compiled(build(*case, spec), spec)
    before = get_arrays(model)
    model.train_on_batch(make_batch(spec), labels(spec))
    moved = {name: np.abs(after - before[name]).max() for name, after in get_arrays(model).items()}
    # A gradient that only rounding makes is about 1e-9 here.
    assert {name: size for name, size in moved.items() if size < 1e-6} == {}


@pytest.mark.every_backend
def test_saved_and_loaded_gives_the_same(case, spec, make_batch, trained, tmp_path):
    model = build(*case, spec)
    set_arrays(model, trained(get_arrays(model)), where="test")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    inputs = make_batch(spec)
    np.testing.assert_array_equal(logits(loaded, inputs), logits(model, inputs))
    assert list(get_arrays(loaded)) == list(get_arrays(model))


@pytest.mark.every_backend
def test_an_answer_depends_on_its_own_example_alone(case, spec, make_batch, trained):
    """No randomness and no batch statistics are left outside training."""
    model = build(*case, spec)
    set_arrays(model, trained(get_arrays(model)), where="test")
    inputs = make_batch(spec)
    together = logits(model, inputs)
    np.testing.assert_array_equal(logits(model, inputs), together)
    alone = np.concatenate(
        [logits(model, {name: array[i : i + 1] for name, array in inputs.items()}) for i in range(5)]
    )
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-5 * np.abs(together).max())


@pytest.mark.every_backend
def test_padding_does_not_change_the_logits(case, spec, make_batch, trained):
    if not spec.lengths:
        return  # images have no padding
    model = build(*case, spec)
    set_arrays(model, trained(get_arrays(model)), where="test")
    inputs = make_batch(spec)
    extra = ((0, 0), (0, spec.lengths[1] - spec.lengths[0]))
    padded = {name: np.pad(array, extra) if array.ndim == 2 else array for name, array in inputs.items()}
    expected, found = logits(model, inputs), logits(model, padded)
    if spec.task == "transcription":  # more frames, with nothing in them
        found, added = np.split(found, [expected.shape[1]], axis=1)
        assert not added.any()
    # Rounding is 1e-7 of the largest; a mean over the padded length is off by half.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.every_backend
def test_mixed_bfloat16_gives_float32_logits_and_leaves_no_policy_behind(case, spec, make_batch, trained, labels):
    before = keras.config.dtype_policy().name
    model = build(*case, spec, precision="mixed_bfloat16")
    assert keras.config.dtype_policy().name == before == "float32"
    exact = build(*case, spec)
    weights = trained(get_arrays(exact))
    set_arrays(exact, weights, where="test")
    set_arrays(model, weights, where="test")
    assert {array.dtype.name for array in get_arrays(model).values()} == {"float32"}
    inputs = make_batch(spec)
    found, expected = logits(model, inputs), logits(exact, inputs)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() > 0  # something was computed in bfloat16
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.05 * np.abs(expected).max())
    if not JAX:  # its compiler takes long
        assert np.isfinite(compiled(model, spec).train_on_batch(inputs, labels(spec)))


def test_xla_gives_the_same_step(case, spec, make_batch, trained, labels):
    """JAX always compiles; torch's compiler is not used on CPU."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("about TensorFlow's jit_compile")
    name, arguments = case
    still = {
        key: 0.0
        for key in inspect.signature(registry.resolve("models", name)).parameters
        if "dropout" in key or "mask" in key
    }
    model = build(name, {**arguments, **still}, spec)
    weights = trained(get_arrays(model))
    results = []
    for jit in (False, True):
        set_arrays(model, weights, where="test")
        compiled(model, spec, jit=jit).train_on_batch(make_batch(spec), labels(spec))
        results.append(get_arrays(model))
    for key, expected in results[0].items():
        step = np.abs(expected - weights[key]).max()
        # A ReLU or maximum within rounding of its border may go either way, which moves single numbers by 1e-3.
        np.testing.assert_allclose(results[1][key], expected, rtol=0, atol=1e-2 * step + 1e-6, err_msg=key)


def test_names_are_the_same_whatever_was_built_before(case, spec):
    first, second = build(*case, spec), build(*case, spec)
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert list(get_arrays(first)) == list(get_arrays(second))
    layers = {layer.name for layer in first.layers}
    assert {key.split("/")[0] for key in get_arrays(first)} <= layers


def test_data_of_another_kind_is_refused(case, spec, specs):
    name, arguments = case
    for other in specs.values():
        if other.kind != spec.kind:
            with pytest.raises(ToolkitError, match=f"model.name is {name}, which takes .* but data.source gives"):
                build(name, arguments, other)
    another = "transcription" if spec.task == "classification" else "classification"
    with pytest.raises(ToolkitError, match=f"the task of the data is {another}"):
        build(name, arguments, dataclasses.replace(spec, task=another))


PREDICT = """
import json, sys
import numpy as np, keras
from toolkit.data.spec import DataSpec
from toolkit.models.build import build
from toolkit.models.weights import get_arrays, set_arrays
folder = sys.argv[1]
for i, (name, arguments, spec) in enumerate(json.load(open(f"{folder}/cases.json"))):
    model = build(name, arguments, DataSpec.from_json(spec))
    weights = dict(np.load(f"{folder}/weights{i}.npz"))
    assert list(get_arrays(model)) == list(weights), (list(get_arrays(model)), list(weights))
    set_arrays(model, weights, where="test")
    logits = model.predict_on_batch(dict(np.load(f"{folder}/inputs{i}.npz")))
    np.save(f"{folder}/{keras.backend.backend()}{i}.npy", logits)
"""


def test_weights_of_one_backend_give_the_same_answers_on_the_others(cases, spec_of, make_batch, trained, tmp_path):
    """The weights are written here and read under each backend, by name, batch statistics among them."""
    (tmp_path / "cases.json").write_text(
        json.dumps([(name, arguments, spec_of(name).to_json()) for name, arguments in cases])
    )
    expected = []
    for i, (name, arguments) in enumerate(cases):
        model, inputs = build(name, arguments, spec_of(name)), make_batch(spec_of(name))
        weights = trained(get_arrays(model))
        set_arrays(model, weights, where="test")
        expected.append(logits(model, inputs))
        np.savez(tmp_path / f"weights{i}.npz", **weights)
        np.savez(tmp_path / f"inputs{i}.npz", **inputs)
    for backend in {"tensorflow", "jax", "torch"} - {keras.backend.backend()}:
        environment = {**os.environ, "KERAS_BACKEND": backend}
        subprocess.run([sys.executable, "-c", PREDICT, str(tmp_path)], check=True, env=environment, timeout=800)
        for i, case in enumerate(cases):
            found = without_certain_blanks(np.load(tmp_path / f"{backend}{i}.npy"))
            tolerance = 1e-5 * np.abs(expected[i]).max()
            np.testing.assert_allclose(found, expected[i], rtol=0, atol=tolerance, err_msg=f"{case} on {backend}")
