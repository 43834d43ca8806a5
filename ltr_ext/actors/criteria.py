"""What networks are trained with: losses of a sample, from a network's output and the box.

Every criterion gives (B,) tensors by name: ``loss``, its terms, and the ``iou`` of the predicted
box. Per-sample values are what the empirical Fisher needs; training takes their mean.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ltr_ext.data.labels import gaussian_heatmap
from srft_plugin.precision import widened

from .losses import cxcywh_to_xyxy, focal_loss, giou, varifocal_loss

Output = dict[str, Tensor]

GIOU_WEIGHT, L1_WEIGHT = 2.0, 5.0  # of Eq. 16 (section III-D); the focal loss counts once
VARIFOCAL_WEIGHT = DENSE_GIOU_WEIGHT = 1.5  # SwinTrack's
CLEAN_WEIGHT, MASKED_WEIGHT, DISTANCE_WEIGHT = 0.6, 0.2, 0.1  # SDSTrack's


def center(output: Output, box: Tensor) -> dict[str, Tensor]:
    """Eq. 16: focal loss of the score map, GIoU and L1 of the box at its peak.

    Args:
        output: of a network with OSTrack's CENTER head.
        box: (B, 4) cxcywh in [0, 1] of the search region.
    """
    score = widened(output["score_map"])
    corners, truth = cxcywh_to_xyxy(widened(output["pred_boxes"])), visible_part(box)
    overlap, iou = giou(corners, truth)
    terms = {
        "focal": focal_loss(score, gaussian_heatmap(box, score.shape[-1])),
        "giou": 1 - overlap,
        "l1": (corners - truth).abs().mean(1),
    }
    loss = terms["focal"] + GIOU_WEIGHT * terms["giou"] + L1_WEIGHT * terms["l1"]
    return {"loss": loss, **terms, "iou": iou}


def dense(output: Output, box: Tensor) -> dict[str, Tensor]:
    """SwinTrack's loss (section 3.4 of its paper): every cell that the target covers has a say.

    The score of such a cell is to be the IoU of its own box (varifocal loss over their number), and
    the GIoU loss of their boxes is averaged with the scores as weights. The public code divides by
    sums over the batch, this by those of the sample.
    """
    score = widened(output["score_map"])[:, 0]
    side, truth = score.shape[-1], visible_part(box)
    low, high = (truth * side).floor().clamp(0, side - 1).chunk(2, 1)
    axis = torch.arange(side, device=score.device)
    inside = (axis >= low[..., None]) & (axis <= high[..., None])  # (B, 2, side)
    covered = inside[:, 1, :, None] & inside[:, 0, None, :]
    cells = torch.stack((axis.expand(side, side), axis[:, None].expand(side, side)))
    centres = (widened(output["offset_map"]) + cells) / side
    boxes = torch.cat((centres, widened(output["size_map"])), 1).permute(0, 2, 3, 1).flatten(0, 2)
    truths = truth.repeat_interleave(side**2, 0)
    overlap, iou = (v.view_as(score) for v in giou(cxcywh_to_xyxy(boxes), truths))
    weights = score.detach() * covered
    losses = varifocal_loss(score, iou.detach() * covered)
    terms = {
        "varifocal": losses.sum((1, 2)) / covered.sum((1, 2)),
        "giou": (weights * (1 - overlap)).sum((1, 2)) / weights.sum((1, 2)),
    }
    loss = VARIFOCAL_WEIGHT * terms["varifocal"] + DENSE_GIOU_WEIGHT * terms["giou"]
    peak = giou(cxcywh_to_xyxy(widened(output["pred_boxes"])), truth)[1]
    return {"loss": loss, **terms, "iou": peak}


def distilled(output: Output, box: Tensor) -> dict[str, Tensor]:
    """SDSTrack's: the loss of the input, that of its masked copy, and what lies between them.

    In eval mode the network makes no copy, and this is ``center``.
    """
    clean = center(output, box)
    if "masked" not in output:
        return clean
    masked, distance = center(output["masked"], box)["loss"], widened(output["distance"])
    loss = CLEAN_WEIGHT * clean["loss"] + MASKED_WEIGHT * masked + DISTANCE_WEIGHT * distance
    return {**clean, "loss": loss, "masked": masked, "distance": distance}


def visible_part(box: Tensor) -> Tensor:
    """(B, 4) cxcywh to the corners of the part inside the search region, in [0, 1]."""
    return cxcywh_to_xyxy(box).clamp(0, 1)


# By the name that a network has for it (``TrackingNetwork.criterion``).
CRITERIA: dict[str, Callable[[Output, Tensor], dict[str, Tensor]]] = {
    "center": center,
    "dense": dense,
    "distilled": distilled,
}
