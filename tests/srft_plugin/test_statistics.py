"""Logged statistics against a direct computation over the concatenated gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, AdamW

from srft_plugin import SRFT, bind_operations
from srft_plugin.statistics import gradient_statistics
from srft_plugin.transfer import sparsity


def two_rates(scale=1.0):
    torch.manual_seed(0)
    layers = nn.Linear(7, 50), nn.Linear(50, 3)
    for p in (*layers[0].parameters(), *layers[1].parameters()):
        p.grad = scale * torch.randn_like(p) ** 3
    groups = [{"params": layers[0].parameters()}, {"params": layers[1].parameters(), "lr": 0.5}]
    return layers, SGD(groups, lr=0.01)


@pytest.mark.parametrize("scale", [1.0, 1e-12])
def test_statistics_equal_those_of_the_concatenated_gradient(scale):
    layers, optimizer = two_rates(scale)
    gradients = [torch.cat([p.grad.flatten() for p in layer.parameters()]) for layer in layers]
    found = gradient_statistics(optimizer, sigma=0.3)
    expected = sparsity(torch.cat(gradients))
    torch.testing.assert_close(found["gradient_sparsity"], expected, rtol=1e-5, atol=0)
    scaled = torch.cat([0.01 * gradients[0], 0.5 * gradients[1]])
    expected = (2 * 0.3**2) ** 0.5 * scaled.double().norm()
    torch.testing.assert_close(found["adaptation_risk"], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_statistics_of_a_large_gradient_are_not_rounded_off(dtype):
    p = nn.Parameter(torch.zeros(1 << 22, dtype=dtype))
    p.grad = torch.full_like(p, 0.1)
    found = gradient_statistics(SGD([p], lr=1.0))
    assert found["gradient_sparsity"].item() == pytest.approx(1, rel=3e-4)
    expected = 2**0.5 * 2**11 * p.grad[0].item()
    assert found["adaptation_risk"].item() == pytest.approx(expected, rel=3e-4)


@given(st.floats(0.01, 1), st.floats(0.01, 1))
def test_risk_is_proportional_to_the_gradient_norm(rate, sigma):
    p = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    p.grad = torch.tensor([3.0, 4.0], dtype=torch.float64)
    found = gradient_statistics(SGD([p], lr=rate), sigma=sigma)["adaptation_risk"].item()
    assert found == pytest.approx(rate * sigma * 2**0.5 * 5)


def test_no_gradients_no_statistics():
    layers, optimizer = two_rates()
    optimizer.zero_grad()
    assert gradient_statistics(optimizer) == {}
    layers[1].bias.grad = torch.tensor([0.0, -2.0, 0.0])
    assert gradient_statistics(optimizer)["gradient_sparsity"].item() == pytest.approx(3**-0.5)


@pytest.mark.parametrize("ranking", ["exact", "histogram"])
@pytest.mark.parametrize("mode", ["both", "prior", "transfer"])
def test_mean_sensitivity_is_that_of_the_step(mode, ranking, monkeypatch):
    """Under SGD with rate one, an update is -(1 - s) g: its share of -g shows every s."""
    monkeypatch.setattr("srft_plugin.ranking.EXACT_ELEMENTS", 0)
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(9, 40), nn.Tanh(), nn.Linear(40, 5), nn.Linear(5, 2)).double()
    network[3].bias.requires_grad_(False)
    bound = bind_operations(network)
    bound.ranks.update({"0": 0.9, "2": 0.2})  # "3" has no prior
    trained = [p for p in network.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    for p in trained:
        p.grad = torch.randn_like(p)
    optimizer = SRFT(SGD(trained, lr=1.0), bound, 10, kappa=0.8, mode=mode, ranking=ranking)
    optimizer.step()
    shares = torch.cat([((p - b) / p.grad).flatten() for p, b in zip(trained, before, strict=True)])
    assert optimizer.mean_sensitivity() == pytest.approx((1 + shares).mean().item(), abs=1e-6)


def test_mean_sensitivity_before_any_step_and_without_gradients():
    network = nn.Linear(3, 2)
    optimizer = SRFT(AdamW(network.parameters()), None, 10, mode="transfer")
    assert optimizer.mean_sensitivity() == 0.0
    for p in network.parameters():
        p.grad = torch.ones_like(p)
    assert optimizer.mean_sensitivity() == pytest.approx(0.99 / 2)
