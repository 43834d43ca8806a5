"""SRFT against its reference, and its interplay with everything around an optimizer."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW

from srft_plugin import SRFT, Prior, UserError, bind_operations, operation_groups
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
