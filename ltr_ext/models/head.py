"""The CENTER head: three small convolutional towers on the search region's features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from srft_plugin.precision import widened

MARGIN = 1e-4  # keeps the logarithms of the focal loss finite
PRIOR_SCORE = 0.1  # initial score of every cell: CornerNet's start for a focal loss
TOWERS = ("ctr", "size", "offset")  # by the names of public checkpoints; "ctr" is the score


class CenterHead(nn.Module):
    """Score, size and offset of the target at each cell, as in OSTrack.

    Args:
        in_channels: channels of the features.
        channels: width of the first layer; it halves three times.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        widths = (in_channels, *(channels >> layer for layer in range(4)))
        for tower, outputs in (("ctr", 1), ("offset", 2), ("size", 2)):
            for layer in range(4):
                convolution = nn.Sequential(
                    nn.Conv2d(widths[layer], widths[layer + 1], 3, padding=1),
                    nn.BatchNorm2d(widths[layer + 1]),
                    nn.ReLU(inplace=True),
                )
                self.add_module(f"conv{layer + 1}_{tower}", convolution)
            self.add_module(f"conv5_{tower}", nn.Conv2d(widths[4], outputs, 1))
        nn.init.constant_(self.conv5_ctr.bias, math.log(PRIOR_SCORE / (1 - PRIOR_SCORE)))

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """(B, C, H, W) features to the maps and boxes of ``TrackingNetwork.forward``."""
        # In bfloat16, 1 - MARGIN is 1.
        score, size, offset = map(widened, self.towers(features))
        score = score.sigmoid().clamp(MARGIN, 1 - MARGIN)
        size = size.sigmoid().clamp(MARGIN, 1 - MARGIN)
        boxes = boxes_at_peak(score, size, offset)
        return {"score_map": score, "size_map": size, "offset_map": offset, "pred_boxes": boxes}

    def towers(self, features: Tensor) -> list[Tensor]:
        """What each of ``TOWERS`` makes of the features, (B, outputs, H, W)."""
        return [self._tower(tower, features) for tower in TOWERS]

    def _tower(self, tower: str, features: Tensor) -> Tensor:
        for layer in range(1, 6):
            features = self.get_submodule(f"conv{layer}_{tower}")(features)
        return features


def boxes_at_peak(score: Tensor, size: Tensor, offset: Tensor) -> Tensor:
    """(B, 4) cxcywh in [0, 1] at the cell with the highest score of each (B, 1, H, W) map."""
    height, width = score.shape[-2:]
    peak = score.flatten(1).argmax(1, keepdim=True)
    column, row = peak % width, peak.div(width, rounding_mode="floor")
    index = peak[:, None].expand(-1, 2, 1)
    size, offset = (values.flatten(2).gather(2, index)[..., 0] for values in (size, offset))
    cx, cy = (column + offset[:, :1]) / width, (row + offset[:, 1:]) / height
    return torch.cat((cx, cy, size), 1)
