"""SRFT as a torch optimizer: states, schedulers, scalers, parameter groups, errors."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from srft_plugin import SRFT, UserError, bind_operations

from .small import OPTIMIZERS, backward, prior_of, small_network, train, weights


@pytest.mark.parametrize("inner", OPTIMIZERS)
def test_a_resumed_run_continues_exactly(inner, tmp_path):
    def build():
        network = small_network()
        optimizer = SRFT(
            OPTIMIZERS[inner](network.parameters()), prior_of(network).bind(network), 12
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
        return network, optimizer, scheduler

    def advance(network, optimizer, scheduler, steps, start):
        for seed in range(start, start + steps):
            train(network, optimizer, 1, seed)
            scheduler.step()

    whole = build()
    advance(*whole, 12, 0)
    first, second = build(), build()
    advance(*first, 5, 0)
    torch.save([part.state_dict() for part in first], tmp_path / "state.pt")
    for part, state in zip(second, torch.load(tmp_path / "state.pt"), strict=True):
        part.load_state_dict(state)
    assert second[1].steps == 5
    assert second[1].param_groups[0]["lr"] == first[1].param_groups[0]["lr"]
    advance(*second, 7, 5)
    assert torch.equal(weights(whole[0]), weights(second[0]))


def test_state_holds_prior_ranks_and_settings():
    network = small_network()
    bound = prior_of(network).bind(network)
    saved = SRFT(SGD(network.parameters(), lr=1.0), bound, 30, kappa=0.7, mode="prior")
    other = SRFT(SGD(network.parameters(), lr=1.0), bind_operations(network), 5, mode="transfer")
    other.load_state_dict(saved.state_dict())
    assert (other.total_steps, other.kappa, other.mode) == (30, 0.7, "prior")
    assert other.state_dict() == saved.state_dict()


def test_state_of_another_optimizer_is_refused():
    network = small_network()
    optimizer = SRFT(SGD(network.parameters(), lr=1.0), None, 5, mode="transfer")
    with pytest.raises(UserError, match="no 'srft' entry"):
        optimizer.load_state_dict(SGD(network.parameters(), lr=1.0).state_dict())
    state = optimizer.state_dict()
    state["srft"]["prior_ranks"].pop()
    with pytest.raises(UserError, match="of 5 parameters, the optimizer has 6"):
        optimizer.load_state_dict(state)
    by_layer = SRFT(SGD(network.parameters(), lr=1.0), bind_operations(network), 5, mode="transfer")
    with pytest.raises(UserError, match="ranked other parameters together"):
        optimizer.load_state_dict(by_layer.state_dict())


def test_schedulers_hooks_and_copies_see_an_optimizer():
    network = small_network()
    optimizer = SRFT(AdamW(network.parameters(), lr=1.0), None, 5, mode="transfer")
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=5)
    train(network, optimizer, 1)
    scheduler.step()
    assert calls == [1]
    assert optimizer.inner.param_groups[0]["lr"] == scheduler.get_last_lr()[0] != 1.0
    clone = copy.deepcopy(optimizer)
    clone.step()
    assert (clone.steps, optimizer.steps) == (2, 1)


def test_frozen_and_unused_parameters_stay_and_take_no_part():
    network = small_network()
    network[0].requires_grad_(False)
    frozen = network[0].weight.detach().clone()
    extra = nn.Parameter(torch.ones(3))
    optimizer = SRFT(AdamW([*network.parameters(), extra], lr=0.1), None, 5, mode="transfer")
    train(network, optimizer, 3)
    assert torch.equal(network[0].weight, frozen)
    assert torch.equal(extra, torch.ones(3))
    assert extra not in optimizer.state


def test_frozen_parameters_may_be_in_the_optimizer_but_not_be_unfrozen_unnoticed():
    """``AdamW(network.parameters())`` is the usual thing, whatever of the network is frozen."""
    network = small_network()
    network[0].requires_grad_(False)
    frozen = network[0].weight.detach().clone()
    bound = bind_operations(network)
    optimizer = SRFT(AdamW(network.parameters(), lr=0.1), bound, 5, mode="transfer")
    train(network, optimizer, 2)
    assert torch.equal(network[0].weight, frozen)
    assert optimizer.state_dict()["srft"]["operations"] == [-1, -1, 0, 0, 1, 1]
    network[0].requires_grad_(True)
    before = weights(network)
    with pytest.raises(UserError, match="2 parameters have a gradient and were frozen"):
        train(network, optimizer, 1)
    assert torch.equal(weights(network), before) and optimizer.steps == 2


def test_a_step_skipped_by_the_grad_scaler_does_not_advance_the_schedule():
    network = small_network()
    optimizer = SRFT(AdamW(network.parameters(), lr=0.1), None, 5, mode="transfer")
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = weights(network)
    for bad in (True, False):
        optimizer.zero_grad()
        loss = network(torch.ones(2, 6)).sum()
        scaler.scale(loss * float("inf") if bad else loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert optimizer.steps == int(not bad)
        assert torch.equal(weights(network), before) == bad


def test_several_groups_and_add_param_group():
    network = small_network()
    bound = prior_of(network).bind(network)
    optimizer = SRFT(SGD([{"params": network[0].parameters(), "lr": 1.0}], lr=0.1), bound, 9)
    optimizer.add_param_group({"params": network[3].parameters(), "lr": 0.0})
    before = weights(network[3])
    train(network, optimizer, 2)
    assert torch.equal(weights(network[3]), before)
    assert len(optimizer.param_groups) == 2
    assert len(optimizer.state_dict()["srft"]["prior_ranks"]) == 4
    with pytest.raises(UserError, match=r"shapes \(7,\)\) are unknown to the bound prior"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(7))]})
    assert len(optimizer.param_groups) == 2
    train(network, optimizer, 1)


def test_a_group_added_after_a_resume_leaves_the_loaded_ranks():
    def build(*values):
        network = small_network()
        bound = prior_of(network, values).bind(network)
        return network, SRFT(SGD(network[0].parameters(), lr=0.1), bound, 9)

    network, optimizer = build(1, 2, 3)
    optimizer.load_state_dict(build(3, 2, 1)[1].state_dict())
    optimizer.add_param_group({"params": network[3].parameters()})
    ranks = optimizer.state_dict()["srft"]["prior_ranks"]
    assert ranks == [1.0] * 4  # of the state, and of the bound prior


def test_closure_is_evaluated_once_with_gradients():
    network = small_network()
    optimizer = SRFT(SGD(network.parameters(), lr=0.1), None, 5, mode="transfer")
    calls = []

    def closure():
        calls.append(1)
        loss = network(torch.ones(2, 6)).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).requires_grad
    assert calls == [1]


def test_steps_after_the_last_keep_the_final_weights_with_a_warning():
    network = small_network()
    optimizer = SRFT(SGD(network.parameters(), lr=0.1), None, 2, mode="transfer")
    train(network, optimizer, 2)
    with pytest.warns(UserWarning, match="more than total_steps=2"):
        train(network, optimizer, 1)
    assert optimizer.steps == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kappa": 1.5}, "kappa is 1.5"),
        ({"total_steps": 0}, "total_steps is 0"),
        ({"max_sensitivity": 1.1}, "max_sensitivity is 1.1"),
        ({"mode": "posterior"}, "unknown mode 'posterior'; did you mean 'prior'"),
        ({"ranking": "guess"}, "unknown ranking 'guess'"),
        ({"prior": None}, "mode 'both' needs a prior"),
        ({"prior": bind_operations(small_network())}, "mode 'both' needs a prior"),
        ({"prior": prior_of(small_network()).bind(small_network())}, "unknown to the bound prior"),
    ],
)
def test_bad_settings_are_one_clear_error(change, message):
    network = small_network()
    arguments = {"prior": prior_of(network).bind(network), "total_steps": 5} | change
    with pytest.raises(UserError, match=message):
        SRFT(SGD(network.parameters(), lr=0.1), **arguments)


def test_optimizers_that_cannot_be_wrapped_are_refused():
    network = small_network()
    with pytest.raises(UserError, match="LBFGS"):
        SRFT(torch.optim.LBFGS(network.parameters()), None, 5, mode="transfer")
    table = nn.Embedding(5, 2, sparse=True)
    optimizer = SRFT(SGD(table.parameters(), lr=0.1), None, 5, mode="transfer")
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(UserError, match="sparse gradients"):
        optimizer.step()
    wave = nn.Parameter(torch.ones(5, dtype=torch.complex64))
    wave.grad = torch.ones_like(wave)
    with pytest.raises(UserError, match="complex gradients"):
        SRFT(SGD([wave], lr=0.1), None, 5, mode="transfer").step()


def test_a_compiled_step_is_the_plain_one():
    """Dynamo loses what an optimizer writes to itself: without care, t would stay at 0."""
    results = []
    for compiled in (False, True):
        network = small_network().double()
        inner = AdamW(network.parameters(), lr=0.01)
        optimizer = SRFT(inner, prior_of(network).bind(network), 4, kappa=1.0)
        step = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
        for seed in range(3):
            optimizer.zero_grad()
            backward(network, seed)
            step()
        assert optimizer.steps == 3
        results.append(weights(network))
    assert torch.equal(*results)


def test_a_compiled_network_trains_as_the_plain_one():
    """The prior is bound to the network itself; torch.compile keeps its parameters."""
    results = []
    for compiled in (False, True):
        network = small_network().double()
        bound = prior_of(network).bind(network)
        optimizer = SRFT(AdamW(network.parameters(), lr=0.01), bound, 3)
        run = torch.compile(network, backend="eager") if compiled else network
        train(run, optimizer, 3)
        results.append(weights(network))
    assert torch.equal(*results)
