"""Penalties that tie the weights to where they started: L2-SP, and EWC with the group Fisher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from srft_plugin.errors import UserError
from srft_plugin.prior import Prior
from srft_plugin.tuning.base import Regularizer


class Anchored(Regularizer):
    """Adds 1/2 sum_j c_j ||theta^j - theta_0^j||^2 to the loss. Holds one copy of the parameters.

    Args:
        weighted: coefficient c_j and parameters of each group, at the weights to start from.
    """

    def __init__(self, weighted: list[tuple[float, list[Parameter]]]) -> None:
        self.weighted = weighted
        self.start = [[p.detach().clone() for p in members] for _, members in weighted]

    def loss_term(self) -> Tensor:
        total = torch.zeros(())
        for (coefficient, members), starts in zip(self.weighted, self.start, strict=True):
            for index, p in enumerate(members):
                if starts[index].device != p.device:  # the network moved after the start
                    starts[index] = starts[index].to(p.device)
                squared = (p - starts[index]).square().sum()
                total = total.to(p.device) + 0.5 * coefficient * squared
        return total

    def state_dict(self) -> dict[str, Any]:
        return {"start": self.start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start = [[t.clone() for t in group] for group in state["start"]]


def l2sp(
    network: nn.Module,
    prior: Prior | None,
    total_steps: int | None,
    coefficient: float = 0.1,
    **_: Any,
) -> Regularizer:
    """L2-SP (Li et al., ICML 2018): the same ``coefficient`` (their alpha, 0.1) everywhere."""
    _check(coefficient)
    return Anchored([(coefficient, [p for p in network.parameters() if p.requires_grad])])


def ewc(
    network: nn.Module,
    prior: Prior | None,
    total_steps: int | None,
    coefficient: float = 1.0,
    **_: Any,
) -> Regularizer:
    """Elastic weight consolidation (Kirkpatrick et al., 2017) with the group Fisher of Eq. 6.

    The penalty is ``coefficient`` (beta of Eq. 2) times the generalization gap of Eq. 4 with
    F = s^p I in each operation. Operations without a prior are free.
    """
    _check(coefficient)
    if prior is None:
        raise UserError("ewc needs a prior: make one with estimate_prior on the source domain")
    sensitivity = prior.sensitivity()
    operations = prior.bind(network).operations
    return Anchored(
        [
            (coefficient * sensitivity[name], members)
            for name, members in operations.items()
            if name in sensitivity
        ]
    )


def _check(coefficient: float) -> None:
    if not coefficient >= 0:
        raise UserError(f"the coefficient of the penalty is {coefficient}; expected at least 0")
