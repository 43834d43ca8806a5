"""Two trainings of one name."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from ltr_ext.recipe import Recipe
from ltr_ext.run_training import train
from ltr_ext.trainers import lock
from ltr_ext.trainers.lock import run_lock
from srft_plugin.errors import UserError

HOLD = """
import sys
from pathlib import Path
from ltr_ext.trainers.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_training_of_a_run_is_refused_until_the_first_is_gone(tmp_path):
    recipe = Recipe(
        "ostrack_tiny", ("synthetic_rgb",), base=None, regularizer="none", workers=0,
        epochs=1, samples_per_epoch=2, batch_size=2, trainable="all",
    )  # fmt: skip
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="another process is training this run"):
            train(recipe, tmp_path)
        first.kill()
    assert train(recipe, tmp_path).is_file()
    with run_lock(tmp_path):
        pass


def lockf(*_):
    raise OSError(38, "Function not implemented")


@pytest.mark.parametrize("locks", [None, SimpleNamespace(lockf=lockf, LOCK_EX=2, LOCK_NB=4)])
def test_a_system_without_locks_has_none(tmp_path, monkeypatch, caplog, locks):
    monkeypatch.setattr(lock, "fcntl", locks)
    with run_lock(tmp_path / "run"):
        assert "cannot be locked" in caplog.text


def test_a_run_folder_that_cannot_be_made_is_a_plain_error(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match="choose another --workspace"),
        run_lock(tmp_path / "file/run"),
    ):
        pass
