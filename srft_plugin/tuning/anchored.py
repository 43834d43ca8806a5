"""Penalties that tie the weights to where they started: L2-SP, and EWC with two kinds of Fisher."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import Parameter

from srft_plugin.errors import UserError
from srft_plugin.prior import Prior, estimate_prior
from srft_plugin.prior.capture import LossFn
from srft_plugin.tuning.base import Regularizer, at_least, refuse_shards


class Anchored(Regularizer):
    """Adds c/2 sum_i w_i (theta_i - theta_0,i)^2 to the loss. Holds one copy of the parameters.

    Args:
        coefficient: c.
        weighted: weights and parameters, these at the values to start from; the weight is one
            number for all elements of a parameter, or a tensor of its shape.

    Raises:
        UserError: there are no parameters.
    """

    def __init__(
        self, coefficient: float, weighted: list[tuple[float | Tensor, Parameter]]
    ) -> None:
        if not weighted:
            raise UserError(
                "the penalty would tie nothing: of what trains, nothing comes from the base "
                "network, or nothing trains; take regularizer none"
            )
        self.coefficient = coefficient
        self.parameters = [p for _, p in weighted]
        self.weights = [w for w, _ in weighted]
        self.start = [p.detach().clone() for p in self.parameters]

    def loss_term(self, inputs: tuple[Tensor, ...], output: Any) -> Tensor:
        device = self.parameters[0].device
        if self.start[0].device != device:  # the network moved after the start
            self.start = [t.to(device) for t in self.start]
            self.weights = [w.to(device) if isinstance(w, Tensor) else w for w in self.weights]
        triples = zip(self.parameters, self.start, self.weights, strict=True)
        return self.coefficient * torch.stack([_Quadratic.apply(*t) for t in triples]).sum()

    def state_dict(self) -> dict[str, Any]:
        return {"start": self.start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the values to start from.

        Raises:
            UserError: they are of other parameters.
        """
        found, expected = ([t.shape for t in ts] for ts in (state["start"], self.start))
        if found != expected:
            raise UserError(
                f"the penalty's state is of {len(found)} other parameters than the {len(expected)} "
                f"it ties; build the same network, prior and trainable set as then"
            )
        self.start = [t.clone() for t in state["start"]]


class _Quadratic(torch.autograd.Function):
    """w/2 ||p - p_0||^2. Autograd would keep p - p_0, one more copy of the parameters, around."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, start: Tensor, weight: float | Tensor) -> Tensor:
        ctx.save_for_backward(p, start)
        ctx.weight = weight
        return 0.5 * (p - start).square_().mul_(weight).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        p, start = ctx.saved_tensors
        return (p - start).mul_(ctx.weight).mul_(gradient), None, None


def l2sp(
    network: nn.Module, prior: Prior | None, total_steps: int | None, coefficient: float = 0.1
) -> Regularizer:
    """L2-SP (Li et al., ICML 2018): the same ``coefficient`` (their alpha, 0.1) everywhere."""
    _check(network, coefficient)
    return Anchored(coefficient, [(1.0, p) for p in network.parameters() if p.requires_grad])


def ewc(
    network: nn.Module, prior: Prior, total_steps: int | None, coefficient: float = 1.0
) -> Regularizer:
    """Elastic weight consolidation (Kirkpatrick et al., 2017) with the group Fisher of Eq. 6.

    The penalty is ``coefficient`` (beta of Eq. 2) times the generalization gap of Eq. 4 with
    F = s^p I in each operation. Operations without a prior are free.
    """
    _check(network, coefficient)
    sensitivity = prior.sensitivity()
    operations = prior.bind(network).operations
    return Anchored(
        coefficient,
        [
            (sensitivity[name], p)
            for name, members in operations.items()
            if name in sensitivity
            for p in members
        ],
    )


class DiagonalFisher(Prior):
    """A prior of single parameters: the spectrum of each is the diagonal of its Fisher block, in
    the order of the elements."""


def estimate_diagonal(
    network: nn.Module, loss_fn: LossFn, batches: Iterable[Any], data: str | None = None
) -> DiagonalFisher:
    """The diagonal of the empirical Fisher: mean squares of the gradients of single samples.

    Exact, not the square of a batch's mean gradient. Each sample takes a backward pass through its
    whole batch, so batches of one sample are fastest.

    Args:
        network: at its pre-trained weights.
        loss_fn: (network, batch) to (n,) losses.
        batches: samples of the pre-training domain.
        data: name of the source data, for the metadata.

    Raises:
        UserError: as ``estimate_prior``.
    """
    groups = {name: [name] for name, _ in network.named_parameters()}
    prior = estimate_prior(network, loss_fn, batches, groups, "diagonal", 1, data)
    return DiagonalFisher(**vars(prior))


def ewc_diagonal(
    network: nn.Module,
    prior: DiagonalFisher,
    total_steps: int | None,
    coefficient: float = 1.0,
) -> Regularizer:
    """Elastic weight consolidation as published: the diagonal Fisher, by ``estimate_diagonal``."""
    _check(network, coefficient)
    if not isinstance(prior, DiagonalFisher):
        raise UserError(
            "ewc:diagonal was given a prior of operations; it needs one of single parameters: "
            "make it with srft_plugin.tuning.anchored.estimate_diagonal, or take ewc"
        )
    prior.bind(network, {name: [name] for name, _ in network.named_parameters()})  # or an error
    return Anchored(
        coefficient,
        [
            (prior.spectra[name].view_as(p).to(p), p)
            for name, p in network.named_parameters()
            if p.requires_grad and len(prior.spectra[name])
        ],
    )


def _check(network: nn.Module, coefficient: float) -> None:
    refuse_shards(network)
    at_least("the coefficient of the penalty", coefficient, 0)
