"""SwinTrack: windows, shifts and positions against plain definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr_ext.models.registry import build_network
from ltr_ext.models.swin import SEPARATE, WindowAttention, merge, partition, separation
from ltr_ext.models.swintrack import pair_kinds
from srft_plugin.errors import UserError


@given(st.integers(1, 4), st.integers(1, 5))
def test_merge_inverts_partition(number, window):
    maps = torch.randn(2, number * window, number * window, 3)
    windows = partition(maps, window)
    assert windows.shape == (2, number**2, window**2, 3)
    assert torch.equal(windows[:, 0], maps[:, :window, :window].flatten(1, 2))
    assert torch.equal(merge(windows, window, number * window), maps)


@settings(deadline=None)
@given(st.integers(1, 3), st.sampled_from([3, 4, 7]))
def test_separation_parts_what_was_not_adjacent(number, window):
    """Two places of a shifted window may mix if their displacement in the map is that in it."""
    side, shift = number * window, window // 2
    places = torch.arange(side).roll(-shift)
    rows, columns = torch.meshgrid(places, places, indexing="ij")
    grid = torch.stack((rows, columns), 2)[None]
    mask = separation(side, window, shift, torch.zeros(()))
    inside = torch.arange(window)
    own = torch.stack(torch.meshgrid(inside, inside, indexing="ij"), 2).flatten(0, 1)
    moved = own[:, None] - own
    for index, window_places in enumerate(partition(grid, window)[0]):
        truly = window_places[:, None] - window_places
        apart = (truly != moved).any(2)
        assert torch.equal(mask[index] == SEPARATE, apart)


def test_window_bias_depends_on_the_displacement_alone():
    attention = WindowAttention(8, 2, 3)
    kinds = attention.relative_position_index
    for one in range(9):
        for other in range(9):
            step = (one // 3 - other // 3, one % 3 - other % 3)
            assert kinds[one, other] == (step[0] + 2) * 5 + step[1] + 2


@pytest.mark.parametrize("search_queries", [False, True])
def test_pair_kinds_are_numbered_in_lexical_order(search_queries):
    tokens = [(r, c, 0) for r in range(2) for c in range(2)]
    tokens += [(r, c, 1) for r in range(3) for c in range(3)]
    queries = tokens[4:] if search_queries else tokens
    rows = [[(q[0] - k[0], q[1] - k[1], q[2], k[2]) for k in tokens] for q in queries]
    order = {kind: number for number, kind in enumerate(sorted({k for row in rows for k in row}))}
    expected = [[order[kind] for kind in row] for row in rows]
    assert pair_kinds(2, 3, search_queries).tolist() == expected


def test_offsets_put_the_boxes_where_the_head_says():
    network = build_network("swintrack_t224", dim=24, encoder_layers=1, depths=(1, 1, 1)).eval()
    with torch.no_grad():
        outputs = network(torch.randn(1, 3, 112, 112), torch.randn(1, 3, 224, 224))
    peak = outputs["score_map"].flatten().argmax().item()
    row, column = divmod(peak, 14)
    centre = (outputs["offset_map"][0, :, row, column] + torch.tensor([column, row])) / 14
    assert torch.allclose(outputs["pred_boxes"][0, :2], centre)
    assert centre.min() > 0 and centre.max() < 1


def test_sizes_that_do_not_divide_into_windows_are_refused():
    with pytest.raises(UserError, match="expected multiples of 112"):
        build_network("swintrack_t224", template_size=128, search_size=256)


def test_position_parameters_are_frozen():
    network = build_network("swintrack_t224", dim=24, encoder_layers=1, depths=(1, 1, 1))
    network.freeze()
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert "encoder.x_untied_pos_enc.pos.w_pos" in frozen
    assert "decoder.rpe_bias_table.relative_position_bias_table" in frozen
    assert "encoder.layers.0.attn.qkv.weight" not in frozen
