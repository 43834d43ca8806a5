"""Every regularizer by name: what it does to a training step, and what it refuses."""

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from srft_plugin import SRFT, Prior, UserError, operation_groups
from srft_plugin.tuning.regularizer import REGULARIZERS, make_regularizer, regularizer_names


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
    ("name", "coefficients"), [("l2sp", {"0": 0.3, "2": 0.3}), ("ewc", {"0": 0.0, "2": 0.3})]
)
def test_penalties_against_the_formula_written_out(name, coefficients):
    network, prior = network_and_prior()  # s^p is 0 for the first layer and 1 for the last
    start = {n: p.detach().clone() for n, p in network.named_parameters()}
    regularizer = make_regularizer(name, network, prior, coefficient=0.3)
    assert regularizer.loss_term().item() == 0
    with torch.no_grad():
        for p in network.parameters():
            p += torch.randn_like(p)
    regularizer.loss_term().backward()
    for n, p in network.named_parameters():
        expected = coefficients[n.partition(".")[0]] * (p.detach() - start[n])
        torch.testing.assert_close(p.grad, expected)


def test_a_package_adds_a_regularizer_by_an_entry_point(tmp_path, monkeypatch):
    (tmp_path / "halving.py").write_text(
        "from srft_plugin.tuning.regularizer import Regularizer\n"
        "class Halving(Regularizer):\n"
        "    def __init__(self, network): self.network = network\n"
        "    def after_step(self):\n"
        "        for p in self.network.parameters(): p.data.mul_(0.5)\n"
        "def make(network, prior, total_steps, **options): return Halving(network)\n"
    )
    info = tmp_path / "halving-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: halving\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[srft.regularizers]\nhalving = halving:make\n")
    monkeypatch.syspath_prepend(tmp_path)
    network, _ = network_and_prior()
    before = network[0].weight.detach().clone()
    make_regularizer("halving", network).after_step()
    assert torch.equal(network[0].weight, before / 2)
    assert "halving" in regularizer_names()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dropout",), "unknown regularizer 'dropout'; known: none, srft"),
        (("srft", None, 5), "srft needs a prior"),
        (("srft:transfer",), "total number of optimizer steps"),
        (("ewc",), "ewc needs a prior"),
    ],
)
def test_what_is_missing_is_named(arguments, message):
    network, _ = network_and_prior()
    with pytest.raises(UserError, match=message):
        make_regularizer(arguments[0], network, *arguments[1:])


def test_a_negative_coefficient_is_refused():
    network, _ = network_and_prior()
    with pytest.raises(UserError, match="coefficient of the penalty is -1"):
        make_regularizer("l2sp", network, coefficient=-1)
