"""SUTrack, its templates and boxes, and the two-branch network on it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ltr_ext.models.checkpoint import load_weights
from ltr_ext.models.registry import build_network
from ltr_ext.models.sutrack import patch_coverage
from ltr_ext.models.two_branch import two_branch_from
from srft_plugin.errors import UserError
from srft_plugin.groups import operation_groups
from srft_plugin.tuning.trainable import select_trainable

SMALL = {"dim": 64, "stage_depth": 1, "depth": 4, "template_size": 64, "search_size": 128}


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return build_network("sutrack_t224", **SMALL).eval()


@pytest.fixture(scope="module")
def inputs():
    torch.manual_seed(1)
    return torch.randn(2, 6, 64, 64), torch.randn(2, 6, 128, 128)


def test_one_template_counts_as_often_as_the_network_takes_templates(small, inputs):
    template, search = inputs
    box = torch.tensor([[0.5, 0.5, 0.5, 0.5]]).expand(2, 4)
    with torch.no_grad():
        once = small(template, search)
        twice = small([template, template], search, [box, box])
        stacked = small(torch.stack([template] * 2, 1), search, torch.stack([box] * 2, 1))
    assert once["task_logits"].shape == (2, 1, 5)
    for other in (twice, stacked):
        assert all(torch.equal(once[name], other[name]) for name in once)


def test_wrong_number_of_templates_is_refused(small, inputs):
    template, search = inputs
    with pytest.raises(UserError, match="takes 1 or 2 templates with their boxes, not 3"):
        small([template] * 3, search)
    with pytest.raises(UserError, match=r"template has shape \(2, 3, 64, 64\)"):
        small([template, template[:, :3]], search)
    with pytest.raises(UserError, match=r"template_box has shape \(2, 5\); expected \(2, 4\)"):
        small(template, search, torch.zeros(2, 5))
    with pytest.raises(UserError, match="1 templates for 2 search regions"):
        small(template[:1], search)


def test_box_and_text_reach_the_output(small, inputs):
    small.backbone.template_foreground_token.data.normal_()
    with torch.no_grad():
        plain = small(*inputs)["score_map"]
        box = small(*inputs, torch.tensor([[0.3, 0.3, 0.2, 0.2]]).expand(2, 4))["score_map"]
        text = small(*inputs, text=torch.randn(2, 1, 64))["score_map"]
    assert not torch.equal(plain, box) and not torch.equal(plain, text)


@given(st.lists(st.integers(0, 64), min_size=4, max_size=4))
def test_coverage_is_the_share_of_pixels_in_the_box(edges):
    """Against a painted mask, for boxes on pixel borders."""
    (left, right), (top, bottom) = sorted(edges[:2]), sorted(edges[2:])
    mask = torch.zeros(64, 64, dtype=torch.float64)
    mask[top:bottom, left:right] = 1
    expected = mask.unflatten(1, (4, 16)).unflatten(0, (4, 16)).mean((1, 3))
    box = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    found = patch_coverage(torch.tensor([box], dtype=torch.float64) / 64, 64, 16)
    assert torch.allclose(found.reshape(4, 4), expected)


def test_the_task_head_never_trains(small):
    """No loss asks it: processes that train together would wait for its gradient."""
    for network in (small, two_branch_from(small)):
        for which in ("all", "backbone+head"):
            select_trainable(network, which)
            assert not any(p.requires_grad for p in network.task_head.parameters())
            assert all(p.requires_grad for p in network.box_head.parameters())


def test_two_branch_takes_all_weights_from_the_base(small):
    network = two_branch_from(small)
    assert network.spec.name == "two_branch_sutrack_t224"
    sources = network.prior_sources(small)
    assert sources.keys() == operation_groups(network).keys()
    copied = set(operation_groups(small)) - {"backbone.patch_embed.proj"}
    assert set(sources.values()) - {None} == copied
    assert sources["backbone.fusion.1.attn.proj"] == "backbone.blocks.5.attn.proj"
    state, source = network.state_dict(), small.state_dict()
    for name, value in state.items():
        if "patch_embed" not in name:
            assert torch.equal(value, source[network.base_name(name)]), name
    rgb, aux = source["backbone.patch_embed.proj.weight"].chunk(2, 1)
    assert torch.equal(state["backbone.patch_embed_aux.proj.weight"], rgb + aux)


def test_branches_start_as_the_base_on_an_image_given_twice(small, inputs):
    """Without fusion, equal images in both branches give the base network's tokens."""
    network = two_branch_from(small).eval()
    network.backbone.fuse_after = ()
    template, search = (images[:, :3].repeat(1, 2, 1, 1) for images in inputs)
    with torch.no_grad():
        expected, found = small(template, search), network(template, search)
    assert all(torch.allclose(expected[name], found[name], atol=1e-5) for name in expected)


@pytest.mark.parametrize("size", ["b224", "b384"])
def test_size_is_that_of_table_xii(size):
    """65.29 M and 141.1 M, as the paper counts: its SUTrack row leaves heads, the projections to
    query, key and value, and parameters outside of layers uncounted."""

    def counted(network):
        layers = (
            (name, module)
            for name, module in network.backbone.named_modules()
            if next(module.children(), None) is None
        )
        return sum(
            parameter.numel()
            for name, layer in layers
            if not name.endswith(("q_proj", "k_proj", "v_proj"))
            for parameter in layer.parameters(recurse=False)
        )

    with torch.device("meta"):
        base = build_network(f"sutrack_{size}")
        network = build_network(f"two_branch_sutrack_{size}")
    assert counted(base) == pytest.approx(65.29e6, rel=1e-3)
    assert counted(network) == pytest.approx(141.1e6, rel=1e-3)


def test_positions_of_both_grids_are_resized(small):
    larger = build_network("sutrack_t224", **SMALL | {"template_size": 96, "search_size": 192})
    with pytest.raises(UserError, match=r"pos_embed \(1, 80, 64\) instead of \(1, 180, 64\)"):
        load_weights(larger, small.state_dict(), "file")
    load_weights(larger, small.state_dict(), "file", resize_positions=True)
    for old, new in ((slice(0, 64), slice(0, 144)), (slice(64, 80), slice(144, 180))):
        before, after = small.backbone.pos_embed[:, old], larger.backbone.pos_embed[:, new]
        assert torch.allclose(before.mean(1), after.mean(1), atol=0.01)
