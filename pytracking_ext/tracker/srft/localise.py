"""From the maps of a head to one box and one confidence per sample."""

from __future__ import annotations

import torch
from torch import Tensor


def hann_window(height: int, width: int | None = None) -> Tensor:
    """Two-dimensional Hann window, (H, W) float32, symmetric about the centre of the search region.

    The border samples are positive (the zeros of the window lie one cell outside the map), as in
    OSTrack: a target at the rim stays possible.
    """
    rows, columns = (
        0.5 - 0.5 * torch.cos(2 * torch.pi * torch.arange(1, n + 1, dtype=torch.float64) / (n + 1))
        for n in (height, width or height)
    )
    return torch.outer(rows, columns).float()


def localise(
    outputs: dict[str, Tensor], window: Tensor, window_weight: float | None = None
) -> tuple[Tensor, Tensor]:
    """Picks the cell with the highest windowed score and reads the box there.

    Args:
        outputs: ``score_map`` (B, 1, H, W), ``size_map`` and ``offset_map`` (B, 2, H, W), as every
            network returns them.
        window: (H, W) penalty on large displacements.
        window_weight: None multiplies score and window (OSTrack, SUTrack); a number w mixes them,
            ``(1 - w) * score + w * window`` (SwinTrack, 0.49).

    Returns:
        Boxes (B, 4), cxcywh in [0, 1] of the search region, and confidences (B,). With the product
        the confidence is the windowed score, as the released trackers report it; with mixing it is
        the score at the chosen cell. Nothing here waits for the device.
    """
    score = outputs["score_map"].flatten(1)
    penalty = window.flatten()
    if window_weight is None:
        response = confidence = score * penalty
    else:
        response, confidence = torch.lerp(score, penalty.expand_as(score), window_weight), score
    cell = response.argmax(1, keepdim=True)

    def at_cell(name: str) -> Tensor:
        maps = outputs[name].flatten(2)
        return maps.gather(2, cell.unsqueeze(1).expand(-1, maps.shape[1], -1)).squeeze(2)

    height, width = window.shape
    column, row = cell % width, torch.div(cell, width, rounding_mode="floor")
    offset = at_cell("offset_map")
    cx, cy = (column + offset[:, :1]) / width, (row + offset[:, 1:]) / height
    return torch.cat((cx, cy, at_cell("size_map")), 1), confidence.gather(1, cell).squeeze(1)
