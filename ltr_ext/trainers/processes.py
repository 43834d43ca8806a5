"""The processes of one training run: started by torchrun, or just this one."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from srft_plugin.errors import UserError


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this is."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and draws the progress bar."""
        return self.rank == 0

    def share(self, batch_size: int) -> int:
        """Samples of a batch that fall to each process.

        Raises:
            UserError: the batch cannot be divided evenly.
        """
        if batch_size % self.count:
            raise UserError(
                f"batch_size {batch_size} cannot be shared by {self.count} processes; "
                f"take a multiple, such as {-(-batch_size // self.count) * self.count}"
            )
        return batch_size // self.count

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes of a tensor that each of them has."""
        if self.count > 1:
            dist.all_reduce(values)
            values /= self.count
        return values

    def wait(self) -> None:
        """Returns when all processes have come here."""
        if self.count > 1:
            dist.barrier()


def join_processes(device: str) -> tuple[Processes, torch.device]:
    """Meets the other processes, if torchrun started several, and picks this one's device."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes(), torch.device(device)
    if device.startswith("cuda"):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return Processes(dist.get_rank(), count), torch.device(device)
