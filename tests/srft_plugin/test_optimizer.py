"""SRFT against its reference, and its interplay with everything around an optimizer."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from srft_plugin import SRFT, Prior, operation_groups
from srft_plugin.reference import srft_step_reference
from srft_plugin.transfer import magnitude_bins, percentile_rank


def prior_of(network, values=None):
    """A prior whose operations have the given sensitivities, or 1, 2, 3, ..."""
    groups = operation_groups(network)
    shapes = {name: list(p.shape) for name, p in network.named_parameters()}
    values = values or range(1, len(groups) + 1)
    return Prior(
        {g: torch.tensor([float(v)]).double() for g, v in zip(groups, values, strict=True)},
        {g: [shapes[p] for p in members] for g, members in groups.items()},
    )


def small_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 12), nn.LayerNorm(12), nn.Tanh(), nn.Linear(12, 3))


def backward(network, seed):
    generator = torch.Generator().manual_seed(seed)
    p = next(network.parameters())
    x = torch.randn(10, 6, generator=generator).to(p.dtype)
    network(x).pow(2).sum(1).mean().backward()


def train(network, optimizer, steps, start=0):
    for seed in range(start, start + steps):
        optimizer.zero_grad()
        backward(network, seed)
        optimizer.step()


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


OPTIMIZERS = {
    "adamw": lambda ps: AdamW(ps, lr=1e-2, weight_decay=0.1),
    "fused adamw": lambda ps: AdamW(ps, lr=1e-2, weight_decay=0.1, fused=True),
    "sgd": lambda ps: SGD(ps, lr=1e-2, momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize("inner", OPTIMIZERS)
@pytest.mark.parametrize("ranking", ["exact", "histogram", "sampled"])
def test_lock_step_with_the_reference(inner, ranking):
    steps = 100
    # In float32 round-off swaps the ranks of near-equal gradients, and the trajectories part.
    fast, slow = small_network().double(), small_network().double()
    wrapped = SRFT(
        OPTIMIZERS[inner](fast.parameters()), prior_of(fast).bind(fast), steps, ranking=ranking
    )
    plain = OPTIMIZERS[inner](slow.parameters())
    operations = prior_of(slow).bind(slow).partition(slow.parameters())
    rank = percentile_rank
    if ranking != "exact":  # of so few elements the sample is all

        def rank(squared):
            return percentile_rank(magnitude_bins(squared.sqrt()))

    for step in range(1, steps + 1):
        for network, optimizer in ((fast, wrapped), (slow, plain)):
            optimizer.zero_grad()
            backward(network, step)
        wrapped.step()
        srft_step_reference(plain, operations, step, steps, rank=rank)
        torch.testing.assert_close(weights(fast), weights(slow), rtol=1e-6, atol=1e-7)
