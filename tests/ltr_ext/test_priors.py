"""Where the prior of a run comes from, and when one made before is taken."""

from dataclasses import replace

import pytest
import torch

from ltr_ext import priors
from ltr_ext.models.checkpoint import load_network
from ltr_ext.recipe import Recipe
from ltr_ext.run_training import trainable_network
from ltr_ext.trainers.processes import Processes
from srft_plugin.errors import UserError
from srft_plugin.prior import Prior
from srft_plugin.tuning.anchored import DiagonalFisher

TUNE = Recipe(
    "two_branch_tiny", ("synthetic_rgbd",), epochs=2, samples_per_epoch=4, batch_size=2,
    prior_samples=4, top_k=2, workers=0,
)  # fmt: skip


def test_too_few_prior_samples_are_refused_before_any_is_read(base, monkeypatch):
    monkeypatch.setattr(priors, "training_pairs", None)
    recipe = TUNE.override(["prior_samples=17", "top_k=17"])  # of which whole batches hold 16
    with pytest.raises(UserError, match="prior_samples 17, 16 of them .* lower top_k"):
        priors.source_prior(recipe, load_network(base), torch.device("cpu"))


@pytest.mark.parametrize(
    "changes",
    [
        [],  # but other weights
        ["source=synthetic_rgbd"],
        ["prior_samples=12"],
        ["top_k=3"],
        ["seed=5"],
        ["scale_jitter=1.0"],
        ["prior=given.safetensors"],
    ],
)
def test_prior_of_other_weights_or_settings_is_not_reused(base, tmp_path, monkeypatch, changes):
    """A run that ended before its first checkpoint may begin again with others."""
    monkeypatch.chdir(tmp_path)
    device, network = torch.device("cpu"), load_network(base)

    def prior(recipe):
        return priors.run_prior(recipe, network, network, tmp_path, device, Processes())

    recipe = TUNE.override(["prior_samples=14"])
    priors.source_prior(TUNE, network, device).save("given.safetensors")
    first, again = prior(recipe), prior(recipe)
    if not changes:
        network.backbone.pos_embed_x.data.mul_(2)
    other = prior(recipe.override(changes))
    name = "backbone.blocks.0.attn.qkv"
    assert torch.equal(first.spectra[name], again.spectra[name])
    assert not torch.equal(first.spectra[name], other.spectra[name])
    monkeypatch.setattr(priors, "source_prior", None)  # would fail if it were called
    assert torch.equal(prior(recipe.override(changes)).spectra[name], other.spectra[name])


def test_a_given_prior_by_another_method_is_not_taken_for_the_runs_own(base, tmp_path):
    device, network = torch.device("cpu"), load_network(base)
    prior = priors.source_prior(TUNE, network, device)
    given = replace(prior, metadata=prior.metadata | {"method": "lanczos"})
    given.save(tmp_path / "given.safetensors")

    def method(*overrides):
        recipe = TUNE.override(list(overrides))
        prior = priors.run_prior(recipe, network, network, tmp_path, device, Processes())
        return prior.metadata["method"]

    assert method(f"prior={tmp_path / 'given.safetensors'}") == "lanczos"
    assert method() == "fisher"


def test_diagonal_fisher_is_made_once_and_belongs_to_the_weights(base, tmp_path, monkeypatch):
    recipe = TUNE.override([f"base={base}", "regularizer=ewc:diagonal", "epochs=1"])
    network = trainable_network(recipe, load_network(base))
    arguments = (recipe, network, load_network(base), tmp_path, torch.device("cpu"))
    prior = priors.run_prior(*arguments, Processes())
    assert isinstance(prior, DiagonalFisher)
    file = DiagonalFisher.load(tmp_path / "fisher_diagonal.safetensors")
    assert file.metadata["samples"] == "4" and file.metadata["method"] == "diagonal"
    # both branches and the fusion block start from the same block of the base network
    source = file.spectra["backbone.blocks.0.mlp.fc1.weight"]
    for name in ("blocks_rgb.0", "blocks_aux.0", "fusion.0"):
        assert torch.equal(prior.spectra[f"backbone.{name}.mlp.fc1.weight"], source)
    monkeypatch.setattr(priors, "source_prior", None)  # would fail if it were called
    priors.run_prior(*arguments, Processes())


def test_a_given_prior_is_used_and_must_be_of_the_base(base, tmp_path, monkeypatch):
    network = load_network(base)
    prior = priors.source_prior(TUNE.override(["top_k=3"]), network, torch.device("cpu"))
    prior.save(tmp_path / "prior.safetensors")
    recipe = TUNE.override([f"base={base}", f"prior={tmp_path / 'prior.safetensors'}"])
    tuned = trainable_network(recipe, network)
    monkeypatch.setattr(priors, "source_prior", None)  # would fail if it were called
    rest = (tmp_path / "run", torch.device("cpu"), Processes())
    found = priors.run_prior(recipe, tuned, network, *rest)
    expected = prior.spectra["backbone.blocks.0.attn.qkv"][:2]  # top_k of the recipe
    assert torch.equal(found.spectra["backbone.fusion.0.attn.qkv"], expected)

    with pytest.raises(UserError, match="holds 3 eigenvalues per operation, top_k is 4"):
        priors.given_prior(recipe.override(["top_k=4"]), network, Prior)
    for name, kind, found in (
        ("ewc:diagonal", DiagonalFisher, "of operations"),
        ("srft", Prior, "of single parameters"),
    ):
        with pytest.raises(UserError, match=rf"prior.safetensors is a prior {found}.*={name} need"):
            priors.given_prior(recipe.override([f"regularizer={name}"]), network, kind)
        replace(prior, metadata=prior.metadata | {"method": "diagonal"}).save(recipe.prior)
    prior.save(recipe.prior)
    with torch.no_grad():
        next(network.parameters()).add_(1)
    with pytest.raises(UserError, match="made from other weights"):
        priors.given_prior(recipe, network, Prior)
