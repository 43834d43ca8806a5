"""OSTrack and what its parts promise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr_ext.models.checkpoint import BUNDLED, load_network
from ltr_ext.models.head import boxes_at_peak
from ltr_ext.models.network import sincos_positions
from ltr_ext.models.registry import build_network, network_names
from ltr_ext.models.vit import Block, Candidates, keep_ratio
from srft_plugin.errors import UserError


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return build_network("ostrack_tiny").eval()


def test_outputs_have_the_promised_shapes_and_ranges(tiny):
    with torch.no_grad():
        outputs = tiny(torch.randn(3, 3, 64, 64), torch.randn(3, 3, 128, 128))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "score_map": (3, 1, 8, 8),
        "size_map": (3, 2, 8, 8),
        "offset_map": (3, 2, 8, 8),
        "pred_boxes": (3, 4),
        "search_features": (3, 192, 8, 8),
    }
    for name in ("score_map", "size_map"):
        assert outputs[name].min() > 0 and outputs[name].max() < 1


@pytest.mark.parametrize("name", network_names())
def test_every_name_builds_a_network_of_its_spec(name):
    with torch.device("meta"):
        network = build_network(name)
    assert network.spec.name == name
    assert network.spec.search_size % network.spec.stride == 0


@pytest.mark.parametrize(
    ("template", "search", "words"),
    [
        (torch.zeros(1, 3, 64, 64), torch.zeros(1, 6, 128, 128), ["search", "(B, 3, 128, 128)"]),
        (torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 128, 128), ["template", "(1, 3, 32, 32)"]),
        ([torch.zeros(1, 3, 64, 64)], torch.zeros(1, 3, 128, 128), ["list", "(B, 3, 64, 64)"]),
        (
            torch.zeros(1, 3, 64, 64),
            torch.zeros(1, 3, 128, 128, dtype=torch.uint8),
            ["uint8", "normalise"],
        ),
    ],
)
def test_wrong_images_are_refused_by_what_was_expected(tiny, template, search, words):
    with pytest.raises(UserError) as error:
        tiny(template, search)
    assert all(word in str(error.value) for word in words)


def test_a_size_off_the_stride_names_the_nearest():
    with pytest.raises(UserError, match="multiple of the stride 16.*256"):
        build_network("ostrack256", search_size=250)


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UserError, match="did you mean 'ostrack_tiny'"):
        build_network("ostrack_tny")


@given(st.integers(0, 15), st.integers(0, 15), st.floats(0, 0.9), st.floats(0, 0.9))
def test_box_is_read_at_the_peak(row, column, dx, dy):
    score = torch.full((1, 1, 16, 16), 0.1)
    score[0, 0, row, column] = 0.9
    size, offset = torch.rand(1, 2, 16, 16), torch.rand(1, 2, 16, 16)
    offset[0, :, row, column] = torch.tensor([dx, dy])
    expected = [(column + dx) / 16, (row + dy) / 16, *size[0, :, row, column].tolist()]
    assert boxes_at_peak(score, size, offset)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_positions_of_equal_displacement_agree_between_grids():
    """The centre is the origin: the middle 4x4 cells of an 8x8 grid are those of a 4x4 grid."""
    large = sincos_positions(8, 64).unflatten(1, (8, 8))[:, 2:6, 2:6]
    assert torch.allclose(large.flatten(1, 2), sincos_positions(4, 64), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from([0.3, 0.5, 0.7]))
def test_elimination_keeps_the_tokens_the_template_looks_at(seed, keep):
    """Against the plain definition: full attention map, tokens sorted by score, the rest zero."""
    torch.manual_seed(seed)
    block = Block(32, 4).eval()
    tokens = torch.randn(2, 16 + 25, 32)
    candidates = Candidates(template_grid=4, search_tokens=25)
    with torch.no_grad():
        found = candidates.restore(candidates.run(block, tokens, keep))
        normed = block.norm1(tokens)
        q, k, _ = block.attn.qkv(normed).unflatten(2, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(2, 3) / 8**0.5).softmax(3)
        score = attention[:, :, 5, 16:].mean(1)  # cell (1, 1) of the 4x4 template
        number = -int(-keep * 25 // 1)
        for sample in range(2):
            stay = sorted(range(25), key=lambda i: -score[sample, i])[:number]
            rows = [*range(16), *(16 + i for i in sorted(stay))]
            mixed = (tokens + block.attn(normed))[sample, rows]
            expected = torch.zeros(41, 32)
            expected[rows] = mixed + block.mlp(block.norm2(mixed))
            assert torch.allclose(found[sample], expected, atol=1e-5)


def test_keep_ratio_falls_from_one_to_its_end():
    ratios = [keep_ratio(epoch, 20, 100) for epoch in range(120)]
    assert ratios[20] == 1 and ratios[60] == pytest.approx(0.85) and ratios[100:] == [0.7] * 20
    assert ratios == sorted(ratios, reverse=True)


def test_elimination_sets_in_when_the_network_says():
    network = build_network("vipt256", dim=48, heads=3, depth=4, prompts=1, eliminate_at=(1,))
    kept = []
    for epoch in (0, 3, 11, 19, 59):  # from 0; epochs 1, 4, 12, 20 and 60 of the public code
        network.start_epoch(epoch)
        kept.append(network.backbone.keep)
    assert kept == pytest.approx([1, 1, 0.85, 0.7, 0.7])


def test_a_batch_of_one_has_the_gradients_of_its_sample():
    """torch 2.14 has wrong ones for a batch norm on a CPU whose input is one map made of tokens."""
    network = load_network(BUNDLED).eval()
    torch.manual_seed(0)
    template, search = torch.randn(2, 3, 64, 64), torch.randn(2, 3, 128, 128)

    def gradients(count):
        network.zero_grad()
        maps = network(template[:count], search[:count])
        sum(maps[name][0].square().sum() for name in ("score_map", "size_map")).backward()
        return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])

    alone, among_two = gradients(1), gradients(2)
    assert (alone - among_two).norm() < 1e-4 * among_two.norm()
