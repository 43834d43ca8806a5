"""The exact leading eigenvalues against explicit per-sample gradients and eigendecompositions."""

import gc
import warnings

import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from torch import nn

from srft_plugin import UserError, estimate_prior, operation_groups
from srft_plugin.prior.capture import _Record


def explicit_spectrum(network, loss_fn, batches, members, top_k):
    """Eigenvalues of the mean outer product of gradients, each from its own backward pass."""
    named = dict(network.named_parameters())
    rows = []
    for batch in batches:
        for i in range(len(batch["target"])):
            sample = {key: value[i : i + 1] for key, value in batch.items()}
            loss = loss_fn(network, sample).sum()
            grads = torch.autograd.grad(loss, [named[m] for m in members])
            rows.append(torch.cat([g.flatten() for g in grads]))
    gradients = torch.stack(rows)
    fisher = gradients.mT @ gradients / len(gradients)
    values = torch.linalg.eigvalsh(fisher).flip(0)
    return values[:top_k]


def estimate(network, loss_fn, batches, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimate_prior(network, loss_fn, batches, **options)


def assert_exact(network, loss_fn, batches, top_k, groups=None, **options):
    """The estimate is the explicit decomposition, and nothing for the operation "unused"."""
    prior = estimate(network, loss_fn, iter(batches), groups=groups, top_k=top_k, **options)
    for name, members in (groups or operation_groups(network)).items():
        if name == "unused":
            assert len(prior.spectra[name]) == 0
            continue
        expected = explicit_spectrum(network, loss_fn, batches, members, top_k).cpu()
        torch.testing.assert_close(
            prior.spectra[name], expected, rtol=1e-6, atol=1e-9 * float(expected[0]), msg=name
        )


@pytest.mark.parametrize("memory", [1 << 32, 1])
@pytest.mark.parametrize("sizes", [(6,), (4, 3, 1)])
def test_spectra_equal_explicit_eigendecomposition(
    tracker, loss_fn, make_batch, sizes, memory, device
):
    tracker.to(device)
    batches = [
        {name: values.to(device) for name, values in make_batch(n, seed).items()}
        for seed, n in enumerate(sizes)
    ]
    kinds = {"patch", "position_z", "token", "blocks.1.qkv", "blocks.0.gamma", "head.1", "unused"}
    assert kinds <= set(operation_groups(tracker))
    assert_exact(tracker, loss_fn, batches, top_k=4, memory=memory)


def test_groups_that_join_and_split_layers(tracker, loss_fn, make_batch):
    groups = {
        "biases": ["blocks.0.qkv.bias", "out.bias"],
        "weight": ["blocks.0.qkv.weight"],
        "mixed": ["position_x", "patch.weight", "blocks.1.norm1.weight"],
    }
    assert_exact(tracker, loss_fn, [make_batch(5)], 3, groups)


class Awkward(nn.Module):
    """Uses its parameters in ways that hooks cannot take apart."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)  # weights used, not called
        self.tied = nn.Linear(4, 4)
        self.again = nn.Linear(4, 4)
        self.again.weight = self.tied.weight
        self.table = nn.Linear(4, 4)  # sees no samples
        self.rows = nn.Parameter(torch.randn(3, 4))
        self.shuffled = nn.Linear(4, 4)  # sees two rows per sample
        self.scale = nn.Parameter(torch.tensor(1.3))
        self.coder = nn.Linear(4, 6)  # called, and its weight used once more
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.pruned = nn.utils.prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5)
        self.patched = nn.Linear(4, 4, bias=False)
        self.patched.forward = lambda x: x + x @ self.patched.weight**2

    def forward(self, x):
        x = F.linear(self.coder(input=x).tanh(), self.coder.weight.mT)
        x = self.patched(self.pruned(self.normed(x)))
        x = self.again(self.tied(x)) + self.table(self.rows)
        y = self.attention(x, x, x)[0]
        x = self.shuffled(torch.cat([x, y])).tanh().chunk(2)
        return (x[0] * x[1]).sum((1, 2)) ** 2 * self.scale


def own_losses(network, batch):
    """Of a network that returns them."""
    return network(batch["x"])


def test_what_hooks_cannot_split_is_still_exact():
    torch.manual_seed(1)
    network = Awkward().double().eval()
    batch = {"x": torch.randn(5, 3, 4).double(), "target": torch.zeros(5)}
    assert_exact(network, own_losses, [batch], top_k=2)


class Coinciding(nn.Module):
    """Axes of other meanings as long as the batch: rows of a table, and tokens."""

    def __init__(self, n):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(n, 4))
        self.table = nn.Linear(4, 4)  # sees n rows, not n samples
        self.token = nn.Parameter(torch.randn(1, 4))
        self.place = nn.Parameter(torch.randn(n, 1))
        self.position = nn.Parameter(torch.randn(1, n, 4))  # meets the samples as it should
        self.vector = nn.Linear(n, 1)  # sees n features, and no axis of samples
        self.mix = nn.Linear(4, 4)
        self.n = n

    def forward(self, x):
        tokens = self.token.expand(self.n, -1) + self.place + self.table(self.rows).tanh()
        tokens = tokens * self.vector(self.rows[:, 0])
        x = self.mix(x + self.position + tokens) * tokens
        return x.sin().sum((1, 2)) ** 2


@pytest.mark.parametrize("sizes", [(3,), (3, 3), (3, 2), (2, 3)])
def test_axes_as_long_as_the_batch_are_not_taken_for_it(sizes):
    torch.manual_seed(2)
    network = Coinciding(3).double()
    batches = [{"x": torch.randn(n, 3, 4).double(), "target": torch.zeros(n)} for n in sizes]
    assert_exact(network, own_losses, batches, top_k=2)


class OneRead(nn.Module):
    """As many tokens as samples, and the answer reads one of them."""

    def __init__(self, n, place):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 4))
        self.places = nn.Parameter(torch.randn(n, 1))
        self.mix = nn.Linear(4, 4)  # sees tokens
        self.place = place

    def forward(self, x):
        tokens = self.mix(self.token + self.places)
        return (x + tokens)[:, self.place].sin().sum(1) ** 2


@pytest.mark.parametrize(("n", "place"), [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (4, 0)])
def test_a_token_in_either_half_is_not_taken_for_a_sample(n, place):
    torch.manual_seed(3)
    network = OneRead(n, place).double()
    batch = {"x": torch.randn(n, n, 4).double(), "target": torch.zeros(n)}
    assert_exact(network, own_losses, [batch], top_k=2)


def test_hooks_that_change_outputs_are_seen(tracker, loss_fn, make_batch):
    tracker.blocks[0].qkv.register_forward_hook(lambda module, args, output: 3 * output)
    assert_exact(tracker, loss_fn, [make_batch(4)], 2, {"qkv": ["blocks.0.qkv.weight"]})


def test_no_weight_gradient_is_formed():
    """The weights of layers take part in the graph only to have their uses counted."""
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    calls = []
    for p in network.parameters():
        p.register_hook(calls.append)
    estimate(network, lambda net, x: net(x).square().sum(1), [torch.ones(3, 4).double()], top_k=1)
    assert calls == []


def test_nothing_of_a_batch_is_kept(tracker, loss_fn, make_batch):
    """A record that is referred to by the hook of its own node would never be freed."""
    estimate_prior(tracker, loss_fn, [make_batch(4), make_batch(4)], top_k=8)
    gc.collect()
    assert not [o for o in gc.get_objects() if isinstance(o, _Record)]


def test_network_is_left_as_it_was(tracker, loss_fn, make_batch):
    tracker.train()
    tracker.out.requires_grad_(False)
    state = {k: v.clone() for k, v in tracker.state_dict().items()}
    estimate(tracker, loss_fn, [make_batch(4)], top_k=2)
    assert tracker.training and tracker.head.training
    assert not tracker.out.weight.requires_grad and tracker.patch.weight.requires_grad
    assert all(p.grad is None for p in tracker.parameters())
    assert all(torch.equal(state[k], v) for k, v in tracker.state_dict().items())
    assert not tracker.patch._forward_hooks


def test_operation_that_the_loss_ignores_has_no_prior_and_is_named(tracker, loss_fn, make_batch):
    with pytest.warns(UserWarning, match="unused"):
        prior = estimate_prior(tracker, loss_fn, [make_batch(4)], top_k=2)
    assert len(prior.spectra["unused"]) == 0
    assert "unused" not in prior.sensitivity()


def test_bfloat16_autocast_is_close_to_float32(tracker, loss_fn, make_batch):
    tracker.float()
    batch = make_batch(8, dtype=torch.float32)

    def autocast_loss(network, b):
        with torch.autocast("cpu", torch.bfloat16):
            return loss_fn(network, b)

    exact = estimate(tracker, loss_fn, [batch], top_k=3).sensitivity()
    close = estimate(tracker, autocast_loss, [batch], top_k=3).sensitivity()
    for name, value in exact.items():
        assert close[name] == pytest.approx(value, rel=0.25), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_in_half_precision_is_close_to_float32(dtype):
    """Also where squared gradients exceed float16, and for what is differentiated by sample."""
    torch.manual_seed(3)
    norm = nn.BatchNorm1d(5)
    norm.running_mean.normal_()
    network = nn.Sequential(
        nn.Embedding(7, 4), nn.Conv1d(3, 5, 1), norm, nn.Flatten(), nn.Linear(20, 1)
    )
    batch = torch.randint(7, (12, 3))

    def loss_fn(net, b):
        return 4000 * net(b)[:, 0].float().square()

    exact = estimate(network, loss_fn, [batch], top_k=3).sensitivity()
    close = estimate(network.to(dtype), loss_fn, [batch], top_k=3).sensitivity()
    assert exact["0"] > torch.finfo(torch.float16).max
    assert close == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batches": []}, "no batches"),
        ({"top_k": 9}, "top_k is 9 but the batches hold 4 samples"),
        ({"top_k": 0}, "top_k is 0"),
        ({"rho": 1e-3}, "unknown option of fisher 'rho'. Known: memory, distributed"),
        ({"distributed": True}, "needs torch.distributed.init_process_group"),
        ({"groups": {"a": ["out.weigth"]}}, "groups name out.weigth, which"),
        ({"groups": {"a": ["token"], "b": ["token"]}}, "token is in more than one group"),
        ({"method": "guess"}, "unknown method for the prior 'guess'.*fisher"),
        ({"loss_fn": lambda net, b: net(b["template"], b["search"])}, r"returned \(4, 4\)"),
        (
            {"loss_fn": lambda net, b: net(b["template"], b["search"]).sum(1) / 0.0},
            "loss of sample 0 of a batch of 4 is",
        ),
        (
            {"loss_fn": lambda net, b: net(b["template"], b["search"]).sum(1).detach()},
            "no parameter of the network a gradient",
        ),
    ],
)
def test_bad_input_is_one_clear_error(tracker, loss_fn, make_batch, change, message):
    arguments = {"loss_fn": loss_fn, "batches": [make_batch(4)], "top_k": 2} | change
    with pytest.raises(UserError, match=message):
        estimate(tracker, **arguments)


@pytest.mark.parametrize("method", ["fisher", "lanczos", "finite_difference"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_sample(tracker, loss_fn, make_batch, method, value):
    good, bad = make_batch(4, 0), make_batch(3, 1)
    bad["target"][2] = value
    with pytest.raises(UserError, match=r"sample 2 of a batch of 3 is (nan|inf)"):
        estimate(tracker, loss_fn, [good, bad], method=method, top_k=2)


@pytest.mark.parametrize("method", ["fisher", "lanczos", "finite_difference"])
def test_a_batch_without_samples_is_refused(tracker, loss_fn, make_batch, method):
    with pytest.raises(UserError, match="a batch for the prior holds no samples"):
        estimate(tracker, loss_fn, [make_batch(4), make_batch(0)], method=method, top_k=2)


def test_gradients_that_are_not_finite_name_their_operation():
    network = nn.Linear(2, 1, bias=False).double()

    def loss_fn(net, x):
        return (net(x) - net(x)).squeeze(1).abs().sqrt()  # 0, with an infinite slope

    with pytest.raises(UserError, match="losses are finite but their gradients in Linear are not"):
        estimate(network, loss_fn, [torch.ones(3, 2).double()], top_k=1)
