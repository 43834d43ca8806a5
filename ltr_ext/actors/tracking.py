"""From a batch of crops to the loss: what a training step computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ltr_ext.data.labels import gaussian_heatmap
from ltr_ext.data.normalise import normalise

from .losses import cxcywh_to_xyxy, focal_loss, giou


@dataclass(frozen=True)
class LossWeights:
    """Factors of Eq. 16 (section III-D)."""

    focal: float = 1.0
    giou: float = 2.0
    l1: float = 5.0


class TrackingActor:
    """Runs the network on a batch and weighs its outputs against the boxes.

    A batch is what ``PairDataset`` gives: ``template`` (B, C, Hz, Wz) and ``search`` (B, C, Hs, Ws)
    uint8, ``search_box`` (B, 4) cxcywh in [0, 1] of the search region.
    """

    def __init__(self, network: nn.Module, weights: LossWeights | None = None):
        self.network = network
        self.weights = weights or LossWeights()

    def sample_losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """(B,) tensors: ``loss`` and its terms ``focal``, ``giou``, ``l1``, and the ``iou``."""
        output = self.network(normalise(batch["template"]), normalise(batch["search"]))
        box = batch["search_box"]
        score = output["score_map"].float()
        predicted = output["pred_boxes"].float()
        heatmap = gaussian_heatmap(box, score.shape[-1])
        corners = cxcywh_to_xyxy(predicted)
        truth = cxcywh_to_xyxy(box).clamp(0, 1)  # the part of the target inside the search region
        overlap, iou = giou(corners, truth)
        terms = {
            "focal": focal_loss(score, heatmap),
            "giou": 1 - overlap,
            "l1": (corners - truth).abs().mean(1),
        }
        loss = sum(getattr(self.weights, name) * value for name, value in terms.items())
        return {"loss": loss, **terms, "iou": iou}

    def __call__(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss with gradient, and detached means of everything for the log."""
        values = self.sample_losses(batch)
        log = {name: value.detach().mean() for name, value in values.items()}
        return values["loss"].mean(), log


def sample_loss(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """(B,) loss per sample: the function that ``estimate_prior`` takes."""
    return TrackingActor(network).sample_losses(batch)["loss"]


def to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Moves a batch without waiting for the copy."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}
