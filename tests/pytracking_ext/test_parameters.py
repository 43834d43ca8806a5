"""Parameter sets: by module, by training run, by checkpoint."""

import pytest
import torch

from ltr_ext.models.registry import build_network
from pytracking_ext.parameter import srft
from pytracking_ext.parameter.srft import default_rgb, from_checkpoint, load
from pytracking_ext.tracker.srft import SRFTTracker
from srft_plugin.errors import UserError


def test_weights_are_read_once_per_process_and_file(base):
    first, second = from_checkpoint(base), load("any_name", base)
    assert first.network is second.network and not first.network.training
    assert first is not second
    base.touch()
    assert from_checkpoint(base).network is not first.network


def test_a_real_network_tracks(base, white_square):
    sequence = white_square(length=3)
    tracker = SRFTTracker(load("any_name", base))
    tracker.initialize(sequence.frames.rgb(0), {"init_bbox": sequence.boxes[0]})
    answer = tracker.track(sequence.frames.rgb(1))
    assert len(answer["target_bbox"]) == 4
    assert 0 <= answer["object_presence_score"] <= 1


def test_the_bundled_tracker_is_a_parameter_set(base, monkeypatch):
    monkeypatch.setattr(default_rgb, "BUNDLED", base)
    assert load("default_rgb").network.spec.name == "ostrack_tiny"
    assert default_rgb.parameters("cpu").checkpoint == base


def test_settings_of_a_parameter_set_stay_with_other_weights(base, monkeypatch):
    def parameters(device=None, checkpoint=None):
        return from_checkpoint(checkpoint or default_rgb.BUNDLED, device, margin=3)

    monkeypatch.setattr(default_rgb, "parameters", parameters)
    loaded = load("default_rgb", base)
    assert (loaded.margin, loaded.checkpoint) == (3, base)


def test_a_training_run_is_a_parameter_set(base, tmp_path, monkeypatch):
    monkeypatch.setenv("SRFT_WORKSPACE_DIR", str(tmp_path))
    with pytest.raises(UserError, match="srft train tiny_depth"):
        load("tiny_depth")
    run = tmp_path / "checkpoints" / "ltr" / "srft" / "tiny_depth"
    run.mkdir(parents=True)
    (run / "network.safetensors").write_bytes(base.read_bytes())
    assert load("tiny_depth").checkpoint == run / "network.safetensors"


def test_an_unknown_name_suggests_the_nearest(tmp_path, monkeypatch):
    monkeypatch.setenv("SRFT_WORKSPACE_DIR", str(tmp_path))
    with pytest.raises(UserError, match="unknown tracker parameters 'defalt_rgb'.*default_rgb"):
        load("defalt_rgb")
    with pytest.raises(UserError, match="no network at"):
        load("default_rgb", tmp_path / "gone.safetensors")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("ostrack256", (None, None)),
        ("two_branch_ostrack256", (None, None)),
        ("swintrack_t224", (0.49, None)),
        ("sutrack_t224", (None, 25)),
    ],
)
def test_each_base_tracker_keeps_its_protocol(name, expected, tmp_path, monkeypatch):
    with torch.device("meta"):
        network = build_network(name)
    monkeypatch.setattr(srft, "_network", lambda *_: network)
    (tmp_path / "weights.pth").touch()
    parameters = from_checkpoint(tmp_path / "weights.pth")
    assert (parameters.window_weight, parameters.update_interval) == expected
    assert from_checkpoint(tmp_path / "weights.pth", margin=3).settings["margin"] == 3
