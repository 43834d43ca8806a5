"""The controls of SRFT: as strong as it, with other sensitivities."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from srft_plugin import SRFT
from srft_plugin.reference import srft_step_reference
from srft_plugin.transfer import percentile_rank
from srft_plugin.tuning.regularizer import make_regularizer

from ..small import prior_of

STEPS, KAPPA = 5, 0.7


def problem():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2)).double()
    return network, prior_of(network, (0, 1))


def set_gradients(network, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in network.parameters():
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)


def movements(network, optimizer):
    """How far a step of plain gradient descent moves each element, as a share of its gradient."""
    shares = []
    for step in range(STEPS):
        before = [p.detach().clone() for p in network.parameters()]
        set_gradients(network, step)
        optimizer.step()
        shares.append(
            [((b - p) / p.grad).detach() for b, p in zip(before, network.parameters(), strict=True)]
        )
    return shares


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def controlled(name):
    network, prior = problem()
    regularizer = make_regularizer(name, network, prior, STEPS, kappa=KAPPA)
    return movements(network, regularizer.wrap_optimizer(SGD(network.parameters(), 1.0)))


def real():
    network, prior = problem()
    inner = SGD(network.parameters(), 1.0)
    optimizer = SRFT(inner, prior.bind(network), STEPS, KAPPA, ranking="exact")
    return movements(network, optimizer)


def test_effective_moves_all_by_the_mean_of_a_real_run():
    for ours, theirs in zip(controlled("effective"), real(), strict=True):
        ours = flat(ours)
        torch.testing.assert_close(ours, torch.full_like(ours, flat(theirs).mean().item()))


def test_effective_is_the_optimizer_at_a_smaller_rate():
    """AdamW with decay: an update scaled is the whole update at a scaled rate."""
    network, prior = problem()
    regularizer = make_regularizer("effective", network, prior, STEPS, kappa=0.5)
    optimizer = regularizer.wrap_optimizer(AdamW(network.parameters(), 0.1, weight_decay=0.3))
    other, _ = problem()
    # kappa 0.5: 1 - 0.99 (m + 1/2) / 2 throughout; the second of two operations has rank 1
    sizes = [sum(p.numel() for p in other[i].parameters()) for i in (0, 2)]
    share = 1 - 0.99 * (sizes[1] / sum(sizes) + 0.5) / 2
    plain = AdamW(other.parameters(), 0.1 * share, weight_decay=0.3)
    for seed in range(STEPS):
        for net, optim in ((network, optimizer), (other, plain)):
            set_gradients(net, seed)
            optim.step()
    for p, q in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_random_has_the_sensitivities_of_srft_in_another_order():
    ours, theirs = controlled("srft:random"), real()
    for step, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        for layer in (slice(0, 2), slice(2, 4)):  # weight and bias of each
            sorted_ours, sorted_theirs = flat(one[layer]).sort()[0], flat(other[layer]).sort()[0]
            torch.testing.assert_close(sorted_ours, sorted_theirs, rtol=0, atol=1e-6)
            assert not torch.allclose(flat(one[layer]), flat(other[layer]), atol=1e-3), step
    assert not torch.allclose(flat(ours[0]).argsort(), flat(ours[1]).argsort())


@pytest.mark.parametrize(
    ("name", "prior_rank", "rank"),
    [
        ("srft:reversed", lambda r: 1 - r, lambda squared: 1 - percentile_rank(squared)),
        (
            "srft:indexed",
            lambda r: r,
            lambda squared: squared.argsort() / (len(squared) - 1),
        ),
    ],
)
def test_reversed_and_indexed_against_the_written_out_step(name, prior_rank, rank):
    network, prior = problem()
    operations = [
        (members, prior_rank(r))
        for members, r in prior.bind(network).partition(network.parameters())
    ]
    optimizer = SGD(network.parameters(), 1.0)
    expected = []
    for step in range(STEPS):
        before = [p.detach().clone() for p in network.parameters()]
        set_gradients(network, step)
        srft_step_reference(optimizer, operations, step + 1, STEPS, KAPPA, rank=rank)
        expected.append(
            [(b - p) / p.grad for b, p in zip(before, network.parameters(), strict=True)]
        )
    for ours, theirs in zip(controlled(name), expected, strict=True):
        torch.testing.assert_close(flat(ours), flat(theirs), rtol=0, atol=1e-6)


def test_parameters_without_a_gradient_stay():
    network, prior = problem()
    regularizer = make_regularizer("srft:random", network, prior, STEPS)
    optimizer = regularizer.wrap_optimizer(SGD(network.parameters(), 1.0))
    before = [p.detach().clone() for p in network.parameters()]
    set_gradients(network, 0)
    network[0].weight.grad = None
    optimizer.step()
    moved = [not torch.equal(b, p) for b, p in zip(before, network.parameters(), strict=True)]
    assert moved == [False, True, True, True]


@pytest.mark.parametrize("name", ["srft:reversed", "effective"])
def test_a_step_that_is_taken_back_leaves_the_schedule_as_it_was(name):
    networks = []
    for skipped in (0, 2):
        network, prior = problem()
        regularizer = make_regularizer(name, network, prior, STEPS, kappa=KAPPA)
        optimizer = regularizer.wrap_optimizer(SGD(network.parameters(), 1.0))
        for _ in range(skipped):  # what a skipped step looks like: nothing moves
            network.zero_grad()
            optimizer.step()
        regularizer.take_back(skipped)
        for seed in range(2):
            set_gradients(network, seed)
            optimizer.step()
        networks.append(flat(network.parameters()))
    assert torch.equal(*networks)
