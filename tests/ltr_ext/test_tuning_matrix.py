"""Regularizers with families of networks and trainable sets, in pairs: two steps, resumed."""

import copy
from functools import cache
from itertools import product

import pytest
import torch

from ltr_ext.actors.distillation import TRACKING
from ltr_ext.actors.tracking import TrackingActor
from ltr_ext.models.registry import build_network
from srft_plugin.groups import operation_groups
from srft_plugin.tuning.anchored import DiagonalFisher
from srft_plugin.tuning.regularizer import REGULARIZERS, make_regularizer, prior_kind, takes
from srft_plugin.tuning.trainable import TRAINABLE_SETS, select_trainable

VIT = {
    "dim": 24, "depth": 4, "heads": 2, "head_channels": 8, "template_size": 32, "search_size": 64,
    "drop_path": 0.2,
}  # fmt: skip
PEER = VIT | {"eliminate_at": ()}
ITPN = {
    "dim": 64, "depth": 4, "stage_depth": 1, "head_channels": 8, "template_size": 32,
    "search_size": 64, "drop_path": 0.2,
}  # fmt: skip
SWIN = {
    "dim": 12, "depths": (1, 1, 1), "heads": (1, 2, 4), "window": 2, "encoder_layers": 1,
    "template_size": 32, "search_size": 64,
}  # fmt: skip
FAMILIES = {
    "ostrack_tiny": VIT,
    "two_branch_tiny": VIT,
    "sutrack_t224": ITPN,
    "two_branch_sutrack_t224": ITPN,
    "vipt256": PEER,
    "sdstrack256": PEER | {"cross_at": (1, 3)},
    "untrack256": PEER,
    "upvpt_ostrack256": PEER,
    "swintrack_t224": SWIN,
    "upvpt_swintrack_t224": SWIN,
}
PEERS = ("vipt256", "untrack256", "sdstrack256")
NAMES = [name for name in REGULARIZERS if name != "contrastive_wma"]  # for other networks
STEPS = 2


@cache
def built(family):
    """A network of the family and its weights; tests put these back."""
    torch.manual_seed(0)
    network = build_network(family, **FAMILIES[family])
    return network, copy.deepcopy(network.state_dict())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tuned_network_is_tuned_further_from_all_that_it_has(family):
    tuned, weights = built(family)
    network = build_network(family, **FAMILIES[family])
    network.copy_base(tuned)
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())
    assert all(name == origin for name, origin in network.prior_sources(tuned).items())


def sets_for(family):
    network, _ = built(family)
    efficient = bool(network.peft_parameter_names())
    return [s for s in TRAINABLE_SETS if efficient or not ("peft" in s or s == "base")]


def cases():
    """All pairs of a regularizer, a family and a trainable set. (All three together are 650.)"""
    seen = set()
    wanted = [("srft", ["peft+backbone"], peer) for peer in PEERS]  # Table VIII
    wanted += [(name, sets_for(family), family) for name, family in product(NAMES, FAMILIES)]
    wanted += [(NAMES[i % len(NAMES)], [which], family)
               for family in FAMILIES for i, which in enumerate(sets_for(family))]  # fmt: skip
    # this family has all of the sets
    wanted += [(name, [which], "vipt256") for name, which in product(NAMES, TRAINABLE_SETS)]
    for name, choices, family in wanted:
        new = {s: {(name, family), (name, s), (s, family)} - seen for s in choices}
        which = max(new, key=lambda s: len(new[s]))
        if new[which]:
            seen |= new[which]
            yield name, which, family


def test_every_pair_occurs():
    possible = {(s, family) for family in FAMILIES for s in sets_for(family)}
    assert {(name, family) for name, _, family in cases()} == set(product(NAMES, FAMILIES))
    assert {(which, family) for _, which, family in cases()} == possible
    assert {(name, which) for name, which, _ in cases()} == set(product(NAMES, TRAINABLE_SETS))
    assert {("srft", "peft+backbone", peer) for peer in PEERS} <= set(cases())


def prior_for(name, network):
    torch.manual_seed(1)
    kind = prior_kind(name)
    if kind is None:
        return None
    shapes = {n: list(p.shape) for n, p in network.named_parameters()}
    groups = {n: [n] for n in shapes} if kind is DiagonalFisher else operation_groups(network)
    sizes = {g: sum(torch.Size(shapes[p]).numel() for p in ps) for g, ps in groups.items()}
    spectra = {g: torch.rand(n if kind is DiagonalFisher else 3) for g, n in sizes.items()}
    return kind(spectra, {g: [shapes[p] for p in ps] for g, ps in groups.items()})


class Training:
    """A network, regularizer and optimizer at the start."""

    def __init__(self, name, trainable, family, random_batch):
        self.network, weights = built(family)
        self.network.load_state_dict(weights)
        select_trainable(self.network, trainable)
        self.network.train()
        options = {"perspectives": TRACKING} if takes(name, "perspectives") else {}
        prior = prior_for(name, self.network)
        self.regularizer = make_regularizer(name, self.network, prior, STEPS, **options)
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = self.regularizer.wrap_optimizer(torch.optim.AdamW(self.parameters, 1e-2))
        self.actor = TrackingActor(self.network, self.regularizer)
        self.batch = random_batch(self.network.spec)

    def step(self, index):
        torch.manual_seed(index)
        loss, _ = self.actor(self.batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.regularizer.after_step()
        return loss.item()

    def parts(self):
        return self.network, self.optimizer, self.regularizer


@pytest.mark.parametrize(("name", "trainable", "family"), cases())
def test_two_steps_with_a_resume_between(name, trainable, family, random_batch):
    training = Training(name, trainable, family, random_batch)
    before = [p.detach().clone() for p in training.parameters]
    losses = [training.step(0)]
    state = copy.deepcopy([part.state_dict() for part in training.parts()])
    losses.append(training.step(1))
    after = copy.deepcopy(training.network.state_dict())
    assert all(map(torch.isfinite, map(torch.tensor, losses)))
    moved = [not torch.equal(b, p) for b, p in zip(before, training.parameters, strict=True)]
    assert sum(moved) > len(moved) / 4  # what starts at zero keeps others from a gradient
    resumed = Training(name, trainable, family, random_batch)
    for part, saved in zip(resumed.parts(), state, strict=True):
        part.load_state_dict(saved)
    assert resumed.step(1) == losses[1]
    for key, value in resumed.network.state_dict().items():
        assert torch.equal(value, after[key]), key
