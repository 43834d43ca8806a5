"""Whole training runs on generated data: resume, refusal, bad input, the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

import ltr_ext.run_training as run_training
from ltr_ext.models.checkpoint import load_network
from ltr_ext.models.registry import build_network
from ltr_ext.priors import PRIORS
from ltr_ext.recipe import Recipe, load_recipe
from ltr_ext.trainers.processes import Processes
from ltr_ext.trainers.trainer import Trainer
from srft_plugin.errors import UserError
from srft_plugin.prior import Prior
from srft_plugin.prior.estimate import weights_sha256
from srft_plugin.tuning.trainable import select_trainable

SCRATCH = Recipe(
    "ostrack_tiny", ("synthetic_rgb",), base=None, regularizer="none", trainable="all",
    epochs=3, samples_per_epoch=8, batch_size=4, workers=0,
)  # fmt: skip
TUNE = Recipe(
    "two_branch_tiny", ("synthetic_rgbd",), epochs=3, samples_per_epoch=8, batch_size=4,
    prior_samples=16, workers=0,
)  # fmt: skip


def weights(file):
    return load_network(file).state_dict()


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.fixture(scope="module")
def whole_runs(base, tmp_path_factory):
    """Weights after ``TUNE``, by regularizer."""
    folder = tmp_path_factory.mktemp("whole")
    recipes = {name: TUNE.override([f"base={base}", f"regularizer={name}"])
               for name in ("none", "srft")}  # fmt: skip
    return {
        name: weights(run_training.train(recipe, folder / name)) for name, recipe in recipes.items()
    }


@pytest.mark.parametrize(("trainable", "warned"), [("all", False), ("backbone", True)])
def test_weights_that_stay_random_are_named(tmp_path, caplog, trainable, warned):
    recipe = SCRATCH.override([f"trainable={trainable}", "epochs=1"])
    run_training.train(recipe, tmp_path)
    assert ("trainable=backbone leaves some of them so" in caplog.text) is warned


@pytest.mark.parametrize("peer", ["vipt", "untrack", "sdstrack"])
def test_efficient_tuning_with_the_backbone_under_srft(peer, base, tmp_path):
    """Table VIII, on generated videos: all that trains moves, all else stays as in the base."""
    settings = [f"network={peer}_tiny", "trainable=peft+backbone", f"base={base}", "epochs=1"]
    network = load_network(run_training.train(TUNE.override(settings), tmp_path))
    operations = Prior.load(tmp_path / PRIORS[Prior]).sensitivity()
    assert any(value > 0 for value in operations.values())
    select_trainable(network, "peft+backbone")
    before = weights(base)
    taken = {name: network.base_name(name) for name, _ in network.named_parameters()}
    for name, parameter in network.named_parameters():
        if taken[name] is not None:
            stays = torch.equal(parameter, before[taken[name]])
            assert stays != parameter.requires_grad, name
    assert any(origin is None for origin in taken.values())


@pytest.mark.parametrize("regularizer", ["none", "srft"])
def test_interrupted_run_ends_in_the_same_weights(
    base, whole_runs, tmp_path, regularizer, monkeypatch
):
    recipe = TUNE.override([f"base={base}", f"regularizer={regularizer}"])
    step = Trainer._train_step
    calls = []

    def stop_in_second_epoch(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(Trainer, "_train_step", stop_in_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        run_training.train(recipe, tmp_path / "broken")
    assert not (tmp_path / "broken/network.safetensors").exists()
    monkeypatch.undo()
    resumed = weights(run_training.train(recipe, tmp_path / "broken"))
    assert_same(whole_runs[regularizer], resumed)
    log = (tmp_path / "broken/log.jsonl").read_text()
    steps = [json.loads(line)["step"] for line in log.splitlines()]
    assert steps == [2, 4, 6]  # the interrupted epoch is logged once


def test_resume_with_other_settings_is_refused(tmp_path):
    run_training.train(SCRATCH.override(["epochs=1"]), tmp_path)
    with pytest.raises(UserError, match=r"other settings \(epochs: 1 -> 2, lr: 0.0001 -> 0.5\)"):
        run_training.train(SCRATCH.override(["epochs=2", "lr=0.5"]), tmp_path)
    run_training.train(SCRATCH.override(["epochs=1", "workers=1"]), tmp_path)


def test_a_refused_resume_leaves_the_prior_of_the_run_alone(base, tmp_path):
    recipe = TUNE.override([f"base={base}", "epochs=1"])
    run_training.train(recipe, tmp_path)
    before = (tmp_path / "prior.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"other settings \(seed: 0 -> 5\)"):
        run_training.train(recipe.override(["seed=5"]), tmp_path)
    assert (tmp_path / "prior.safetensors").read_bytes() == before


def test_changes_are_accepted_from_both_command_lines(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(run_training, "train", lambda *arguments: calls.append(arguments))
    command = ["srft", "tiny_depth", "--accept-changes", "--workspace", str(tmp_path), "lr=0.5"]
    assert run_training.main(command) == 0
    monkeypatch.setenv("SRFT_OVERRIDES", "lr=0.5 --accept-changes")
    local = ModuleType("ltr.admin.local")
    local.EnvironmentSettings = lambda: SimpleNamespace(workspace_dir=str(tmp_path))
    monkeypatch.setitem(sys.modules, local.__name__, local)
    settings = SimpleNamespace(script_name="tiny_depth", use_gpu=False)
    run_training.run_in_host(load_recipe("tiny_depth"), settings)
    assert run_training.main(command[:2] + command[3:]) == 0
    for recipe, folder, _, _ in calls:
        assert recipe.lr == 0.5 and folder == run_training.run_dir("tiny_depth", tmp_path)
    assert [accept_changes for _, _, _, accept_changes in calls] == [True, True, False]


def test_a_training_in_the_host_is_where_its_tracker_looks_for_it(tmp_path, monkeypatch):
    """The variable goes before ``local.py``, and ``~`` is the home in both commands."""
    folders = []
    monkeypatch.setattr(run_training, "train", lambda recipe, folder, *_: folders.append(folder))
    local = ModuleType("ltr.admin.local")
    local.EnvironmentSettings = lambda: SimpleNamespace(workspace_dir="~/theirs")
    monkeypatch.setitem(sys.modules, local.__name__, local)
    settings = SimpleNamespace(script_name="run", use_gpu=False, env=local.EnvironmentSettings())
    for variable in ("", str(tmp_path)):
        monkeypatch.setenv("SRFT_WORKSPACE_DIR", variable)
        run_training.run_in_host(load_recipe("tiny_depth"), settings)
    theirs = Path("~/theirs").expanduser().resolve()
    assert folders == [run_training.run_dir("run", place) for place in (theirs, tmp_path)]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("epohs=3", "did you mean 'epochs'"),
        ("base=/nowhere.pth", "give base=PATH"),
        ("base='/no where.pth'", "/no where.pth"),
        ("base='/no where.pth", "No closing quotation"),
    ],
)
def test_the_host_ends_with_one_line_and_a_status(
    tmp_path, capsys, monkeypatch, overrides, message
):
    monkeypatch.setenv("SRFT_OVERRIDES", overrides)
    monkeypatch.setenv("SRFT_WORKSPACE_DIR", str(tmp_path))
    settings = SimpleNamespace(script_name="tiny_depth", use_gpu=False)
    with pytest.raises(SystemExit, match="2"):
        run_training.run_in_host(load_recipe("tiny_depth"), settings)
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_a_recipe_says_the_ratios_and_how_many_files_may_be_unreadable(tmp_path):
    both = ["datasets=synthetic_rgbd,synthetic_rgbt", "ratios=3,1", "skip_unreadable=2"]
    recipe = SCRATCH.override(both)
    network = build_network(recipe.network)
    data = run_training.training_pairs(recipe, recipe.datasets, network, 8, 0, recipe.ratios)
    assert data.probabilities.tolist() == [0.75, 0.25] and data.skip_unreadable == 2
    with pytest.raises(UserError, match="1 data sets, 2 ratios"):
        run_training.train(SCRATCH.override(["ratios=3,1"]), tmp_path)


def test_validation_pairs_judge_a_run(tmp_path):
    recipe = SCRATCH.override(["epochs=1", "validation=synthetic_rgb", "validation_samples=6"])
    run_training.train(recipe, tmp_path)
    record = json.loads((tmp_path / "log.jsonl").read_text())
    state = torch.load(tmp_path / "checkpoint_ep0001.pt", weights_only=True)
    assert state["best"] == {"epoch": 1, "iou": record["validation_iou"]}
    assert_same(weights(tmp_path / "best.safetensors"), weights(tmp_path / "network.safetensors"))


def test_head_and_positions_stay_and_the_rest_moves(base, tmp_path):
    recipe = TUNE.override([f"base={base}", "epochs=1"])
    file = run_training.train(recipe, tmp_path)
    tuned = weights(file)
    assert load_network(file).metadata["modality"] == "depth"
    from ltr_ext.models.two_branch import two_branch_from

    before = two_branch_from(load_network(base)).state_dict()
    moved = {name for name in tuned if not torch.equal(tuned[name], before[name])}
    frozen = {name for name in tuned if name.startswith("box_head") or "pos_embed" in name}
    assert not moved & frozen
    assert {"backbone.blocks_aux.0.attn.qkv.weight", "backbone.fusion.3.mlp.fc2.bias"} <= moved


@pytest.mark.parametrize("regularizer", ["srft:transfer", "l2sp", "ewc"])
def test_other_regularizers_train(base, tmp_path, regularizer):
    recipe = TUNE.override([f"base={base}", f"regularizer={regularizer}", "epochs=1"])
    assert run_training.train(recipe, tmp_path).is_file()


def test_srft_moves_the_weights_less_than_full_fine_tuning(base, whole_runs):
    from ltr_ext.models.two_branch import two_branch_from

    before = two_branch_from(load_network(base)).state_dict()
    distance = {
        regularizer: sum(
            (after[name] - before[name]).square().sum().item()
            for name in after
            if after[name].is_floating_point()
        )
        for regularizer, after in whole_runs.items()
    }
    assert 0 < distance["srft"] < distance["none"]


@pytest.mark.parametrize("regularizer, takes_it", [("srft:transfer", True), ("l2sp", False)])
def test_the_update_is_fused_where_every_process_has_what_it_takes(
    regularizer, takes_it, monkeypatch, caplog
):
    recipe = TUNE.override([f"regularizer={regularizer}"])
    cpu, gpu, alone = torch.device("cpu"), torch.device("cuda"), Processes()
    monkeypatch.setattr(run_training, "triton_lacks", lambda: None)
    assert not run_training.updates_by_kernels(recipe, cpu, alone)
    assert run_training.updates_by_kernels(recipe.override(["compile=true"]), cpu, alone)
    assert run_training.updates_by_kernels(recipe, gpu, alone) == takes_it
    assert not caplog.records
    monkeypatch.setattr(Processes, "collect", lambda self, own: [own, "a C compiler"])
    assert not run_training.updates_by_kernels(recipe, gpu, alone)
    slow = "the update of SRFT is ten times as slow as it could be: it needs a C compiler"
    assert [record.message for record in caplog.records] == [slow] * takes_it  # nobody else's
    assert ("fused" in run_training.regularizer_options(recipe, True)) == takes_it


def test_a_tuned_tracker_is_tuned_further(base, tmp_path):
    """Of what both cameras taught it, too, the prior says what must not move."""
    tuned = run_training.train(TUNE.override([f"base={base}", "epochs=1"]), tmp_path / "first")
    recipe = TUNE.override([f"base={tuned}", "epochs=1", "source=synthetic_rgbd", "lr=0"])
    further = run_training.train(recipe, tmp_path / "second")
    assert_same(weights(tuned), weights(further))
    prior = Prior.load(tmp_path / "second/prior.safetensors")
    assert {"backbone.fusion.0.attn.qkv", "backbone.norm_aux"} <= prior.spectra.keys()
    assert prior.metadata["weights_sha256"] == weights_sha256(load_network(tuned))


def test_nan_loss_stops_the_run_without_a_checkpoint(tmp_path, monkeypatch):
    from ltr_ext.actors import criteria

    def poisoned(*_):
        return torch.full((4,), float("nan"), requires_grad=True)

    monkeypatch.setattr(criteria, "focal_loss", poisoned)
    with pytest.raises(UserError, match="last 2 steps up to step 2 was NaN"):
        run_training.train(SCRATCH.override(["max_skipped=2"]), tmp_path)
    assert not list(tmp_path.glob("checkpoint*"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("validation=depthtrak", "data set 'depthtrak'; did you mean 'depthtrack'"),
        ("lr_groups=box_head=1e-3", "'box_head' is found in no name"),
    ],
)
def test_wrong_settings_do_not_wait_for_the_prior(base, tmp_path, override, message):
    with pytest.raises(UserError, match=message):
        run_training.train(TUNE.override([f"base={base}", override]), tmp_path)
    assert not list(tmp_path.iterdir())


def test_validation_samples_that_do_not_reach_all_processes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        run_training, "join_processes", lambda _: (Processes(0, 2), torch.device("cpu"))
    )
    recipe = SCRATCH.override(["validation=synthetic_rgb", "validation_samples=1"])
    with pytest.raises(UserError, match="validation_samples is 1, fewer than the 2 processes"):
        run_training.train(recipe, tmp_path)


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
        (["tiny_depth", "datasets=depthtrak"], "data set 'depthtrak'; did you mean 'depthtrack'"),
        (["tiny_depth", "datasets=synthetic_rgdb"], "did you mean 'synthetic_rgb"),
        (["tiny_depth", "datasets=synthetic_rgbd:/nowhere"], "generated, not read from /nowhere"),
    ],
)
def test_command_reports_bad_input_in_one_line(tmp_path, capsys, arguments, message):
    code = run_training.main(["srft", *arguments, "--workspace", str(tmp_path)])
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.rglob("checkpoint*"))


def test_a_network_is_compiled_only_where_it_can_be(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "c++-13")
    with pytest.raises(UserError, match=r"compile=true needs a C\+\+ compiler .* no c\+\+-13"):
        run_training.train(SCRATCH.override(["compile=true"]), tmp_path)


def test_two_processes_with_half_the_batch_equal_one(base, tmp_path):
    arguments = [
        "srft", "tiny_depth", "--workspace", str(tmp_path), "--device", "cpu", f"base={base}",
        "epochs=2", "samples_per_epoch=8", "batch_size=4", "prior_samples=12", "workers=0",
    ]  # fmt: skip
    assert run_training.main([*arguments, "--name", "one"]) == 0
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        "-m", "ltr_ext.run_training", *arguments, "--name", "two",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    assert subprocess.run(command, env=environment, check=False).returncode == 0

    def losses(name):
        text = (run_training.run_dir(name, tmp_path) / "log.jsonl").read_text()
        return [json.loads(line)["loss"] for line in text.splitlines()]

    assert len(losses("one")) == 2
    assert losses("two") == pytest.approx(losses("one"), rel=1e-5)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory.\nSee"),
            r"cpu has too .*accumulate=2.*memory\.\)",
        ),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. "),
            "lower workers",
        ),
    ],
)
def test_too_little_memory_is_a_plain_error(tmp_path, monkeypatch, error, message):
    def step(*_):
        raise error

    monkeypatch.setattr(Trainer, "_train_step", step)
    with pytest.raises(UserError, match=message):
        run_training.train(SCRATCH, tmp_path)


def test_a_loading_process_that_dies_is_a_plain_error(tmp_path, monkeypatch):
    def die(*_):
        os._exit(9)

    monkeypatch.setattr("ltr_ext.data.sampler.PairDataset.__getitem__", die)
    with pytest.raises(UserError, match="a process that prepares batches has died"):
        run_training.train(SCRATCH.override(["workers=1"]), tmp_path)
