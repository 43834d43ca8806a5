"""Regularizers with state or files of their own, through the real trainer."""

from dataclasses import replace

import pytest
import torch

import ltr_ext.run_training as run_training
from ltr_ext.models.checkpoint import load_network
from ltr_ext.recipe import Recipe
from ltr_ext.trainers.trainer import Trainer
from srft_plugin.errors import UserError
from srft_plugin.tuning.anchored import DiagonalFisher

TUNE = Recipe(
    "two_branch_tiny", ("synthetic_rgbd",), epochs=2, samples_per_epoch=4, batch_size=2,
    prior_samples=4, top_k=2, workers=0,
)  # fmt: skip


def test_tracer_resumes_to_the_same_weights(base, tmp_path, monkeypatch):
    recipe = TUNE.override(
        [f"base={base}", "regularizer=tracer", "regularizer_options=coefficient=0.5,warmup=0.5"]
    )
    whole = load_network(run_training.train(recipe, tmp_path / "whole")).state_dict()
    step, calls = Trainer._train_step, []

    def stop_in_second_epoch(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "_train_step", stop_in_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        run_training.train(recipe, tmp_path / "broken")
    monkeypatch.undo()
    resumed = load_network(run_training.train(recipe, tmp_path / "broken")).state_dict()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_diagonal_fisher_is_made_once_and_belongs_to_the_weights(base, tmp_path, monkeypatch):
    recipe = TUNE.override([f"base={base}", "regularizer=ewc:diagonal", "epochs=1"])
    network = run_training.trainable_network(recipe, load_network(base))
    arguments = (recipe, network, load_network(base), tmp_path, torch.device("cpu"))
    prior = run_training.run_prior(*arguments, run_training.Processes())
    assert isinstance(prior, DiagonalFisher)
    file = DiagonalFisher.load(tmp_path / "fisher_diagonal.safetensors")
    assert file.metadata["samples"] == "4" and file.metadata["method"] == "diagonal"
    # both branches and the fusion block start from the same block of the base network
    source = file.spectra["backbone.blocks.0.mlp.fc1.weight"]
    for name in ("blocks_rgb.0", "blocks_aux.0", "fusion.0"):
        assert torch.equal(prior.spectra[f"backbone.{name}.mlp.fc1.weight"], source)
    monkeypatch.setattr(run_training, "source_prior", None)  # would fail if it were called
    run_training.run_prior(*arguments, run_training.Processes())


def test_a_given_prior_is_used_and_must_be_of_the_base(base, tmp_path, monkeypatch):
    network = load_network(base)
    prior = run_training.source_prior(TUNE.override(["top_k=3"]), network, torch.device("cpu"))
    prior.save(tmp_path / "prior.safetensors")
    recipe = TUNE.override([f"base={base}", f"prior={tmp_path / 'prior.safetensors'}"])
    tuned = run_training.trainable_network(recipe, network)
    monkeypatch.setattr(run_training, "source_prior", None)  # would fail if it were called
    rest = (tmp_path / "run", torch.device("cpu"), run_training.Processes())
    found = run_training.run_prior(recipe, tuned, network, *rest)
    expected = prior.spectra["backbone.blocks.0.attn.qkv"][:2]  # top_k of the recipe
    assert torch.equal(found.spectra["backbone.fusion.0.attn.qkv"], expected)

    with pytest.raises(UserError, match="holds 3 eigenvalues per operation, top_k is 4"):
        run_training.given_prior(recipe.override(["top_k=4"]), network, run_training.Prior)
    for name, kind, found in (
        ("ewc:diagonal", run_training.DiagonalFisher, "of operations"),
        ("srft", run_training.Prior, "of single parameters"),
    ):
        with pytest.raises(UserError, match=rf"prior.safetensors is a prior {found}.*={name} need"):
            run_training.given_prior(recipe.override([f"regularizer={name}"]), network, kind)
        replace(prior, metadata=prior.metadata | {"method": "diagonal"}).save(recipe.prior)
    prior.save(recipe.prior)
    with torch.no_grad():
        next(network.parameters()).add_(1)
    with pytest.raises(UserError, match="made from other weights"):
        run_training.given_prior(recipe, network, run_training.Prior)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["regularizer=tracer", "regularizer_options=colefficient=1"], "mean 'coefficient'"),
        (["regularizer=none", "regularizer_options=coefficient=1"], "tracer.* have it"),
        (["regularizer=tracer", "regularizer_options=beta"], "expected option=value"),
        (["regularizer=tracr"], "did you mean 'tracer'"),
    ],
)
def test_recipe_refuses_bad_options_at_once(overrides, message):
    with pytest.raises(UserError, match=message):
        TUNE.override(overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["regularizer=tracer", "regularizer_options=beta=-1"], "beta is -1.0; expected more"),
        (["regularizer=ewc", "base=none"], "ewc needs the prior of a base network"),
        (["source="], "source names no data set"),
    ],
)
def test_run_refuses_bad_values(base, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        run_training.train(TUNE.override([f"base={base}", *overrides]), tmp_path)
