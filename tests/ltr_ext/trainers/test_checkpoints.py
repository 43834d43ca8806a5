"""Checkpoints: whole or absent, the newest intact one wins."""

import pytest
import torch

from ltr_ext.admin.files import atomic_write
from ltr_ext.trainers.checkpoints import CheckpointFolder
from srft_plugin.errors import UserError


def state(epoch):
    return {"epoch": epoch, "weights": torch.arange(5) * epoch}


def test_the_newest_are_kept(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=2)
    for epoch in (1, 2, 3):
        folder.save(epoch, state(epoch))
    assert [path.name for path in folder.files()] == [
        "checkpoint_ep0002.pt",
        "checkpoint_ep0003.pt",
    ]
    assert folder.load_newest()["epoch"] == 3


def test_epochs_are_in_their_order_beyond_four_digits(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=2)
    for epoch in (9998, 9999, 10000, 10001):
        folder.save(epoch, state(epoch))
    folder.save(10001, {"epoch": 10001, "step": 5}, step=100_000_000)
    assert [path.stem for path in folder.files()] == ["checkpoint_ep10000", "checkpoint_ep10001"]
    assert folder.load_newest() == {"epoch": 10001, "step": 5}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_one_within_an_epoch_stays_until_the_next(tmp_path):
    folder = CheckpointFolder(tmp_path, keep=1)
    folder.save(1, state(1))
    for step in (120, 140):
        newest = folder.save(1, {"step": step}, best=1, step=step)
    assert names(tmp_path) == [
        "checkpoint_ep0001.pt", "checkpoint_ep0001.sha256",
        "checkpoint_ep0001_step00000140.pt", "checkpoint_ep0001_step00000140.sha256",
    ]  # fmt: skip
    assert folder.files() == [folder.path(1)]
    assert folder.load_newest() == {"step": 140}
    newest.write_bytes(b"")
    with pytest.warns(UserWarning, match="step00000140.pt is damaged.*one before"):
        assert folder.load_newest()["epoch"] == 1
    folder.save(2, state(2), best=2)
    assert names(tmp_path) == ["checkpoint_ep0002.pt", "checkpoint_ep0002.sha256"]


def test_nothing_saved_yet(tmp_path):
    assert CheckpointFolder(tmp_path / "none").load_newest() is None


@pytest.mark.parametrize("damage", ["truncate", "flip", "no hash", "empty hash", "binary hash"])
def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, damage):
    folder = CheckpointFolder(tmp_path)
    folder.save(1, state(1))
    newest = folder.save(2, state(2))
    data = bytearray(newest.read_bytes())
    if damage == "truncate":
        newest.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[len(data) // 2] ^= 1
        newest.write_bytes(data)
    elif damage == "no hash":
        newest.with_suffix(".sha256").unlink()
    else:
        newest.with_suffix(".sha256").write_bytes(b"\xff\xfe" if damage == "binary hash" else b"")
    with pytest.warns(UserWarning, match="checkpoint_ep0002.pt is damaged"):
        assert folder.load_newest()["epoch"] == 1


def test_all_damaged_is_an_error(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(1, state(1)).write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(UserError, match="none of 1 checkpoints"):
        folder.load_newest()


def test_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    file = tmp_path / "a"
    file.write_text("old")

    def full_disk(partial):
        partial.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left"):
        atomic_write(file, full_disk)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys):
    class Exploit:
        def __reduce__(self):
            return (print, ("executed",))

    folder = CheckpointFolder(tmp_path)
    folder.save(1, {"weights": Exploit()})
    with pytest.raises(UserError, match="ep0001.pt asks to run code"):
        folder.load(folder.path(1))
    assert capsys.readouterr().out == ""
    with (
        pytest.warns(UserWarning, match="asks to run"),
        pytest.raises(UserError, match="none of 1"),
    ):
        folder.load_newest()
