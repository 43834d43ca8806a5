"""Every config: its full network fits its base, and at a small size it takes a step."""

import dataclasses

import pytest
import torch

from ltr_ext.actors.tracking import TrackingActor
from ltr_ext.models.registry import build_network, network_spec
from ltr_ext.recipe import Recipe, config_names, load_recipe
from ltr_ext.train_settings.paper import paper_recipe
from ltr_ext.trainers.preparation import parameter_groups
from srft_plugin.tuning.regularizer import make_regularizer
from srft_plugin.tuning.trainable import select_trainable

VIT = {"dim": 48, "heads": 3, "depth": 4, "template_size": 32, "search_size": 64}
SUTRACK = {"dim": 64, "stage_depth": 1, "depth": 4, "template_size": 32, "search_size": 64}
SWIN = {"dim": 24, "depths": (1, 1, 2), "encoder_layers": 1}
SPECIAL = {"prompts": 4, "cross_at": (1, 3), "eliminate_at": (1, 2)}
CONVERTED = {"mae_ostrack256": "ostrack256", "swin_swintrack_t224": "swintrack_t224"}


def base_of(recipe: Recipe) -> str | None:
    """Name of the network that the recipe starts from."""
    if recipe.base == "default":
        return "ostrack_tiny"
    if recipe.base is None:
        return None
    name = recipe.base.partition(".")[0]
    return CONVERTED.get(name, name)


def small_sizes(name: str) -> dict[str, object]:
    """Changes of the spec that make a network small."""
    if "swintrack" in name:
        return SWIN
    if "sutrack" in name:
        return SUTRACK
    fields = {field.name for field in dataclasses.fields(network_spec(name))}
    return VIT | {key: value for key, value in SPECIAL.items() if key in fields}


def kind(recipe: Recipe) -> tuple[object, ...]:
    """What a step depends on, sizes and budget apart."""
    return recipe.network, recipe.trainable, recipe.regularizer, recipe.lr_groups


KINDS = {kind(load_recipe(name)): name for name in config_names()}


@pytest.mark.parametrize("name", KINDS.values())
def test_full_network_extends_its_base_and_rates_find_parameters(name):
    recipe = load_recipe(name)
    with torch.device("meta"):
        network = build_network(recipe.network)
        base = base_of(recipe) and build_network(base_of(recipe))
    select_trainable(network, recipe.trainable)
    groups = parameter_groups(network, recipe)  # refuses an expression that finds nothing
    assert len(groups) == len(recipe.lr_groups) + 1
    if base is not None:
        shapes = {key: value.shape for key, value in base.state_dict().items()}
        for key, value in network.state_dict().items():
            origin = network.base_name(key)
            assert origin is None or shapes[origin] == value.shape, key


@pytest.mark.parametrize("name", KINDS.values())
def test_one_step_moves_what_trains_and_nothing_else(name, random_batch):
    """As a run does it; ranks of the prior apart, which need a source."""
    recipe = load_recipe(name)
    torch.manual_seed(0)
    network = build_network(recipe.network, **small_sizes(recipe.network)).train()
    select_trainable(network, recipe.trainable)
    mode = {"srft": "srft:transfer"}.get(recipe.regularizer, recipe.regularizer)
    options = {"kappa": recipe.kappa} if mode.startswith("srft") else {}
    regularizer = make_regularizer(mode, network, None, recipe.total_steps, **options)
    optimizer = regularizer.wrap_optimizer(
        torch.optim.AdamW(parameter_groups(network, recipe), weight_decay=recipe.weight_decay)
    )
    before = {key: p.detach().clone() for key, p in network.named_parameters()}
    actor, data = TrackingActor(network, regularizer), random_batch(network.spec)
    for _ in range(2):  # low-rank paths that start at zero reach their inner matrix in the second
        optimizer.zero_grad()
        loss, _ = actor(data)
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
    for key, parameter in network.named_parameters():
        assert torch.equal(parameter, before[key]) != parameter.requires_grad, key
        assert (parameter.grad is not None) == parameter.requires_grad, key


def test_jitter_is_that_of_the_public_code_and_of_sutrack():
    jitters = {
        base: (recipe.centre_jitter, recipe.scale_jitter)
        for base in ("ostrack256", "ostrack384", "droptrack384", "sutrack_b384")
        for recipe in [paper_recipe(base, "depth")]
    }
    assert jitters == {
        "ostrack256": (3.0, 0.25),
        "ostrack384": (3.0, 0.25),
        "droptrack384": (4.5, 0.5),
        "sutrack_b384": (3.5, 0.5),
    }


def test_budgets_of_the_peers():
    found = {}
    for name in ("vipt256_depth", "untrack256_rgbx", "sdstrack256_event", "upvpt_ostrack256"):
        recipe = load_recipe(name)
        found[name] = (recipe.epochs, recipe.batch_size, recipe.lr, recipe.rate(0))
        fall = next((s for s in range(recipe.total_steps) if recipe.rate(s) < 1), None)
        found[name] += (fall and fall / recipe.steps_per_epoch,)
    assert found == {
        "vipt256_depth": (60, 64, 4e-4, 1.0, pytest.approx(48, abs=0.1)),
        "untrack256_rgbx": (80, 48, 4e-4, 1.0, pytest.approx(48, abs=0.1)),
        "sdstrack256_event": (50, 64, 1e-4, 1.0, None),
        "upvpt_ostrack256": (300, 64, 1e-4, 1.0, pytest.approx(240, abs=0.1)),
    }


@pytest.mark.parametrize("peer", ["vipt", "sdstrack", "untrack"])
def test_peers_on_droptrack_have_its_base_sizes_and_jitter(peer):
    recipe, own = (load_recipe(f"{peer}{base}_thermal") for base in ("_droptrack384", "256"))
    assert (recipe.base, own.base) == ("droptrack384.pth.tar", "ostrack256.pth.tar")
    assert (recipe.centre_jitter, recipe.scale_jitter) == (4.5, 0.5)
    same = {"network": own.network, "base": own.base, "centre_jitter": 3.0, "scale_jitter": 0.25}
    assert dataclasses.replace(recipe, **same) == own
    spec, base = network_spec(recipe.network), network_spec("droptrack384")
    shared = {field.name for field in dataclasses.fields(base)} - {"name", "in_channels"}
    assert all(getattr(spec, name) == getattr(base, name) for name in shared)


def test_what_the_paper_unfreezes_starts_from_its_peer():
    """Table VIII: the peer's network, the backbone and the prompts, SRFT, the paper's budget."""
    for peer in ("vipt256", "untrack256", "sdstrack256"):
        recipe, alone = load_recipe(f"{peer}_srft_depth"), load_recipe(f"{peer}_depth")
        assert recipe.network == alone.network == peer
        assert (recipe.trainable, alone.trainable) == ("peft+backbone", "peft")
        assert (recipe.regularizer, alone.regularizer) == ("srft", "none")
        assert recipe.epochs * recipe.samples_per_epoch == 30 * 80_000
