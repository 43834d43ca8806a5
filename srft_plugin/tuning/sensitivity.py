"""SRFT by name, and its controls: the same strength with other sensitivities.

The controls answer what part of SRFT's effect is its choice of weights. They sort, and copy all
trainable parameters in every step: they are for studies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from srft_plugin.optimizer import SRFT
from srft_plugin.prior import BoundPrior, Prior, bind_operations
from srft_plugin.schedule import MAX_SENSITIVITY, sensitivity_weights
from srft_plugin.transfer import percentile_rank
from srft_plugin.tuning.base import Regularizer, refuse_shards

Rank = Callable[[Tensor, int], Tensor]


class SRFTRegularizer(Regularizer):
    """Sensitivity-aware regularized tuning: all of it is in the optimizer and its state."""

    def __init__(
        self, operations: BoundPrior, total_steps: int, kappa: float, mode: str, fused: bool
    ) -> None:
        sensitivity_weights(0, total_steps, kappa)  # checks both
        self.operations = operations
        self.total_steps = total_steps
        self.kappa = kappa
        self.mode = mode
        self.fused = fused

    def wrap_optimizer(self, optimizer: Optimizer) -> Optimizer:
        self.optimizer = SRFT(
            optimizer,
            self.operations,
            self.total_steps,
            self.kappa,
            mode=self.mode,
            fused=self.fused,
        )
        return self.optimizer

    def take_back(self, steps: int) -> None:
        self.optimizer.take_back(steps)


def srft(
    network: nn.Module, prior: Prior, total_steps: int, kappa: float = 0.6, fused: bool = False
) -> Regularizer:
    """SRFT with both sensitivities (Eq. 14)."""
    return SRFTRegularizer(prior.bind(network), total_steps, kappa, "both", fused)


def srft_prior(
    network: nn.Module, prior: Prior, total_steps: int, kappa: float = 0.6, fused: bool = False
) -> Regularizer:
    """The prior sensitivity alone (Table IV): with weight one, whatever ``kappa``."""
    return SRFTRegularizer(prior.bind(network), total_steps, kappa, "prior", fused)


def srft_transfer(
    network: nn.Module,
    prior: Prior | None,
    total_steps: int,
    kappa: float = 0.6,
    fused: bool = False,
) -> Regularizer:
    """The transfer sensitivity alone (Table IV): with weight one, whatever ``kappa``."""
    return SRFTRegularizer(bind_operations(network), total_steps, kappa, "transfer", fused)


class Control(Regularizer):
    """Pulls every update back by a sensitivity as Eq. 15 does, with ``rank`` in place of s^t.

    Args:
        operations: parameters and s^p of each.
        total_steps, kappa: T and kappa of Eq. 14.
        rank: the gradients of an operation, flat, and the step to their ranks in [0, 1].
    """

    def __init__(
        self,
        operations: list[tuple[list[Parameter], float]],
        total_steps: int,
        kappa: float,
        rank: Rank,
    ) -> None:
        sensitivity_weights(0, total_steps, kappa)  # checks both
        self.operations = operations
        self.total_steps = total_steps
        self.kappa = kappa
        self.rank = rank
        self.steps = 0
        self._before: dict[Parameter, Tensor] = {}

    def wrap_optimizer(self, optimizer: Optimizer) -> Optimizer:
        optimizer.register_step_pre_hook(lambda *_: self._remember())
        optimizer.register_step_post_hook(lambda *_: self._pull_back())
        return optimizer

    def take_back(self, steps: int) -> None:
        self.steps -= steps

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]

    @torch.no_grad()
    def _remember(self) -> None:
        reached = (p for members, _ in self.operations for p in members if p.grad is not None)
        self._before = {p: p.clone() for p in reached}

    @torch.no_grad()
    def _pull_back(self) -> None:
        self.steps += 1
        prior_weight, transfer_weight = sensitivity_weights(
            self.steps, self.total_steps, self.kappa
        )
        for members, prior_rank in self.operations:
            reached = [p for p in members if p in self._before]
            if not reached:
                continue
            ranks = self.rank(torch.cat([p.grad.flatten() for p in reached]), self.steps)
            sensitivity = MAX_SENSITIVITY * (prior_weight * prior_rank + transfer_weight * ranks)
            parts = sensitivity.split([p.numel() for p in reached])
            for p, part in zip(reached, parts, strict=True):
                p.lerp_(self._before[p], part.view_as(p).to(p.dtype))
        self._before = {}


def srft_random(
    network: nn.Module, prior: Prior, total_steps: int, kappa: float = 0.6
) -> Regularizer:
    """SRFT with the transfer sensitivities of each operation in random order, anew every step."""
    return _control(network, prior.bind(network), total_steps, kappa, _random_rank)


def srft_indexed(
    network: nn.Module, prior: Prior, total_steps: int, kappa: float = 0.6
) -> Regularizer:
    """SRFT with the sorting permutation taken for the ranks, which it is the inverse of."""
    return _control(network, prior.bind(network), total_steps, kappa, _sorting_permutation)


def srft_reversed(
    network: nn.Module, prior: Prior, total_steps: int, kappa: float = 0.6
) -> Regularizer:
    """SRFT with 1 - rank for both ranks; operations without a prior stay at 0."""
    bound = prior.bind(network)
    ranks = {name: 1 - rank for name, rank in bound.ranks.items()}
    reverse = BoundPrior(bound.operations, ranks)
    return _control(network, reverse, total_steps, kappa, lambda g, _: 1 - percentile_rank(g.abs()))


def effective(
    network: nn.Module, prior: Prior, total_steps: int, kappa: float = 0.6
) -> Regularizer:
    """Full fine-tuning with every update times SRFT's mean of 1 - s at that step.

    The mean rank inside an operation is 1/2, so the mean is known without a run: 1 - 0.99 (w m +
    (1 - w) / 2), with w of Eq. 14 and m the mean of s^p over the parameters that train.
    """
    bound = prior.bind(network)
    operations, ranks = bound.operations, bound.ranks
    sizes = {name: sum(p.numel() for p in members) for name, members in operations.items()}
    total = sum(sizes[name] * rank for name, rank in ranks.items())
    mean = total / sum(sizes.values())
    alike = BoundPrior(operations, dict.fromkeys(sizes, mean))
    return _control(network, alike, total_steps, kappa, lambda g, _: torch.full_like(g, 0.5))


def _control(
    network: nn.Module, bound: BoundPrior, total_steps: int, kappa: float, rank: Rank
) -> Regularizer:
    refuse_shards(network)
    trained = (p for p in network.parameters() if p.requires_grad)
    return Control(bound.partition(trained), total_steps, kappa, rank)


def _random_rank(gradient: Tensor, step: int) -> Tensor:
    generator = torch.Generator(gradient.device).manual_seed(step)  # so that a resume is exact
    device = gradient.device
    return _spread(torch.randperm(gradient.numel(), generator=generator, device=device))


def _sorting_permutation(gradient: Tensor, step: int) -> Tensor:
    return _spread(gradient.abs().argsort(stable=True))


def _spread(order: Tensor) -> Tensor:
    """0 ... n - 1 to 0 ... 1; a single element has rank 1/2."""
    return order / (len(order) - 1) if len(order) > 1 else order + 0.5
