"""The peers that SRFT is combined with: what they train and how they work."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from ltr_ext.models.registry import build_network
from ltr_ext.models.untrack import WINDOW, Edges, hard_choice
from srft_plugin.errors import UserError
from srft_plugin.groups import operation_groups
from srft_plugin.prior import Prior

SMALL = {"dim": 48, "heads": 3, "depth": 4, "template_size": 64, "search_size": 128}
SMALL_VIT = {
    "vipt256": {**SMALL, "prompts": 4, "eliminate_at": (1, 2)},
    "sdstrack256": {**SMALL, "cross_at": (1, 3), "eliminate_at": (1, 2)},
    "untrack256": {**SMALL, "eliminate_at": (1, 2)},
    "upvpt_ostrack256": {**SMALL, "eliminate_at": (1, 2)},
}


def small(name, **changes):
    torch.manual_seed(0)
    return build_network(name, **SMALL_VIT[name] | changes)


def images(network, batch=3):
    spec = network.spec
    sizes = (spec.template_size, spec.search_size)
    return [torch.randn(batch, spec.in_channels, size, size) for size in sizes]


@pytest.mark.parametrize(
    ("name", "share"),
    [("vipt256", 0.01), ("vipt256_shallow", 0.01), ("sdstrack256", 0.15), ("untrack256", 0.08)],
)
def test_share_of_efficient_parameters(name, share):
    with torch.device("meta"):
        network = build_network(name)
    parameters = dict(network.named_parameters())
    efficient = sum(parameters[key].numel() for key in network.peft_parameter_names())
    assert 0 < efficient < share * sum(p.numel() for p in parameters.values())


def test_base_networks_have_no_efficient_parameters():
    with torch.device("meta"):
        assert build_network("two_branch_ostrack256").peft_parameter_names() == []


@pytest.mark.parametrize("name", SMALL_VIT)
def test_linear_layers_start_as_in_the_public_code(name):
    """Its ViT initialisation comes last and meets the adapters, too: deviation 0.02, no bias."""
    layers = {n: m for n, m in small(name).backbone.named_modules() if isinstance(m, nn.Linear)}
    assert len(layers) >= 16
    for layer in layers.values():
        size = layer.weight.numel()
        assert layer.weight.square().mean().sqrt().item() == pytest.approx(0.02, rel=4 / size**0.5)
        assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize("name", ["upvpt_ostrack256", "upvpt_swintrack_t224"])
def test_upvpt_prompts_are_under_one_percent_and_mlps_train(name):
    with torch.device("meta"):
        network = build_network(name)
    parameters = dict(network.backbone.named_parameters())
    prompts = sum(p.numel() for key, p in parameters.items() if "prompt" in key)
    assert 0 < prompts < 0.01 * sum(p.numel() for p in parameters.values())
    kinds = {key.split(".")[-3] if "mlp" in key else "prompt" for key in
             network.peft_parameter_names()}  # fmt: skip
    assert kinds == {"mlp", "prompt"}


def test_upvpt_prompts_change_the_output_and_leave_the_token_count():
    network = small("upvpt_ostrack256").eval()
    inputs = images(network)
    with torch.no_grad():
        before = network.backbone(*inputs)
        network.backbone.prompts[3] += torch.randn(10, 48)
        after = network.backbone(*inputs)
    assert before.shape == after.shape == (3, 16 + 64, 48)
    assert not torch.allclose(before, after)


def test_upvpt_without_prompts_is_ostrack():
    """Prompts that no query attends to (keys far away) leave OSTrack's numbers."""
    torch.manual_seed(0)
    base = build_network("ostrack256", **SMALL).eval()
    network = build_network("upvpt_ostrack256", **SMALL, prompts=0, eliminate_at=()).eval()
    network.copy_base(base)
    inputs = images(base)
    with torch.no_grad():
        expected, found = base(*inputs), network(*inputs)
    assert all(torch.allclose(expected[key], found[key], atol=1e-5) for key in expected)


def test_upvpt_on_windows_without_prompts_is_swintrack():
    sizes = {"dim": 24, "depths": (2, 2, 2), "encoder_layers": 1}
    torch.manual_seed(0)
    base = build_network("swintrack_t224", **sizes).eval()
    without, with_prompts = (
        build_network("upvpt_swintrack_t224", **sizes, prompts=m).eval() for m in (0, 3)
    )
    inputs = images(base)
    with torch.no_grad():
        expected = base(*inputs)
        for network, same in ((without, True), (with_prompts, False)):
            network.copy_base(base)
            found = network(*inputs)
            assert torch.allclose(expected["offset_map"], found["offset_map"], atol=1e-6) == same


@pytest.mark.parametrize("peer", ["vipt", "sdstrack", "untrack"])
def test_a_peer_on_droptrack_is_the_one_on_ostrack_with_the_embeddings_of_the_roles(peer):
    sizes = SMALL_VIT[f"{peer}256"]
    torch.manual_seed(0)
    base = build_network("droptrack384", **SMALL | {"eliminate_at": (1, 2)}).eval()
    for value in (base.backbone.temporal_pos_embed_z, base.backbone.temporal_pos_embed_x):
        nn.init.normal_(value)
    network = build_network(f"{peer}_droptrack384", **sizes).eval()
    network.copy_base(base)
    plain = small(f"{peer}256").eval()
    weights = network.state_dict()
    for role in "zx":
        place, embedding = f"backbone.pos_embed_{role}", f"backbone.temporal_pos_embed_{role}"
        weights[place] = weights[place] + weights.pop(embedding)
    plain.load_state_dict(weights)
    inputs = [*images(network), torch.ones(3, dtype=torch.long)][: len(network.input_names)]
    with torch.no_grad():
        expected, found = plain(*inputs), network(*inputs)
    assert all(torch.allclose(expected[key], found[key], atol=1e-5) for key in expected)


@pytest.mark.parametrize("name", ["vipt256", "sdstrack256", "untrack256", "upvpt_ostrack256"])
def test_no_other_network_begins_from_a_peer(name):
    """Its tuned prompts or adapters would be thrown away without a word."""
    tuned = small(name)
    for other in SMALL_VIT.keys() - {name}:
        with pytest.raises(UserError, match="give the checkpoint of the RGB tracker"):
            small(other).copy_base(tuned)


def test_sdstrack_training_path_compares_with_a_masked_copy():
    network = small("sdstrack256").train()
    clean = network(*images(network))
    masked, distance = clean["masked"], clean["distance"]
    assert clean["score_map"].shape == masked["score_map"].shape == (3, 1, 8, 8)
    assert distance.shape == (3,) and (distance > 0).all()
    assert not torch.equal(clean["score_map"], masked["score_map"])
    distance.sum().backward()
    assert network.backbone.blocks[0].Space_X_DTE_Adapter.D_fc1.weight.grad.abs().sum() > 0
    assert "masked" not in network.eval()(*images(network))


def test_sdstrack_hides_no_place_in_both_modalities(monkeypatch):
    network = small("sdstrack256").train()
    seen, fuse = [], network.backbone.fuse
    monkeypatch.setattr(network.backbone, "fuse", lambda *pair: seen.append(pair) or fuse(*pair))
    network(*images(network))
    (rgb, aux), (masked_rgb, masked_aux) = seen
    hidden = [
        (masked == 0).all(2) & (whole != 0).any(2)
        for whole, masked in ((rgb, masked_rgb), (aux, masked_aux))
    ]
    assert not (hidden[0] & hidden[1]).any()
    assert 0.15 < hidden[0].float().mean() < 0.45 and 0.05 < hidden[1].float().mean() < 0.4


def test_sdstrack_crosses_modalities_only():
    """In the cross pass, RGB tokens depend on the auxiliary ones, and on no other RGB token."""
    block = small("sdstrack256").eval().backbone.blocks[1]
    tokens = torch.randn(1, 12, 48, requires_grad=True)
    block.cross(tokens)[0, 0].sum().backward()
    reached = tokens.grad[0].abs().sum(1) > 1e-7
    assert reached.tolist() == [True] + [False] * 5 + [True] * 6


def test_sdstrack_never_drops_its_rgb_mlps():
    """Stochastic depth of all paths leaves the MLP of the RGB pass, and that alone."""
    network = small("sdstrack256", drop_path=1.0).train()
    block = network.backbone.blocks[-1]  # the rates rise to the last
    tokens = torch.randn(3, 5, 48)
    rgb, aux = (block.run(tokens, None, 1.0, auxiliary) for auxiliary in (False, True))
    assert torch.equal(rgb, tokens + block.mlp(block.norm2(tokens)))
    assert torch.equal(aux, tokens)


def test_untrack_modality_is_given_or_comes_from_metadata():
    network = small("untrack256").eval()
    template, search = images(network)
    with torch.no_grad():
        for index, name in enumerate(("depth", "thermal", "event"), 1):
            network.metadata = {"modality": name}
            alone = network(template, search)["score_map"]
            network.metadata = {}
            given = network(template, search, torch.full((3,), index))["score_map"]
            assert torch.equal(given, alone)
            assert not torch.equal(network(template, search)["score_map"], alone)
    network.metadata = {"modality": "sonar"}
    with pytest.raises(UserError, match="unknown modality.*sonar"):
        network(template, search)


@pytest.mark.parametrize("name", SMALL_VIT)
def test_wrong_images_are_refused_by_what_was_expected(name):
    network = small(name)
    template, search = images(network)
    channels = network.spec.in_channels
    for wrong, words in (
        ([template], f"template is a list; expected one tensor \\(B, {channels}, 64, 64\\)"),
        (template[:, :2], f"shape \\(3, 2, 64, 64\\); expected \\(B, {channels}, 64, 64\\)"),
        (template[:2], "2 templates for 3 search regions"),
    ):
        with pytest.raises(UserError, match=words):
            network(wrong, search)


def test_untrack_needs_a_modality_per_sample():
    network = small("untrack256")
    with pytest.raises(UserError, match=r"modality has shape \(1,\).*\(3,\)"):
        network(*images(network), torch.tensor([1]))


def test_untrack_choice_is_hard_forward_and_soft_backward():
    weights = torch.tensor([[0.1, 0.4, 0.2, 0.3]], requires_grad=True)
    best, worst = hard_choice(weights, 1), hard_choice(weights, -1)
    assert best.tolist() == [[0, 1, 0, 0]] and worst.tolist() == [[1, 0, 0, 0]]
    (best * torch.arange(4.0)).sum().backward()
    assert weights.grad.tolist() == [[0, 1, 2, 3]]


def test_edges_are_zero_on_flat_images_away_from_the_border():
    edges = Edges(32)
    found = edges(torch.full((1, 2, 32, 32), 0.7))
    assert found.shape == (1, 8, 32, 32) and not found.any()
    step = torch.zeros(1, 1, 32, 32)
    step[..., 16:] = 1
    assert edges(step)[..., 4:28, 8:24].abs().max() == 1


@pytest.mark.parametrize("side", [32, 128, 256])
def test_edges_sample_the_places_of_the_public_grid(side):
    """The shift ends between two pixels, so only the grid itself says which of them is meant."""
    images = torch.randn(1, 2, side, side)
    peaks = functional.max_pool2d(functional.pad(images, [WINDOW // 2] * 4), WINDOW, 1)
    expected = []
    for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        shift = torch.tensor([[[1, 0, x * WINDOW / side], [0, 1, y * WINDOW / side]]])
        grid = functional.affine_grid(shift, list(peaks.shape), align_corners=False)
        moved = functional.grid_sample(peaks, grid, mode="nearest", align_corners=False)
        expected.append((peaks - moved).masked_fill(moved == 0, 0))
    assert torch.equal(Edges(side)(images), torch.cat(expected, 1))


def test_prior_of_the_base_network_carries_over_to_a_peer():
    """Prompts are new and unranked; what is copied has the rank of its origin."""
    sizes = {**SMALL, "eliminate_at": ()}
    base, network = build_network("ostrack256", **sizes), small("vipt256")
    network.copy_base(base)
    network.freeze()
    spectra = {
        name: torch.tensor([float(number)], dtype=torch.float64)
        for number, name in enumerate(operation_groups(base))
    }
    parameters = dict(base.named_parameters())
    shapes = {
        name: [list(parameters[p].shape) for p in members]
        for name, members in operation_groups(base).items()
    }
    prior = Prior(spectra, shapes, {}).renamed(network.prior_sources(base))
    bound = prior.bind(network)
    assert "backbone.blocks.0.attn.qkv" in bound.ranks
    assert not [name for name in bound.ranks if "prompt" in name]
