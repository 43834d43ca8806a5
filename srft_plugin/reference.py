"""One step of Algorithm 1 as the paper writes it: plain, slow, what the optimizer must equal."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from srft_plugin.schedule import MAX_SENSITIVITY, sensitivity_weights
from srft_plugin.transfer import percentile_rank


@torch.no_grad()
def srft_step_reference(
    optimizer: Optimizer,
    operations: list[tuple[list[Parameter], float]],
    step: int,
    total_steps: int,
    kappa: float = 0.6,
    max_sensitivity: float = MAX_SENSITIVITY,
    rank: Callable[[Tensor], Tensor] = percentile_rank,
) -> None:
    """Take step ``step`` (1 ... total_steps) of SRFT with an unwrapped ``optimizer``.

    Args:
        optimizer: holds exactly the parameters of ``operations``.
        operations: parameters of each operation and the rank s^p of its prior sensitivity.
        step: t of Eq. 14.
        total_steps: T of Eq. 14.
        kappa: harmony coefficient of Eq. 14.
        max_sensitivity: upper end of the joint sensitivity.
        rank: percentile rank of the squared gradients of an operation.
    """
    before = {p: p.clone() for members, _ in operations for p in members}
    optimizer.step()
    prior_weight, transfer_weight = sensitivity_weights(step, total_steps, kappa)
    for members, prior_rank in operations:
        squared = torch.cat([p.grad.double().square().flatten() for p in members])  # Eq. 13
        transfer_rank = rank(squared).split([p.numel() for p in members])
        for p, ranks in zip(members, transfer_rank, strict=True):
            joint = prior_weight * prior_rank + transfer_weight * ranks.view_as(p)  # Eq. 14
            sensitivity = max_sensitivity * joint
            p.copy_(before[p] + (1 - sensitivity) * (p - before[p]))  # Eq. 15
