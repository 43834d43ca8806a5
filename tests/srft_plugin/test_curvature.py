"""Lanczos and Eq. 7 against explicit Hessians, and the bounds of Proposition 1."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from srft_plugin import UserError, estimate_prior


def explicit_hessian(network, batch, name):
    """Hessian of the mean loss in one parameter, entry by entry through autograd."""
    values = {n: p.detach() for n, p in network.named_parameters()}

    def mean_loss(flat):
        parameters = values | {name: flat.view_as(values[name])}
        return squared_error(lambda x: functional_call(network, parameters, x), batch).mean()

    return torch.autograd.functional.hessian(mean_loss, values[name].flatten())


def squared_error(network, batch):
    x, y = batch
    return (network(x) - y).square().sum(1)


def make_network():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    batches = [(torch.randn(n, 3).double(), torch.randn(n, 2).double()) for n in (7, 5)]
    return network, batches, tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


GROUPS = {"first": ["0.weight"], "last": ["2.weight"]}


def test_lanczos_finds_the_leading_eigenvalues_of_the_hessian():
    network, batches, whole = make_network()
    prior = estimate_prior(network, squared_error, batches, GROUPS, "lanczos", top_k=4)
    for group, (name,) in GROUPS.items():
        expected = torch.linalg.eigvalsh(explicit_hessian(network, whole, name)).flip(0)[:4]
        torch.testing.assert_close(prior.spectra[group], expected, rtol=1e-9, atol=1e-9)


class Named(nn.Module):
    """Returns what it computes in a dictionary, with something that needs no gradient."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return {"steps": 3, "scores": (self.inner(x), x)}


def quartic(network, batch):
    x, y = batch
    return ((network(x)["scores"][0] - y) ** 4).sum(1)


def explicit_ggn(network, batch, name):
    """J'HJ with J and H formed entry by entry."""
    x, y = batch
    values = {n: p.detach() for n, p in network.named_parameters()}

    def output(flat):
        parameters = values | {name: flat.view_as(values[name])}
        return functional_call(network, parameters, x)["scores"][0].flatten()

    flat = values[name].flatten()
    jacobian = torch.autograd.functional.jacobian(output, flat)
    curvature = torch.diag(12 * (output(flat) - y.flatten()) ** 2)
    return jacobian.T @ curvature @ jacobian / len(x)


def test_lanczos_finds_the_leading_eigenvalues_of_the_ggn():
    inner, batches, whole = make_network()
    network = Named(inner)
    groups = {"first": ["inner.0.weight"], "last": ["inner.2.weight"]}
    spectra = estimate_prior(
        network, quartic, batches, groups, "lanczos", top_k=4, curvature="ggn"
    ).spectra
    for group, (name,) in groups.items():
        expected = torch.linalg.eigvalsh(explicit_ggn(network, whole, name)).flip(0)[:4]
        torch.testing.assert_close(spectra[group], expected, rtol=1e-9, atol=1e-9)
        assert (spectra[group] >= -1e-12).all()


def test_ggn_of_unused_parameters_and_linear_losses():
    network = nn.ModuleDict({"a": nn.Linear(2, 3), "b": nn.Linear(1, 1)}).double()
    network.forward = lambda x: network["a"](x)

    def linear(net, x):
        return net(x).sum(1)

    x = torch.ones(4, 2).double()
    settings = {"method": "lanczos", "top_k": 2, "curvature": "ggn"}
    with pytest.warns(UserWarning, match="does not depend on b"):
        prior = estimate_prior(network, linear, [x], **settings)
    assert prior.spectra["a"].tolist() == [0.0, 0.0]
    assert len(prior.spectra["b"]) == 0
    with pytest.raises(UserError, match=r"call network\(\.\.\.\) in loss_fn"):
        estimate_prior(network, lambda net, x: net["a"](x).sum(1), [x], **settings)
    with pytest.raises(UserError, match="unknown curvature 'ggm'; did you mean 'ggn'"):
        estimate_prior(network, linear, [x], **settings | {"curvature": "ggm"})


def test_lanczos_with_repeated_eigenvalues_and_unused_parameters():
    network = nn.ModuleDict({"a": nn.Linear(1, 6, bias=False), "b": nn.Linear(1, 1)}).double()

    def loss_fn(net, batch):  # Hessian 2 I: the first Krylov space is invariant
        return net["a"].weight.square().sum() + batch * 0

    with pytest.warns(UserWarning, match="does not depend on b"):
        prior = estimate_prior(
            network, loss_fn, [torch.zeros(3).double()], method="lanczos", top_k=2
        )
    assert prior.spectra["a"].tolist() == pytest.approx([2.0, 2.0])
    assert len(prior.spectra["b"]) == 0


def test_an_operation_without_elements_has_no_prior():
    network, batches, _ = make_network()
    network.none = nn.Parameter(torch.empty(0, 3, dtype=torch.float64))
    for method in ("fisher", "lanczos", "finite_difference"):
        with pytest.warns(UserWarning, match="does not depend on z"):
            prior = estimate_prior(
                network, squared_error, batches, GROUPS | {"z": ["none"]}, method
            )
        assert {"first", "last"} <= prior.spectra.keys()
        assert len(prior.spectra.get("z", ())) == 0


@pytest.mark.parametrize("curvature", ["hessian", "ggn"])
def test_an_operation_that_some_batches_do_not_reach_has_their_zeros(curvature):
    torch.manual_seed(0)
    paths = nn.ModuleDict({"a": nn.Linear(3, 1), "b": nn.Linear(3, 1)}).double()
    network = Chosen(paths)
    batches = [(torch.randn(n, 3).double(), path) for n, path in ((6, "a"), (4, "b"))]
    prior = estimate_prior(
        network, lambda net, batch: net(*batch) ** 2, batches, None, "lanczos", 4,
        curvature=curvature,
    )  # fmt: skip
    for x, path in batches:
        rows = torch.cat([x, torch.ones(len(x), 1)], 1)  # the last is of the bias
        expected = torch.linalg.eigvalsh(2 * rows.mT @ rows / 10).flip(0)
        found = prior.spectra[f"paths.{path}"]
        torch.testing.assert_close(found, expected.double(), rtol=1e-9, atol=1e-9)


class Chosen(nn.Module):
    """One of several layers, by the batch."""

    def __init__(self, paths):
        super().__init__()
        self.paths = paths

    def forward(self, x, path):
        return self.paths[path](x)[:, 0]


def test_equation_7_in_float64_is_the_rayleigh_quotient_of_its_directions():
    network, batches, whole = make_network()
    before = {name: p.clone() for name, p in network.named_parameters()}
    prior = estimate_prior(
        network, squared_error, batches, GROUPS, "finite_difference", top_k=8, probes=8, rho=1e-4
    )
    generator = torch.Generator().manual_seed(0)
    for group, (name,) in GROUPS.items():
        hessian = explicit_hessian(network, whole, name)
        size = (8, len(hessian))
        shape = dict(network.named_parameters())[name].shape
        directions = torch.stack([torch.randn(shape, generator=generator) for _ in range(8)])
        e = directions.view(size).double()
        quotients = ((e @ hessian) * e).sum(1) / e.square().sum(1)
        expected = quotients.sort(descending=True).values
        torch.testing.assert_close(prior.spectra[group], expected, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[name], p) for name, p in network.named_parameters())


def test_equation_7_has_no_prior_where_the_loss_does_not_depend_on_the_operation():
    network = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("used", "unused")})

    def loss_fn(net, x):
        return net["used"](x).square().sum(1)

    batches = [torch.randn(4, 2)]
    settings = {"method": "finite_difference", "top_k": 2, "probes": 3}
    with pytest.warns(UserWarning, match="does not depend on unused"):
        prior = estimate_prior(network, loss_fn, batches, **settings)
    assert list(prior.sensitivity()) == ["used"]
    with pytest.raises(UserError, match="no parameter of the network a gradient"):
        estimate_prior(network, lambda net, x: x.sum(1), batches, **settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equation_7_keeps_an_operation_whose_probes_change_nothing(dtype):
    """Here all units before the ReLU are off; the loss depends on them all the same."""
    network, batches, _ = make_network()
    network[1] = nn.ReLU()
    nn.init.constant_(network[0].bias, -100)
    settings = {"method": "finite_difference", "top_k": 2, "probes": 3, "dtype": dtype}
    batches = [[values.to(dtype) for values in batch] for batch in batches]
    sensitivity = estimate_prior(
        network.to(dtype), squared_error, batches, **settings
    ).sensitivity()
    assert sensitivity["0"] == 0 and set(sensitivity) == {"0", "2"}


def test_equation_7_in_float32_is_round_off():
    """The largest of 60 probes is off by a factor of ten and more, and some are negative."""
    torch.manual_seed(0)
    network = nn.Linear(40, 4)
    batches = [(torch.randn(64, 40), torch.randn(64, 4))]
    settings = {"method": "finite_difference", "top_k": 60, "probes": 60}
    values = {
        dtype: estimate_prior(network, squared_error, batches, dtype=dtype, **settings).spectra[
            "Linear"
        ]
        for dtype in (torch.float64, torch.float32)
    }
    assert (values[torch.float64] > 0).all()
    assert (values[torch.float32] <= 0).any()
    assert values[torch.float32].max() > 10 * values[torch.float64].max()


def test_equation_7_measures_the_mean_eigenvalue_not_the_leading_one():
    """A quadratic with one eigenvalue of 1000 among 400 of about 1."""
    d = 400
    scales = torch.ones(d).double()
    scales[0] = 1000.0
    network = nn.Linear(d, 1, bias=False).double()
    groups = {"all": ["weight"]}

    def loss_fn(net, batch):
        return 0.5 * (scales * net.weight.square()).sum() + batch * 0

    batches = [torch.zeros(1).double()]
    settings = {"groups": groups, "top_k": 1}
    probed = estimate_prior(
        network, loss_fn, batches, method="finite_difference", rho=1e-3, probes=100, **settings
    )
    exact = estimate_prior(network, loss_fn, batches, method="lanczos", **settings)
    assert exact.spectra["all"].item() == pytest.approx(1000)
    mean = scales.mean().item()
    assert mean < probed.spectra["all"].item() < 20 * mean


@pytest.mark.parametrize(
    ("method", "options"), [("lanczos", {"steps": 3}), ("finite_difference", {"probes": 3})]
)
def test_too_few_steps_are_refused(method, options):
    network, batches, _ = make_network()
    with pytest.raises(UserError, match="top_k is 4"):
        estimate_prior(network, squared_error, batches, method=method, top_k=4, **options)


# Proposition 1: F is approximated by gamma I in each group, gamma the mean of its K leading
# eigenvalues.


def fisher_of_random_network(seed, width):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2)).double()
    batch = (torch.randn(6, 3).double(), torch.randn(6, 2).double())
    blocks = []
    for p in network.parameters():
        rows = [
            torch.autograd.grad(loss, p, retain_graph=True)[0].flatten()
            for loss in squared_error(network, batch)
        ]
        g = torch.stack(rows)
        blocks.append(g.mT @ g / len(g))
    return blocks


def gammas(blocks, k):
    leading = [torch.linalg.eigvalsh(block).flip(0)[:k] for block in blocks]
    return [values.mean() for values in leading]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 8))
def test_proposition_1_bound_on_the_generalization_gap(seed, width, k):
    """|gap(F) - gap(F~)| <= |delta|^2 / 2 * max lambda_1, for any delta."""
    blocks = fisher_of_random_network(seed, width)
    largest = max(torch.linalg.eigvalsh(block)[-1] for block in blocks)
    difference, length = 0, 0
    for block, gamma in zip(blocks, gammas(blocks, k), strict=True):
        delta = torch.randn(len(block)).double()
        difference += 0.5 * (delta @ block @ delta - gamma * delta @ delta)
        length += delta @ delta
    assert abs(difference) <= 0.5 * length * largest * (1 + 1e-9)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 8))
def test_proposition_1_frobenius_error_with_the_terms_it_drops(seed, width, k):
    """|F - F~|_F^2 <= sum over i <= K of (lambda_i - gamma)^2, plus (d - K) gamma^2: the tail lies
    between 0 and gamma."""
    blocks = fisher_of_random_network(seed, width)
    error = bound = 0
    for block, gamma in zip(blocks, gammas(blocks, k), strict=True):
        leading = torch.linalg.eigvalsh(block).flip(0)[:k]
        error += (block - gamma * torch.eye(len(block)).double()).square().sum()
        bound += (leading - gamma).square().sum() + (len(block) - len(leading)) * gamma**2
    assert error <= bound * (1 + 1e-9)


def test_proposition_1_bound_on_the_frobenius_error_fails_as_printed():
    """F = diag(2, 0), K = 1: gamma = 2 and F~ = diag(2, 2), an error of 2 where it allows 0."""
    fisher, k = torch.diag(torch.tensor([2.0, 0.0])), 1
    values = torch.linalg.eigvalsh(fisher).flip(0)
    error = (fisher - values[:k].mean() * torch.eye(2)).norm()
    printed = values[k:].square().sum().sqrt()
    assert error.item() == 2.0
    assert printed.item() == 0.0
