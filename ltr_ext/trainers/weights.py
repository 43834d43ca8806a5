"""The weights over a run: their average, and how far they have come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from srft_plugin.ranking import local

from .processes import Processes, share_like


class RunningAverage:
    """Exponential moving average of parameters, from their present values on.

    Args:
        parameters: what is averaged.
        decay: share of the old average in the new one; with 0 none is kept, and nothing costs.
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float):
        self.parameters = parameters if decay else []
        self.decay = decay
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, skip: Tensor) -> None:
        """Takes the parameters in after a step, unless ``skip`` (bool, on the device) holds."""
        if self.values:
            share = ((1 - self.decay) * ~skip).to(torch.float32)
            own, now = ([local(v) for v in values] for values in (self.values, self.parameters))
            torch._foreach_lerp_(own, now, [share.to(v.dtype) for v in own])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Context in which the parameters have their averaged values."""
        own = [p.detach().clone() for p in self.parameters]
        self._set(self.values)
        try:
            yield
        finally:
            self._set(own)

    @torch.no_grad()
    def load(self, values: list[Tensor]) -> None:
        """Goes on from saved ``values``, or afresh from the parameters where there are none."""
        for value, saved in zip(self.values, values or self.parameters, strict=True):
            value.copy_(share_like(saved, value))

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)


def batch_statistics(network: nn.Module) -> list[Tensor]:
    """The buffers that a forward pass in training changes: those of batch norms that train."""
    return [
        buffer
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training
        for buffer in module.buffers(recurse=False)
    ]


class WeightDistance:
    """Distance of parameters from their present values, of which it keeps a copy on the CPU."""

    def __init__(self, parameters: list[nn.Parameter]):
        self.parameters = parameters
        self.start = [local(p).detach().cpu().clone() for p in parameters]

    @torch.no_grad()
    def relative(self, processes: Processes) -> float:
        """||theta - theta_0|| / ||theta_0||, L2 over all of them; NaN if all began with zero."""
        device = self.parameters[0].device
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        for parameter, start in zip(self.parameters, self.start, strict=True):
            start = start.to(device, non_blocking=True)
            for index, value in enumerate((local(parameter) - start, start)):
                sums[index] += value.double().square().sum()
        # Of shared weights every process adds its part; otherwise all of them have the same sums.
        distance, norm = processes.mean(sums).sqrt().tolist()
        return distance / norm if norm else float("nan")
