"""What a run leaves on the disk, and going on from it: kept files, faults, other settings."""

import json
import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr_ext.models.checkpoint import read_checkpoint
from ltr_ext.trainers.checkpoints import CheckpointFolder
from ltr_ext.trainers.log import RunLog, read_log
from ltr_ext.trainers.processes import Processes
from ltr_ext.trainers.settings import read_recipe, write_settings
from ltr_ext.trainers.trainer import Trainer
from srft_plugin.errors import UserError

WORKER = Path(__file__).with_name("killed_runs.py")


class Judged(Trainer):
    """Epochs have the IoU that the test says."""

    ious = (0.1, 0.5, 0.3, 0.5, 0.2)

    def _judge(self):
        return super()._judge() | {"validation_iou": self.ious[self.epoch]}


def epochs(folder):
    return [int(path.stem[-4:]) for path in CheckpointFolder(folder).files()]


def test_the_newest_and_the_best_are_kept(mini, tmp_path):
    trainer = mini.mini_trainer(tmp_path, "epochs=5", kind=Judged)
    second = {}
    finish = trainer._finish_epoch

    def watching(iou):
        finish(iou)
        if trainer.epoch == 2:
            second.update(trainer.weights())

    trainer._finish_epoch = watching
    trainer.train()
    assert epochs(tmp_path) == [2, 4, 5]
    assert trainer.best == {"epoch": 2, "iou": 0.5}
    best, _ = read_checkpoint(tmp_path / "best.safetensors")
    checkpoint, _ = read_checkpoint(tmp_path / "checkpoint_ep0002.pt")
    for name, value in second.items():
        assert torch.equal(best[name], value) and torch.equal(checkpoint[name], value)
    fewer = mini.mini_trainer(tmp_path / "fewer", "epochs=5", "keep=1", kind=Judged)
    fewer.train()
    assert epochs(tmp_path / "fewer") == [2, 5]


def test_without_validation_the_training_pairs_judge(mini, tmp_path):
    trainer = mini.mini_trainer(tmp_path, "epochs=3")
    trainer.train()
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    ious = [json.loads(line)["iou"] for line in lines]
    assert trainer.best["iou"] == pytest.approx(max(ious))
    assert trainer.best["epoch"] == 1 + ious.index(max(ious))


@contextmanager
def no_room(written):
    """The system refuses to let files grow: what a full disk looks like from inside."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (written, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("written", [0, 1000])
def test_a_checkpoint_that_does_not_fit_leaves_the_old_one(tmp_path, written):
    folder = CheckpointFolder(tmp_path, keep=1)
    folder.save(1, {"weights": torch.arange(1000)})
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with no_room(written), pytest.raises(UserError, match="cannot write .*ep0002.pt.*free some"):
        folder.save(2, {"weights": torch.arange(1000)})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_network_that_does_not_fit_is_a_plain_error(mini, tmp_path):
    trainer = mini.mini_trainer(tmp_path)
    with no_room(1000), pytest.raises(UserError, match="cannot write .*a.safetensors.*free some"):
        trainer.write_network(tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_does_not_fit_is_a_plain_error(mini, tmp_path):
    values = dict.fromkeys(("loss", "iou", "samples_per_second", "data_wait", "skipped"), 0.0)
    with (
        pytest.raises(UserError, match="cannot write the log of the run, .*log.jsonl.*free some"),
        RunLog(tmp_path, mini.RECIPE, 0, writes=True) as log,
    ):
        log.write(1, values)
        with no_room(0):
            log.write(2, values)
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == [1]


def test_networks_may_be_read_by_others(mini, tmp_path):
    before = os.umask(0o022)
    try:
        mini.mini_trainer(tmp_path).write_network(tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o644


def test_a_run_goes_on_once_the_disk_has_room_again(mini, tmp_path, monkeypatch):
    mini.mini_trainer(tmp_path / "whole").train()
    save = torch.save

    def full(state, file):
        save(state, file)
        if state["epoch"] == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="No space left on device"):
        mini.mini_trainer(tmp_path / "full").train()
    assert epochs(tmp_path / "full") == [1]
    monkeypatch.undo()
    trainer = mini.mini_trainer(tmp_path / "full")
    trainer.train()
    whole = CheckpointFolder(tmp_path / "whole").load_newest()["net"]
    for name, value in trainer.network.state_dict().items():
        assert torch.equal(value, whole[name])


def test_a_run_killed_while_it_wrote_its_first_checkpoint_begins_again(tmp_path, monkeypatch):
    replace = Path.replace

    def killed(partial, path):
        if path.suffix == ".pt":
            raise SystemExit
        replace(partial, path)

    monkeypatch.setattr(Path, "replace", killed)
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: None)  # no time to tidy up
    with pytest.raises(SystemExit):
        CheckpointFolder(tmp_path).save(1, {"epoch": 1})
    monkeypatch.undo()
    hash_alone, partial = sorted(tmp_path.iterdir(), key=lambda file: file.suffix, reverse=True)
    assert (hash_alone.suffix, partial.suffix) == (".sha256", ".partial")
    assert CheckpointFolder(tmp_path).load_newest() is None
    best, foreign = (tmp_path / f".{name}.123.partial" for name in ("best.safetensors", "a.onnx"))
    best.touch(), foreign.touch()
    CheckpointFolder(tmp_path).save(1, {"epoch": 1})
    assert CheckpointFolder(tmp_path).load_newest() == {"epoch": 1} and not partial.exists()
    assert foreign.exists() and not best.exists()
    prior, network = (tmp_path / f".{name}.safetensors.1.partial" for name in ("prior", "network"))
    prior.touch(), network.touch()
    CheckpointFolder(tmp_path).tidy()
    assert foreign.exists() and not prior.exists() and not network.exists()


def test_changed_settings_are_listed_and_taken_on_when_told(mini, tmp_path):
    before = ["regularizer=srft:transfer", "epochs=2"]
    after = ["regularizer=srft:transfer", "epochs=4", "lr=0.01", "kappa=0.7", "ema=0.5"]
    mini.mini_trainer(tmp_path, *before).train()
    refused = r"epochs: 2 -> 4, lr: 0.001 -> 0.01, kappa: 0.6 -> 0.7, ema: 0.0 -> 0.5.*--accept-cha"
    with pytest.raises(UserError, match=refused):
        mini.mini_trainer(tmp_path, *after).train()
    trainer = mini.mini_trainer(tmp_path, *after)
    trainer._resume(accept_changes=True)
    assert trainer.epoch == 2
    optimizer = trainer.optimizer
    assert (optimizer.total_steps, optimizer.kappa, optimizer.steps) == (12, 0.7, 6)
    assert {group["initial_lr"] for group in optimizer.param_groups} == {0.01}
    assert all(int(state["step"]) == 6 for state in optimizer.state.values())
    for value, parameter in zip(trainer.average.values, trainer.parameters, strict=True):
        assert torch.equal(value, parameter)  # the average begins with the weights as they are
    trainer.train(accept_changes=True)
    assert json.loads((tmp_path / "recipe.json").read_text())["epochs"] == 4
    mini.mini_trainer(tmp_path, *after, "workers=3").train()


def test_settings_accepted_by_a_run_killed_before_its_next_checkpoint_are_not_taken_in_silence(
    mini, tmp_path
):
    mini.mini_trainer(tmp_path, "epochs=1", "validation=any").train()
    best = mini.mini_trainer(tmp_path, "epochs=1", "validation=any")
    best._resume(accept_changes=False)
    after = ["epochs=2", "validation=any", "scale_jitter=0.5", "lr=0.01"]
    killed = mini.mini_trainer(tmp_path, *after)

    def kill(step, batch):
        raise KeyboardInterrupt

    killed._train_step = kill
    with pytest.raises(KeyboardInterrupt):
        killed.train(accept_changes=True)
    with pytest.raises(UserError, match="lr: 0.001 -> 0.01.*--accept-changes"):
        mini.mini_trainer(tmp_path, *after).train()
    old = mini.mini_trainer(tmp_path, "epochs=1", "validation=any")
    old._resume(accept_changes=False)
    assert old.best == best.best and old.optimizer.param_groups[0]["initial_lr"] == 0.001
    new = mini.mini_trainer(tmp_path, *after)
    new._resume(accept_changes=True)
    assert new.best is None and new.optimizer.param_groups[0]["initial_lr"] == 0.01


def test_a_run_of_another_network_of_the_same_name_is_an_error(mini, tmp_path):
    network = mini.mini_network()
    network.extra = torch.nn.Linear(2, 2, bias=False)
    mini.mini_trainer(tmp_path, "epochs=1", network=network).train()
    network = mini.mini_network()
    trainer = mini.mini_trainer(tmp_path, "epochs=2", network=network)
    with pytest.raises(UserError, match=r"run of another two_branch_tiny \(1 extra \(extra.weight"):
        trainer.train(accept_changes=True)


def test_new_settings_are_written_when_every_process_has_compared_them(mini, tmp_path):
    mini.mini_trainer(tmp_path, "epochs=1").train()
    seen = []

    class Watching(Processes):
        def wait(self):
            seen.append(read_recipe(tmp_path).epochs)

    trainer = mini.mini_trainer(tmp_path, "epochs=2", processes=Watching())
    trainer.train(accept_changes=True)
    assert seen == [1, 2]


@pytest.mark.parametrize(
    ("override", "comparable"),
    [("validation=any", False), ("scale_jitter=0.5", False), ("seed=4", False), ("lr=0.01", True)],
)
def test_the_best_epoch_is_forgotten_where_it_was_judged_by_something_else(
    mini, tmp_path, override, comparable
):
    mini.mini_trainer(tmp_path, "epochs=1").train()
    trainer = mini.mini_trainer(tmp_path, "epochs=2", override)
    trainer._resume(accept_changes=True)
    assert (trainer.best is not None) == comparable


@pytest.mark.parametrize(
    "override", ["batch_size=6", "lr_groups=fusion=1e-3", "regularizer=l2sp", "network=vipt256"]
)
def test_what_the_state_depends_on_cannot_change(mini, tmp_path, override):
    from ltr_ext.trainers.settings import check_settings

    trainer = mini.mini_trainer(tmp_path, "epochs=1")
    trainer.train()
    with pytest.raises(UserError, match="a run cannot change " + override.split("=")[0]):
        check_settings(tmp_path, trainer.recipe.override([override]), accept=True)


def test_a_run_begun_before_a_setting_existed_goes_on(mini, tmp_path):
    trainer = mini.mini_trainer(tmp_path, "epochs=1")
    trainer.train()
    file = tmp_path / "recipe.json"
    old = json.loads(file.read_text())
    del old["ema"], old["lr_groups"]
    file.write_text(json.dumps(old))
    mini.mini_trainer(tmp_path, "epochs=1").train()
    with pytest.raises(UserError, match="ema: 0.0 -> 0.5"):
        mini.mini_trainer(tmp_path, "epochs=1", "ema=0.5").train()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read"), (b"{", "cannot be read"), (b"[]", "expected a JSON object")],
)
def test_a_run_without_its_settings_is_an_error(mini, tmp_path, content, message):
    mini.mini_trainer(tmp_path, "epochs=1").train()
    file = tmp_path / "recipe.json"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=f"recipe.json.*{message}"):
        mini.mini_trainer(tmp_path, "epochs=1").train()


def test_the_recipe_of_a_run_is_read_back(mini, tmp_path):
    trainer = mini.mini_trainer(tmp_path, "lr_groups=fusion=1e-3,norm=1e-4", "validation=")
    write_settings(tmp_path, trainer.recipe)
    assert read_recipe(tmp_path) == trainer.recipe
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"from_the_future": 1}))
    with pytest.raises(UserError, match="recipe.json is not of this version.*from_the_future"):
        read_recipe(tmp_path)


def test_a_log_is_read_up_to_the_line_that_is_being_written(tmp_path):
    file = tmp_path / "log.jsonl"
    file.write_text('{"step": 20}\n{"step": 40, "lo')
    assert read_log(file) == [{"step": 20}]
    for line in ("{", "[]", "5", '{"loss": 1}', ""):
        file.write_text(f'{{"step": 20}}\n{line}\n')
        with pytest.raises(UserError, match="log.jsonl, line 2: not a record"):
            read_log(file)


@settings(max_examples=30, deadline=None)
@given(
    keep=st.integers(1, 4),
    ious=st.lists(st.integers(0, 5), min_size=1, max_size=9),
)
def test_any_course_keeps_the_newest_and_the_best(tmp_path_factory, keep, ious):
    folder = tmp_path_factory.mktemp("course")
    checkpoints, best = CheckpointFolder(folder, keep), 0
    for epoch, iou in enumerate(ious, 1):
        if not best or iou > ious[best - 1]:
            best = epoch
        checkpoints.save(epoch, {"epoch": epoch}, best)
    expected = {*range(1, len(ious) + 1)[-keep:], ious.index(max(ious)) + 1}
    assert epochs(folder) == sorted(expected)
    assert len(list(folder.glob("*.sha256"))) == len(expected)
    shutil.rmtree(folder)


def test_ten_kills_at_random_moments_leave_the_unbroken_run(tmp_path):
    """See killed_runs.py; the weights are equal bit for bit."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(WORKER), str(tmp_path)]
    report = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert report.returncode == 0, report.stderr
    found = json.loads(report.stdout.splitlines()[-1])
    assert len(found["steps"]) == 10
    assert any(step % 6 for step in found["steps"])  # some went on from within an epoch
    assert found["equal"]
