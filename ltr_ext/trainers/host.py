"""Our networks and data in pytracking's own ``LTRTrainer``: an actor and a loader as it wants them.

The optimizer needs nothing: SRFT is one to every trainer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from ltr_ext.actors.tracking import TrackingActor, to_device
from ltr_ext.data.loader import make_loader
from ltr_ext.data.sampler import PairDataset
from ltr_ext.models.network import TrackingNetwork


class HostTrainer(Protocol):
    """What is needed of the trainer: the epoch that it is in, from 1."""

    epoch: int


class HostBatch(dict):
    """A batch of tensors by name that the trainer can move, and add to."""

    def to(self, device: torch.device) -> HostBatch:
        """The batch on ``device``."""
        return HostBatch(to_device(self, device))


class HostActor:
    """``TrackingActor`` with the interface of pytracking's ``BaseActor``.

    Args:
        net: the network to train; the trainer saves its weights.
    """

    def __init__(self, net: TrackingNetwork) -> None:
        self.net = net
        self.actor = TrackingActor(net)

    def to(self, device: torch.device) -> None:
        """Moves the network."""
        self.net.to(device)

    def train(self, mode: bool = True) -> None:
        """Puts the network in training mode, or (False) in evaluation mode."""
        self.net.train(mode)

    def eval(self) -> None:
        """Puts the network in evaluation mode."""
        self.train(False)

    def __call__(self, data: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        """Loss with gradient, and numbers for the log; ``data`` says the ``epoch``, from 1."""
        self.net.start_epoch(data["epoch"] - 1)
        loss, log = self.actor({k: v for k, v in data.items() if isinstance(v, Tensor)})
        names, values = zip(*log.items(), strict=True)
        return loss, dict(zip(names, torch.stack(values).tolist(), strict=True))


class HostLoader:
    """Batches of ``data``, those of the epoch that ``trainer`` is in.

    A resumed training sees what the unbroken one would have seen. Set ``trainer`` once it is made,
    as the trainer wants its loaders first.

    Args:
        name: what the log calls these numbers.
        data: samples of all epochs.
        batch_size: samples per step.
        workers: processes that prepare batches.
        training: whether to train on them, or only to measure.
        epoch_interval: epochs from one use to the next.
    """

    trainer: HostTrainer

    def __init__(
        self,
        name: str,
        data: PairDataset,
        batch_size: int,
        workers: int = 0,
        training: bool = True,
        epoch_interval: int = 1,
    ) -> None:
        self.name, self.data, self.batch_size = name, data, batch_size
        self.workers, self.training, self.epoch_interval = workers, training, epoch_interval

    def __len__(self) -> int:
        return len(self.data) // self.batch_size

    def __iter__(self) -> Iterator[HostBatch]:
        start = (self.trainer.epoch - 1) * len(self.data) if self.training else 0
        loader = make_loader(self.data, self.batch_size, start, workers=self.workers)
        return map(HostBatch, loader)
