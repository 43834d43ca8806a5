"""The figures' quantities by hand, and that the files are pictures of them."""

import cv2
import numpy as np
import pytest
import torch

from srft_plugin import Prior, UserError
from srft_plugin.plots import (
    gradient_sparsity,
    sensitivity_map,
    weight_distance,
    weighted_distance_curves,
)
from srft_plugin.plots.distance import operation_distances, sensitivity_weighted_distance
from srft_plugin.plots.figures import layers_by_operation, training_curves

NAMES = ["patch.proj", "blocks.0.attn.qkv", "blocks.0.norm", "blocks.1.attn.qkv"]
PRIOR = Prior(
    {name: torch.tensor([v]).double() for name, v in zip(NAMES, (4, 3, 0.25, 1), strict=True)}, {}
)


def assert_picture(path):
    image = cv2.imread(str(path))
    assert image is not None and image.std() > 10


def test_layers_and_operations_are_read_from_names():
    layers, operations, grid, rest = layers_by_operation(PRIOR.sensitivity())
    assert layers == ["blocks.0", "blocks.1"]
    assert operations == ["attn.qkv", "norm"]
    np.testing.assert_array_equal(grid, [[3, 0.25], [1, np.nan]])
    assert rest == {"patch.proj": 4}


def test_distances_by_hand(tmp_path):
    start = {"a.weight": torch.tensor([3.0, 0.0]), "a.bias": torch.tensor([4.0])}
    start["b.weight"] = torch.tensor([2.0])
    start["new.weight"] = torch.zeros(2)  # no relative distance
    end = {"a.weight": torch.tensor([3.0, 3.0]), "a.bias": torch.tensor([0.0])}
    end["b.weight"] = torch.tensor([1.0])
    end["new.weight"] = torch.ones(2)
    groups = {"a": ["a.weight", "a.bias"], "b": ["b.weight"], "new": ["new.weight"]}
    distances = operation_distances(start, end, groups)
    assert distances == pytest.approx({"a": 1.0, "b": 0.5})
    prior = Prior({n: torch.tensor([v]).double() for n, v in (("a", 1), ("b", 3), ("new", 9))}, {})
    weighted = sensitivity_weighted_distance(start, end, groups, prior)
    assert weighted == pytest.approx((1 * 1.0 + 3 * 0.5) / 4)
    weight_distance(distances, tmp_path / "fig8.png")
    assert_picture(tmp_path / "fig8.png")


def test_checkpoints_of_different_networks_are_refused():
    start = {"a": torch.ones(2)}
    with pytest.raises(UserError, match="the first is 'a'"):
        operation_distances(start, {"a": torch.ones(3)}, {"a": ["a"]})
    with pytest.raises(UserError, match="has a prior"):
        sensitivity_weighted_distance(start, start, {"a": ["a"]}, PRIOR)


def test_pictures_are_written(tmp_path):
    sensitivity_map(PRIOR, tmp_path / "fig4.png")
    gradients = {"a.weight": torch.tensor([0.0, 5.0, 0.0]), "a.bias": torch.tensor([0.0])}
    measures = gradient_sparsity(gradients, {"a": list(gradients)}, tmp_path / "fig5.png")
    assert measures == pytest.approx({"a": 0.5})
    curves = {"fft": [(0, 0.0), (5, 0.2)], "srft": [(0, 0.0), (5, 0.1)]}
    weighted_distance_curves(curves, tmp_path / "fig9.png")
    for name in ("fig4", "fig5", "fig9"):
        assert_picture(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match="nothing to draw"):
        sensitivity_map(Prior({}, {}), tmp_path / "none.png")


def test_names_in_a_legend_are_no_formulas_and_not_left_out():
    records = [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]
    figure = training_curves({"_base": records, "lr$_$": records})
    figure.draw_without_rendering()
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == [" _base", r"lr\$_\$"]


def test_what_did_not_move_takes_no_room(tmp_path):
    moved = {"blocks.0.qkv": 0.1, "blocks.1.qkv": 0.2, "patch": 0.3}
    frozen = {f"head.{layer}.weight": 0.0 for layer in "abcdefghij"} | {"blocks.2.qkv": 0.0}
    weight_distance(moved, tmp_path / "moved.png")
    weight_distance(moved | frozen, tmp_path / "all.png")
    moved, everything = (cv2.imread(str(tmp_path / f"{name}.png")) for name in ("moved", "all"))
    assert np.array_equal(moved, everything)
    weight_distance(dict.fromkeys(frozen, 0.0), tmp_path / "nothing.png")  # a run of no steps
    assert_picture(tmp_path / "nothing.png")
