"""Training targets made from boxes."""

from __future__ import annotations

import torch
from torch import Tensor

MINIMUM_OVERLAP = 0.7  # IoU that a box moved within the radius keeps (CornerNet)


def gaussian_radius(size: Tensor, overlap: float = MINIMUM_OVERLAP) -> Tensor:
    """(B,) how far, in cells, a box of ``size`` (B, 2) may be moved and still overlap itself.

    The smallest of CornerNet's three cases (both corners out, both in, one each). The roots are
    those of the public code: ``(b + sqrt) / 2`` where the quadratic formula divides by ``2 a``; with
    them the third case is always the smallest in practice, and every published head is trained so.
    """
    total, area = size.sum(-1), size.prod(-1)
    cases = (
        (1, total, area * (1 - overlap) / (1 + overlap)),
        (4, 2 * total, area * (1 - overlap)),
        (4 * overlap, -2 * overlap * total, area * (overlap - 1)),
    )
    roots = [(b + torch.sqrt(b**2 - 4 * a * c)) / 2 for a, b, c in cases]
    return torch.stack(roots).amin(0)


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
