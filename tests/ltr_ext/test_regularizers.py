"""Regularizers with state or files of their own, through the real trainer."""

import pytest
import torch

import ltr_ext.run_training as run_training
from ltr_ext.models.checkpoint import load_network
from ltr_ext.recipe import Recipe
from ltr_ext.trainers.trainer import Trainer
from srft_plugin.errors import UserError

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
