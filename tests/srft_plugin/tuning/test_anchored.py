"""EWC with the diagonal Fisher: the estimate sample by sample, the penalty against autograd."""

import pytest
import torch
from torch import nn

from srft_plugin.errors import UserError
from srft_plugin.tuning.anchored import DiagonalFisher, estimate_diagonal
from srft_plugin.tuning.regularizer import make_regularizer


def problem():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    network.register_parameter("unused", nn.Parameter(torch.zeros(2).double()))
    return network, torch.randn(6, 3).double()


def loss_fn(network, x):
    return network(x).square().sum(1)


@pytest.fixture
def fisher():
    network, x = problem()
    with pytest.warns(UserWarning, match="the loss does not depend on unused"):
        return estimate_diagonal(network, loss_fn, [x])


def test_diagonal_is_the_mean_of_squares_of_single_samples(fisher):
    network, x = problem()
    for name, p in network.named_parameters():
        if name == "unused":
            assert len(fisher.spectra[name]) == 0
            continue
        squares = [
            torch.autograd.grad(loss_fn(network, sample[None]).sum(), p)[0].square() for sample in x
        ]
        expected = torch.stack(squares).mean(0).float().flatten()
        torch.testing.assert_close(fisher.spectra[name], expected)


def test_batches_do_not_matter(fisher):
    network, x = problem()
    with pytest.warns(UserWarning):
        single = estimate_diagonal(network, loss_fn, x.split(1))
    for name, values in fisher.spectra.items():
        torch.testing.assert_close(single.spectra[name], values)
    assert single.metadata == fisher.metadata
    assert fisher.metadata["samples"] == "6"


def test_file_keeps_values_and_kind(fisher, tmp_path):
    fisher.save(tmp_path / "fisher.safetensors")
    loaded = DiagonalFisher.load(tmp_path / "fisher.safetensors").renamed(
        {name: name for name in fisher.spectra}
    )
    assert isinstance(loaded, DiagonalFisher)
    for name, values in fisher.spectra.items():
        assert torch.equal(loaded.spectra[name], values)


def test_penalty_against_the_formula_written_out(fisher):
    network, _ = problem()
    start = {n: p.detach().clone() for n, p in network.named_parameters()}
    regularizer = make_regularizer("ewc:diagonal", network, fisher, coefficient=0.3)
    assert regularizer.loss_term((), None).item() == 0
    with torch.no_grad():
        for p in network.parameters():
            p += torch.randn_like(p)
    named = dict(network.named_parameters())
    written_out = sum(
        0.15 * (fisher.spectra[n].view_as(p).double() * (p - start[n]) ** 2).sum()
        for n, p in named.items()
        if n != "unused"
    )
    term = regularizer.loss_term((), None)
    torch.testing.assert_close(term, written_out)
    ours = torch.autograd.grad(term, list(named.values()), allow_unused=True)
    theirs = torch.autograd.grad(written_out, list(named.values()), allow_unused=True)
    for name, one, other in zip(named, ours, theirs, strict=True):
        if name == "unused":
            assert one is None
        else:
            torch.testing.assert_close(one, other)


def test_no_copy_of_the_difference_is_kept():
    """Autograd would keep p - p_0 from the forward to the backward pass."""
    network, _ = problem()
    regularizer = make_regularizer("l2sp", network)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        regularizer.loss_term((), None)
    ours = {p.data_ptr() for p in (*network.parameters(), *regularizer.start)}
    assert kept and all(t.data_ptr() in ours for t in kept)


def test_samples_without_a_finite_loss_are_refused():
    network, x = problem()
    x[3] = float("nan")
    with pytest.raises(UserError, match="loss of sample 3 of a batch of 6 is nan"):
        estimate_diagonal(network, loss_fn, [x])
