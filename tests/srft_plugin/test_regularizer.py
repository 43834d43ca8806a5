"""Every regularizer by name: what it does to a training step, and what it refuses."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from srft_plugin import SRFT, Prior, UserError
from srft_plugin.tuning.anchored import DiagonalFisher
from srft_plugin.tuning.regularizer import (
    REGULARIZERS,
    make_regularizer,
    prior_kind,
    read_options,
    regularizer_names,
    takes,
)

from .small import prior_of

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "regularizers.md"


def network_and_prior():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    return network, prior_of(network, (0, 1))


def diagonal_prior(network):
    named = dict(network.named_parameters())
    spectra = {name: torch.rand(p.numel()) for name, p in named.items()}
    return DiagonalFisher(spectra, {name: [list(p.shape)] for name, p in named.items()})


class TwoTowers(nn.Sequential):
    """The two halves of a network's output, as towers on one input."""

    def forward(self, x):
        return *super().forward(x).chunk(2, 1), 4.0


def build(name, total_steps=6):
    network, prior = network_and_prior()
    if prior_kind(name) is DiagonalFisher:
        prior = diagonal_prior(network)
    if name == "contrastive_wma":
        network = TwoTowers(*network)
    regularizer = make_regularizer(name, network, prior, total_steps)
    return network, regularizer.wrap_optimizer(AdamW(network.parameters())), regularizer


def step(network, optimizer, regularizer, seed):
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
    output = network(x)
    answer = torch.cat(output[:2]) if isinstance(output, tuple) else output
    loss = answer.square().mean() + regularizer.loss_term((x,), output)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    regularizer.after_step()


@pytest.mark.parametrize("name", REGULARIZERS)
def test_training_resumes_exactly(name):
    whole, first, second = build(name), build(name), build(name)
    for seed in range(6):
        step(*whole, seed)
    for seed in range(3):
        step(*first, seed)
    for ours, theirs in zip(second, first, strict=True):
        ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
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
    assert regularizer.loss_term((), None).item() == 0
    with torch.no_grad():
        for p in network.parameters():
            p += torch.randn_like(p)
    regularizer.loss_term((), None).backward()
    for n, p in network.named_parameters():
        expected = coefficients[n.partition(".")[0]] * (p.detach() - start[n])
        torch.testing.assert_close(p.grad, expected)


def test_a_package_adds_a_regularizer_by_an_entry_point(tmp_path, monkeypatch):
    """The example of the documentation, installed as a package."""
    code = re.search("```python\n(# halving.py\n.*?)```", DOCUMENT.read_text("utf-8"), re.S)
    (tmp_path / "halving.py").write_text(code[1])
    info = tmp_path / "halving-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: halving\nVersion: 1.0\n")
    lines = ["[srft.regularizers]", "halving = halving:make", "typo = halving:mak", "gone = no:f"]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    assert "halving" in regularizer_names()
    network, _ = network_and_prior()
    options = read_options("halving", ("share=0.25",))
    assert options == {"share": 0.25} and prior_kind("halving") is None
    regularizer = make_regularizer("halving", network, **options)
    before = network[0].weight.detach().clone()
    network[0].weight.data.add_(1)
    regularizer.after_step()
    torch.testing.assert_close(network[0].weight.detach(), before + 0.75)
    with pytest.raises(UserError, match="did you mean 'share'"):
        make_regularizer("halving", network, shape=1)
    for name, message in (("typo", "no attribute 'mak'"), ("gone", "No module named 'no'")):
        with pytest.raises(UserError, match=f"{name} of halving cannot be loaded.*{message}"):
            make_regularizer(name, network)


def test_a_penalty_on_nothing_is_refused():
    network, prior = network_and_prior()
    fresh = Prior({name: torch.empty(0).double() for name in prior.spectra}, prior.shapes)
    with pytest.raises(UserError, match="the penalty would tie nothing"):
        make_regularizer("ewc", network, fresh)
    with pytest.raises(UserError, match="the penalty would tie nothing"):
        make_regularizer("l2sp", network.requires_grad_(False))


def test_the_state_of_a_penalty_on_other_parameters_is_refused():
    network, _ = network_and_prior()
    state = make_regularizer("l2sp", network).state_dict()
    network[0].requires_grad_(False)
    with pytest.raises(UserError, match="state is of 4 other parameters than the 2 it ties"):
        make_regularizer("l2sp", network).load_state_dict(state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dropout",), "unknown regularizer 'dropout'. Known: none, srft"),
        (("trace",), "did you mean 'tracer'"),
        (("srft", None, 5), "srft needs a prior"),
        (("effective", None, 5), "effective needs a prior"),
        (("srft:transfer",), "srft:transfer needs the total number of optimizer steps"),
        (("tracer",), "tracer needs the total number of optimizer steps"),
        (("ewc",), "ewc needs a prior"),
        (("ewc:diagonal",), "ewc:diagonal needs a prior"),
    ],
)
def test_what_is_missing_is_named(arguments, message):
    network, _ = network_and_prior()
    with pytest.raises(UserError, match=message):
        make_regularizer(arguments[0], network, *arguments[1:])


@pytest.mark.parametrize("name", ["ewc", "ewc:diagonal", "srft:random", "effective"])
def test_prior_of_another_network_is_refused(name):
    network, prior = network_and_prior()
    if name == "ewc:diagonal":
        prior = diagonal_prior(network)
    network[2] = nn.Linear(8, 3)
    with pytest.raises(UserError, match="prior is of another network.*of another shape"):
        make_regularizer(name, network, prior, 5)


def test_the_two_priors_of_ewc_are_told_apart():
    network, prior = network_and_prior()
    with pytest.raises(UserError, match="needs one of single parameters"):
        make_regularizer("ewc:diagonal", network, prior)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("l2sp", {"coefficient": -1}, "coefficient of the penalty is -1"),
        ("tracer", {"coefficient": -1}, "coefficient is -1; expected at least 0"),
        ("tracer", {"crd": -2}, "crd is -2; expected at least 0"),
        ("tracer", {"beta": 0}, "beta is 0; expected more than 0"),
        ("tracer", {"beta": -0.5}, "beta is -0.5; expected more than 0"),
        ("tracer", {"temperature": 0}, "temperature is 0"),
        ("tracer", {"warmup": 2}, "warmup is 2"),
        ("tracer", {"average": "sma"}, "unknown average 'sma'; did you mean 'wma'"),
        ("tracer:ema", {"every": 0}, "every is 0; expected at least 1"),
        ("srft:random", {"kappa": 2}, "kappa is 2"),
        ("srft", {"kappa": 2}, "kappa is 2"),
        # what only a teacher has
        ("none", {"coefficient": 1}, "none has no option 'coefficient'; l2sp, ewc.*tracer.* have"),
        ("l2sp", {"temperature": 1}, "l2sp has no option 'temperature'; tracer.* have it"),
        ("tracer", {"temprature": 1}, "did you mean 'temperature'"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    network, prior = network_and_prior()
    with pytest.raises(UserError, match=message):
        make_regularizer(name, network, prior, 6, **options)


def test_options_are_read_by_the_types_of_the_regularizer():
    texts = ("coefficient=0.5", "average=ema", "every=3", "icl=2")
    expected = {"coefficient": 0.5, "average": "ema", "every": 3, "icl": 2.0}
    assert read_options("tracer", texts) == expected
    assert read_options("none", ()) == {}
    for text, value in (("fused=true", True), ("fused=False", False)):
        assert read_options("srft", (text,)) == {"fused": value}
    assert takes("srft", "kappa") and not takes("tracer", "kappa")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tracer", "every=2.5", "tracer: every=2.5: expected int"),
        ("tracer", "icl=high", "tracer: icl=high: expected float"),
        ("tracer", "perspectives=all", "tracer: perspectives=all: expected Perspectives"),
        ("tracer", "coefficient", "'coefficient' of tracer: expected option=value"),
        ("tracer", "colefficient=1", "did you mean 'coefficient'"),
        ("srft", "coefficient=1", "srft has no option 'coefficient'"),
        ("srft", "fused=perhaps", "srft: fused=perhaps: expected true or false"),
    ],
)
def test_bad_texts_of_options_are_refused(name, text, message):
    with pytest.raises(UserError, match=message):
        read_options(name, (text,))


def test_network_must_suit_the_perspectives():
    network, _ = network_and_prior()
    x = torch.randn(3, 4)
    with pytest.raises(UserError, match="returns Tensor; contrastive_wma expects a tuple"):
        make_regularizer("contrastive_wma", network, None, 6).loss_term((x,), network(x))
    towers = TwoTowers(*network)
    with pytest.raises(UserError, match="returns tuple; without perspectives of its own"):
        make_regularizer("tracer", towers, None, 6).loss_term((x,), towers(x))
    with pytest.raises(UserError, match="icl cannot be had of this network, which gives crd"):
        make_regularizer("tracer", network, None, 6, icl=1).loss_term((x,), network(x))
