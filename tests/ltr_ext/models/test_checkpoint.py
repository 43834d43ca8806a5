"""Checkpoints: round trips, official files, and files that would do harm."""

from __future__ import annotations

import collections
import contextlib
import os
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ltr_ext.models.checkpoint import (
    guess_network,
    load_network,
    load_weights,
    read_checkpoint,
    save_network,
)
from ltr_ext.models.registry import build_network, network_names
from ltr_ext.models.two_branch import two_branch_from
from srft_plugin.errors import UserError


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return build_network("ostrack_tiny")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_round_trip_keeps_weights_and_metadata(tiny, tmp_path):
    save_network(tiny, tmp_path / "a.safetensors", epoch=3, modality=None)
    network = load_network(tmp_path / "a.safetensors")
    assert network.metadata == {"network": "ostrack_tiny", "epoch": 3, "modality": None}
    assert not network.training and same(network.state_dict(), tiny.state_dict())
    save_network(network, tmp_path / "b.safetensors", epoch=4)
    assert load_network(tmp_path / "b.safetensors").metadata["epoch"] == 4


@pytest.mark.parametrize("name", [name for name in network_names() if name.endswith("_tiny")])
def test_every_kind_of_network_is_read_back(name, tmp_path):
    torch.manual_seed(0)
    network = build_network(name)
    save_network(network, tmp_path / "network.safetensors")
    loaded = load_network(tmp_path / "network.safetensors")
    assert loaded.spec == network.spec
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_file_without_a_name_is_recognised_by_its_keys(tiny, tmp_path):
    torch.save({"net": two_branch_from(tiny).state_dict()}, tmp_path / "a.pth.tar")
    assert load_network(tmp_path / "a.pth.tar").spec.name == "two_branch_tiny"
    assert guess_network({"weight": torch.zeros(1)}) is None


@pytest.fixture(params=["zip", "legacy"])
def official(request, tiny, tmp_path):
    """A file as pytracking's trainers write it, now or before torch 1.6: weights beside pickled
    settings."""
    module = types.ModuleType("lib.train.admin.settings")
    module.Settings = type("Settings", (), {"__module__": module.__name__})
    names = ("lib", "lib.train", "lib.train.admin", module.__name__)
    sys.modules |= dict.fromkeys(names, module)
    options = module.Settings()
    options.batch_size = 32
    module.Config = type("Config", (dict,), {"__module__": module.__name__})
    options.cfg = module.Config(lr=1e-4, inner=module.Config(a=[1, 2]))
    options.cfg.frozen = True
    options.folder = Path("/data")
    options.best = np.float64(0.5)
    options.history = collections.defaultdict(list, loss=[0.1])
    path = tmp_path / "OSTrack_ep0300.pth.tar"
    stats = collections.OrderedDict(train=[1.0, options])
    content = {"epoch": 300, "net": tiny.state_dict(), "settings": options, "s": stats}
    torch.save(content, path, _use_new_zipfile_serialization=request.param == "zip")
    for name in names:
        del sys.modules[name]
    return path


def test_official_file_loads_without_its_settings(official, tiny):
    state, metadata = read_checkpoint(official)
    assert same(state, tiny.state_dict()) and metadata == {}
    assert not any(name.startswith("lib") for name in sys.modules)


class Exploit:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("legacy", [False, True])
def test_file_that_would_run_code_is_refused(tiny, tmp_path, legacy):
    path, proof = tmp_path / "bad.pth.tar", tmp_path / "proof"
    content = {"net": tiny.state_dict(), "settings": Exploit(f"touch {proof}")}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match="system"):
        load_network(path)
    assert not proof.exists()
    torch.load(path, weights_only=False)  # the exploit is real
    assert proof.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_settings_may_not_smuggle_a_real_function(tmp_path, legacy):
    """A stand-in takes the place of whatever a trusted module name points to: nothing is called."""

    class Call:
        def __reduce__(self):
            import numpy.testing

            return numpy.testing.assert_equal, (1, 2)

    content = {"net": {"a": torch.ones(1)}, "settings": Call()}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    assert read_checkpoint(tmp_path / "a.pth")[0]["a"] == 1


def test_weights_of_another_network_are_named(tiny):
    other = two_branch_from(tiny)
    with pytest.raises(UserError) as error:
        load_weights(tiny, other.state_dict(), "file.pth")
    message = str(error.value)
    assert "file.pth does not fit ostrack_tiny" in message
    assert "missing (backbone.patch_embed.stem.0.conv.weight" in message
    assert "extra (backbone.patch_embed_rgb.stem.0.conv.weight" in message
    assert "seems to hold two_branch_tiny" in message


def test_loaded_network_trains_in_float32_whatever_the_file_has(tiny, tmp_path):
    half = {name: v.half() if v.is_floating_point() else v for name, v in tiny.state_dict().items()}
    torch.save({"net": half}, tmp_path / "a.pth")
    network = load_network(tmp_path / "a.pth")
    network(torch.randn(1, 3, 64, 64), torch.randn(1, 3, 128, 128))["size_map"].sum().backward()
    assert network.backbone.pos_embed_x.grad.dtype == torch.float32
    assert all(value.device.type == "cpu" for value in (*network.parameters(), *network.buffers()))


def test_names_of_parallel_training_are_known(tiny, tmp_path):
    torch.save({f"module.{key}": value for key, value in tiny.state_dict().items()}, tmp_path / "a")
    assert load_network(tmp_path / "a").spec.name == "ostrack_tiny"


@pytest.mark.parametrize("shape", [(1, 70, 192), (64,), ()])
def test_positions_of_no_grid_are_named(shape, tiny):
    state = tiny.state_dict() | {"backbone.pos_embed_x": torch.zeros(shape)}
    with pytest.raises(UserError, match=r"file.pth: backbone.pos_embed_x has shape .*expected \(1"):
        load_weights(build_network("ostrack_tiny"), state, "file.pth", resize_positions=True)


def test_partial_load_must_be_asked_for(tiny):
    state = tiny.state_dict()
    state.pop("backbone.norm.weight")
    network = build_network("ostrack_tiny")
    with pytest.raises(UserError, match=r"1 missing \(backbone.norm.weight\)"):
        load_weights(network, state, "file.pth")
    load_weights(network, state, "file.pth", partial=True)
    loaded = network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    with pytest.raises(UserError, match="file.pth has nothing of ostrack_tiny"):
        load_weights(network, {"conv1.weight": torch.ones(1)}, "file.pth", partial=True)


def test_another_size_loads_with_resized_positions(tiny):
    larger = build_network("ostrack_tiny", template_size=96, search_size=192)
    with pytest.raises(UserError, match=r"pos_embed_z \(1, 16, 192\) instead of \(1, 36, 192\)"):
        load_weights(larger, tiny.state_dict(), "file.pth")
    with pytest.raises(UserError, match="of another shape"):
        load_weights(larger, tiny.state_dict(), "file.pth", partial=True)
    load_weights(larger, tiny.state_dict(), "file.pth", resize_positions=True)
    mean = larger.backbone.pos_embed_x.mean(1)
    assert torch.allclose(mean, tiny.backbone.pos_embed_x.mean(1), atol=0.05)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.pth", None, "no such checkpoint"),
        ("text.pth", b"not weights", "not a complete one"),
        ("empty.safetensors", b"", "not a complete safetensors"),
        ("zip.pth", b"PK\x03\x04 broken", "not a complete one"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_checkpoint(path)
    assert name in str(error.value)


@pytest.mark.parametrize("record", ["{", "[1]"])
def test_damaged_metadata_is_named(tmp_path, record):
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors", {"srft": record})
    with pytest.raises(UserError, match="a.safetensors"):
        read_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("content", [{0: torch.zeros(2)}, {"net": {"a": 1}}, {}, [torch.zeros(2)]])
def test_a_file_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UserError, match="a.pth holds"):
        read_checkpoint(tmp_path / "a.pth")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4))
@pytest.mark.parametrize("legacy", [False, True])
def test_corrupted_file_is_read_or_refused_in_plain_words(legacy, changes):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pth"
        content = {"net": {"weight": torch.ones(3)}, "epoch": 5}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        damaged = bytearray(path.read_bytes())
        for place, value in changes:
            damaged[round(place * (len(damaged) - 1))] = value
        path.write_bytes(damaged)
        with contextlib.suppress(UserError):
            state, _ = read_checkpoint(path)
            assert all(isinstance(value, torch.Tensor) for value in state.values())


def test_truncated_file_is_named(tiny, tmp_path):
    save_network(tiny, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "b.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="b.safetensors is not a complete safetensors file"):
        load_network(tmp_path / "b.safetensors")
    torch.save({"net": tiny.state_dict()}, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "b.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="b.pth"):
        load_network(tmp_path / "b.pth")


def test_the_same_network_gives_the_same_file(tmp_path):
    network = build_network("ostrack_tiny")
    files = [tmp_path / f"{i}.safetensors" for i in range(12)]
    for file in files:
        save_network(network, file, steps=1, regularizer="none")
    assert len({file.read_bytes() for file in files}) == 1
