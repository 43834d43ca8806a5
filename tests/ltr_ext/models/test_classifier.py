"""A tracker's start from the public files of image classifiers."""

from __future__ import annotations

import pytest
import torch

from ltr_ext.models.checkpoint import load_network
from ltr_ext.models.classifier import from_classifier
from ltr_ext.models.convert import convert
from ltr_ext.models.registry import build_network
from srft_plugin.errors import UserError


def vit_state(backbone):
    """What MAE's encoder of the tiny tracker's width would hold: 8x8 places, a class token."""
    state = {
        key: torch.randn_like(value)
        for key, value in backbone.state_dict().items()
        if "pos_embed" not in key
    }
    state["cls_token"] = torch.randn(1, 1, 192)
    state["pos_embed"] = torch.randn(1, 65, 192)
    return state | {"head.weight": torch.randn(10, 192)}


def test_vit_becomes_the_backbone(tmp_path):
    torch.manual_seed(0)
    state = vit_state(build_network("ostrack_tiny").backbone)
    torch.save({"model": state}, tmp_path / "mae.pth")
    convert(tmp_path / "mae.pth", tmp_path / "start.safetensors", name="ostrack_tiny")
    network = load_network(tmp_path / "start.safetensors")
    assert network.spec.name == "ostrack_tiny"
    found = network.backbone.state_dict()
    # The search region has the classifier's grid, the template half of it.
    assert torch.equal(found.pop("pos_embed_x"), state["pos_embed"][:, 1:])
    template = found.pop("pos_embed_z")
    assert template.shape == (1, 16, 192)
    whole = state["pos_embed"][:, 1:].mean(1)
    assert torch.nn.functional.cosine_similarity(template.mean(1), whole) > 0.9
    assert all(torch.equal(value, state[key]) for key, value in found.items())


def test_swin_becomes_the_backbone_to_its_third_stage():
    torch.manual_seed(0)
    network = build_network("swintrack_t224", dim=24, depths=(1, 1, 1), encoder_layers=1)
    own = {key: torch.randn_like(v) for key, v in network.backbone.state_dict().items()}
    names = {
        "stages.0.pre_stage.proj.weight": "patch_embed.proj.weight",
        "stages.0.pre_stage.norm.bias": "patch_embed.norm.bias",
        "stages.1.pre_stage.reduction.weight": "layers.0.downsample.reduction.weight",
        "stages.2.pre_stage.norm.weight": "layers.1.downsample.norm.weight",
        "stages.2.blocks.0.attn.relative_position_bias_table":
            "layers.2.blocks.0.attn.relative_position_bias_table",
    }  # fmt: skip

    def theirs(key):
        if key in names:
            return names[key]
        _, stage, kind, rest = key.split(".", 3)
        if kind == "blocks":
            return f"layers.{stage}.blocks.{rest}"
        before = "patch_embed" if stage == "0" else f"layers.{int(stage) - 1}.downsample"
        return f"{before}.{rest}"

    state = {theirs(key): v for key, v in own.items() if not key.startswith("norm2")}
    state |= {"layers.2.downsample.norm.weight": torch.ones(3), "norm.weight": torch.ones(3)}
    state["layers.3.blocks.0.norm1.weight"] = torch.ones(3)
    assert set(names.values()) <= set(state)
    sizes = {"dim": 24, "depths": (1, 1, 1), "encoder_layers": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "ltr_ext.models.classifier.build_network", lambda name: build_network(name, **sizes)
        )
        found = from_classifier(state, "swintrack_t224", "file").backbone.state_dict()
    for key, value in own.items():
        assert torch.equal(found[key], value) != key.startswith("norm2"), key


@pytest.mark.parametrize("tokens", [196, 197, 200, 201])
def test_places_without_a_class_token_and_of_no_grid(tokens, tmp_path):
    state = vit_state(build_network("ostrack_tiny").backbone)
    state["pos_embed"] = torch.randn(1, tokens, 192)
    torch.save(state, tmp_path / "vit.pth")
    arguments = tmp_path / "vit.pth", tmp_path / "b.safetensors"
    if tokens > 197:
        with pytest.raises(UserError, match="vit.pth: pos_embed has shape .* cannot be interpol"):
            convert(*arguments, name="ostrack_tiny")
        return
    convert(*arguments, name="ostrack_tiny")
    grid = state["pos_embed"][:, tokens - 196 :].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, (8, 8), mode="bicubic").flatten(2).mT
    assert torch.allclose(load_network(arguments[1]).backbone.pos_embed_x, expected)


def test_a_classifier_of_another_size_says_what_the_backbone_needs(tmp_path):
    state = vit_state(build_network("ostrack_tiny").backbone)
    state.pop("blocks.3.mlp.fc2.bias")
    torch.save(state, tmp_path / "vit.pth")
    arguments = tmp_path / "vit.pth", tmp_path / "b.safetensors"
    with pytest.raises(UserError, match=r"needs 1 tensors more \(blocks.3.mlp.fc2.bias \(192,\)\)"):
        convert(*arguments, name="ostrack_tiny")
    with pytest.raises(UserError, match="holds an image classifier; say which tracker"):
        convert(*arguments)
    with pytest.raises(UserError, match="is not the classifier of ostrack256"):
        convert(*arguments, name="ostrack256")
