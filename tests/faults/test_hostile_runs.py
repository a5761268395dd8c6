"""Run directories from somebody else: nothing in them runs, leads elsewhere or fills the memory; one sentence says why.

Each case spoils a copy of a trained run. A canary shows that nothing ran, a folder beside the run that nothing outside
was changed, an audit hook which files were opened.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.faults.hostile import files
from tests.faults.hostile.files import ESCAPE, safetensors, tensor
from toolkit import workflow
from toolkit.config import load
from toolkit.errors import RunFailed, ToolkitError
from toolkit.runs import arrays, checkpoints, trust

pytestmark = pytest.mark.long

CONFIG = """
seed: 3
data: {source: synthetic_images, classes: 3, examples: 60, height: 12, width: 12, batch_size: 16}
model: {name: mnist_dense, hidden: 4}
optimizer: {name: adam, learning_rate: 1e-2}
training: {epochs: 2, backend: %s}
"""
MEGABYTES = 500  # that a case may take beyond what the process has
SECONDS = 20  # it takes a few; the machine may be busy

OPENED: list[str] = []
_WATCHING: list[bool] = []


def _watch(event, arguments):
    if _WATCHING and event == "open":
        OPENED.append(os.fspath(arguments[0]) if isinstance(arguments[0], str | os.PathLike) else str(arguments[0]))


sys.addaudithook(_watch)  # it stays for the life of the process, but sees nothing outside of `walked`


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    (folder / "small.yaml").write_text(CONFIG % os.environ["KERAS_BACKEND"])
    return workflow.train(load(folder / "small.yaml"), run_dir=folder / "run")


@dataclasses.dataclass
class Place:
    """A copy of the run to spoil, and what must stay as it is."""

    run: Path
    outside: Path
    canary: Path
    picture: Path
    config: Path

    def write(self, name, content):
        (self.run / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    def edit(self, name, **changes):
        path = self.run / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    def add_to_config(self, text):
        with (self.run / "config.yaml").open("a") as file:
            file.write(text)

    def replace_in(self, name, old, new):
        text = (self.run / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new, 1))

    def link(self, name, target):
        path = self.run / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    @property
    def checkpoint(self):
        return self.run / checkpoints.FOLDER / checkpoints.names(self.run / checkpoints.FOLDER)[-1]

    def manifest(self, change):
        """Change what the checkpoints' manifests say, and make their sums right again."""
        for name in checkpoints.names(self.run / checkpoints.FOLDER):
            path = self.run / checkpoints.FOLDER / name / checkpoints.MANIFEST
            manifest = json.loads(path.read_text())
            del manifest["sha256"]
            change(manifest)
            path.write_text(json.dumps({**manifest, "sha256": checkpoints._sum(manifest)}))

    def position(self, **changes):
        self.manifest(lambda manifest: manifest["state"]["position"].update(changes))


@pytest.fixture
def place(trained, tmp_path):
    from PIL import Image

    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("not for others\n")
    (outside / "folder").mkdir()
    (outside / "folder" / "file").write_text("stays")
    shutil.copytree(trained, tmp_path / "run")
    Image.new("L", (12, 12), 90).save(tmp_path / "picture.png")
    (tmp_path / "small.yaml").write_text(CONFIG % os.environ["KERAS_BACKEND"])
    return Place(tmp_path / "run", outside, tmp_path / "canary", tmp_path / "picture.png", tmp_path / "small.yaml")


def predict(place):
    return workflow.predict(place.run, files=[place.picture])


def evaluate(place):
    return workflow.evaluate(place.run)


def resume(place):
    return workflow.resume(place.run, overrides=["training.epochs=3"])


def start_from(place):
    config = load(place.config, [f"training.init_from={place.run}"])
    return workflow.train(config, run_dir=place.run.with_name("new"), steps=1)


def snapshot(folder):
    return {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_size, path.is_file() and path.read_bytes())
        for path in [folder, *sorted(folder.rglob("*"))]
    }


def _memory(key):
    """Bytes of this process by /proc: VmRSS now, VmHWM at most since it was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))


@contextlib.contextmanager
def walked(place):
    """What holds for every case, whatever came of it."""
    before, linux = snapshot(place.outside), Path("/proc/self/clear_refs").exists()
    if linux:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        memory = _memory("VmRSS")
    OPENED.clear()
    _WATCHING.append(True)
    start = time.process_time()
    try:
        yield
    finally:
        _WATCHING.clear()
    assert time.process_time() - start < SECONDS
    if linux:
        assert _memory("VmHWM") - memory < MEGABYTES * 2**20
    assert not place.canary.exists(), "code ran"
    assert snapshot(place.outside) == before


def refuse(call, place, says):
    with walked(place), pytest.raises(ToolkitError) as caught:
        call(place)
    text = str(caught.value)
    assert re.search(says, text), text
    assert text.replace("\n", "").isprintable()
    assert len(text) < 2000
    return text


def nothing_of(place, name):
    return not [path for path in OPENED if name in path]


# --- weights ----------------------------------------------------------------------------------------------------------

HIDDEN = {"hidden/kernel": tensor([144, 4], 0, 2304), "hidden/bias": tensor([4], 2304, 2320)}
LOGITS = {"logits/kernel": tensor([4, 3], 2320, 2368), "logits/bias": tensor([3], 2368, 2380)}
FULL = {**HIDDEN, **LOGITS}  # of the model above, all float32
DATA = bytes(2380)


def test_the_header_that_the_cases_spoil_is_right(place):
    place.write("weights.safetensors", safetensors(FULL, DATA))
    with walked(place):
        assert predict(place).probabilities.tolist() == [[pytest.approx(1 / 3)] * 3]


def renamed(old, new):
    return {new if name == old else name: value for name, value in FULL.items()}


def replaced(name, value):
    return {**FULL, name: value}


FOREIGN = {
    "keras": (lambda place: files.keras_lambda(place.canary, place.outside, ".keras"), "it is a zip archive"),
    "hdf5": (lambda place: files.keras_lambda(place.canary, place.outside, ".h5"), "it is an HDF5 file"),
    "pickle 0": (lambda place: files.pickled(place.canary, 0), "header"),
    "pickle 2": (lambda place: files.pickled(place.canary, 2), "it is a pickle"),
    "pickle 5": (lambda place: files.pickled(place.canary, 5), "it is a pickle"),
    "torch": (lambda place: files.torch_checkpoint(place.canary), "it is a zip archive"),
    "numpy": (lambda place: files.numpy_objects(place.canary), "it is a NumPy file"),
    "empty": (lambda place: b"", "header"),
    "text": (lambda place: b"these are no weights\n" * 9, "header"),
}
HEADERS = {
    "length of 2^63": (safetensors(FULL, DATA, length=2**63), "header is longer"),
    "length beyond the file": (safetensors(FULL, length=5000), "header is longer"),
    "length of 0": (safetensors(b""), "its header: "),
    "no JSON": (safetensors(b"{'a': 1}"), "its header: "),
    "no object": (safetensors(b"[1, 2]"), "cannot be read as safetensors"),
    "no UTF-8": (safetensors(b'{"\xff": 1}'), "its header: "),
    "deep": (safetensors(files.deep().encode()), "its header: maximum recursion"),
    "deep entry": (safetensors(b'{"a": ' + files.deep(900).encode() + b"}"), "recursion limit"),
    "a number of 5000 digits": (safetensors(b'{"a": ' + b"9" * 5000 + b"}"), "its header: "),
    "a name twice": (safetensors(b'{"a": 1, "a": 1}'), "a name stands in it twice"),
    "overlapping": (safetensors({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, bytes(12)), "invalid offset"),
    "a gap": (safetensors({"a": tensor([1], 0, 4), "b": tensor([1], 8, 12)}, bytes(12)), "invalid offset"),
    "bytes left over": (safetensors(FULL, DATA + bytes(4)), "not fully covered"),
    "beyond the end": (safetensors(FULL, DATA[:-4]), "not fully covered"),
    "negative offset": (safetensors({"a": tensor([1], -4, 0)}, bytes(4)), "invalid value"),
    "negative side": (safetensors({"a": tensor([-1], 0, 4)}, bytes(4)), "invalid value"),
    "an overflow": (safetensors({"a": tensor([2**62, 2**62, 4], 0, 4)}, bytes(4)), "overflow"),
    "an overflow with a zero": (safetensors(replaced("a", tensor([0, 2**62, 2**62], 2380, 2380)), DATA), "too much a"),
    "a hundred sides": (
        safetensors({"hidden/bias": tensor([1] * 100)}, bytes(4)),
        r"another shape hidden/bias \(\(1, 1",
    ),
    "unknown type": (safetensors({"a": tensor([1], 0, 8, "OBJECT")}, bytes(8)), "unknown variant"),
    "type that NumPy has not": (
        safetensors(
            {**HIDDEN, "logits/kernel": tensor([4, 3], 2320, 2332, "F8_E4M3"), "logits/bias": tensor([3], 2332, 2344)},
            bytes(2344),
        ),
        "logits/kernel has the type F8_E4M3",
    ),
    "whole numbers": (safetensors(replaced("hidden/bias", tensor([4], 2304, 2320, "I32")), DATA), "bias as int32"),
    "complex": (
        safetensors(
            {**HIDDEN, "logits/kernel": tensor([4, 3], 2320, 2416, "C64"), "logits/bias": tensor([3], 2416, 2428)},
            bytes(2428),
        ),
        "logits/kernel has the type C64",
    ),
    "another shape": (
        safetensors(replaced("hidden/kernel", tensor([4, 144], 0, 2304)), DATA),
        r"\(4, 144\) for \(144, 4\)",
    ),
    "one missing": (safetensors(HIDDEN, DATA[:2320]), "lacks logits/kernel, logits/bias"),
    "one more": (safetensors(replaced("more", tensor([0], 2380, 2380)), DATA), "has too much more"),
    "a name that leads out": (
        safetensors(renamed("logits/bias", "../../outside/secret.txt"), DATA),
        r"too much \.\./\.\./",
    ),
    "a name that speaks to terminals": (safetensors(renamed("logits/bias", ESCAPE), DATA), r"too much \\x1b\[2J"),
    "a name of a million letters": (safetensors(renamed("logits/bias", "x" * 10**6), DATA), "too much x+…"),
    "empty tensors up to the limit": (safetensors(files.many_tensors(arrays.MAX_HEADER)), "has too much 0+, 0+1"),
    "empty tensors, 100 MB": (safetensors(files.many_tensors(100 * 2**20)), "header is longer"),
    "types of nothing": (
        safetensors({"__metadata__": {"notes": '{"types": {"a": "bfloat16"}}'}, **FULL}, DATA),
        "no tensor a",
    ),
    "types that are a list": (
        safetensors({"__metadata__": {"notes": '{"types": [1]}'}, **FULL}, DATA),
        "types that are unknown",
    ),
    "deep types": (safetensors({"__metadata__": {"notes": files.deep()}, **FULL}, DATA), "recursion"),
    "a type that does not fit": (
        safetensors({"__metadata__": {"notes": '{"types": {"hidden/bias": "bfloat16"}}'}, **FULL}, DATA),
        "hidden/bias is no bfloat16",
    ),
    "NaN": (safetensors(FULL, DATA[:2376] + np.float32("nan").tobytes()), "hold NaN in logits/bias"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_other_formats_are_never_opened_as_weights(place, case):
    make, says = FOREIGN[case]
    place.write("weights.safetensors", make(place))
    refuse(predict, place, rf"run/weights\.safetensors cannot be read as safetensors \(.*{says}")


def test_the_corpus_bites(place):
    """What opens the foreign files without care runs their code: else the canary would show nothing."""
    import keras

    def bitten():
        was = place.canary.exists()
        place.canary.unlink(missing_ok=True)
        return was

    for protocol in (0, 2, 5):
        pickle.loads(files.pickled(place.canary, protocol))
        assert bitten()
    np.load(io.BytesIO(files.numpy_objects(place.canary)), allow_pickle=True)
    assert bitten()
    with zipfile.ZipFile(io.BytesIO(files.torch_checkpoint(place.canary))) as archive:
        pickle.loads(archive.read("archive/data.pkl"))
    assert bitten()
    for suffix in (".keras", ".h5"):
        path = place.run / f"model{suffix}"
        path.write_bytes(files.keras_lambda(place.canary, place.outside, suffix))
        assert not bitten()
        keras.saving.load_model(path, safe_mode=False, compile=False)
        assert bitten(), suffix


def test_foreign_files_beside_the_weights_are_never_opened(place):
    foreign = {
        "weights.keras": files.keras_lambda(place.canary, place.outside, ".keras"),
        "weights.h5": files.keras_lambda(place.canary, place.outside, ".h5"),
        "weights.pkl": files.pickled(place.canary),
        "model.pt": files.torch_checkpoint(place.canary),
        "weights.npy": files.numpy_objects(place.canary),
        "conftest.py": f"open({str(place.canary)!r}, 'w')".encode(),
        "sitecustomize.py": f"open({str(place.canary)!r}, 'w')".encode(),
    }
    for name, content in foreign.items():
        place.write(name, content)
    for call in (predict, evaluate, resume, start_from):
        with walked(place):
            call(place)
        for name in foreign:
            assert nothing_of(place, name), call
    (place.run / "weights.safetensors").unlink()
    refuse(predict, place, r"weights\.safetensors is missing")


@pytest.mark.parametrize("case", HEADERS)
def test_a_hostile_header_is_refused(place, case):
    content, says = HEADERS[case]
    place.write("weights.safetensors", content)
    text = refuse(predict, place, says)
    assert "run/weights.safetensors" in text


@pytest.mark.parametrize("call", [evaluate, start_from])
@pytest.mark.parametrize("case", ["length of 2^63", "deep", "unknown type", "types that are a list", "NaN"])
def test_evaluation_and_a_new_training_refuse_it_too(place, call, case):
    content, says = HEADERS[case]
    place.write("weights.safetensors", content)
    assert "run/weights.safetensors" in refuse(call, place, says)
    assert not (place.run.with_name("new")).exists()


@pytest.mark.parametrize("call", [predict, start_from])
def test_a_tensor_of_a_terabyte_is_not_read(place, call):
    names = {**HIDDEN, "logits/bias": tensor([3], 2320, 2332), "logits/kernel": tensor([2**38], 2332, 2332 + 2**40)}
    content = safetensors(names)
    files.sparse(place.run / "weights.safetensors", content, len(content) + 2332 + 2**40)
    if call is predict:
        assert "run/weights.safetensors" in refuse(call, place, r"another shape logits/kernel \(\(274877906944,\)")
    else:
        with walked(place):  # what fits is taken, and only that is read
            call(place)


def test_infinite_weights_are_told_by_their_answers(place):
    place.write("weights.safetensors", safetensors(FULL, DATA[:2376] + np.float32("inf").tobytes()))
    for call in (predict, evaluate):
        with walked(place), pytest.raises(RunFailed, match="output is not finite for .* its weights or these inputs"):
            call(place)


# --- links, pipes, folders --------------------------------------------------------------------------------------------

NAMES = (
    "config.yaml",
    "data_spec.json",
    "record.json",
    "weights.safetensors",
    "metrics.jsonl",
    "gradients.jsonl",
    "log.txt",
    "lock",
    "curves.png",
    "evaluation.json",
    "predictions.csv",
    "checkpoints",
    "tensorboard",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_link_out_of_the_run_is_refused(place, name):
    target = place.outside / ("folder" if name in ("checkpoints", "tensorboard") else "secret.txt")
    place.link(name, target)
    for call in (predict, evaluate, resume, start_from):
        refuse(call, place, rf"run/{name} is a symbolic link, and a run directory may hold only")
    place.link(name, place.outside / "not there")
    refuse(evaluate, place, rf"run/{name} is a symbolic link")


@pytest.mark.parametrize("name", [checkpoints.ARRAYS, checkpoints.MANIFEST, "."])
def test_a_link_out_of_a_checkpoint_is_refused(place, name):
    path = place.checkpoint / name
    if name == ".":
        shutil.rmtree(path)
    else:
        path.unlink()
    path.symlink_to(place.outside)
    refuse(resume, place, "is a symbolic link")


def test_the_run_itself_may_be_reached_by_a_link(place):
    link = place.run.with_name("link")
    link.symlink_to(place.run)
    place.run = link
    for call in (predict, evaluate, resume):
        with walked(place):
            call(place)


@pytest.mark.parametrize("name", ["config.yaml", "data_spec.json", "record.json", "weights.safetensors", "x"])
def test_a_pipe_is_not_waited_for(place, name):
    (place.run / name).unlink(missing_ok=True)
    os.mkfifo(place.run / name)
    for call in (predict, evaluate, resume, start_from):
        refuse(call, place, rf"run/{name} is a pipe, a socket or a device")


@pytest.mark.parametrize(
    "name", ["config.yaml", "record.json", "weights.safetensors", "metrics.jsonl", "gradients.jsonl", "lock"]
)
def test_a_folder_in_place_of_a_file_is_refused(place, name):
    (place.run / name).unlink(missing_ok=True)
    (place.run / name).mkdir()
    refuse(resume, place, rf"run/{name} is a folder, which train does not make it")


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard"])
def test_a_file_in_place_of_a_folder_is_refused(place, name):
    shutil.rmtree(place.run / name)
    place.write(name, b"")
    refuse(resume, place, rf"run/{name} is a file, which train does not make it")


@pytest.mark.parametrize("name", ["log.txt", "lock", "metrics.jsonl", "gradients.jsonl"])
def test_what_is_written_in_place_has_no_second_name(place, name):
    (place.run / name).unlink(missing_ok=True)
    (place.run / name).hardlink_to(place.outside / "secret.txt")
    for call in (evaluate, resume):
        refuse(call, place, rf"run/{name} has a second name elsewhere \(a hard link\)")


def test_folders_without_end_are_refused(place):
    (place.run / "tensorboard" / "/".join("x" * 300)).mkdir(parents=True)
    refuse(resume, place, "folders more than 16 deep")


def test_files_without_end_are_refused(place, monkeypatch):
    monkeypatch.setattr(trust, "MAX_ENTRIES", 30)
    for i in range(30):
        place.write(f"file{i}", b"")
    refuse(predict, place, "holds more than 30 files")


# --- config -----------------------------------------------------------------------------------------------------------

EXTENDING = {
    "absolute": "extends: /etc/passwd\n",
    "relative": "extends: ../../x.yaml\n",
    "quoted": '"extends": /etc/passwd\n',
    "escaped": '"\\x65xtends": /etc/passwd\n',
    "explicit": "? extends\n: /etc/passwd\n",
    "a list": "extends: [/etc/passwd]\n",
}


@pytest.mark.parametrize("case", EXTENDING)
def test_a_runs_config_extends_nothing(place, case):
    place.add_to_config(EXTENDING[case])
    for call in (predict, evaluate, resume, start_from):
        refuse(call, place, r"run/config\.yaml extends another file, but the config of a run is complete")
        assert nothing_of(place, "passwd")


CONFIGS = {
    "python tag": (
        lambda p: p.add_to_config(f'name: !!python/object/apply:os.mkdir ["{p.canary}"]\n'),
        "found the tag",
    ),
    "python name": (lambda p: p.add_to_config("name: !!python/name:os.system\n"), "found the tag"),
    "own tag": (lambda p: p.add_to_config("name: !run echo\n"), "found the tag"),
    "import path": (
        lambda p: p.replace_in("config.yaml", "name: mnist_dense", "name: os:system"),
        "model.name: found 'os:system'",
    ),
    "dotted": (
        lambda p: p.replace_in("config.yaml", "name: mnist_dense", "name: toolkit.cli.main"),
        "model.name: found",
    ),
    "source": (
        lambda p: p.replace_in("config.yaml", "source: synthetic_images", "source: pickle:load"),
        "data.source: found",
    ),
    "terminal": (lambda p: p.add_to_config(f"name: {ESCAPE}\n"), r"control character U\+001B"),
    "name that leads out": (
        lambda p: p.replace_in("config.yaml", "name: small", "name: ../../x"),
        "name: a name has up to 200|name: found",
    ),
    "deep": (lambda p: p.add_to_config(f"name: {files.deep(50_000)}\n"), "stand inside one another|values stand"),
    "a gigabyte": (lambda p: files.sparse(p.run / "config.yaml", b"seed: 0\n", 2**30), "has more than 262,144 bytes"),
    "binary": (lambda p: p.write("config.yaml", files.pickled(p.canary)), "cannot be read"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_hostile_config_is_refused(place, case):
    spoil, says = CONFIGS[case]
    spoil(place)
    assert "run/config.yaml" in refuse(predict, place, says)
    refuse(evaluate, place, says)
    refuse(resume, place, says)


def test_predict_and_evaluate_do_not_read_where_the_training_began(place):
    shutil.copytree(place.run, place.outside / "earlier")
    place.replace_in("config.yaml", "init_from: null", f"init_from: {place.outside / 'earlier'}")
    for call in (predict, evaluate):
        with walked(place):
            call(place)
        assert nothing_of(place, "earlier")


# --- data_spec.json and record.json -----------------------------------------------------------------------------------

SPECS = {
    "no JSON": (lambda p: p.write("data_spec.json", "{"), "is not JSON"),
    "no UTF-8": (lambda p: p.write("data_spec.json", b"\xff\xfe"), "cannot be read"),
    "a list": (lambda p: p.write("data_spec.json", "[1]"), "has format list"),
    "deep": (lambda p: p.write("data_spec.json", files.deep()), "is not JSON"),
    "deep field": (
        lambda p: p.replace_in("data_spec.json", '"image"', files.deep(900)),
        "recursion limit",
    ),
    "a number of 5000 digits": (lambda p: p.write("data_spec.json", "9" * 5000), "is not JSON"),
    "format": (lambda p: p.edit("data_spec.json", format=ESCAPE), r"has format '\\x1b"),
    "unknown field": (lambda p: p.edit("data_spec.json", **{ESCAPE: 1}), r"unknown fields \('\\x1b"),
    "types": (lambda p: p.edit("data_spec.json", class_names=10**12), "class_names"),
    "class names": (lambda p: p.edit("data_spec.json", class_names=[1, 2]), r"class_names\.0"),
    "no classes": (lambda p: p.edit("data_spec.json", class_names=[]), "class_names"),
    "more classes": (lambda p: p.edit("data_spec.json", class_names=["x"] * 10**5), "logits/kernel .* for .4, 100000"),
    "kind": (lambda p: p.edit("data_spec.json", kind="pickle"), "kind"),
    "another kind": (lambda p: p.edit("data_spec.json", kind="audio"), "shape"),
    "negative side": (lambda p: p.edit("data_spec.json", shape=[-12, -12, 1]), "shape"),
    "no side": (lambda p: p.edit("data_spec.json", shape=[0, 12, 1]), "shape"),
    "open side": (lambda p: p.edit("data_spec.json", shape=[None, 12, 1]), "shape"),
    "one side": (lambda p: p.edit("data_spec.json", shape=[12]), "shape"),
    "huge sides": (lambda p: p.edit("data_spec.json", shape=[10**6, 10**6, 3]), "shape"),
    "sides beyond 64 bits": (lambda p: p.edit("data_spec.json", shape=[10**30, 1, 1]), "shape"),
    "dtype": (lambda p: p.edit("data_spec.json", dtype="object"), "dtype"),
    "vocabulary of a picture": (lambda p: p.edit("data_spec.json", vocabulary=["a", "b"]), "vocabulary"),
    "lengths of a picture": (lambda p: p.edit("data_spec.json", lengths=[2**60]), "lengths"),
    "rate of a picture": (lambda p: p.edit("data_spec.json", sample_rate=-1), "sample_rate"),
    "examples": (lambda p: p.edit("data_spec.json", examples={"train": -1}), "examples"),
    "splits": (lambda p: p.edit("data_spec.json", examples={ESCAPE: 1}), "examples"),
    "a gigabyte": (lambda p: files.sparse(p.run / "data_spec.json", b"{", 2**30), "has more than 8,388,608 bytes"),
    "lists up to the limit, and no more": (
        lambda p: p.write("data_spec.json", '{"format": 1, "vocabulary": [' + "[]," * 2_700_000 + "1]}"),
        "lacks kind, shape, dtype, class_names",
    ),
    "lists up to the limit": (
        lambda p: p.replace_in("data_spec.json", '"lengths": []', '"lengths": [' + "[]," * 2_700_000 + "1]"),
        r"lengths\.0",
    ),
    "splits up to the limit": (
        lambda p: p.edit("data_spec.json", examples={str(i): "x" for i in range(100_000)}),
        "more than 3 splits",
    ),
    "a vocabulary of 10^8": (
        lambda p: p.write("data_spec.json", '{"format": 1, "vocabulary": [' + '"",' * 10**8 + '""]}'),
        "has more than 8,388,608 bytes",
    ),
}


# Megabytes of JSON: seconds each.
HEAVY = ("lists up to the limit", "lists up to the limit, and no more", "a vocabulary of 10^8")


@pytest.mark.parametrize("case", [pytest.param(case) if case in HEAVY else case for case in SPECS])
def test_a_hostile_description_of_the_data_is_refused(place, case):
    spoil, says = SPECS[case]
    spoil(place)
    text = refuse(predict, place, says)
    assert "run/data_spec.json" in text or "weights" in text


def test_class_names_may_hold_anything_but_do_not_reach_the_terminal(place, capsys):
    names = [f"cat{ESCAPE}\r\n\u202egod", "=cmd|' /C calc'!A0", "[red]plain[/red]"]
    place.edit("data_spec.json", class_names=names)
    with walked(place):
        prediction = predict(place)
    shown = capsys.readouterr().out
    assert not set(shown) & set("\x1b\x07\r\u202e")
    assert prediction.answers[0] in names
    # A table holds the names as they are, quoted; docs/evaluation.md says what a spreadsheet makes of the second.
    workflow.predict(place.run, files=[place.picture], output=place.run.with_name("table.csv"))
    assert "p(=cmd|' /C calc'!A0)" in place.run.with_name("table.csv").read_text()


RECORDS = {
    "no JSON": (lambda p: p.write("record.json", "{"), "cannot be read"),
    "deep": (lambda p: p.write("record.json", files.deep()), "cannot be read"),
    "no object": (lambda p: p.write("record.json", "[]"), "holds no fingerprints"),
    "a gigabyte": (lambda p: files.sparse(p.run / "record.json", b"{", 2**30), "has more than 8,388,608 bytes"),
    "fingerprints": (lambda p: p.edit("record.json", fingerprints={"test": [1]}), r"fingerprints\.test"),
    "parts": (lambda p: p.edit("record.json", fingerprints={ESCAPE: "x"}), r"fingerprints\.\\x1b"),
    "state": (lambda p: p.edit("record.json", state=ESCAPE), "state"),
    "epochs": (lambda p: p.edit("record.json", epochs="2"), "epochs"),
    "huge epochs": (lambda p: p.edit("record.json", epochs=10**400), "epochs"),
    "steps": (lambda p: p.edit("record.json", total_steps=-1), "total_steps"),
    "limit": (lambda p: p.edit("record.json", limit="x"), "limit"),
    "resumed": (lambda p: p.edit("record.json", resumed={"a": 1}), "resumed"),
    "version": (lambda p: p.edit("record.json", versions={"numpy": ESCAPE}), r"versions\.numpy.*control characters"),
    "package": (lambda p: p.edit("record.json", versions={ESCAPE: "1"}), r"versions\.\\x1b"),
    "commit": (lambda p: p.edit("record.json", commit="a\nb"), "commit.*control characters"),
    "parts up to the limit": (
        lambda p: p.edit("record.json", fingerprints={str(i): 1 for i in range(100_000)}),
        "fingerprints has more than 10,000 parts",
    ),
    "machine": (lambda p: p.edit("record.json", machine={"cores": {"a": 1}}), "machine"),
}


@pytest.mark.parametrize("case", RECORDS)
def test_a_hostile_record_is_refused(place, case):
    spoil, says = RECORDS[case]
    spoil(place)
    for call in (evaluate, resume):
        assert "run/record.json" in refuse(call, place, says)


@pytest.mark.parametrize("name", ["epochs", "total_steps", "order_version"])
def test_a_record_that_lacks_what_a_resume_needs_is_refused(place, name):
    record = json.loads((place.run / "record.json").read_text())
    del record[name]
    place.write("record.json", json.dumps(record))
    refuse(resume, place, rf"run/record\.json lacks {name}")


# --- checkpoints ------------------------------------------------------------------------------------------------------

STATES = {
    "no state": (lambda p: p.manifest(lambda m: m.pop("state")), "lacks a part"),
    "no format": (lambda p: p.manifest(lambda m: m.pop("format")), "has format None"),
    "format": (lambda p: p.manifest(lambda m: m.update(format=ESCAPE)), r"has format \\x1b"),
    "tensors": (lambda p: p.manifest(lambda m: m.update(tensors=[])), "lacks a part"),
    "no position": (lambda p: p.manifest(lambda m: m.update(state={"run": "x"})), "no run or no position"),
    "run": (lambda p: p.manifest(lambda m: m["state"].update(run=3)), "no run or no position"),
    "epoch": (lambda p: p.position(epoch="3"), "position.epoch"),
    "huge epoch": (lambda p: p.position(epoch=10**300), "position.epoch"),
    "negative batch": (lambda p: p.position(batch=-1), "position.epoch, or a number beside it"),
    "trained": (lambda p: p.position(trained=None), "position.trained"),
    "seconds": (lambda p: p.position(seconds=float("nan")), "number beside it"),
    "best to come": (lambda p: p.position(best={"metric": "val_loss", "value": 1.0, "epoch": 9}), "position.best"),
    "best": (lambda p: p.position(best=[1]), "position.best"),
    "metric": (lambda p: p.position(best={"metric": ESCAPE, "value": 1.0, "epoch": 1}), "the name of a metric"),
    "stopping": (lambda p: p.position(stopping={"monitor": "val_loss"}), "position.stopping.patience"),
    "recorder": (lambda p: p.position(recorder={"row_sums": 3}), "position.recorder"),
    "logs up to the limit": (
        lambda p: p.position(logs={str(i): "x" for i in range(50_000)}),
        "a part with more than 1000 fields",
    ),
    "unknown": (lambda p: p.position(**{ESCAPE: 3}), "fields that no training gives"),
    "deep": (
        lambda p: [(path / checkpoints.MANIFEST).write_text(files.deep()) for path in p.checkpoint.parent.iterdir()],
        "manifest.json cannot be read",
    ),
    "a gigabyte": (
        lambda p: [files.sparse(x / checkpoints.MANIFEST, b"{", 2**30) for x in p.checkpoint.parent.iterdir()],
        "manifest.json cannot be read",
    ),
}


@pytest.mark.parametrize("case", STATES)
def test_a_hostile_state_with_right_sums_is_refused(place, capsys, case):
    spoil, says = STATES[case]
    spoil(place)
    refuse(resume, place, "every checkpoint in .*run/checkpoints is damaged")
    shown = capsys.readouterr().out
    assert re.search(says, " ".join(shown.split())), shown
    assert "\x1b" not in shown


def test_a_checkpoint_of_a_terabyte_is_not_read(place):
    content = safetensors({"a": tensor([2**38], 0, 2**40)})
    for path in place.checkpoint.parent.iterdir():
        files.sparse(path / checkpoints.ARRAYS, content, len(content) + 2**40)
    header = hashlib.sha256(content).hexdigest()
    place.manifest(lambda m: m.update(header_sha256=header, tensors={"a": {}}))
    refuse(resume, place, "every checkpoint in .* is damaged")


def test_arrays_that_do_not_fit_are_refused(place):
    def change(manifest):
        path = place.run / checkpoints.FOLDER / name / checkpoints.ARRAYS
        values, _ = arrays.load(path)
        values["../../" + ESCAPE] = np.zeros(2)
        arrays.save(path, values)
        manifest["header_sha256"] = arrays.header_sum(path)
        manifest["tensors"] = {key: checkpoints._describe(value) for key, value in values.items()}

    for name in checkpoints.names(place.run / checkpoints.FOLDER):
        path = place.run / checkpoints.FOLDER / name / checkpoints.MANIFEST
        manifest = json.loads(path.read_text())
        del manifest["sha256"]
        change(manifest)
        path.write_text(json.dumps({**manifest, "sha256": checkpoints._sum(manifest)}))
    with walked(place), pytest.raises(ToolkitError, match="does not fit: it has "):
        resume(place)


def test_a_checkpoints_name_does_not_reach_the_terminal(place, capsys):
    folder = place.run / checkpoints.FOLDER
    for name in (f"zzz{ESCAPE}", "zzz\nall is well", "~", "zzz [bold]x"):
        (folder / name).mkdir()
    with walked(place):
        resume(place)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "all is well" not in shown
    assert "going on after step" in shown
