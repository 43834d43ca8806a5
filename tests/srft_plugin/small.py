"""A small network with several operations, a prior of any network, and ranks of bins."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from srft_plugin import Prior, operation_groups
from srft_plugin.prior import BoundPrior, bind_operations
from srft_plugin.transfer import magnitude_bins, percentile_rank


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.LayerNorm(12), nn.Tanh(), nn.Linear(12, 3))


def backward(network: nn.Module, seed: int) -> None:
    """Gradients of a loss on ten random samples."""
    p = next(network.parameters())
    x = torch.randn(10, 6, generator=torch.Generator().manual_seed(seed)).to(p.dtype)
    network(x).pow(2).sum(1).mean().backward()


def train(network: nn.Module, optimizer: Optimizer, steps: int, start: int = 0) -> None:
    """Steps on batches of their own, numbered from ``start``."""
    for seed in range(start, start + steps):
        optimizer.zero_grad()
        backward(network, seed)
        optimizer.step()


def weights(network: nn.Module) -> Tensor:
    """A copy of all parameters in a row."""
    return torch.cat([p.detach().flatten() for p in network.parameters()])


OPTIMIZERS = {
    "adamw": lambda ps: AdamW(ps, lr=1e-2, weight_decay=0.1),
    "fused adamw": lambda ps: AdamW(ps, lr=1e-2, weight_decay=0.1, fused=True),
    "sgd": lambda ps: SGD(ps, lr=1e-2, momentum=0.9, nesterov=True),
}


def prior_of(network: nn.Module, values: Iterable[float] | None = None) -> Prior:
    """A prior whose operations have the given sensitivities, or 1, 2, 3, ..."""
    groups = operation_groups(network)
    shapes = {name: list(p.shape) for name, p in network.named_parameters()}
    values = range(1, len(groups) + 1) if values is None else values
    return Prior(
        {g: torch.tensor([float(v)]).double() for g, v in zip(groups, values, strict=True)},
        {g: [shapes[p] for p in members] for g, members in groups.items()},
    )


def bound_to(network: nn.Sequential) -> BoundPrior:
    """Ranks for the two linear layers of ``small_network``; its norm has no prior."""
    bound = bind_operations(network)
    bound.ranks.update({"0": 0.3, "3": 1.0})
    return bound


def groups_of(network: nn.Sequential) -> list[dict]:
    """Two groups with rates and decays of their own."""
    first, last = list(network[0].parameters()), list(network[1:].parameters())
    return [
        {"params": first, "lr": 1e-2, "weight_decay": 0.1},
        {"params": last, "lr": 3e-3, "betas": (0.8, 0.99), "eps": 1e-6},
    ]


def rank_of_bins(squared: Tensor) -> Tensor:
    """The rank that a histogram stands for: exact, of the bins of the gradients."""
    return percentile_rank(magnitude_bins(squared.sqrt()))
