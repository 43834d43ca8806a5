"""The update of SRFT against its reference: modes, ranks, and parameters of every kind."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW

from srft_plugin import SRFT, bind_operations, operation_groups
from srft_plugin.reference import srft_step_reference
from srft_plugin.transfer import percentile_rank

from .small import OPTIMIZERS, backward, prior_of, rank_of_bins, small_network, train, weights


@pytest.mark.parametrize("inner", OPTIMIZERS)
@pytest.mark.parametrize("ranking", ["exact", "histogram", "sampled"])
def test_lock_step_with_the_reference(inner, ranking, monkeypatch):
    monkeypatch.setattr("srft_plugin.ranking.EXACT_ELEMENTS", 0)
    steps = 100
    # In float32 round-off swaps the ranks of near-equal gradients, and the trajectories part.
    fast, slow = small_network().double(), small_network().double()
    wrapped = SRFT(
        OPTIMIZERS[inner](fast.parameters()), prior_of(fast).bind(fast), steps, ranking=ranking
    )
    plain = OPTIMIZERS[inner](slow.parameters())
    operations = prior_of(slow).bind(slow).partition(slow.parameters())
    rank = percentile_rank if ranking == "exact" else rank_of_bins  # the sample is all of so few
    for step in range(1, steps + 1):
        for network, optimizer in ((fast, wrapped), (slow, plain)):
            optimizer.zero_grad()
            backward(network, step)
        wrapped.step()
        srft_step_reference(plain, operations, step, steps, rank=rank)
        torch.testing.assert_close(weights(fast), weights(slow), rtol=1e-6, atol=1e-7)


def test_scaling_the_gradient_instead_would_be_undone_by_adam():
    """The moment estimates divide the scale out again: 0.1 g moves Adam as far as g."""
    plain, scaled_gradient, scaled_update = (small_network().double() for _ in range(3))
    start = weights(plain)
    prior = {name: float(name == "3") for name in operation_groups(plain)}
    for network in (plain, scaled_gradient):
        optimizer = Adam(network.parameters(), lr=1e-3)
        for seed in range(20):
            optimizer.zero_grad()
            backward(network, seed)
            if network is scaled_gradient:
                for p in network.parameters():
                    p.grad *= 0.1
            optimizer.step()
    bound = prior_of(scaled_update, prior.values()).bind(scaled_update)
    bound.ranks.update(dict.fromkeys(bound.ranks, 1.0))
    inner = Adam(scaled_update.parameters(), lr=1e-3)
    train(scaled_update, SRFT(inner, bound, 20, max_sensitivity=0.9, mode="prior"), 20)
    moved = [(weights(n) - start).norm() for n in (plain, scaled_gradient, scaled_update)]
    assert moved[1] / moved[0] > 0.99
    assert moved[2] / moved[0] == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(("mode", "expected"), [("prior", "scalar"), ("transfer", "elementwise")])
def test_modes_of_table_iv(mode, expected):
    network = nn.Linear(4, 1, bias=False)
    start = network.weight.detach().clone()
    gradient = torch.tensor([[3.0, -1.0, 4.0, 2.0]])
    network.weight.grad = gradient.clone()
    bound = prior_of(network).bind(network)
    bound.ranks["Linear"] = 0.8
    optimizer = SRFT(SGD(network.parameters(), lr=1.0), bound, 10, mode=mode, max_sensitivity=0.5)
    optimizer.step()
    ranks = {"scalar": torch.full((4,), 0.8), "elementwise": torch.tensor([2, 0, 3, 1]) / 3}
    keep = 1 - 0.5 * ranks[expected]
    torch.testing.assert_close(network.weight.detach(), start - keep * gradient)


def test_ranks_are_taken_over_weight_and_bias_of_an_operation_together():
    network = nn.Linear(2, 2)
    bound = bind_operations(network)
    start = weights(network)
    network.weight.grad = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    network.bias.grad = torch.tensor([5.0, 6.0])
    SRFT(SGD(network.parameters(), lr=1.0), bound, 10, mode="transfer").step()
    ranks = torch.arange(6) / 5
    expected = start - (1 - 0.99 * ranks) * torch.arange(1.0, 7.0)
    torch.testing.assert_close(weights(network), expected)


def test_decoupled_weight_decay_is_part_of_the_scaled_update():
    network = nn.Linear(3, 1, bias=False)
    start = network.weight.detach().clone()
    network.weight.grad = torch.zeros(1, 3)  # rank 1/2 everywhere
    inner = AdamW(network.parameters(), lr=0.1, weight_decay=0.5)
    SRFT(inner, bind_operations(network), 10, mode="transfer").step()
    decayed = 1 - 0.1 * 0.5 * (1 - 0.99 / 2)
    torch.testing.assert_close(network.weight.detach(), start * decayed)


def test_clipping_and_loss_scale_do_not_change_ranks():
    """Ranks depend on the order of the gradients only, so scaling all of them changes nothing."""
    moved = []
    for scale in (1.0, 1e-4):
        network = small_network().double()
        start = weights(network)
        optimizer = SRFT(SGD(network.parameters(), lr=1.0), None, 5, mode="transfer")
        backward(network, 0)
        for p in network.parameters():
            p.grad *= scale
        optimizer.step()
        moved.append((weights(network) - start) / scale)
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-6, atol=1e-9)


def test_accumulated_gradients_equal_one_large_batch():
    results = []
    for parts in (1, 4):
        network = small_network().double()
        optimizer = SRFT(AdamW(network.parameters(), lr=0.01), prior_of(network).bind(network), 3)
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1)).double()
        for chunk in x.chunk(parts):
            (network(chunk).pow(2).sum() / 8).backward()
        optimizer.step()
        results.append(weights(network))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


def test_buckets_and_optimizers_of_other_makes_give_the_same_step(monkeypatch):
    class Foreign(AdamW):
        """Not one of those known to update each parameter on its own."""

    results = []
    for make, bucket in ((AdamW, 1), (AdamW, 1 << 22), (Foreign, 1)):
        monkeypatch.setattr("srft_plugin.update.BUCKET_ELEMENTS", bucket)
        network = small_network()
        inner = make(network.parameters(), lr=0.01)
        train(network, SRFT(inner, prior_of(network).bind(network), 4), 4)
        results.append(weights(network))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_column_major_weights_are_ranked_at_their_places(monkeypatch):
    monkeypatch.setattr("srft_plugin.ranking.EXACT_ELEMENTS", 0)
    results = []
    for transposed in (False, True):
        network = small_network().double()
        if transposed:
            weight = network[0].weight
            weight.data = weight.data.t().contiguous().t()
        train(network, SRFT(SGD(network.parameters(), lr=0.1), None, 3, mode="transfer"), 3)
        results.append(weights(network))
    torch.testing.assert_close(*results)


class Odd(nn.Module):
    """A shared weight, a scalar, an empty parameter, unused ones, weights and gradients that are
    not contiguous."""

    def __init__(self):
        super().__init__()
        self.first, self.again = nn.Linear(6, 90), nn.Linear(6, 90)
        self.again.weight = self.first.weight
        self.conv = nn.Conv2d(3, 30, 8).to(memory_format=torch.channels_last)
        self.last = nn.Linear(90, 8)
        self.last.weight = nn.Parameter(self.last.weight.detach().t().contiguous().t())
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.empty = nn.Parameter(torch.empty(0))
        self.unused = nn.Linear(3, 3)
        self.register_buffer("pattern", torch.randn(3, 9, 9))

    def forward(self, x):
        image = (x[:, :3, None, None] * self.pattern).to(memory_format=torch.channels_last)
        hidden = self.last((self.first(x) + self.again(x)).tanh())
        return hidden * self.scale + self.conv(image).square().mean() + self.empty.sum()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bucket", [1, 1 << 22])
def test_odd_parameters_against_the_reference(dtype, bucket, monkeypatch):
    monkeypatch.setattr("srft_plugin.update.BUCKET_ELEMENTS", bucket)
    torch.manual_seed(0)
    fast = Odd().to(dtype)
    slow = copy.deepcopy(fast)
    bound = prior_of(fast).bind(fast)
    wrapped = SRFT(AdamW(fast.parameters(), lr=1e-2), bound, 6, ranking="exact")
    plain = AdamW(slow.parameters(), lr=1e-2)
    for step in range(1, 4):
        for network, optimizer in ((fast, wrapped), (slow, plain)):
            optimizer.zero_grad()
            backward(network, step)
        wrapped.step()
        reached = [
            ([p for p in members if p.grad is not None], rank)
            for members, rank in prior_of(slow).bind(slow).partition(slow.parameters())
        ]
        srft_step_reference(plain, [o for o in reached if o[0]], step, 6)
    tolerance = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 0.03}[dtype]
    for (name, p), q in zip(fast.named_parameters(), slow.parameters(), strict=True):
        assert p.stride() == q.stride(), name
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance, msg=name)
