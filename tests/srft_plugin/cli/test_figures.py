"""Figures from the command line: what they need, and that they draw something."""

import json

import cv2
import pytest
import torch

from ltr_ext.models.checkpoint import save_network
from ltr_ext.models.registry import build_network
from srft_plugin.cli import main
from srft_plugin.prior import Prior


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("base") / "base.safetensors"
    save_network(build_network("ostrack_tiny"), file)
    return file


def drawn(file):
    return cv2.imread(str(file)).std() > 5


def test_sensitivity(base, tmp_path, capsys):
    arguments = ["--config", "tiny_depth", "--out", str(tmp_path / "out")]
    overrides = [f"base={base}", "prior_samples=16", "workers=0"]
    assert main(["sensitivity", *arguments, *overrides]) == 0
    prior = Prior.load(tmp_path / "out/prior.safetensors")
    assert "backbone.blocks.3.attn.qkv" in prior.sensitivity()
    assert drawn(tmp_path / "out/sensitivity.png")
    assert "backbone.blocks.3.attn.qkv" in capsys.readouterr().out


def test_sensitivity_of_a_network_from_scratch_is_refused(tmp_path, capsys):
    assert main(["sensitivity", "--config", "pretrain_tiny", "--out", str(tmp_path)]) == 2
    assert "starts from scratch" in capsys.readouterr().err


def test_training_curves(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    records = [{"step": step, "loss": 2 / step, "iou": 0.1 * step} for step in (1, 2, 3)]
    (run / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert main(["plot", "training", str(run), "--out", str(tmp_path / "a.png")]) == 0
    assert drawn(tmp_path / "a.png")
    assert main(["plot", "training", "nowhere", "--out", str(tmp_path / "b.png")]) == 2
    assert "no run 'nowhere'" in capsys.readouterr().err


def test_weight_distance_from_the_base_tracker(base, tmp_path):
    network = build_network("two_branch_tiny")
    save_network(network, tmp_path / "tuned.safetensors")
    out = tmp_path / "d.png"
    arguments = [str(base), str(tmp_path / "tuned.safetensors"), "--out", str(out)]
    assert main(["plot", "weight-distance", *arguments]) == 0
    assert drawn(out)


def test_gradient_sparsity(base, tmp_path):
    out = tmp_path / "g.png"
    overrides = [f"base={base}", "batch_size=2"]
    assert main(["plot", "gradient-sparsity", "--config", "tiny_depth", "--out", str(out),
                 *overrides]) == 0  # fmt: skip
    assert drawn(out)
