"""`toolkit robustness` from end to end, on small made-up data."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

from toolkit import workflow
from toolkit.cli import main
from toolkit.config import load
from toolkit.data.batches import evaluation_batches
from toolkit.errors import RunFailed, ToolkitError
from toolkit.explain.robustness import attack, changed, document, walk
from toolkit.explain.robustness.walk import robustness
from toolkit.runs.run import Run

every_backend = pytest.mark.every_backend

CONFIGS = {
    "image": """
data: {source: synthetic_images, classes: 3, examples: 200, height: 12, width: 14, batch_size: 16}
model: {name: simple_cnn, filters: [8], convolutions: 1, units: 16, dropout: 0.0}
optimizer: {name: adam, learning_rate: 1e-2}
training: {epochs: 5, backend: %s}
""",
    "audio": """
data: {source: synthetic_audio, classes: 2, examples: 60, seconds: 0.1, batch_size: 8, evaluation_batch_size: 5}
model: {name: speech_lstm, units: 8, mels: 8}
optimizer: {name: adam, learning_rate: 1e-2}
training: {epochs: 2, backend: %s}
""",
    "text": """
data: {source: synthetic_text, classes: 2, examples: 120, batch_size: 8, evaluation_batch_size: 7}
model: {name: text_transformer, width: 8, heads: 2, feed_forward: 8}
optimizer: {name: adam, learning_rate: 1e-2}
training: {epochs: 3, backend: %s}
""",
    "speech": """
data: {source: synthetic_speech, words: 2, examples: 160, transcript_units: words, batch_size: 16, buckets: 1}
model: {name: speech_ctc, convolutions: [16], layers: 1, units: 24, mels: 16, dropout: 0.0}
optimizer: {name: adam, learning_rate: 1e-2, global_clipnorm: 1.0}
training: {epochs: 2, backend: %s}
""",
}


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    """Trained runs by kind, shared: a test that writes takes a copy."""
    made = {}

    def run(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            (folder / "small.yaml").write_text(CONFIGS[kind] % os.environ["KERAS_BACKEND"])
            made[kind] = workflow.train(load(folder / "small.yaml"), run_dir=folder / "run")
        return made[kind]

    return run


@pytest.fixture
def copy_of(run_of, tmp_path):
    return lambda kind, name="run": shutil.copytree(run_of(kind), tmp_path / name)


def examples_of(directory, **options):
    with Run.open(directory) as run:
        trained = workflow.trained(run)
    attacked = trained.data.spec.kind == "image"
    return trained, walk._examples(trained, 0, options.get("limit"), attacked=attacked)


def without_time(found):
    return dataclasses.replace(found, seconds=0.0)


def contents(directory):
    return {path.relative_to(directory): path.stat().st_mtime_ns for path in directory.rglob("*")}


@pytest.mark.parametrize("kind", list(CONFIGS))
def test_severity_0_gives_the_batches_and_the_figure_of_the_evaluation(kind, copy_of):
    directory = copy_of(kind)
    trained, examples = examples_of(directory)
    batches = evaluation_batches(examples.split, examples.spec, batch_size=examples.batch_size)
    expected = [inputs for inputs, _ in batches.as_numpy_iterator()]
    names = (*changed.names(examples.spec), *changed.attacks(examples.spec))
    for name in names:
        for batch, other in zip(examples.batches(name, 0), expected, strict=True):
            assert list(batch) == list(other)
            for key, value in batch.items():
                assert value.dtype == other[key].dtype
                np.testing.assert_array_equal(value, other[key])
    found = robustness(directory, changes=names[:1], severities=[1])
    before = json.loads((directory / "evaluation.json").read_text())
    if kind == "speech":
        assert found.clean.error == before["words"]["rate"]
    else:
        assert found.clean.accuracy == pytest.approx(before["accuracy"], abs=1e-12)
        answers = walk._answers(trained, examples, names[-1], 0)
        assert (answers.argmax(axis=1) == examples.split.labels).mean() == before["accuracy"]


def test_a_run_on_pictures_leaves_figures_and_pictures(copy_of, capsys):
    directory = copy_of("image")
    before = contents(directory)
    found = robustness(directory, severities=[1, 5], epsilons=[2, 32])
    new = {str(path) for path in set(contents(directory)) - set(before)}
    assert new == {"robustness.json", "robustness.png", "reliability.png", "robustness-examples.png"}
    assert document.read(directory / "robustness.json") == found
    assert found.examples == json.loads((directory / "evaluation.json").read_text())["examples"]
    assert len(found.passes) == 15 * 2 + 2 * 2
    assert found.errors("gaussian_noise")[1] >= found.clean.error
    assert found.errors("pgd")[1] > found.clean.error + 0.1
    out = capsys.readouterr().out
    assert "gaussian_noise" in out and "mean of all changes and severities" in out
    assert all(len(line) <= 80 for line in out.splitlines() if "/" not in line)
    # The same figures from predictions made here, of one change.
    trained, examples = examples_of(directory)
    logits = np.concatenate([trained.model.predict_on_batch(b) for b in examples.batches("rotation", 5)])
    wrong = (np.asarray(logits).argmax(axis=1) != examples.split.labels).mean()
    assert found.of("rotation")[5].error == pytest.approx(wrong)


@every_backend
@pytest.mark.parametrize("kind", ["audio", "text", "speech"])
def test_sounds_texts_and_transcripts_walk_the_same_way(kind, copy_of, capsys):
    directory = copy_of(kind)
    found = robustness(directory, severities=[5], limit=15)
    assert found.examples == found.setting.limit or kind == "audio"  # a fifth of 60 is 12, all of them
    names = {"text": 6}.get(kind, 9)
    assert len(found.passes) == names
    assert (directory / "reliability.png").exists() == (kind != "speech")
    assert not (directory / "robustness-examples.png").exists()
    out = capsys.readouterr().out
    assert ("word error rate in %" if kind == "speech" else "accuracy in %") in out
    if kind == "text":
        assert found.of("upper_case")[5] == found.clean
        assert found.of("unseen_words")[5].flips > 0


@every_backend
def test_the_gradient_is_that_of_the_loss(run_of):
    trained, examples = examples_of(run_of("image"))
    images, labels = examples.split.table.rows[:6], examples.split.labels[:6]
    images = np.clip(images, 4, 251)

    def losses(values):
        return trained.objective.losses(np.asarray(trained.model.predict_on_batch({"image": values})), labels)

    gradient = examples.gradient(images.astype(np.float32), labels)
    assert gradient.shape == images.shape
    for i in range(6):
        place = (i, *np.unravel_index(np.abs(gradient[i]).argmax(), images.shape[1:]))
        up, down = images.copy(), images.copy()
        up[place] += 2
        down[place] -= 2
        slope = (losses(up)[i] - losses(down)[i]) / 4
        assert slope == pytest.approx(gradient[place], rel=0.2, abs=1e-6)


@every_backend
def test_the_gradient_is_that_of_the_weights_as_they_are(run_of):
    trained, examples = examples_of(run_of("image"))
    images, labels = examples.split.table.rows[:4].astype("float32"), examples.split.labels[:4]
    gradient = attack.gradient_of(trained.model)
    before = gradient(images, labels)
    assert before.any()
    kept = trained.model.get_weights()
    try:
        trained.model.set_weights([np.zeros_like(weight) for weight in kept])
        assert not gradient(images, labels).any()
    finally:
        trained.model.set_weights(kept)
    np.testing.assert_array_equal(gradient(images, labels), before)


@every_backend
def test_attacks_stay_within_epsilon_and_raise_the_loss(run_of):
    trained, examples = examples_of(run_of("image"))
    images, labels = examples.split.table.rows, examples.split.labels

    def loss(values):
        return trained.objective.losses(np.asarray(trained.model.predict_on_batch({"image": values})), labels).mean()

    clean = loss(images)
    found = {}
    for name in attack.NAMES:
        for epsilon in (1, 8):
            (batch,) = (b["image"] for b in examples.batches(name, epsilon))
            assert batch.dtype == np.uint8
            away = np.abs(batch.astype(int) - images)
            assert away.max() == epsilon
            found[name, epsilon] = loss(batch)
    assert clean < found["fgsm", 1] < found["fgsm", 8]
    assert found["fgsm", 8] <= 1.01 * found["pgd", 8]
    random = np.clip(images + np.random.default_rng(0).choice([-8, 8], images.shape), 0, 255).astype(np.uint8)
    assert found["fgsm", 8] > loss(random)  # it is the gradient that does it, not the change's size


def test_a_batch_around_an_example_does_not_change_it(run_of):
    _, examples = examples_of(run_of("image"))
    whole = np.concatenate([batch["image"] for batch in examples.batches("fog", 3)])
    some = dataclasses.replace(examples, positions=np.array([3, 17, 30]), batch_size=2)
    np.testing.assert_array_equal(
        np.concatenate([batch["image"] for batch in some.batches("fog", 3)]), whole[[3, 17, 30]]
    )
    other = dataclasses.replace(some, seed=1)
    assert not np.array_equal(next(other.batches("fog", 3))["image"], whole[[3, 17]])


def test_an_interrupted_pass_goes_on_where_it_stopped(copy_of, monkeypatch, capsys):
    options = {"changes": ["fog", "pgd"], "severities": [1, 2, 3], "epsilons": [4, 8]}
    whole = robustness(copy_of("image", "whole"), **options)
    directory = copy_of("image")
    asked = []
    answers = walk._answers

    def counted(trained, examples, change, strength):
        if len(asked) == 4:
            raise KeyboardInterrupt
        asked.append((change, strength))
        return answers(trained, examples, change, strength)

    monkeypatch.setattr(walk, "_answers", counted)
    with pytest.raises(KeyboardInterrupt):
        robustness(directory, **options)
    assert asked == [("clean", 0), ("fog", 1), ("fog", 2), ("fog", 3)]
    assert (directory / document.PART).exists()
    assert not (directory / document.FILE).exists()
    asked.clear()
    found = robustness(directory, **options)
    assert asked == [("clean", 0), ("pgd", 4), ("pgd", 8)]
    assert "known already: 3" in capsys.readouterr().out
    assert without_time(found) == without_time(whole)
    assert not (directory / document.PART).exists()


def test_a_pass_over_fewer_changes_leaves_what_an_interrupted_one_had_measured(copy_of, monkeypatch, capsys):
    directory = copy_of("image")
    all_of_fog, asked = robustness(directory, changes=["fog"], severities=[1, 2, 3]), []
    answers = walk._answers

    def counted(trained, examples, change, strength):
        asked.append((change, strength))
        return answers(trained, examples, change, strength)

    dataclasses.replace(all_of_fog, passes=all_of_fog.passes[:2]).write(directory / document.PART)  # as if interrupted
    monkeypatch.setattr(walk, "_answers", counted)
    robustness(directory, changes=["jpeg"], severities=[1])
    assert "for a later pass over more changes: 2 that were not asked for" in capsys.readouterr().out
    robustness(directory, changes=["fog"], severities=[1])
    assert asked == [("clean", 0), ("jpeg", 1), ("clean", 0)]
    asked.clear()
    whole = robustness(directory, changes=["fog", "jpeg"], severities=[1, 2, 3])
    assert asked == [("clean", 0), ("fog", 3), ("jpeg", 2), ("jpeg", 3)]
    assert whole.passes[:3] == all_of_fog.passes
    assert not (directory / document.PART).exists()


def test_what_was_measured_otherwise_is_not_gone_on_with(copy_of, monkeypatch, capsys):
    directory = copy_of("image")
    first = robustness(directory, changes=["fog"], severities=[3])
    first.write(directory / document.PART)  # as if interrupted
    with monkeypatch.context() as patched:
        patched.setattr(walk, "DEFINITIONS", 2)  # levels of a later version
        robustness(directory, changes=["fog"], severities=[3])
    assert "nothing in it is used" in capsys.readouterr().out
    first.write(directory / document.PART)
    other = robustness(directory, changes=["fog"], severities=[3], seed=1)
    assert "nothing in it is used" in capsys.readouterr().out
    assert other.passes[0].figures != first.passes[0].figures
    weights = directory / "weights.safetensors"
    first.write(directory / document.PART)
    weights.write_bytes((directory / "last.safetensors").read_bytes()[:-4] + b"\0\0\0\0")
    robustness(directory, changes=["fog"], severities=[3])
    assert "nothing in it is used" in capsys.readouterr().out


def test_a_baseline_is_set_beside(copy_of, capsys):
    directory = copy_of("image")
    baseline = copy_of("image", "base[line]")
    options = {"changes": ["rotation", "shear", "fgsm"], "severities": [4, 5], "epsilons": [8]}
    own = robustness(baseline, **options)
    doubled = dataclasses.replace(
        own,
        passes=tuple(
            dataclasses.replace(one, figures=dataclasses.replace(one.figures, error=2 * one.figures.error))
            for one in own.passes
        ),
    )
    doubled.write(baseline / document.FILE)
    capsys.readouterr()
    found = robustness(directory, **options, baseline=baseline)
    assert found.comparison.mean_corruption_error == pytest.approx(0.5)
    assert found.comparison.corruption_errors == pytest.approx({"rotation": 0.5, "shear": 0.5})
    assert "mCE 50.0 % of base[line]" in capsys.readouterr().out
    with pytest.raises(ToolkitError, match="not measured under 1 of these changes .first: fog of severity 5"):
        robustness(directory, changes=["fog", "shear"], severities=[5], baseline=baseline)
    with pytest.raises(ToolkitError, match="another test part"):
        robustness(copy_of("audio", "sounds"), baseline=baseline)
    (baseline / "weights.safetensors").write_bytes((baseline / "last.safetensors").read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(ToolkitError, match=r"other weights than those that its robustness.json .*measure it again"):
        robustness(directory, **options, baseline=baseline)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("image", ["--changes", "fogg"], "'fogg', which is no change of image data (did you mean 'fog'?)"),
        ("image", ["--changes", ""], "'', which is no change"),
        ("image", ["--changes", "typos"], "no change of image data"),
        ("audio", ["--changes", "fgsm"], "no change of audio data"),
        ("image", ["--severities", "0,1"], "--severities has 0, but they reach from 1 to 5"),
        ("image", ["--severities", "6"], "--severities has 6"),
        ("image", ["--severities", "1,x"], "--severities '1,x' is no list of whole numbers"),
        ("image", ["--epsilons", "256"], "--epsilons has 256, but they reach from 1 to 255"),
        ("image", ["--epsilons", "2", "--changes", "fog"], "add fgsm or pgd to --changes"),
        ("text", ["--epsilons", "2"], "text data has none"),
        ("image", ["--limit", "0"], "--limit"),
        ("image", ["--baseline", "nowhere"], "there is no run directory"),
        ("image", ["--baseline", "RUN"], "holds no robustness.json"),
    ],
)
def test_a_wrong_request_is_told_in_one_sentence_and_writes_nothing(kind, options, message, run_of, capsys):
    directory = run_of(kind)
    before = contents(directory)
    options = [str(directory) if option == "RUN" else option for option in options]
    with pytest.raises(SystemExit) as caught:
        main(["robustness", str(directory), *options])
    assert caught.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert contents(directory) == before


def test_a_folder_without_a_run_and_a_part_of_others_are_refused(copy_of, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ToolkitError, match="is not the directory of a trained run"):
        robustness(tmp_path / "empty")
    directory = copy_of("image")
    (directory / document.PART).write_text('{"format": 2, "clean": 3}')
    with pytest.raises(ToolkitError, match=r"robustness.part.json: .*remove the file"):
        robustness(directory, changes=["fog"], severities=[1])
    (directory / document.PART).unlink()
    (directory / document.FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ToolkitError, match="symbolic link"):
        robustness(directory, changes=["fog"], severities=[1])


def test_a_model_that_is_no_graph_is_not_attacked(run_of):
    import keras

    class Own(keras.Model):
        pass

    with pytest.raises(ToolkitError, match="Own is no functional Keras model"):
        attack.gradient_of(Own())


def test_outputs_that_are_not_finite_end_the_pass(copy_of, monkeypatch):
    directory = copy_of("image")

    def broken(*arguments, **options):
        raise RunFailed("the model's output is not finite")

    monkeypatch.setattr("toolkit.evaluation.predict.require_finite", broken)
    with pytest.raises(RunFailed, match="not finite"):
        robustness(directory, changes=["fog"], severities=[1])
    assert not (directory / document.FILE).exists()
