"""Training targets made from boxes."""

from __future__ import annotations

import torch
from torch import Tensor

MINIMUM_OVERLAP = 0.7  # IoU that a box moved within the radius keeps (CornerNet)


def gaussian_radius(size: Tensor) -> Tensor:
    """(B,) reach in cells of the Gaussian of boxes of ``size`` (B, 2).

    CornerNet's radius: the root of 4o r^2 - 2o(w + h) r + (o - 1) w h = 0 with the least overlap o,
    the case in which both corners move outwards, written as in its code, ``(b + sqrt) / 2`` without
    the leading factor. Its two other cases never give less: their roots in that form are at least
    (w + h) / 2, this one is at most 0.14 (w + h).
    """
    overlap, total, area = MINIMUM_OVERLAP, size.sum(-1), size.prod(-1)
    a, b, c = 4 * overlap, -2 * overlap * total, (overlap - 1) * area
    return (b + torch.sqrt(b**2 - 4 * a * c)) / 2


def gaussian_heatmap(boxes: Tensor, cells: int) -> Tensor:
    """(B, 1, cells, cells) heat map with a Gaussian at the cell nearest to each box's centre.

    Args:
        boxes: (B, 4) cxcywh, in [0, 1] of the search region; a centre outside leaves only the flank
            that reaches in.
        cells: side of the score map.
    """
    centre = (boxes[:, :2] * cells).round()
    radius = gaussian_radius(boxes[:, 2:] * cells).clamp(min=0).floor()
    axis = torch.arange(cells, device=boxes.device, dtype=boxes.dtype)
    distance = axis - centre[..., None]  # (B, 2, cells)
    sigma = (2 * radius + 1) / 6
    flank = torch.exp(-(distance**2) / (2 * sigma[:, None, None] ** 2))
    flank = flank * (distance.abs() <= radius[:, None, None])
    return (flank[:, 1, :, None] * flank[:, 0, None, :])[:, None]
