"""The two-branch network: what it copies, what it freezes, what it weighs."""

from __future__ import annotations

import pytest
import torch
from timm.layers import DropPath
from torch import nn

from ltr_ext.models.network import fusion_places
from ltr_ext.models.registry import build_network, network_spec
from ltr_ext.models.two_branch import two_branch_from
from srft_plugin.errors import UserError
from srft_plugin.groups import operation_groups
from srft_plugin.tuning.trainable import select_trainable


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(0)
    return build_network("ostrack_tiny").eval()


@pytest.fixture
def network(base):
    return two_branch_from(base)


def test_every_tensor_is_a_copy_of_its_source(base, network):
    state, source = network.state_dict(), base.state_dict()
    for name, value in state.items():
        origin = source[network.base_name(name)]
        assert torch.equal(value, origin) and value.data_ptr() != origin.data_ptr()


def test_a_head_that_trains_after_it_was_frozen_has_the_statistics_of_its_batches(network):
    for which, training in (("backbone", False), ("all", True), ("backbone", False)):
        select_trainable(network, which)
        network.train()
        assert network.box_head.training == training


@pytest.mark.parametrize("name", ["ostrack256", "sutrack_t224"])
def test_fusion_blocks_drop_as_the_blocks_they_are_copied_from(name):
    with torch.device("meta"):
        base = build_network(name, drop_path=0.3)
        network = build_network(f"two_branch_{name}", drop_path=0.3)
    rates = dict(_drop_rates(base))
    fusions = [found for found in _drop_rates(network) if ".fusion." in found[0]]
    assert len({rate for _, rate in fusions}) == 4
    assert all(rate == rates[network.base_name(layer)] for layer, rate in fusions)


def _drop_rates(network):
    for name, layer in network.named_modules():
        if isinstance(layer, DropPath):
            yield name, layer.drop_prob


@pytest.mark.parametrize(
    ("base", "factor"), [("ostrack256", 4.0), ("ostrack384", 4.0), ("droptrack384", 5.0)]
)
def test_search_factor_is_that_of_the_public_configuration(base, factor):
    assert network_spec(f"two_branch_{base}").search_factor == factor
    assert network_spec(base).search_factor == (4.0 if base == "ostrack256" else 5.0)


def test_a_network_of_one_image_becomes_one_of_both():
    network = two_branch_from(build_network("ostrack_tiny_aux"))
    assert network.spec == network_spec("two_branch_tiny")


def test_fusion_blocks_come_from_the_blocks_they_follow(base, network):
    assert fusion_places(12) == (2, 5, 8, 11)  # after blocks 3, 6, 9 and 12
    assert fusion_places(24) == (5, 11, 17, 23)
    sources = network.prior_sources(base)
    origin = network.spec.fuse_after[2]
    assert sources["backbone.fusion.2.attn.qkv"] == f"backbone.blocks.{origin}.attn.qkv"
    assert sources["backbone.norm_aux"] == "backbone.norm"


def test_prior_sources_name_every_operation_of_both_networks(base, network):
    sources = network.prior_sources(base)
    assert sources.keys() == operation_groups(network).keys()
    assert set(sources.values()) == set(operation_groups(base))


def test_both_modalities_reach_the_output(network):
    network.eval()
    template, search = torch.randn(1, 6, 64, 64), torch.randn(1, 6, 128, 128)
    with torch.no_grad():
        before = network(template, search)["score_map"]
        for channels in (slice(0, 3), slice(3, 6)):
            changed = search.clone()
            changed[:, channels] += 1
            assert not torch.allclose(network(template, changed)["score_map"], before)


def test_three_channels_are_refused(network):
    with pytest.raises(UserError, match=r"\(1, 3, 64, 64\).*\(B, 6, 64, 64\)"):
        network(torch.zeros(1, 3, 64, 64), torch.zeros(1, 6, 128, 128))


def test_freeze_fixes_positions_and_head_and_the_head_keeps_its_statistics(network):
    network.freeze()
    network.train()
    frozen = {name for name, value in network.named_parameters() if not value.requires_grad}
    expected = {name for name, _ in network.named_parameters() if "box_head" in name}
    assert frozen == expected | {"backbone.pos_embed_z", "backbone.pos_embed_x"}
    before = {k: v.clone() for k, v in network.box_head.state_dict().items()}
    output = network(torch.randn(2, 6, 64, 64), torch.randn(2, 6, 128, 128))
    sum(output[name].mean() for name in ("score_map", "size_map", "offset_map")).backward()
    assert all(torch.equal(v, before[k]) for k, v in network.box_head.state_dict().items())
    for name, value in network.named_parameters():
        assert (value.grad is None) == (name in frozen), name


def test_complete_tuning_trains_the_head(network):
    network.freeze(head=False)
    network.train()
    assert network.box_head.training
    assert all(value.requires_grad for value in network.box_head.parameters())


def test_size_is_near_that_of_table_xii():
    """206.4 M with the head and 199.9 M without: Table XII's 202.0 M lies between the two."""
    with torch.device("meta"):
        network = build_network("two_branch_ostrack256")
    total, head = (
        sum(value.numel() for value in part.state_dict().values()) / 1e6
        for part in (network, network.box_head)
    )
    assert (round(total, 1), round(total - head, 1)) == (206.4, 199.9)


def test_another_kind_of_base_is_refused():
    with pytest.raises(UserError, match="Linear.*ostrack256"):
        two_branch_from(nn.Linear(2, 2))
