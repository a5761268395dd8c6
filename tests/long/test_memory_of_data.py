"""Training on data whose table stands on disk takes none of the memory that the table would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        sys.platform != "linux", reason="only Linux's /proc tells memory of one's own from mapped files"
    ),
]
PICTURES, SIDE = 2000, 320
DECODED = PICTURES * SIDE * SIDE * 3  # 614 MB

TRAIN_TWICE = """
    import json, pathlib, sys, threading
    from toolkit import train
    from toolkit.config import load

    def own_memory():
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

    config, few, many, cache, answer = map(pathlib.Path, sys.argv[1:])
    train(load(config, [f"data.path={few}", f"data.cache={cache}"]))  # what TensorFlow itself takes
    before = peak = own_memory()
    over = threading.Event()

    def watch():
        global peak
        while not over.wait(0.02):
            peak = max(peak, own_memory())

    watching = threading.Thread(target=watch)
    watching.start()
    run = train(load(config, [f"data.path={many}", f"data.cache={cache}"]))
    over.set()
    watching.join()
    examples = json.loads((run / "data_spec.json").read_text())["examples"]
    answer.write_text(json.dumps({"grown": peak - before, "examples": examples}))
"""
CONFIG = f"""
data:
  source: folder
  path: .
  image_size: [{SIDE}, {SIDE}]
  validation: 0.05
  test: 0.05
  batch_size: 32
model: {{name: cat_dog_cnn, stem: 4, blocks: [[4]]}}
optimizer: {{name: adam, learning_rate: 0.001}}
training: {{epochs: 1, best_metric: val_loss}}
"""


def pictures(folder: Path, count: int) -> Path:
    for i in range(count):
        path = folder / ("cat", "dog")[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((8, 8, 3), i % 251, np.uint8)
        pixels[i // 251 % 8, i // 2008] += 1  # no two alike
        Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST).save(path)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("pictures")
    return pictures(root / "few", 100), pictures(root / "many", PICTURES)


@pytest.mark.parametrize("cache", ["disk", "memory"])
def test_a_table_on_disk_is_not_in_memory(cache: str, folders: tuple[Path, Path], tmp_path: Path):
    config, answer = tmp_path / "config.yaml", tmp_path / "answer.json"
    config.write_text(CONFIG, encoding="utf-8")
    words = [sys.executable, "-c", textwrap.dedent(TRAIN_TWICE), config, *folders, cache, answer]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        list(map(str, words)), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(answer.read_text("utf-8"))
    assert sum(found["examples"].values()) == PICTURES
    if cache == "memory":  # else the other says nothing
        assert found["grown"] > DECODED
    else:
        assert found["grown"] < DECODED / 2
