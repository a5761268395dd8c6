"""The wheel, installed into an empty environment and used from a folder that is not the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.long


def run(*command: str | Path, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "KERAS_BACKEND"}}
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=environment | changes, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, repository, cwd=folder)
    (built,) = folder.glob("toolkit-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts folder of an environment that holds the wheel and sees the dependencies of this one."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    python = environment / "bin/python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=environment)
    (packages,) = environment.glob("lib/python*/site-packages")
    # After the environment's own packages on sys.path; an editable toolkit in it does not count (its .pth is not read).
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin"


def test_wheel_holds_the_package_its_configs_and_nothing_else(wheel: Path, repository: Path):
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.partition("/")[0] for name in names} == {"toolkit", f"{wheel.name.split('-py3')[0]}.dist-info"}
    assert {"toolkit/py.typed", "toolkit/explain/report/page.css", "toolkit/explain/report/page.js"} <= set(names)
    modules = {path.relative_to(repository).as_posix() for path in (repository / "toolkit").rglob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    shipped = {path.relative_to(repository / "configs").as_posix() for path in (repository / "configs").rglob("*.yaml")}
    assert shipped
    assert shipped <= {name.removeprefix("toolkit/_configs/") for name in names}


def test_configs_are_found_from_any_folder(installed: Path, repository: Path, tmp_path: Path):
    where = run(installed / "python", "-c", "import toolkit; print(toolkit.__file__)", cwd=tmp_path).stdout
    assert str(installed.parent) in where, "the checkout is used in place of the installed package"

    listed = run(installed / "toolkit", "configs", "ls", cwd=tmp_path).stdout

    for path in (repository / "configs").glob("*.yaml"):
        assert path.stem in listed


def test_copied_config_is_valid_where_it_was_copied_to(installed: Path, tmp_path: Path):
    run(installed / "toolkit", "configs", "copy", "quickstart", "mine.yaml", cwd=tmp_path)
    run(installed / "toolkit", "configs", "validate", "mine.yaml", cwd=tmp_path)


def test_quickstart_in_a_fresh_checkout(repository: Path, tmp_path_factory: pytest.TempPathFactory):
    """`make quickstart` from nothing, in a folder with a space: both dependencies and training are real."""
    checkout = tmp_path_factory.mktemp("fresh") / "a checkout"
    left_out = {repository / name for name in (".git", ".venv", "runs", "build", "dist")}
    shutil.copytree(
        repository,
        checkout,
        ignore=lambda folder, names: [
            name for name in names if Path(folder, name) in left_out or name == "__pycache__"
        ],
    )
    # Wheels that pip has kept from other installations need no second download.
    cache = os.environ.get("PIP_CACHE_DIR", str(Path.home() / ".cache/pip"))

    run("make", "quickstart", f"PYTHON={sys.executable}", cwd=checkout, PIP_CACHE_DIR=cache)

    (run_directory,) = (checkout / "runs").iterdir()
    assert json.loads((run_directory / "evaluation.json").read_text())["accuracy"] >= 0.96
    packages = {path.name for path in checkout.glob(".venv/lib/python*/site-packages/*")}
    assert "tensorflow" in packages
    assert not packages & {"torch", "jax"}
