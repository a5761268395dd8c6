"""What holds for every test: a CPU, a backend, and folders of its own to write into.

The environment is set here, before anything heavy is imported, and subprocesses that tests start inherit it.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SCRATCH = Path(tempfile.mkdtemp(prefix="toolkit-tests-"))

for _name, _value in {
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "-1",
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "OMP_NUM_THREADS": "1",  # torch's threads spin; beside another job two of them are many times slower than one
    "MPLBACKEND": "Agg",
    # Many tests train the same small model: what JAX compiled for one serves the next.
    "JAX_COMPILATION_CACHE_DIR": str(SCRATCH / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}.items():
    os.environ.setdefault(_name, _value)
# Caches and settings of the toolkit, Keras and Matplotlib: never those of the person who runs the tests.
os.environ["XDG_CACHE_HOME"] = str(SCRATCH / "cache")
os.environ["KERAS_HOME"] = str(SCRATCH / "keras")
os.environ["MPLCONFIGDIR"] = str(SCRATCH / "matplotlib")
os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(SCRATCH / "hypothesis")
# A subprocess finds this checkout from whatever folder it starts in.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))

# The same examples at every run: a failure that only luck brings back helps nobody.
hypothesis.settings.register_profile("toolkit", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("toolkit")


def pytest_unconfigure() -> None:
    shutil.rmtree(SCRATCH, ignore_errors=True)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths lead into the test's own folder, so that no test writes into the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def same_seeds() -> None:
    """Global generators start alike in every test, whichever ran before it."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def tfds_dir() -> Path:
    """The folder of prepared TFDS datasets; a test on real data is skipped where there is none."""
    folder = os.environ.get("TFDS_DATA_DIR")
    if not folder:
        pytest.skip("needs real datasets: set TFDS_DATA_DIR to a folder of prepared TFDS datasets")
    return Path(folder)
