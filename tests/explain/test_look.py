"""What was planted in the data is found again: by maps, by attributions, in the lists of mistakes."""

import csv
import os
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from toolkit.data.spec import DataSpec
from toolkit.models.build import build

every_backend = pytest.mark.every_backend

RATE = 8000
TONE = 0.06  # seconds
SOUNDS = DataSpec(
    kind="audio", shape=(None,), dtype="float32", class_names=("down", "up"), sample_rate=RATE, lengths=(4000,)
)


def train(folder, text, model=None):
    from toolkit import workflow
    from toolkit.config import load

    (folder / "config.yaml").write_text(text.replace("BACKEND", os.environ["KERAS_BACKEND"]))
    return workflow.train(load(folder / "config.yaml"), run_dir=folder / "run", model=model)


@pytest.fixture(scope="module")
def patch_run(tmp_path_factory):
    """Noise, in one class with a bright patch in one of the corners, which the name of the file tells."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("patches")
    rng = np.random.default_rng(0)
    for i in range(160):
        pixels = rng.integers(0, 90, (16, 16))
        name = "plain"
        if i % 2:
            bottom, right = divmod(i // 2 % 4, 2)
            rows, columns = (slice(12, 16) if side else slice(0, 4) for side in (bottom, right))
            pixels[rows, columns] = 255
            name = "patch"
        place = folder / "pictures" / name
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"{i:03d}_{i // 2 % 4}.png")
    return train(
        folder,
        f"""
data: {{source: folder, path: {folder / "pictures"}, batch_size: 16}}
model: {{name: cat_dog_cnn, stem: 8, blocks: [[8], [8]], batch_norm: false, dropout: 0.0}}
optimizer: {{name: adam, learning_rate: 1e-2}}
training: {{epochs: 10, backend: BACKEND, precision: mixed_bfloat16}}
""",
    )


@pytest.fixture(scope="module")
def word_run(tmp_path_factory):
    """Words that say nothing, and in each text one that decides."""
    folder = tmp_path_factory.mktemp("words")
    rng = np.random.default_rng(0)
    lines = ["text,label"]
    for i in range(160):
        words = [f"w{chr(97 + k)}" for k in rng.integers(20, size=rng.integers(6, 14))]
        words[rng.integers(len(words))] = "splendid" if i % 2 else "dreadful"
        lines.append(f"{' '.join(words)},{'yes' if i % 2 else 'no'}")
    (folder / "texts.csv").write_text("\n".join(lines))
    return train(
        folder,
        f"""
data: {{source: csv, path: {folder / "texts.csv"}, batch_size: 16}}
model: {{name: text_transformer, width: 16, heads: 2, feed_forward: 16, dropout: 0.0}}
optimizer: {{name: adam, learning_rate: 1e-2}}
training: {{epochs: 8, backend: BACKEND}}
""",
    )


def listener():
    """A model of one's own that hears stretches of 85 ms: a recurrent one may remember its answer from any frame on."""
    import keras

    from toolkit.models import speech_input
    from toolkit.models.layers.masked import MaskedPooling, StridedConvolution

    inputs, x, valid = speech_input.log_mel_input(SOUNDS, frame_ms=25, hop_ms=10, mels=12, low_hz=20, high_hz=None)
    x, valid = StridedConvolution(16, width=7, stride=2)(x, valid)
    return keras.Model(inputs, keras.layers.Dense(2)(MaskedPooling("max")(x, valid)))


@pytest.fixture(scope="module")
def tone_run(tmp_path_factory):
    """Noise with two short tones somewhere, of which the lower comes first or last; the name of the file has the place.

    Only their order tells the class: in level and colour, which are normalised over the clip, all clips are alike.
    """
    import soundfile

    folder = tmp_path_factory.mktemp("tones")
    rng = np.random.default_rng(0)
    time = np.arange(int(TONE * RATE)) / RATE
    low, high = (0.5 * np.sin(2 * np.pi * hertz * time) for hertz in (700, 2000))
    for i in range(240):
        samples = rng.normal(0, 0.05, int(RATE * 0.4))
        start = int(rng.integers(0, 400 - 2000 * TONE))
        name = "up" if i % 2 else "down"
        both = np.concatenate([low, high] if i % 2 else [high, low])
        samples[start * RATE // 1000 :][: len(both)] += both
        place = folder / "sounds" / name
        place.mkdir(parents=True, exist_ok=True)
        soundfile.write(place / f"{i:03d}_{start}.wav", samples, RATE)
    return train(
        folder,
        f"""
data: {{source: folder, path: {folder / "sounds"}, batch_size: 16}}
model: {{name: speech_lstm}}
optimizer: {{name: adam, learning_rate: 1e-2}}
training: {{epochs: 10, backend: BACKEND}}
""",
        listener(),
    )


@pytest.fixture(scope="module")
def speech_run(tmp_path_factory):
    """Strings of tones, each a word."""
    return train(
        tmp_path_factory.mktemp("speech"),
        """
data: {source: synthetic_speech, words: 3, examples: 160, transcript_units: words, batch_size: 16, buckets: 1}
model: {name: speech_ctc, convolutions: [16], layers: 1, units: 24, mels: 16, dropout: 0.0}
optimizer: {name: adam, learning_rate: 1e-2, global_clipnorm: 1.0}
training: {epochs: 12, backend: BACKEND}
""",
    )


@pytest.fixture(scope="module")
def seen():
    """Brings back what a run trained, with the examples of its test part."""
    from toolkit.explain.look import seen as looked
    from toolkit.explain.look import walk
    from toolkit.runs.run import Run

    def bring(directory, most=1000, model=None):
        with Run.open(directory) as run:
            found = walk._see(run, "test", "best", None, model)
        return found, looked.read(found, range(min(len(found.split), most)))

    return bring


def right(examples):
    found = [example for example in examples if example.answer == example.label]
    assert len(found) > 0.8 * len(examples)
    return found


def score(model, inputs, label):
    """As docs/look.md defines it, by the whole model."""
    from keras import ops

    logits = np.asarray(ops.convert_to_numpy(model(inputs, training=False)), np.float64)[0]
    return logits[label] - logits.mean()


@every_backend
def test_a_bright_patch_is_found_by_map_and_attribution(patch_run, seen):
    from toolkit.explain.look import graph
    from toolkit.explain.look.attributions import Scores, grad_cam, integrated_gradients

    found, examples = seen(patch_run)
    patched = [example for example in right(examples) if found.spec.class_names[example.label] == "patch"]
    maps = Scores(found.model, graph.activated(found.model, graph.convolutions(found.model)[-1]).output)
    pixels = Scores(found.model, graph.pixels(found.model, found.spec.shape))
    assert len({example.id[-5] for example in patched}) > 2
    for example in patched:
        bottom, right_side = divmod(int(re.search(r"_(\d)\.png", example.id)[1]), 2)
        heat = grad_cam(maps, example.inputs, example.label)
        assert heat.shape == (4, 4)
        row, column = np.unravel_index(heat.argmax(), heat.shape)
        assert (row >= 2, column >= 2) == (bottom, right_side)
        attribution = integrated_gradients(pixels, example.inputs, example.label)
        rows, columns = (slice(12, 16) if side else slice(0, 4) for side in (bottom, right_side))
        # A sixteenth of the picture.
        assert attribution.values[rows, columns].sum() > 0.5 * attribution.values.clip(0).sum()
        black = {"image": np.zeros_like(example.inputs["image"])}
        difference = score(found.model, example.inputs, example.label) - score(found.model, black, example.label)
        assert attribution.values.sum() == pytest.approx(difference, rel=0.01)


@every_backend
@pytest.mark.parametrize("scaling", ["offset", "normalization"])
def test_attributions_are_against_black_whatever_it_is_after_the_scaling(scaling):
    import keras

    from toolkit.explain.look import graph
    from toolkit.explain.look.attributions import Scores
    from toolkit.explain.look.pictures import pixel_attributions

    image = keras.Input((4, 5, 2), dtype="uint8", name="image")
    if scaling == "offset":
        scaled, unit = keras.layers.Rescaling(1 / 127.5, offset=-1)(image), np.full(2, 1 / 127.5)
    else:
        scaled, unit = keras.layers.Normalization(mean=[90, 120], variance=[400, 900])(image), 1 / np.array([20, 30])
    dense = keras.layers.Dense(3)
    model = keras.Model({"image": image}, dense(keras.layers.Flatten()(scaled)))
    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 5, 2)).astype("uint8")
    pixels[0, :2] = 0
    found = pixel_attributions(
        Scores(model, graph.pixels(model, (4, 5, 2))), SimpleNamespace(inputs={"image": pixels}, answer=1)
    )
    kernel = np.array(dense.kernel, np.float64)
    weights = (kernel[:, 1] - kernel.mean(axis=1)).reshape(4, 5, 2) * unit
    np.testing.assert_allclose(found.values, weights * pixels[0], rtol=1e-4, atol=1e-6)
    difference = score(model, {"image": pixels}, 1) - score(model, {"image": np.zeros_like(pixels)}, 1)
    assert found.difference == pytest.approx(difference, rel=1e-4, abs=1e-5)


@every_backend
def test_the_word_that_decides_is_found_and_the_attributions_are_complete(word_run, seen):
    from toolkit.explain.look.texts import Tokens

    found, examples = seen(word_run)
    tokens = Tokens(found.model)
    chosen = right(examples)[:10]
    attributions = [tokens.attributions(example) for example in chosen]
    hits = []
    for example, attribution in zip(chosen, attributions, strict=True):
        words = [found.spec.vocabulary[token] for token in example.tokens]
        hits.append(words[attribution.values[: len(words)].argmax()] in ("splendid", "dreadful"))
        np.testing.assert_array_equal(attribution.values[len(words) :], 0)  # padding
    assert sum(hits) >= 9
    sure = [score(found.model, example.inputs, example.answer) for example in chosen]
    table = found.model.get_layer("token_embedding").embeddings
    before = np.array(table)
    table.assign(np.zeros_like(before))  # the baseline, by another way
    blank = [score(found.model, example.inputs, example.answer) for example in chosen]
    table.assign(before)
    for attribution, one, other in zip(attributions, sure, blank, strict=True):
        assert attribution.values.sum() == pytest.approx(one - other, rel=0.01)


@every_backend
def test_what_a_pair_adds_is_half_each_words_and_nothing_is_lost():
    from toolkit.explain.look.texts import Tokens

    spec = DataSpec(
        kind="text", shape=(None,), dtype="int32", class_names=("a", "b"), vocabulary=("",) * 40, lengths=(12,)
    )
    model = build("text_transformer", {"width": 8, "feed_forward": 8, "pairs": 500, "bag_width": 3}, spec)
    example = SimpleNamespace(inputs={"tokens": np.array([[5, 9, 5, 7, 3, 0, 0]], "int32")}, answer=1)
    rng = np.random.default_rng(0)
    names = ("token_embedding", "words_embedding", "pairs_embedding")
    tables = [model.get_layer(name).embeddings for name in names]
    for table in tables:
        table.assign(rng.normal(size=table.shape))
    before = score(model, example.inputs, 1)
    found = Tokens(model).attributions(example)
    for table in tables:
        table.assign(np.zeros(table.shape))
    assert found.values.sum() == pytest.approx(before - score(model, example.inputs, 1), rel=0.01)
    np.testing.assert_array_equal(found.values[5:], 0)
    # One pair alone has a vector: it adds to its two words, alike.
    number = int(np.array(model.get_layer("pairs").call(example.inputs["tokens"])[0])[0, 2])
    one = np.zeros(tables[2].shape)
    one[number] = [3.0, -2.0, 1.0]
    tables[2].assign(one)
    alone = Tokens(model).attributions(example).values
    assert abs(alone[2]) > 1e-3 and alone[2] == pytest.approx(alone[3], rel=1e-5)
    np.testing.assert_allclose(np.delete(alone, [2, 3]), 0, atol=1e-6)


@every_backend
def test_a_tone_is_found_where_it_sounds(tone_run, seen):
    from toolkit.explain.look import graph
    from toolkit.explain.look.attributions import Scores
    from toolkit.explain.look.sounds import Frames, frame_attributions

    found, examples = seen(tone_run, 12, listener())
    frames = Frames(found.model)
    scores = Scores(found.model, graph.features(found.model)[0])
    hits = []
    for example in right(examples):
        start = int(re.search(r"_(\d+)\.wav", example.id)[1]) / 1000
        attribution = frame_attributions(scores, example)
        count = len(frames.read(example))
        best = frames.seconds(count)[attribution.values[:count].argmax()]
        hits.append(start - 0.02 < best < start + 2 * TONE + 0.02)  # a frame is 25 ms long
        silence = {**example.inputs, "samples": np.zeros_like(example.inputs["samples"])}  # its features are all alike
        difference = score(found.model, example.inputs, example.answer) - score(found.model, silence, example.answer)
        assert attribution.values.sum() == pytest.approx(difference, rel=0.01)
    assert sum(hits) > 0.8 * len(hits)


def of_flat_frames(model, inputs, label):
    """The score where all features are 0, as those of the baseline are: the layers one by one."""
    from keras import ops

    _, valid = model.get_layer("log_mel")(*(ops.convert_to_tensor(inputs[n]) for n in ("samples", "lengths")))
    x = model.get_layer("recurrent1")(ops.zeros((*valid.shape, 12)), mask=valid)
    x = model.get_layer("pool")(x, valid)
    logits = np.asarray(ops.convert_to_numpy(model.get_layer("logits")(x)), np.float64)[0]
    return logits[label] - logits.mean()


@every_backend
def test_attributions_of_frames_are_complete():
    from toolkit.explain.look import graph
    from toolkit.explain.look.attributions import Scores, integrated_gradients
    from toolkit.models.speech_lstm import speech_lstm

    model = speech_lstm(SOUNDS, mels=12, units=12)
    samples = np.random.default_rng(0).normal(0, 0.1, (1, 4000)).astype("float32")
    inputs = {"samples": samples * np.linspace(0, 1, 4000, dtype="float32"), "lengths": np.array([3000], "int32")}
    found = integrated_gradients(Scores(model, graph.features(model)[0]), inputs, 1)
    difference = score(model, inputs, 1) - of_flat_frames(model, inputs, 1)
    assert abs(difference) > 1e-3
    assert found.values.sum() == pytest.approx(difference, rel=0.01)


def test_stretches_of_frames_read_as_what_was_written_and_lie_where_it_was_said(speech_run, seen):
    from toolkit.explain.look import graph
    from toolkit.explain.look.sounds import Frames, runs

    found, examples = seen(speech_run, 12)
    frames = Frames(found.model)
    exact = [example for example in examples if found.objective.decode(example.logits[None])[0] == example.text]
    assert len(exact) > len(examples) / 2
    for example in exact:
        count = -(-len(frames.read(example)) // 2)
        stretches = runs(example.logits[:count].argmax(axis=1))
        assert " ".join(found.spec.vocabulary[label - 1] for label, _, _ in stretches) == example.text
        times = frames.seconds(count, 2)
        for i, (_, start, end) in enumerate(stretches):
            # Tone i sounds from 0.05 + 0.15 i to 0.15 + 0.15 i seconds; CTC may speak up a little before or after.
            assert -0.1 < times[start:end].mean() - (0.1 + 0.15 * i) < 0.1
    assert graph.stride(found.model, 2 * count, count) == 2


def test_runs_of_frames_by_hand():
    from toolkit.explain.look.sounds import runs

    assert runs(np.array([0, 2, 2, 0, 2, 1, 1])) == [(2, 1, 3), (2, 4, 5), (1, 5, 7)]
    assert runs(np.array([0, 0])) == []


def test_attention_is_the_softmax_of_queries_and_keys(word_run, seen):
    from toolkit.explain.look import graph

    found, examples = seen(word_run)
    layer = graph.attentions(found.model)[0]
    example = min(examples, key=lambda one: len(one.tokens))
    weights = graph.attention_scores(found.model, layer)(example.inputs)[0]
    x, valid = graph.reader(found.model, [found.model.get_layer("block1_attention_norm").output,
                                          found.model.get_layer("padding_mask").output])(example.inputs)  # fmt: skip
    kernels = {weight.path.split("/")[-2]: np.array(weight, np.float64) for weight in layer.weights}
    query, key = (np.einsum("td,dhk->htk", x[0].astype(np.float64), kernels[name]) for name in ("query", "key"))
    products = np.einsum("htk,hsk->hts", query, key) / np.sqrt(query.shape[-1])
    products[:, :, ~valid[0]] = -np.inf
    expected = np.exp(products - products.max(axis=-1, keepdims=True))
    expected /= expected.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(weights, expected, atol=1e-5)
    assert (~valid).any()


def names(paths):
    return {re.sub(r"-.*", "", path.stem) for path in paths}


@pytest.mark.parametrize(
    ("run", "kinds"),
    [
        ("patch_run", {"filters", "maps", "gradcam", "attributions", "least"}),
        ("word_run", {"attention", "attributions", "least"}),
        ("tone_run", {"sound", "least"}),
        ("speech_run", {"sound"}),
    ],
)
def test_everything_is_drawn(run, kinds, request):
    from PIL import Image

    from toolkit.explain.look.walk import look

    directory = request.getfixturevalue(run)
    paths = look(directory, model=listener() if run == "tone_run" else None)
    assert kinds <= names(paths) <= kinds | {"mistakes", "confused"}
    assert sorted(paths) == sorted((directory / "look").iterdir())
    for path in paths:
        pixels = np.asarray(Image.open(path).convert("L"))
        assert min(pixels.shape) > 150
        assert pixels.std() > 10


def test_mistakes_are_those_of_the_predictions(request, tmp_path):
    from toolkit.explain.look.walk import look

    directory = train(
        tmp_path,
        """
data: {source: synthetic_images, classes: 4, examples: 200, height: 12, width: 12, batch_size: 16}
model: {name: mnist_dense, hidden: 8}
optimizer: {name: adam, learning_rate: 1e-2}
training: {epochs: 2, backend: BACKEND}
""",
    )
    paths = look(directory, only=["mistakes"])
    assert {path.name for path in paths} == {"mistakes.png", "least-confident.png", "confused.png"}
    with (directory / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    told = (directory / "log.txt").read_text().split("surest mistakes")[1]
    surest, rest = told.split("least sure answers")
    unsure, confused = rest.split("confused most")
    sorted_rows = sorted(rows, key=lambda row: -float(row["probability"]))
    wrong = [row for row in sorted_rows if row["answer"] != row["label"]]
    assert 3 < len(wrong) < len(rows)
    assert re.findall(r"synthetic_images-\d+", surest) == [row["id"] for row in wrong[:12]]
    assert re.findall(r"synthetic_images-\d+", unsure) == [row["id"] for row in sorted_rows[::-1][:12]]
    pairs = [(row["label"], row["answer"]) for row in wrong]
    most = max(pairs.count(pair) for pair in pairs)
    assert re.search(r"(class_\d)\s+(class_\d)\s+(\d+)", confused)[3] == str(most)


def test_one_example_is_looked_at_and_what_was_drawn_before_stays(patch_run, tmp_path):
    from toolkit.explain.look.walk import look

    directory = shutil.copytree(patch_run, tmp_path / "run", ignore=shutil.ignore_patterns("look"))
    with (directory / "predictions.csv").open(newline="") as file:
        first, second, *_ = [row["id"] for row in csv.DictReader(file)]
    one = look(directory, examples=[first], only=["gradcam"])
    other = look(directory, examples=[second])
    assert len(one) == 1
    assert names(other) == {"maps", "gradcam", "attributions"}
    assert set((directory / "look").iterdir()) == {*one, *other}
    everything = look(directory)
    assert set((directory / "look").iterdir()) == set(everything)
    assert look(directory, split="validation", only=["filters"])[0].name == "filters-validation.png"
