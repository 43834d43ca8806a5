"""One of two processes that train together: `python parallel_runs.py RANK FOLDER`."""

import sys
import warnings
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from mini import RECIPE, mini_batch, mini_network, mini_trainer
from torch.distributed.tensor import DTensor

from ltr_ext.models.registry import build_network
from ltr_ext.trainers import trainer as trainer_module
from ltr_ext.trainers.processes import Processes
from srft_plugin.tuning.trainable import select_trainable

RUNS = {
    "ddp in parts": ["accumulate=2"],
    "fsdp in parts": ["parallel=fsdp", "accumulate=2", "checkpoint_activations=true"],
    "fsdp, average": ["parallel=fsdp", "ema=0.9", "validation=any", "save_minutes=0"],
    "fsdp srft": ["parallel=fsdp", "regularizer=srft:transfer"],
}
STOPPED = "fsdp, average"  # this one is stopped in its second epoch, and goes on from there


@mock.patch.object(trainer_module, "LOG_EVERY", 2)
def run(folder: Path, name: str, processes: Processes) -> None:
    def make():
        network = mini_network(drop_path=0.0)
        return mini_trainer(folder / name, *RUNS[name], network=network, processes=processes)

    trainer = make()
    shared = name.startswith("fsdp") and processes.count > 1
    assert all(isinstance(p, DTensor) == shared for p in trainer.parameters)
    if name == STOPPED and processes.count > 1:
        step = trainer._train_step

        def stopping(number, batch):
            if number == 5:
                raise KeyboardInterrupt
            return step(number, batch)

        trainer._train_step = stopping
        try:
            trainer.train()
        except KeyboardInterrupt:
            processes.wait()  # the first one may still be writing the checkpoint
            trainer = make()
            trainer._resume(accept_changes=False)
            assert trainer.step == 5
    trainer.train()
    trainer.write_network(folder / name / "network.safetensors")


def step_in_bfloat16(folder: Path, processes: Processes) -> None:
    """A step of the head, on features that lie channels last as a tracker's do, without warnings.

    DDP would warn of the strides of a 1x1 convolution of eight channels.
    """
    torch.manual_seed(0)
    network = build_network(
        "ostrack_tiny", dim=24, depth=1, heads=2, head_channels=64, stem=(4, 6, 8),
        template_size=32, search_size=64,
    )  # fmt: skip
    batch = {name: v[:, :3] if v.ndim == 4 else v for name, v in mini_batch(0, 2).items()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = mini_trainer(folder, "precision=bf16", network=network, processes=processes)
        network.train()
        trainer._train_step(0, batch)
    assert not [warning for warning in caught if "strides" in str(warning.message)]


def judge_with_a_head_in_training(folder: Path, processes: Processes) -> None:
    """All processes judge with the batch statistics that the first one saves."""
    network = mini_network(0.0)
    select_trainable(network, "backbone+head")
    trainer = mini_trainer(
        folder, "parallel=fsdp", "validation=any", "epochs=1", network=network, processes=processes
    )
    trainer.train()
    judged = processes.collect([value.tolist() for value in trainer.statistics])
    assert judged[0] and judged[0] == judged[1]


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    for name in RUNS:
        run(folder / "two", name, Processes(rank, 2))
    step_in_bfloat16(folder / "bf16", Processes(rank, 2))
    judge_with_a_head_in_training(folder / "head", Processes(rank, 2))
    # Its blocks run in parts, so that it is shared as one unit.
    network = mini_network(0.0, "sdstrack_tiny")
    trainer = mini_trainer(
        folder / "one unit", "parallel=fsdp", network=network, processes=Processes(rank, 2)
    )
    trainer.train()
    assert trainer.step == RECIPE.total_steps and trainer.total_skipped == 0
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
