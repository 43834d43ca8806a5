"""Regions of a frame cut on its device, as ``ltr_ext.data.crop`` cuts them on the host."""

from __future__ import annotations

import torch
from torch import Tensor

from ltr_ext.data.normalise import normalise, statistics
from pytracking_ext.engine.precision import has_kernels


def cut(
    frame: Tensor, box: Tensor, factor: Tensor, size: int, context: bool
) -> tuple[Tensor, Tensor]:
    """The square around ``box`` as the network reads it: (1, C, S, S) float32; and where it was.

    The arguments and the second answer are those of ``sample_target``.
    """
    if has_kernels(frame.device):
        from pytracking_ext.engine import kernels

        scale = statistics(frame.shape[2] // 3, frame.device)
        return kernels.cut(frame.contiguous(), box, factor, size, context, *scale)
    pixels, window = sample_target(frame, box, factor, size, context)
    return normalise(pixels), window


def crop_window(box: Tensor, factor: float | Tensor, context: bool = False) -> Tensor:
    """(3,) left, top and side of the square around ``box``; see ``ltr_ext.data.crop``."""
    extent = box[2:]
    if context:
        extent, factor = extent + (factor - 1) * (extent.sum() / 2), 1.0
    side = (extent.prod().sqrt() * factor).ceil()
    corner = (box[:2] + 0.5 * box[2:] - side * 0.5).round()
    return torch.cat((corner, side[None]))


def sample_target(
    frame: Tensor, box: Tensor, factor: float | Tensor, size: int, context: bool = False
) -> tuple[Tensor, Tensor]:
    """``ltr_ext.data.crop.sample_target`` in torch, within a grey level of it.

    Args:
        frame: (H, W, C) uint8.
        box: (4,) float64, xywh in pixels of the frame.
        factor, context: as of ``ltr_ext.data.crop.crop_window``.
        size: side S of the result in pixels.

    Returns:
        (1, C, S, S) whole grey levels as float32, and ``crop_window``.
    """
    window = crop_window(box, factor, context)
    steps = torch.arange(size, device=frame.device, dtype=torch.float64) + 0.5
    rows, columns = (
        _taps(steps, start, window[2], length)
        for start, length in zip((window[1], window[0]), frame.shape[:2], strict=True)
    )
    pixels = frame.new_zeros(1, dtype=torch.float32)
    for row, row_weight in rows:
        line = frame[row].float() * row_weight[:, None, None]
        for column, column_weight in columns:
            pixels = pixels + line[:, column] * column_weight[:, None]
    return pixels.round().permute(2, 0, 1)[None], window


def _taps(steps: Tensor, start: Tensor, side: Tensor, length: int) -> list[tuple[Tensor, Tensor]]:
    """The two pixels of a line that each output pixel mixes, as (indices, weights).

    Outside of the image the weight is 0 (black). OpenCV repeats the rim of the window, not of the
    image. A window that crosses the far border loses the last pixel (``ltr_ext.data.crop.cut``).
    """
    place = (steps * (side / len(steps)) - 0.5).clamp(min=0.0)
    lower = place.floor().minimum(side - 1)
    share = place - lower
    end = torch.where(start + side < length, start + side, torch.full_like(side, length - 1))
    taps = []
    for tap, weight in ((lower, 1 - share), ((lower + 1).minimum(side - 1), share)):
        index = tap + start
        weight = torch.where((index >= 0) & (index < end), weight, torch.zeros_like(weight))
        taps.append((index.clamp(0, length - 1).long(), weight.float()))
    return taps
