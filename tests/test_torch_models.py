"""scripts/torch_models.py has the toolkit's models once more: with the same weights they must give the same logits."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from toolkit.data.spec import DataSpec
from toolkit.models.build import build
from toolkit.models.weights import get_arrays, set_arrays

IMAGES = DataSpec(kind="image", shape=(16, 24, 3), dtype="uint8", class_names=tuple("abcde"))
SOUNDS = DataSpec(
    kind="audio", shape=(None,), dtype="float32", class_names=tuple("abcde"), sample_rate=4000, lengths=(1500,)
)
SPEECH = dataclasses.replace(SOUNDS, task="transcription", class_names=(), vocabulary=tuple("xyz"), units="characters")
WORDS = ("", "[unk]", *(f"w{i}" for i in range(20)))
TEXTS = DataSpec(
    kind="text", shape=(None,), dtype="int32", class_names=tuple("abcde"), vocabulary=WORDS, lengths=(11, 19)
)

DEEP = {"cell": "gru", "layers": 2, "bidirectional": True, "units": 6}
CASES = [
    ("mnist_dense", {}, IMAGES),
    ("simple_cnn", {"filters": (4, 5), "units": 19, "convolutions": 2}, IMAGES),
    ("simple_cnn", {"filters": (4,), "batch_norm": True}, IMAGES),
    ("cat_dog_cnn", {"stem": 4, "blocks": ((5,), (6, 8))}, IMAGES),
    ("cat_dog_cnn", {"stem": 4, "blocks": ((5,),), "batch_norm": False}, IMAGES),
    ("speech_lstm", {"mels": 12, "units": 6, "convolutions": (7, 9), "bidirectional": True}, SOUNDS),
    ("speech_lstm", {"mels": 12, "units": 6, "layers": 2, "pooling": "last"}, SOUNDS),
    ("speech_lstm", {"mels": 12, **DEEP, "pooling": "last", "frame_ms": 32.0}, SOUNDS),
    (
        "speech_lstm",
        {"mels": 12, **DEEP, "pooling": "max", "high_hz": 1500.0, "top_db": 20.0, "normalization": "mean"},
        SOUNDS,
    ),
    ("speech_ctc", {"mels": 12, "units": 6, "convolutions": (7,)}, SPEECH),
    ("speech_ctc", {"mels": 12, "units": 6, "cell": "gru", "layers": 1, "bidirectional": False}, SPEECH),
    ("text_transformer", {}, TEXTS),
    ("text_transformer", {"width": 12, "heads": 3, "blocks": 2, "norm": "post", "pooling": "max"}, TEXTS),
    ("text_transformer", {"width": 12, "ngram": 5, "stride": 3, "token_dropout": 0.2}, TEXTS),
    ("text_transformer", {"width": 12, "ngram": 4, "stride": 1}, TEXTS),
    ("text_transformer", {"width": 12, "pairs": 30, "bag_width": 5}, TEXTS),
]
every_case = pytest.mark.parametrize(
    ("name", "arguments", "spec"), CASES, ids=[f"{i}-{name}" for i, (name, *_) in enumerate(CASES)]
)


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)  # two that spin beside another test make an LSTM 30 times slower
    return torch


@pytest.fixture(scope="module")
def torch_models(torch):
    from scripts import torch_models

    return torch_models


def make_batch(spec):
    """Rows of several lengths; what lies beyond a sound's end is no silence."""
    rng = np.random.default_rng(0)
    if spec.kind == "image":
        brightness = np.array([90, 120, 150, 200, 256])[:, None, None, None]
        return {"image": rng.integers(0, brightness, (5, *spec.shape), "uint8")}
    if spec.kind == "audio":
        samples = rng.normal(0, 0.1, (5, 1500)).astype("float32")
        return {"samples": samples, "lengths": np.array([1400, 90, 777, 1, 500], "int32")}
    tokens = rng.integers(1, len(spec.vocabulary), (5, 17)).astype("int32")
    return {"tokens": tokens * (np.arange(17) < np.array([17, 0, 1, 9, 4])[:, None])}


KINDS = {"kernel": "weight", "embeddings": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
KINDS |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
PLACES = {
    r"convolution(\d)_norm": "norms.{}",
    r"convolution(\d)/": "convolutions.{}.",
    r"block(\d)_(?=attention|feed)": "blocks.{}.",
    r"token_embedding": "tokens",
    r"words_embedding": "words",
    r"pairs_embedding": "pairs",
    r"position_embedding": "positions",
    r"/_output_dense": ".output",
}


def carried_over(arrays, *, image, cell):
    """A Keras model's weights under the names and in the order of its twin's."""
    found, attention = {}, {}
    for name, array in arrays.items():
        path, kind = name.rsplit("/", 1)
        if recurrent := re.match(r"recurrent(\d)", path):
            found |= of_cell(array, kind, cell, f"l{int(recurrent[1]) - 1}{'_reverse' * ('backward' in path)}")
        elif part := re.match(r"block(\d)_attention/_(query|key|value)_dense", path):
            attention[part[1], part[2]] = array.reshape(len(array), -1).T  # (heads * dimensions, width)
        else:
            for pattern, place in PLACES.items():
                path = re.sub(pattern, lambda m, place=place: place.format(*(int(n) - 1 for n in m.groups())), path)
            if path.endswith("output"):  # (heads, dimensions, width)
                array = array.reshape(-1, array.shape[-1])
            if kind == "kernel":  # of pictures: (height, width, in, out)
                array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
            found[f"{'layers.' * image}{path.replace('/', '.')}.{KINDS[kind]}"] = array
    for block in {block for block, _ in attention}:
        joined = np.concatenate([attention[block, part] for part in ("query", "key", "value")])
        found[f"blocks.{int(block) - 1}.attention.query_key_value.weight"] = joined
    return found


def of_cell(array, kind, cell, where):
    if cell == "gru":  # Keras has the update gate before the reset gate
        update, reset, new = np.split(array, 3, axis=-1)
        array = np.concatenate([reset, update, new], axis=-1)
    if kind == "bias":  # an LSTM has one, a GRU two
        names = f"recurrent.bias_ih_{where}", f"recurrent.bias_hh_{where}"
        return dict(zip(names, np.atleast_2d(array), strict=False))
    return {f"recurrent.weight_{'ih' if kind == 'kernel' else 'hh'}_{where}": array.T}


@pytest.fixture
def pair(name, arguments, spec, torch, torch_models):
    """Model and twin with the same weights, whose biases are not 0 and scales not 1."""
    model, twin = build(name, arguments, spec), torch_models.build(name, arguments, spec)
    rng = np.random.default_rng(1)
    arrays = get_arrays(model)
    for key, array in arrays.items():
        if not key.endswith("kernel"):
            arrays[key] = array + rng.uniform(0, 0.2, array.shape).astype("float32")
    set_arrays(model, arrays, where="test")
    carried = carried_over(arrays, image=spec.kind == "image", cell=arguments.get("cell", "lstm"))
    weights = {key: torch.tensor(np.ascontiguousarray(array)) for key, array in carried.items()}
    missing, unexpected = twin.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(key.endswith("num_batches_tracked") or "bias_hh" in key for key in missing)
    return model, twin


@every_case
def test_twin_gives_the_same_logits_and_learns_as_many_numbers(pair, spec, torch):
    model, twin = pair
    expected = model.predict_on_batch(make_batch(spec))
    with torch.no_grad():
        found = twin.eval()({key: torch.from_numpy(array) for key, array in make_batch(spec).items()})
    assert found.dtype == torch.float32
    assert np.ptp(expected[:, 0], axis=0).min() > 1e-3  # rows differ
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-4)
    learnt = [parameter for parameter in twin.parameters() if parameter.requires_grad]
    assert sum(p.numel() for p in learnt) == sum(int(np.prod(w.shape)) for w in model.trainable_weights)


@every_case
def test_a_step_reaches_every_number_that_is_learnt(pair, spec, torch):
    """With dropout; and means over batches are kept as Keras keeps them."""
    model, twin = pair
    tensors = {key: torch.from_numpy(array) for key, array in make_batch(spec).items()}
    twin.train()(tensors)[:, :3].square().mean().backward()
    still = [name for name, p in twin.named_parameters() if p.requires_grad and not p.grad.any()]
    assert not still
    assert all(p.grad is None and not p.any() for p in twin.parameters() if not p.requires_grad)
    model(make_batch(spec), training=True)
    arrays, state = get_arrays(model), twin.state_dict()
    for name in (name for name in arrays if name.endswith("moving_mean")):
        found = state[f"layers.{name.replace('/moving_', '.running_')}"]
        np.testing.assert_allclose(found.numpy(), arrays[name], rtol=0, atol=1e-4)


@every_case
def test_start_values_spread_as_those_of_keras(name, arguments, spec, torch, torch_models):
    torch.manual_seed(0)
    expected = get_arrays(build(name, arguments, spec))
    carried = carried_over(expected, image=spec.kind == "image", cell=arguments.get("cell", "lstm"))
    state = torch_models.build(name, arguments, spec).state_dict()
    for key, array in carried.items():
        if array.ndim == 1:  # zeros and ones
            np.testing.assert_array_equal(state[key].numpy(), array, err_msg=key)
        elif array.size > 200:
            np.testing.assert_allclose(state[key].numpy().std(), array.std(), rtol=0.2, err_msg=key)
