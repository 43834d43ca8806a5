"""Two processes that share every batch, and the weights too, train like one."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ltr_ext.trainers.processes import Processes, join_processes
from srft_plugin.errors import UserError

WORKER = Path(__file__).with_name("parallel_runs.py")
RUNS = ("ddp in parts", "fsdp in parts", "fsdp, average", "fsdp srft")


@pytest.fixture(scope="module")
def runs(recent_torch, mini, load_script, two_processes, tmp_path_factory):
    """Folder with the runs of two processes in ``two``, and those of this one in ``one``."""
    folder = tmp_path_factory.mktemp("parallel")
    with pytest.MonkeyPatch.context() as patch, two_processes(WORKER, folder):
        patch.setitem(sys.modules, "mini", mini)
        worker = load_script(WORKER)
        assert tuple(worker.RUNS) == RUNS
        for name in RUNS:
            worker.run(folder / "one", name, Processes())
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_like_one(runs, name):
    logs = [(runs / count / name / "log.jsonl").read_text() for count in ("one", "two")]
    one, two = ([json.loads(line) for line in log.splitlines()] for log in logs)
    assert [record["step"] for record in two] == [2, 3, 5, 6]
    # Ranks of shared gradients are those of a histogram, of whole ones partly sorted or sampled.
    tolerance = 2e-3 if name == "fsdp srft" else 1e-5
    for expected, found in zip(one, two, strict=True):
        assert expected.keys() == found.keys()
        for key in expected.keys() - {"samples_per_second", "data_wait"}:
            assert found[key] == pytest.approx(expected[key], rel=tolerance, abs=1e-9), key
    for file in ("network.safetensors", "best.safetensors"):
        weights = [load_file(runs / count / name / file) for count in ("one", "two")]
        assert weights[0].keys() == weights[1].keys()
        for key, value in weights[0].items():
            torch.testing.assert_close(weights[1][key], value, rtol=1e-3, atol=2 * tolerance)


def test_checkpoints_of_shared_weights_are_whole(runs, mini):
    """What two processes saved, one can load and go on with."""
    states = [
        torch.load(runs / count / "fsdp, average" / "checkpoint_ep0002.pt", weights_only=True)
        for count in ("one", "two")
    ]
    generators = [[each["torch"] for each in state["generators"]] for state in states]
    assert [len(each) for each in generators] == [1, 2]
    assert torch.equal(generators[0][0], generators[1][0])
    assert not torch.equal(*generators[1])
    shapes = [{name: value.shape for name, value in state["net"].items()} for state in states]
    assert shapes[0] == shapes[1]
    moments = [[v["exp_avg"] for v in state["optimizer"]["state"].values()] for state in states]
    for expected, found in zip(*moments, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-5)
    alone = mini.mini_trainer(
        runs / "two" / "fsdp, average", "parallel=fsdp", "ema=0.9", "validation=any",
        network=mini.mini_network(0.0),
    )  # fmt: skip
    alone.train()
    assert alone.epoch == 2


def test_a_regularizer_with_tensors_of_its_own_is_not_shared(mini, tmp_path):
    with pytest.raises(UserError, match="l2sp keeps tensors.*parallel=ddp"):
        mini.mini_trainer(
            tmp_path, "parallel=fsdp", "regularizer=l2sp", processes=Processes(0, 2),
            share=False,
        )  # fmt: skip


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(UserError, match="batch_size 8 cannot be shared by 3 processes; .* 9"):
        Processes(0, 3).share(8)
    with pytest.raises(UserError, match="by 2 processes in 3 parts; take a multiple, such as 12"):
        Processes(0, 2).share(8, accumulate=3)
    assert Processes(1, 2).share(12, accumulate=3) == 6


def test_processes_that_cannot_meet_are_told(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"LOCAL_RANK, MASTER_ADDR, MASTER_PORT\); .*torchrun"):
        join_processes("cpu")
