"""The processes of one training run: started by torchrun, or just this one."""

from __future__ import annotations

import os
import random
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map_only

from srft_plugin.errors import UserError

RENDEZVOUS = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # of torchrun, by variable
PATIENCE = timedelta(hours=2)  # the others wait while the first process estimates the prior


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and draws the progress bar."""
        return self.rank == 0

    def share(self, batch_size: int, accumulate: int = 1) -> int:
        """Samples of a batch that fall to each process.

        Raises:
            UserError: the batch cannot be divided evenly, also into ``accumulate`` parts.
        """
        parts = self.count * accumulate
        if batch_size % parts:
            among = f"{self.count} processes" + (f" in {accumulate} parts" * (accumulate > 1))
            raise UserError(
                f"batch_size {batch_size} cannot be shared by {among}; "
                f"take a multiple, such as {-(-batch_size // parts) * parts}"
            )
        return batch_size // self.count

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes of a tensor that each of them has."""
        if self.count > 1:
            dist.all_reduce(values)
            values /= self.count
        return values

    def collect(self, value: Any) -> list[Any]:
        """``value`` of every process, by rank."""
        values = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values

    def follow_first(self, values: list[Tensor]) -> None:
        """Gives ``values`` in all processes what they are in the first."""
        if self.count > 1:
            for value in values:
                dist.broadcast(value, 0)

    def wait(self) -> None:
        """Returns when all processes have come here."""
        if self.count > 1:
            dist.barrier()

    def leave(self) -> None:
        """Parts from the other processes at the end."""
        if self.count > 1:
            dist.destroy_process_group()


def join_processes(device: str) -> tuple[Processes, torch.device]:
    """Meets the other processes, if torchrun started several, and picks this one's device.

    Raises:
        UserError: only the number of them is known.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes(), torch.device(device)
    if missing := [name for name in RENDEZVOUS if name not in os.environ]:
        raise UserError(
            f"WORLD_SIZE is {count}, but nothing says where that many processes "
            f"meet ({', '.join(missing)}); start them by torchrun, or unset WORLD_SIZE"
        )
    if device.startswith("cuda"):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        backend = "nccl" if device.startswith("cuda") else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
    return Processes(dist.get_rank(), count), torch.device(device)


def seed_everything(*seeds: int) -> None:
    """Seeds every generator that training may draw from, on all devices, from all ``seeds``."""
    first, second, third = np.random.SeedSequence(seeds).generate_state(3)
    random.seed(int(first))
    np.random.seed(int(second))
    torch.manual_seed(int(third))


def generator_states(device: torch.device) -> dict[str, Any]:
    """Where the generators that ``seed_everything`` seeds are: tensors and plain values."""
    kind, keys, *rest = np.random.get_state()
    states = {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        states["device"] = torch.cuda.get_rng_state(device)
    return states


def set_generator_states(states: dict[str, Any], device: torch.device) -> None:
    """Brings the generators to where ``generator_states`` found them."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "device" in states:
        torch.cuda.set_rng_state(states["device"], device)


def gradient_sync(model: nn.Module, on: bool) -> AbstractContextManager:
    """Context of a backward pass that is the last of a step, or (``on`` False) not yet."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(on)
    elif isinstance(model, DistributedDataParallel) and not on:
        return model.no_sync()
    return nullcontext()


def gather(tree: Any) -> Any:
    """``tree`` with sharded tensors made whole; all processes have to call it."""
    return tree_map_only(DTensor, DTensor.full_tensor, tree)


def share_like(value: Any, template: Tensor) -> Any:
    """``value``, sharded over the processes if it is a tensor like the sharded ``template``."""
    if isinstance(template, DTensor) and isinstance(value, Tensor) and value.ndim:
        value = value.to(template.device)
        return distribute_tensor(value, template.device_mesh, template.placements)
    return value
