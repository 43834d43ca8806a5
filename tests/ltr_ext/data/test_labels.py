"""Heat maps against the public code's values."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr_ext.data.labels import gaussian_heatmap, gaussian_radius
from ltr_ext.data.normalise import normalise


def test_heatmap_has_the_golden_values(shared):
    golden = np.load(shared / "golden" / "pipeline.npz")
    xywh = torch.tensor(golden["heatmap_boxes_xywh_norm"])
    boxes = torch.cat([xywh[:, :2] + xywh[:, 2:] / 2, xywh[:, 2:]], 1)
    heatmap = gaussian_heatmap(boxes, 16)
    assert heatmap.shape == (3, 1, 16, 16)
    np.testing.assert_allclose(heatmap[:, 0], golden["heatmap_16"], atol=1e-7)


@settings(deadline=None)
@given(width=st.floats(0.01, 400), height=st.floats(0.01, 400))
def test_radius_is_the_smallest_of_cornernets_three(width, height):
    area, total, o = width * height, width + height, 0.7
    cases = (
        (1, total, area * (1 - o) / (1 + o)),
        (4, 2 * total, (1 - o) * area),
        (4 * o, -2 * o * total, (o - 1) * area),
    )
    expected = min((b + (b * b - 4 * a * c) ** 0.5) / 2 for a, b, c in cases)
    found = gaussian_radius(torch.tensor([[width, height]], dtype=torch.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_the_peak_is_one_at_the_cell_of_the_centre():
    heatmap = gaussian_heatmap(torch.tensor([[0.25, 0.5, 0.3, 0.2]]), 16)[0, 0]
    assert heatmap.max() == 1 == heatmap[8, 4]


def test_a_centre_outside_leaves_no_peak():
    assert gaussian_heatmap(torch.tensor([[1.5, 0.5, 0.1, 0.1]]), 16).max() == 0


def test_normalise_is_imagenets_for_each_image():
    batch = torch.randint(0, 256, (2, 6, 4, 5), dtype=torch.uint8)
    found = normalise(batch)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for first in (0, 3):
        pixels = batch[:, first : first + 3].numpy().transpose(0, 2, 3, 1) / 255.0
        expected = ((pixels - mean) / std).transpose(0, 3, 1, 2)
        np.testing.assert_allclose(found[:, first : first + 3], expected, atol=1e-5)
    assert found.dtype == torch.float32 and batch.dtype == torch.uint8
    floats = batch.float()
    assert torch.equal(normalise(floats), found) and torch.equal(floats, batch.float())
