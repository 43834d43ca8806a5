"""The fused step of AdamW against the reference, and what it shares with torch's own."""

import os
import shutil

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from srft_plugin import SRFT, UserError
from srft_plugin.kernels import COMPILER
from srft_plugin.reference import srft_step_reference

from .small import backward, bound_to, groups_of, rank_of_bins, small_network


@pytest.fixture
def uncompiled(monkeypatch):
    """Run the function that would be compiled: the same numbers, at once, without a compiler."""
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("srft_plugin.kernels.compiled", lambda function: function)
    monkeypatch.setattr("srft_plugin.ranking.EXACT_ELEMENTS", 0)


def check_lock_step(mode="both"):
    steps = 100
    fast, slow = small_network().double(), small_network().double()
    wrapped = SRFT(AdamW(groups_of(fast)), bound_to(fast), steps, mode=mode, fused=True)
    plain = AdamW(groups_of(slow))
    operations = bound_to(slow).partition(slow.parameters())
    for step in range(1, steps + 1):
        for network, optimizer in ((fast, wrapped), (slow, plain)):
            optimizer.zero_grad()
            backward(network, step)
        wrapped.step()
        if mode == "prior":
            srft_step_reference(plain, operations, 0, steps, kappa=1.0)
        else:
            srft_step_reference(plain, operations, step, steps, rank=rank_of_bins)
        for p, q in zip(fast.parameters(), slow.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
    for p, q in zip(fast.parameters(), slow.parameters(), strict=True):
        assert wrapped.state[p]["step"] == plain.state[q]["step"] == steps
        for key in ("exp_avg", "exp_avg_sq"):
            found, expected = wrapped.state[p][key], plain.state[q][key]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("mode", ["both", "prior"])
def test_lock_step_with_the_reference(uncompiled, mode):
    check_lock_step(mode)


@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", COMPILER)), reason="no C++ compiler")
def test_the_compiled_kernel_in_lock_step_with_the_reference(monkeypatch):
    monkeypatch.setattr("srft_plugin.ranking.EXACT_ELEMENTS", 0)
    check_lock_step()


def test_large_operations_alone_are_fused(uncompiled, monkeypatch):
    calls = []
    monkeypatch.setattr("srft_plugin.ranking.EXACT_ELEMENTS", 1 << 12)
    monkeypatch.setattr(
        "srft_plugin.kernels.compiled", lambda f: lambda *a: calls.append(len(a[0]))
    )
    network = nn.Sequential(nn.Linear(80, 60), nn.Linear(60, 2))
    optimizer = SRFT(AdamW(network.parameters()), None, 5, mode="transfer", fused=True)
    for _ in range(3):  # the first step is AdamW's own: it makes the state
        for p in network.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
    assert calls == [4800] * 2


def test_a_state_is_exchanged_with_the_optimizer_itself(uncompiled):
    """Fused or not, the state is AdamW's: a run may go on either way."""
    results = []
    for order in ((True, False), (False, True)):
        network, state = small_network().double(), None
        for index, fused in enumerate(order):
            optimizer = SRFT(AdamW(groups_of(network)), bound_to(network), 6, fused=fused)
            if state is not None:
                optimizer.load_state_dict(state)
            for seed in range(3):
                optimizer.zero_grad()
                backward(network, 3 * index + seed)
                optimizer.step()
            state = optimizer.state_dict()
        results.append([p.detach() for p in network.parameters()])
    for p, q in zip(*results, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_is_flagged_leaves_all_as_it_is(uncompiled, fused):
    """``found_inf``, as torch's fused AdamW reads it: no value of the host is involved."""
    network = small_network().double()
    inner = AdamW(network.parameters(), lr=0.1, fused=True)
    optimizer = SRFT(inner, bound_to(network), 5, fused=fused)
    backward(network, 0)
    optimizer.step()
    state = {
        p: [t.clone() for t in (p, *optimizer.state[p].values())] for p in network.parameters()
    }
    for p in network.parameters():
        p.grad.fill_(float("nan"))
    inner.found_inf = torch.ones(())
    optimizer.step()
    for p, before in state.items():
        for found, expected in zip((p, *optimizer.state[p].values()), before, strict=True):
            assert torch.equal(found, expected)
    inner.found_inf = torch.zeros(())
    optimizer.zero_grad()
    backward(network, 1)
    optimizer.step()
    assert all(not torch.equal(p, before[0]) for p, before in state.items())
    optimizer.take_back(1)  # the caller's word that a step was skipped
    assert optimizer.steps == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda ps: SGD(ps, lr=0.1), "plain AdamW, not SGD; leave fused out"),
        (lambda ps: AdamW(ps, amsgrad=True), "not AdamW with amsgrad"),
        (lambda ps: AdamW(ps, maximize=True), "not AdamW with maximize"),
    ],
)
def test_only_plain_adamw_is_fused(uncompiled, make, message):
    network = small_network().double()
    with pytest.raises(UserError, match=message):
        SRFT(make(network.parameters()), None, 5, mode="transfer", fused=True)


@pytest.mark.parametrize("option", ["amsgrad", "maximize"])
def test_a_state_or_group_that_makes_it_another_adamw_is_refused(uncompiled, option):
    network, other = small_network().double(), small_network().double()
    loaded = SRFT(AdamW(network.parameters()), None, 5, mode="transfer", fused=True)
    plain = SRFT(AdamW(other.parameters(), **{option: True}), None, 5, mode="transfer")
    loaded.load_state_dict(plain.state_dict())
    added = SRFT(AdamW(network[0].parameters()), None, 5, mode="transfer", fused=True)
    added.add_param_group({"params": network[3].parameters(), option: True})
    backward(network, 1)
    for optimizer in (loaded, added):
        with pytest.raises(UserError, match=f"not AdamW with {option}; leave fused out"):
            optimizer.step()


def test_a_machine_without_a_compiler_is_told(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setenv("CXX", "c++-13")
    with pytest.raises(UserError, match=r"C\+\+ compiler on a CPU and there is no c\+\+-13"):
        SRFT(AdamW(small_network().double().parameters()), None, 5, mode="transfer", fused=True)


def test_half_precision_takes_the_general_path(monkeypatch, uncompiled):
    monkeypatch.setattr("srft_plugin.kernels.adamw_update", None)  # must not be called
    results = []
    for fused in (False, True):
        network = small_network().double().bfloat16()
        optimizer = SRFT(AdamW(network.parameters()), bound_to(network), 3, fused=fused)
        for seed in range(3):
            optimizer.zero_grad()
            backward(network, seed)
            optimizer.step()
        results.append([p.detach() for p in network.parameters()])
    assert all(torch.equal(p, q) for p, q in zip(*results, strict=True))
