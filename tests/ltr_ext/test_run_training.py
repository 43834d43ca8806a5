"""Whole training runs on generated data: resume, refusal, bad input, the command line."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import ltr_ext.run_training as run_training
from ltr_ext.models.checkpoint import load_network, save_network
from ltr_ext.models.registry import build_network
from ltr_ext.recipe import Recipe
from ltr_ext.trainers.processes import Processes
from ltr_ext.trainers.trainer import Trainer
from srft_plugin.errors import UserError
from srft_plugin.prior import Prior

SCRATCH = Recipe(
    "ostrack_tiny", ("synthetic_rgb",), base=None, regularizer="none", trainable="all",
    epochs=3, samples_per_epoch=8, batch_size=4, workers=0,
)  # fmt: skip
TUNE = Recipe(
    "two_branch_tiny", ("synthetic_rgbd",), epochs=3, samples_per_epoch=8, batch_size=4,
    prior_samples=16, workers=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """An untrained RGB tracker: what is tested here does not depend on how good it is."""
    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("base") / "base.safetensors"
    save_network(build_network("ostrack_tiny"), file)
    return file


def weights(file):
    return load_network(file).state_dict()


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("regularizer", ["none", "srft"])
def test_interrupted_run_ends_in_the_same_weights(base, tmp_path, regularizer, monkeypatch):
    recipe = TUNE.override([f"base={base}", f"regularizer={regularizer}"])
    whole = weights(run_training.train(recipe, tmp_path / "whole"))

    step = Trainer._train_step
    calls = []

    def stop_in_second_epoch(self, batch):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(Trainer, "_train_step", stop_in_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        run_training.train(recipe, tmp_path / "broken")
    assert not (tmp_path / "broken/network.safetensors").exists()
    monkeypatch.undo()
    resumed = weights(run_training.train(recipe, tmp_path / "broken"))
    assert_same(whole, resumed)
    log = (tmp_path / "broken/log.jsonl").read_text()
    steps = [json.loads(line)["step"] for line in log.splitlines()]
    assert steps == [2, 4, 6]  # the interrupted epoch is logged once


def test_killed_process_resumes_to_the_same_loss(tmp_path):
    """SIGKILL in the middle, then the same command again."""
    command = [
        sys.executable, "-m", "ltr_ext.run_training", "srft", "pretrain_tiny",
        "--workspace", str(tmp_path), "--device", "cpu", "epochs=4", "samples_per_epoch=16",
        "batch_size=8", "workers=0",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    unbroken = subprocess.run([*command, "--name", "unbroken"], env=environment, check=False)
    assert unbroken.returncode == 0
    process = subprocess.Popen([*command, "--name", "killed"], env=environment)
    killed = run_training.run_dir("killed", tmp_path)
    for _ in range(600):
        if (killed / "checkpoint_ep0002.sha256").exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (
        subprocess.run([*command, "--name", "killed"], env=environment, check=False).returncode == 0
    )

    def last_loss(folder):
        return json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["loss"]

    assert last_loss(killed) == last_loss(run_training.run_dir("unbroken", tmp_path))


def test_resume_with_other_settings_is_refused(tmp_path):
    run_training.train(SCRATCH.override(["epochs=1"]), tmp_path)
    with pytest.raises(UserError, match=r"other settings \(epochs: 1 -> 2, lr: 0.0001 -> 0.5\)"):
        run_training.train(SCRATCH.override(["epochs=2", "lr=0.5"]), tmp_path)
    run_training.train(SCRATCH.override(["epochs=1", "workers=1"]), tmp_path)


def test_head_and_positions_stay_and_the_rest_moves(base, tmp_path):
    recipe = TUNE.override([f"base={base}", "epochs=1"])
    tuned = weights(run_training.train(recipe, tmp_path))
    from ltr_ext.models.two_branch import two_branch_from

    before = two_branch_from(load_network(base)).state_dict()
    moved = {name for name in tuned if not torch.equal(tuned[name], before[name])}
    frozen = {name for name in tuned if name.startswith("box_head") or "pos_embed" in name}
    assert not moved & frozen
    assert {"backbone.blocks_aux.0.attn.qkv.weight", "backbone.fusion.3.mlp.fc2.bias"} <= moved


def test_prior_of_other_weights_is_not_reused(base, tmp_path):
    recipe = TUNE.override([f"base={base}", "epochs=1"])
    run_training.train(recipe, tmp_path / "first")
    other = tmp_path / "other.safetensors"
    torch.manual_seed(2)
    save_network(build_network("ostrack_tiny"), other)
    (tmp_path / "second").mkdir()
    prior = "prior.safetensors"
    (tmp_path / "second" / prior).write_bytes((tmp_path / "first" / prior).read_bytes())
    run_training.train(recipe.override([f"base={other}"]), tmp_path / "second")
    first, second = (Prior.load(tmp_path / run / prior).metadata for run in ("first", "second"))
    assert first["weights_sha256"] != second["weights_sha256"]


@pytest.mark.parametrize("regularizer", ["srft:transfer", "l2sp", "ewc"])
def test_other_regularizers_train(base, tmp_path, regularizer):
    recipe = TUNE.override([f"base={base}", f"regularizer={regularizer}", "epochs=1"])
    assert run_training.train(recipe, tmp_path).is_file()


def test_srft_moves_the_weights_less_than_full_fine_tuning(base, tmp_path):
    from ltr_ext.models.two_branch import two_branch_from

    before = two_branch_from(load_network(base)).state_dict()
    distance = {}
    for regularizer in ("none", "srft"):
        recipe = TUNE.override([f"base={base}", f"regularizer={regularizer}"])
        after = weights(run_training.train(recipe, tmp_path / regularizer))
        distance[regularizer] = sum(
            (after[name] - before[name]).square().sum().item()
            for name in after
            if after[name].is_floating_point()
        )
    assert 0 < distance["srft"] < distance["none"]


def test_nan_loss_stops_the_run_without_a_checkpoint(tmp_path, monkeypatch):
    from ltr_ext.actors import tracking

    def poisoned(*_):
        return torch.full((4,), float("nan"), requires_grad=True)

    monkeypatch.setattr(tracking, "focal_loss", poisoned)
    with pytest.raises(UserError, match="the loss is nan near step"):
        run_training.train(SCRATCH, tmp_path)
    assert not list(tmp_path.glob("checkpoint*"))


def test_checkpoint_of_another_network_is_refused(base, tmp_path):
    recipe = TUNE.override([f"base={base}", "network=two_branch_ostrack256"])
    with pytest.raises(UserError, match="two_branch_ostrack256 does not extend ostrack_tiny"):
        run_training.train(recipe, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny_dept"], "did you mean 'tiny_depth'"),
        (["tiny_depth", "epohs=3"], "did you mean 'epochs'"),
        (["tiny_depth", "regularizer=srtf"], "did you mean 'srft'"),
        (["tiny_depth", "base=/nowhere.pth"], "srft env set pretrained_dir"),
        (["tiny_depth", "datasets=depthtrack:/nowhere"], "/nowhere"),
    ],
)
def test_command_reports_bad_input_in_one_line(tmp_path, capsys, arguments, message):
    code = run_training.main(["srft", *arguments, "--workspace", str(tmp_path)])
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.rglob("checkpoint*"))


def test_two_processes_with_half_the_batch_equal_one(base, tmp_path):
    arguments = [
        "-m", "ltr_ext.run_training", "srft", "tiny_depth", "--workspace", str(tmp_path),
        "--device", "cpu", f"base={base}", "epochs=2", "samples_per_epoch=16", "batch_size=8",
        "prior_samples=16", "workers=0",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    one = subprocess.run(
        [sys.executable, *arguments, "--name", "one"], env=environment, check=False
    )
    torchrun = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
    ]  # fmt: skip
    two = subprocess.run([*torchrun, *arguments, "--name", "two"], env=environment, check=False)
    assert one.returncode == two.returncode == 0

    def losses(name):
        text = (run_training.run_dir(name, tmp_path) / "log.jsonl").read_text()
        return [json.loads(line)["loss"] for line in text.splitlines()]

    assert len(losses("one")) == 2
    assert losses("two") == pytest.approx(losses("one"), rel=1e-5)


def test_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(
        UserError, match="batch_size 10 cannot be shared by 4 processes.*such as 12"
    ):
        Processes(0, 4).share(10)
