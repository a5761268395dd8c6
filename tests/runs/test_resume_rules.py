"""What may differ when a run goes on, what is only told, and what is refused."""

import pytest

from toolkit.errors import ToolkitError
from toolkit.runs import resume

CONFIG = {"seed": 0, "training": {"epochs": 3, "threads": 2, "precision": "float32"}}
RECORD = {"commit": "a", "python": "3.11.7", "versions": {"keras": "3.15.1"}, "machine": {"cores": 2, "memory_gib": 24}}


def changed(values, section, **new):
    return {**values, section: {**values[section], **new}}


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({**RECORD, "commit": "b"}, ["commit was a, is b"]),
        ({**RECORD, "python": "3.12.1"}, ["python was 3.11.7, is 3.12.1"]),
        (changed(RECORD, "versions", keras="3.16"), ["versions.keras was 3.15.1, is 3.16"]),
        (changed(RECORD, "machine", cores=4), ["machine.cores was 2, is 4"]),
        (changed(RECORD, "machine", memory_gib=23), []),
        (RECORD, []),
    ],
)
def test_another_environment_is_told(now, told):
    assert resume.other_environment(RECORD, now) == told


def test_other_threads_are_told_and_more_epochs_are_free(tmp_path):
    now = changed(CONFIG, "training", epochs=9, threads=4)
    assert resume.refuse_other_config(CONFIG, now, tmp_path) == ["training.threads was 2, is 4"]
    assert resume.identity(CONFIG, {}) == resume.identity(now, {})


@pytest.mark.parametrize("now", [{**CONFIG, "seed": 1}, changed(CONFIG, "training", precision="mixed_bfloat16")])
def test_what_changes_the_training_is_refused_by_its_key(now, tmp_path):
    with pytest.raises(ToolkitError, match=r"another config \((seed|training\.precision) was "):
        resume.refuse_other_config(CONFIG, now, tmp_path)
    assert resume.identity(CONFIG, {}) != resume.identity(now, {})
