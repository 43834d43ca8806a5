"""Conversion and inspection of checkpoints."""

from __future__ import annotations

import re

import pytest
import torch

from ltr_ext.models.checkpoint import load_network, save_network
from ltr_ext.models.convert import convert, extend, inspect
from ltr_ext.models.registry import build_network
from srft_plugin.cli import main
from srft_plugin.errors import UserError
from srft_plugin.groups import operation_groups


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return build_network("ostrack_tiny")


def test_official_file_becomes_safetensors(tiny, tmp_path):
    torch.save({"net": tiny.state_dict()}, tmp_path / "a.pth.tar")
    convert(tmp_path / "a.pth.tar", tmp_path / "b.safetensors")
    network = load_network(tmp_path / "b.safetensors")
    assert network.metadata == {"network": "ostrack_tiny"}
    assert torch.equal(network.backbone.pos_embed_x, tiny.backbone.pos_embed_x)


def test_base_becomes_two_branch_with_its_modality(tiny, tmp_path):
    save_network(tiny, tmp_path / "a.safetensors", epochs=5)
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "two_branch", "thermal")
    network = load_network(tmp_path / "b.safetensors")
    assert network.spec.name == "two_branch_tiny"
    assert network.metadata == {
        "network": "two_branch_tiny",
        "base": "ostrack_tiny",
        "modality": "thermal",
        "epochs": 5,
    }
    assert torch.equal(network.backbone.norm_aux.weight, tiny.backbone.norm.weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": "two_branch_ostrack256"}, "ostrack_tiny makes two_branch_tiny, not two_branch_ost"),
        (
            {"to": "two_branch_tyni"},
            "unknown network 'two_branch_tyni'; did you mean 'two_branch_t",
        ),
        ({"to": "vipt256"}, r"vipt256 does not extend ostrack_tiny: .*pos_embed_z \(1, 64, 768\)"),
        ({"modality": "sonar"}, "unknown modality 'sonar'. Known: depth, thermal, event"),
        ({"target": "b.pth"}, "b.pth: converted checkpoints end in .safetensors"),
    ],
)
def test_impossible_conversions_say_why(tiny, tmp_path, arguments, message):
    save_network(tiny, tmp_path / "a.safetensors")
    target = tmp_path / arguments.pop("target", "b.safetensors")
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "a.safetensors", target, **arguments)
    assert not target.exists()


def test_weights_are_made_to_fit_on_request(tmp_path, capsys, caplog):
    small = build_network("ostrack_tiny", template_size=32, search_size=64)
    state = small.state_dict() | {"backbone.extra": torch.zeros(1)}
    del state["backbone.norm.bias"]
    for name, content in (("a.pth", small.state_dict()), ("b.pth", state)):
        torch.save({"net": content}, tmp_path / name)
    source, other, target = (str(tmp_path / name) for name in ("a.pth", "b.pth", "c.safetensors"))
    options = [target, "--network", "ostrack_tiny", "--resize-positions"]
    assert main(["convert", source, *options[:3]]) == 2
    assert "srft convert --network ostrack_tiny --resize-posit" in capsys.readouterr().err
    assert main(["convert", source, *options]) == 0
    converted = load_network(target).backbone
    assert torch.equal(converted.norm.weight, small.backbone.norm.weight)
    assert converted.pos_embed_x.shape[1] == 64
    assert main(["convert", other, *options]) == 2
    assert "1 missing (backbone.norm.bias); 1 extra (backbone.extra)" in capsys.readouterr().err
    assert main(["convert", other, *options, "--partial"]) == 0
    assert "b.pth is taken for all that: 1 missing (backbone.norm.bias)" in caplog.text
    assert "b.pth is taken for all that: 1 extra (backbone.extra)" in caplog.text
    assert main(["convert", source, target, "--partial"]) == 2
    assert "add --network" in capsys.readouterr().err


def test_a_target_that_cannot_be_written_is_named(tiny, tmp_path):
    save_network(tiny, tmp_path / "a.safetensors")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write .*file/b.safetensors"):
        convert(tmp_path / "a.safetensors", tmp_path / "file" / "b.safetensors")


def test_peers_take_the_base_weights_and_keep_what_is_new():
    sizes = {"dim": 48, "heads": 3, "depth": 4, "template_size": 64, "search_size": 128}
    base = build_network("ostrack256", **sizes)
    for name in ("vipt256", "sdstrack256", "untrack256", "upvpt_ostrack256"):
        changes = {"prompts": 4} if name == "vipt256" else {}
        network = build_network(name, **sizes, **changes)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        network.copy_base(base)
        source = base.state_dict()
        for key, value in network.state_dict().items():
            origin = network.base_name(key)
            assert torch.equal(value, before[key] if origin is None else source[origin]), key
        assert set(network.prior_sources(base).values()) == {None, *operation_groups(base)}


def test_inspection_names_network_sizes_and_parts(tiny, tmp_path):
    save_network(extend(tiny, "two_branch"), tmp_path / "a.safetensors", modality="depth")
    text = inspect(tmp_path / "a.safetensors")
    assert "two_branch_tiny" in text and re.search(r"search_size +128\n", text)
    assert re.search(r"modality +depth\n", text)
    total = sum(value.numel() for value in extend(tiny, "two_branch").state_dict().values())
    assert text.splitlines()[-1].split()[-1] == f"{total:,}"


def test_inspection_of_an_unknown_file(tmp_path):
    torch.save({"weight": torch.zeros(2, 3)}, tmp_path / "a.pth")
    text = inspect(tmp_path / "a.pth")
    assert re.search(r"network +unknown\n", text) and text.endswith("6")
