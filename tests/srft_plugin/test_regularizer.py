"""Every regularizer by name: what it does to a training step, and what it refuses."""

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from srft_plugin import SRFT, Prior, UserError, operation_groups
from srft_plugin.tuning.regularizer import REGULARIZERS, make_regularizer


def network_and_prior():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    groups = operation_groups(network)
    shapes = {name: list(p.shape) for name, p in network.named_parameters()}
    spectra = {name: torch.tensor([float(i)]).double() for i, name in enumerate(groups)}
    return network, Prior(spectra, {g: [shapes[p] for p in ps] for g, ps in groups.items()})


def step(network, optimizer, regularizer, seed):
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
    loss = network(x).square().mean() + regularizer.loss_term()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    regularizer.after_step()


@pytest.mark.parametrize("name", REGULARIZERS)
def test_training_resumes_exactly(name):
    def build():
        network, prior = network_and_prior()
        regularizer = make_regularizer(name, network, prior, 6)
        return network, regularizer.wrap_optimizer(AdamW(network.parameters())), regularizer

    whole, first, second = build(), build(), build()
    for seed in range(6):
        step(*whole, seed)
    for seed in range(3):
        step(*first, seed)
    for ours, theirs in zip(second, first, strict=True):
        ours.load_state_dict(theirs.state_dict())
    for seed in range(3, 6):
        step(*second, seed)
    for p, q in zip(whole[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize(
    ("name", "mode"), [("srft", "both"), ("srft:prior", "prior"), ("srft:transfer", "transfer")]
)
def test_srft_names_select_the_mode(name, mode):
    network, prior = network_and_prior()
    inner = AdamW(network.parameters())
    optimizer = make_regularizer(name, network, prior, 6, kappa=0.7).wrap_optimizer(inner)
    assert isinstance(optimizer, SRFT)
    assert (optimizer.mode, optimizer.kappa, optimizer.total_steps) == (mode, 0.7, 6)


def test_none_leaves_the_optimizer_alone():
    network, _ = network_and_prior()
    optimizer = AdamW(network.parameters())
    assert make_regularizer("none", network).wrap_optimizer(optimizer) is optimizer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dropout",), "unknown regularizer 'dropout'; known: none, srft"),
        (("srft", None, 5), "srft needs a prior"),
        (("srft:transfer",), "total number of optimizer steps"),
    ],
)
def test_what_is_missing_is_named(arguments, message):
    network, _ = network_and_prior()
    with pytest.raises(UserError, match=message):
        make_regularizer(arguments[0], network, *arguments[1:])
