"""The weights of the best epoch, and the way back to those that a checkpoint knows."""

import numpy as np
import pytest

from toolkit.runs import arrays, kept
from toolkit.runs.run import BEFORE, WEIGHTS


def keep(folder, epoch):
    kept.save(folder, {"w": np.full(3, epoch, "float32")}, epoch)


def epoch_of(folder):
    return int(arrays.load(folder / WEIGHTS)[0]["w"][0])


@pytest.fixture
def ahead(tmp_path):
    """Epoch 2 was best when a checkpoint was written; since then 3 and 5 were."""
    keep(tmp_path, 1)
    keep(tmp_path, 2)
    kept.settle(tmp_path)
    keep(tmp_path, 3)
    keep(tmp_path, 5)
    return tmp_path


def test_the_newest_is_kept_and_what_the_checkpoint_knows_comes_back(ahead):
    assert epoch_of(ahead) == 5
    assert kept.go_back(ahead, 2)
    assert epoch_of(ahead) == 2
    assert not (ahead / BEFORE).exists()


def test_what_a_checkpoint_knows_already_stays(ahead):
    kept.settle(ahead)
    assert [path.name for path in ahead.iterdir()] == [WEIGHTS]
    assert kept.go_back(ahead, 5)
    assert epoch_of(ahead) == 5


def test_a_kill_between_the_two_files(ahead):
    (ahead / WEIGHTS).unlink()
    assert kept.go_back(ahead, 2)
    assert epoch_of(ahead) == 2


def test_before_the_first_epoch_there_are_none(ahead):
    assert kept.go_back(ahead, None)
    assert list(ahead.iterdir()) == []


def test_an_older_checkpoint_is_told(ahead):
    assert not kept.go_back(ahead, 1)
    assert epoch_of(ahead) == 5
