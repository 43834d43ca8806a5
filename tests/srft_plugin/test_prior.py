"""Saving, renaming and binding a prior, with errors that name the differences."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from srft_plugin import Prior, UserError, estimate_prior


@pytest.fixture
def prior(tracker, loss_fn, make_batch):
    with pytest.warns(UserWarning, match="unused"):
        return estimate_prior(tracker, loss_fn, [make_batch(6)], top_k=4, data="toy pairs")


def test_a_saved_prior_loads_as_it_was(prior, tmp_path):
    prior.save(tmp_path / "prior.safetensors")
    loaded = Prior.load(tmp_path / "prior.safetensors")
    assert list(loaded.spectra) == list(prior.spectra)
    assert all(torch.equal(loaded.spectra[name], s) for name, s in prior.spectra.items())
    assert loaded.shapes == prior.shapes
    assert loaded.metadata == prior.metadata
    assert loaded.metadata["method"] == "fisher"
    assert loaded.metadata["samples"] == "6"
    assert loaded.metadata["data"] == "toy pairs"
    assert len(loaded.metadata["weights_sha256"]) == 64


def test_a_network_whose_state_is_more_than_tensors():
    class Counting(nn.Linear):
        def get_extra_state(self):
            return {"calls": 3}

    torch.manual_seed(0)
    networks = nn.Sequential(nn.Linear(2, 1)), nn.Sequential(Counting(2, 1))
    networks[1][0].weight, networks[1][0].bias = networks[0][0].weight, networks[0][0].bias
    batches = [torch.randn(3, 2)]
    priors = [estimate_prior(n, lambda net, x: net(x)[:, 0] ** 2, batches, top_k=2)
              for n in networks]  # fmt: skip
    assert priors[0].metadata == priors[1].metadata


def test_sensitivity_is_the_mean_of_the_leading_eigenvalues():
    spectrum = torch.tensor([8.0, 4.0, 3.0, 1.0]).double()
    prior = Prior({"a": spectrum, "new": spectrum[:0]}, {"a": [[4]], "new": []})
    assert prior.sensitivity() == {"a": 4.0}
    assert prior.leading(2).sensitivity() == {"a": 6.0}


def test_ranks_are_percentiles_over_the_trainable_operations_with_a_prior(tracker, prior):
    tracker.head.requires_grad_(False)
    tracker.out.requires_grad_(False)
    bound = prior.bind(tracker)
    sensitivity = {name: s for name, s in prior.sensitivity().items() if name in bound.operations}
    order = sorted(sensitivity, key=sensitivity.get)
    expected = dict(zip(order, torch.linspace(0, 1, len(order)).tolist(), strict=True))
    assert bound.ranks == pytest.approx(expected)
    assert not {"head.0", "head.1", "out"} & set(bound.operations)


def test_new_and_copied_operations_follow_the_mapping(prior, tmp_path):
    network = nn.ModuleDict({"a": nn.Linear(8, 24), "b": nn.Linear(8, 24), "new": nn.Linear(3, 3)})
    renamed = prior.renamed({"a": "blocks.0.qkv", "b": "blocks.0.qkv", "new": None})
    bound = renamed.bind(network)
    assert bound.ranks == {"a": 0.5, "b": 0.5}
    groups = bound.partition(network.parameters())
    assert [rank for _, rank in groups] == [0.5, 0.5, 0.0]
    renamed.save(tmp_path / "renamed.safetensors")
    assert Prior.load(tmp_path / "renamed.safetensors").bind(network).ranks == bound.ranks
    with pytest.raises(UserError, match="no operations blocks.9.qkv"):
        prior.renamed({"a": "blocks.9.qkv"})


def test_a_prior_of_another_network_is_refused_with_the_differences(prior):
    network = nn.ModuleDict({"patch": nn.Conv2d(3, 9, 4), "extra": nn.Linear(2, 2)})
    with pytest.raises(UserError) as error:
        prior.bind(network)
    message = str(error.value)
    assert "only in the prior: position_z, position_x, token, unused" in message
    assert "only in the network: extra" in message
    shapes = "patch (prior [[8, 3, 4, 4], [8]], network [[9, 3, 4, 4], [9]])"
    assert f"of another shape: {shapes}" in message
    assert "Prior.renamed" in message


def test_a_wrapped_network_is_recognised(tracker, prior):
    with pytest.raises(UserError, match=r"inside the wrapper, network\._orig_mod$"):
        prior.bind(torch.compile(tracker, backend="eager"))


def test_files_that_are_no_prior_are_refused(tmp_path):
    with pytest.raises(UserError, match="no prior file at"):
        Prior.load(tmp_path / "none.safetensors")
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(UserError, match=r"not a prior \(entries such as 'weight'\)"):
        Prior.load(path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UserError, match="not a safetensors file"):
        Prior.load(path)


@pytest.mark.parametrize("shapes", [{}, {"shapes": "{"}, {"shapes": '{"b": []}'}, {"shapes": "0"}])
def test_a_damaged_prior_is_named(tmp_path, shapes):
    path = tmp_path / "prior.safetensors"
    save_file({"a": torch.ones(2)}, path, {"format": "srft-prior-1"} | shapes)
    with pytest.raises(UserError, match="prior.safetensors is a damaged prior"):
        Prior.load(path)
