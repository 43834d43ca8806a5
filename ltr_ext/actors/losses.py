"""Loss functions that criteria are made of."""

from __future__ import annotations

import torch
from torch import Tensor


def focal_loss(score_map: Tensor, target: Tensor) -> Tensor:
    """Weighted focal loss of a Gaussian heat map (alpha 2, beta 4), per sample.

    Args:
        score_map: (B, 1, H, W) probabilities strictly between 0 and 1.
        target: (B, 1, H, W) heat map, exactly 1 at the centre cell.

    Returns:
        (B,) loss: sum over the cells divided by the number of centre cells of the sample.
    """
    probability, target = score_map.flatten(1), target.flatten(1)
    centre = target.eq(1)
    hit = torch.log(probability) * (1 - probability) ** 2
    miss = torch.log(1 - probability) * probability**2 * (1 - target) ** 4
    return -torch.where(centre, hit, miss).sum(1) / centre.sum(1).clamp(min=1)


def varifocal_loss(score: Tensor, target: Tensor) -> Tensor:
    """Varifocal loss (Zhang et al., CVPR 2021; alpha 0.75, gamma 2), per element.

    Args:
        score: probabilities strictly between 0 and 1.
        target: of the same shape: the quality of a positive, 0 for a negative. Positives weigh as
            much as their quality, negatives the less the lower their score is.
    """
    entropy = target * score.log() + (1 - target) * (1 - score).log()
    return -torch.where(target > 0, target, 0.75 * score**2) * entropy


def giou(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Generalized IoU and IoU of (B, 4) boxes x1, y1, x2, y2: two (B,) tensors."""
    low, high = (
        torch.maximum(first[:, :2], second[:, :2]),
        torch.minimum(first[:, 2:], second[:, 2:]),
    )
    outer_low = torch.minimum(first[:, :2], second[:, :2])
    outer_high = torch.maximum(first[:, 2:], second[:, 2:])
    intersection = (high - low).clamp(min=0).prod(1)
    areas = (first[:, 2:] - first[:, :2]).prod(1) + (second[:, 2:] - second[:, :2]).prod(1)
    union = areas - intersection
    hull = (outer_high - outer_low).prod(1)
    iou = intersection / union.clamp(min=1e-9)
    return iou - (hull - union) / hull.clamp(min=1e-9), iou


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(B, 4) centre and size to corners."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat([centre - half, centre + half], dim=1)
