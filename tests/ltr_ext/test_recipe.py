"""Recipes: overrides, limits, schedules."""

import pytest

from ltr_ext.dataset.kinds import KINDS
from ltr_ext.dataset.training_sets import GENERATED
from ltr_ext.models.registry import network_names
from ltr_ext.recipe import Recipe, config_names, load_recipe
from srft_plugin.errors import UserError

RECIPE = Recipe("two_branch_tiny", ("synthetic_rgbd",), epochs=2, samples_per_epoch=10,
                batch_size=4)  # fmt: skip


def test_overrides_take_the_type_of_the_field():
    changed = RECIPE.override(["lr=3e-5", "epochs=7", "datasets=a,b:/c", "base=none"])
    assert (changed.lr, changed.epochs, changed.datasets, changed.base) == (
        3e-5, 7, ("a", "b:/c"), None,
    )  # fmt: skip
    assert RECIPE.epochs == 2


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epoch=3", "did you mean 'epochs'"),
        ("epochs=many", "expected int"),
        ("ratios=1,half", "ratios=1,half: expected float"),
        ("epochs", "expected key=value"),
        ("precision=bf17", "did you mean 'bf16'"),
        ("parallel=dpp", "did you mean 'ddp'"),
        ("compile=perhaps", "expected true or false"),
        ("kappa=1.5", "kappa is 1.5; expected a number in"),
        ("ema=1", "ema must be at least 0 and below 1"),
        ("accumulate=0", "accumulate must be at least 1"),
        ("lr_groups=fusion", "not of the form regex=rate"),
        ("lr_groups=(=1e-4", "not of the form regex=rate"),
        ("epochs=0", "at least 1"),
        ("decay_at=1", "below 1"),
        ("warmup=1.5", "at least 0 and below 1, not 1.5"),
        ("prior_samples=0", "prior_samples must be at least 1"),
        ("max_gap=-5", "max_gap must be at least 1"),
        ("lr=-1", "lr must be at least 0, not -1.0"),
        ("lr=nan", "lr must be at least 0, not nan"),
        ("lr=inf", "at least 0 and below inf, not inf"),
        ("weight_decay=-1", "at least 0"),
        ("scale_jitter=nan", "scale_jitter must be at least 0"),
        ("workers=-1", "workers must be at least 0"),
        ("seed=-1", "seed must be at least 0"),
        ("skip_unreadable=-1", "skip_unreadable must be at least 0"),
        ("grad_clip=0", "grad_clip must be above 0, not 0.0; inf clips nothing"),
        ("lr_groups=fusion=-1", "regex=rate.*a rate is finite and at least 0"),
        ("save_minutes=nan", "save_minutes must be at least 0, not nan"),
        ("save_minutes=-1", "save_minutes must be at least 0, not -1.0"),
        ("datasets=", "datasets names none"),
        ("batch_size=11", "smaller than one batch"),
    ],
)
def test_wrong_overrides_say_what_is_wrong(assignment, message):
    with pytest.raises(UserError, match=message):
        RECIPE.override([assignment])


def test_numbers_in_a_row():
    assert RECIPE.override(["ratios=3,0.5"]).ratios == (3.0, 0.5)


def test_booleans_and_rates_by_name():
    changed = RECIPE.override(["compile=True", "lr_groups=fusion|head=1e-4,a=b=2"])
    assert changed.compile is True and RECIPE.override(["compile=0"]).compile is False
    assert [(p.pattern, rate) for p, rate in changed.rates()] == [
        ("fusion|head", 1e-4), ("a=b", 2.0),
    ]  # fmt: skip


def test_unknown_config_suggests_the_nearest():
    with pytest.raises(UserError, match="did you mean 'tiny_depth'"):
        load_recipe("tiny_dept")


def test_steps_leave_out_the_incomplete_batch():
    assert RECIPE.steps_per_epoch == 2
    assert RECIPE.total_steps == 4


def test_rates():
    steady = RECIPE.override(["epochs=50"])  # 100 steps
    assert {steady.rate(step) for step in range(100)} == {1.0}
    stepped = steady.override(["decay=step", "warmup=0.1"])
    assert [round(stepped.rate(step), 3) for step in (0, 9, 10, 79, 80, 99)] == [
        0.091, 0.909, 1.0, 1.0, 0.1, 0.1,
    ]  # fmt: skip
    linear = steady.override(["decay=linear"])
    assert [round(linear.rate(step), 3) for step in (79, 80, 90, 99, 100)] == [
        1.0, 1.0, 0.5, 0.05, 0.0,
    ]  # fmt: skip
    early = stepped.override(["decay_at=0.6"])
    assert [early.rate(step) for step in (59, 60)] == [1.0, 0.1]


@pytest.mark.parametrize("name", config_names())
def test_every_config_loads_and_can_be_run_by_the_host(name):
    recipe = load_recipe(name)
    assert recipe.total_steps > 0
    assert recipe.network in network_names()
    for name in (*recipe.datasets, *recipe.source):
        assert name in GENERATED or name == "coco" or "train" in KINDS[name].splits
    assert callable(recipe.run)
