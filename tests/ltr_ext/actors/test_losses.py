"""Losses against the public implementation's values and hand-worked cases."""

import numpy as np
import pytest
import torch

from ltr_ext.actors.losses import cxcywh_to_xyxy, focal_loss, giou


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / "golden" / "pipeline.npz")


def test_focal_loss_equals_the_public_one(golden):
    score = torch.from_numpy(golden["focal_pred"])
    target = torch.from_numpy(golden["heatmap_16"])
    loss = focal_loss(score, target)
    assert loss.shape == (3,)
    assert loss.mean().item() == pytest.approx(float(golden["focal_loss"]), rel=1e-5)


def test_giou_equals_the_public_one(golden):
    first, second = (torch.from_numpy(golden[f"giou_{name}_xyxy"]) for name in "ab")
    value, iou = giou(first, second)
    assert (1 - value).mean().item() == pytest.approx(float(golden["giou_loss"]), rel=1e-5)
    np.testing.assert_allclose(iou, golden["iou"], rtol=1e-5)


def test_giou_by_hand():
    """Unit squares side by side: IoU 0, hull 3, union 2, GIoU -1/3."""
    first, second = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[2.0, 0, 3, 1]])
    value, iou = giou(first, second)
    assert iou.item() == 0
    assert value.item() == pytest.approx(-1 / 3)


def test_focal_loss_by_hand():
    """Two cells: centre at 0.8, the other (target 0.5) at 0.4."""
    loss = focal_loss(torch.tensor([[[[0.8, 0.4]]]]), torch.tensor([[[1.0, 0.5]]]))
    expected = -(np.log(0.8) * 0.2**2 + np.log(0.6) * 0.4**2 * 0.5**4)
    assert loss.item() == pytest.approx(expected)


def test_corners():
    box = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    torch.testing.assert_close(cxcywh_to_xyxy(box), torch.tensor([[0.4, 0.3, 0.6, 0.7]]))
