"""Figures from the command line: what they need, and that they draw something."""

import json
from functools import partial

import cv2
import pytest
import torch

from ltr_ext.models.checkpoint import load_network, save_network
from ltr_ext.models.registry import build_network
from ltr_ext.recipe import load_recipe
from ltr_ext.trainers.checkpoints import CheckpointFolder
from ltr_ext.trainers.settings import write_settings
from srft_plugin import plots
from srft_plugin.cli import figures, main
from srft_plugin.groups import operation_groups
from srft_plugin.prior import Prior
from srft_plugin.prior.curvature import lanczos_spectra
from srft_plugin.prior.estimate import METHODS

PATCH = "backbone.patch_embed.proj"


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
    assert main(["sensitivity", *arguments, *overrides, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sensitivity"] == pytest.approx(prior.sensitivity())
    assert list(found["sensitivity"].values()) == sorted(prior.sensitivity().values())[::-1]
    assert found["metadata"]["samples"] == "16"


def test_sensitivity_by_another_method(base, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "lanczos", partial(lanczos_spectra, steps=2))
    arguments = ["--config", "tiny_depth", "--method", "lanczos", "--out", str(tmp_path)]
    overrides = [f"base={base}", "prior_samples=2", "top_k=1", "workers=0"]
    assert main(["sensitivity", *arguments, *overrides]) == 0
    assert Prior.load(tmp_path / "prior.safetensors").metadata["method"] == "lanczos"


def test_sensitivity_of_a_network_from_scratch_is_refused(tmp_path, capsys):
    assert main(["sensitivity", "--config", "pretrain_tiny", "--out", str(tmp_path)]) == 2
    assert "starts from scratch" in capsys.readouterr().err


def test_training_curves(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    records = [{"step": step, "loss": 2 / step, "iou": 0.1 * step} for step in (1, 2, 3)]
    records[1] |= {"loss": None, "iou": None}  # all steps were skipped
    records[2] |= {"validation_loss": 0.9, "validation_iou": 0.2}
    (run / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert main(["plot", "training", str(run), "--out", str(tmp_path / "a.png")]) == 0
    assert drawn(tmp_path / "a.png")
    assert main(["plot", "training", "nowhere", "--out", str(tmp_path / "b.png")]) == 2
    assert "no run 'nowhere'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):  # a PNG would be in it
        main(["plot", "training", str(run), "--out", str(tmp_path / "a.pdf")])
    assert "expected a name that ends in .png" in capsys.readouterr().err
    unwritable = tmp_path / "a.png" / "b.png"
    assert main(["plot", "training", str(run), "--out", str(unwritable)]) == 2
    assert f"cannot write {unwritable}" in capsys.readouterr().err


def test_weight_distance_from_the_base_tracker(base, tmp_path):
    network = build_network("two_branch_tiny")
    save_network(network, tmp_path / "tuned.safetensors")
    out = tmp_path / "d.png"
    arguments = [str(base), str(tmp_path / "tuned.safetensors"), "--out", str(out)]
    assert main(["plot", "weight-distance", *arguments]) == 0
    assert drawn(out)


def test_what_is_new_has_no_distance(base, tmp_path, monkeypatch):
    """Its start is another draw of random numbers."""
    vipt = build_network("vipt_tiny")
    vipt.copy_base(load_network(base))
    save_network(vipt, tmp_path / "vipt.safetensors")
    seen = {}
    monkeypatch.setattr(plots, "weight_distance", lambda found, file: seen.update(found))
    words = ["plot", "weight-distance", str(base), str(tmp_path / "vipt.safetensors")]
    assert main([*words, "--out", str(tmp_path / "a.png")]) == 0
    assert set(seen.values()) == {0.0} and not any("prompt" in name for name in seen)


def test_runs_of_one_name_are_told_apart():
    assert figures._labels(["a/run", "other"]) == ["run", "other"]
    assert figures._labels(["fft/seed0", "srft/seed0"]) == ["fft/seed0", "srft/seed0"]


def test_weighted_distance_over_the_checkpoints_of_a_run(base, tmp_path, capsys, monkeypatch):
    run, out = tmp_path / "run", tmp_path / "w.png"
    recipe = load_recipe("tiny_depth").override([f"base={base}", "samples_per_epoch=32"])
    write_settings(run, recipe)
    arguments = ["plot", "weighted-distance", str(run), "--out", str(out)]
    assert main(arguments) == 2
    assert "no prior file" in capsys.readouterr().err
    network = build_network("two_branch_tiny")
    network.copy_base(load_network(base))
    groups = operation_groups(load_network(base))
    shapes = {name: list(p.shape) for name, p in load_network(base).named_parameters()}
    # All sensitivity on the patch embedding, whose weights grow by a half and then to the double.
    spectra = {name: torch.tensor([float(name == PATCH)]).double() for name in groups}
    Prior(spectra, {g: [shapes[p] for p in members] for g, members in groups.items()}).save(
        run / "prior.safetensors"
    )
    assert main(arguments) == 2
    assert "holds no checkpoints yet" in capsys.readouterr().err
    for epoch, factor in ((1, 1.5), (3, 2.0)):
        state = {name: factor * value for name, value in network.state_dict().items()}
        CheckpointFolder(run).save(epoch, {"net": state, "epoch": epoch})
    curves = {}

    def draw(found, file):
        curves.update(found)
        file.touch()

    monkeypatch.setattr("srft_plugin.plots.weighted_distance_curves", draw)
    assert main(arguments) == 0
    monkeypatch.undo()
    steps = recipe.steps_per_epoch
    assert [step for step, _ in curves["run"]] == [0, steps, 3 * steps]
    assert [distance for _, distance in curves["run"]] == pytest.approx([0, 0.5, 1.0], rel=1e-5)
    assert main(arguments) == 0
    assert drawn(out)
    (run / "checkpoint_ep0003.pt").write_bytes(b"")
    assert main(arguments) == 2
    assert "checkpoint_ep0003.pt is damaged" in capsys.readouterr().err


def test_gradient_sparsity(base, tmp_path):
    out = tmp_path / "g.png"
    overrides = [f"base={base}", "batch_size=2"]
    assert main(["plot", "gradient-sparsity", "--config", "tiny_depth", "--out", str(out),
                 *overrides]) == 0  # fmt: skip
    assert drawn(out)
