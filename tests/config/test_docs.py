"""docs/config.md says what is so: every option with its default, and the example of errors as it really comes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from toolkit.config import load
from toolkit.config.check import Head
from toolkit.config.options import (
    Augmentation,
    Checkpoint,
    DataOptions,
    EarlyStopping,
    OptimizerOptions,
    Options,
    Plateau,
    TrainingOptions,
)
from toolkit.errors import ToolkitError


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs/config.md").read_text(encoding="utf-8")


# What a table stands under.
TABLES = {
    Head: "",
    DataOptions: "",
    Augmentation: "",
    OptimizerOptions: "",
    TrainingOptions: "",
    EarlyStopping: "\n`training.early_stopping`:\n",
    Plateau: "\n`training.plateau`:\n",
    Checkpoint: "\n`training.checkpoint`:\n",
}


@pytest.mark.parametrize("model", TABLES)
def test_every_option_stands_in_a_table_with_its_default(page: str, model: type[Options]):
    page = page[page.index(TABLES[model]) :]
    for key, field in model.model_fields.items():
        row = re.search(rf"^\| `{key}` \| .+ \| (.+) \| .+ \|$", page, re.MULTILINE)
        assert row, key
        if not isinstance(field.default, Options) and model is not Head:
            shown = row[1].strip("`")
            assert shown == (field.default if isinstance(field.default, str) else json.dumps(field.default)), key


def test_tables_name_no_key_that_is_gone(page: str):
    known = {key for model in TABLES for key in model.model_fields}

    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == known


def test_example_of_errors_is_what_really_comes(page: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PHOTOS", raising=False)
    errors = page.partition("## Errors")[2]
    written = re.search(r"```yaml\n(.*?)```", errors, re.DOTALL)[1]
    name, override, told = re.search(r"\$ toolkit train (\S+) --set (\S+)\n(.*?)```", errors, re.DOTALL).groups()
    Path(name).write_text(written, encoding="utf-8")

    with pytest.raises(ToolkitError) as caught:
        load(name, [override])

    assert f"{caught.value}\n" == told


def test_first_example_is_valid(page: str):
    Path("example.yaml").write_text(re.search(r"```yaml\n(seed.*?)```", page, re.DOTALL)[1], encoding="utf-8")

    assert load("example.yaml").model.name == "cat_dog_cnn"
