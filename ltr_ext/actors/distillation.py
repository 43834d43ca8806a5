"""What a tracker may learn from its teacher: TRACER's perspectives on score maps and features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from srft_plugin.tuning.distillation import (
    CLIP_KD,
    TASK,
    Perspectives,
    cross_modal_terms,
    divergence,
    feature_distance,
)

SCALE = 1 / 0.07  # on cosines: CLIP's initial temperature; trackers learn none
Output = dict[str, Tensor]  # of TrackingNetwork.forward


def tracking_terms(teacher: Output, student: Output, temperature: float) -> dict[str, Tensor]:
    """Losses by name, for a batch of B samples.

    ``crd`` compares the score maps as distributions over the H x W cells, softmax of the scores'
    logits; ``fd`` the fused features of the search region, each cell's vector normalised. Networks
    of two branches also have ``icl``, ``cross_kd`` and ``contrastive`` between the RGB and the
    auxiliary features at the target, other samples' targets being the negatives. The target is
    where the teacher's score is highest: the same place of both modalities is a pair wherever it
    is, and needs no labels.
    """
    maps = [output["score_map"].float().logit().flatten(1) for output in (teacher, student)]
    features = [output["search_features"].float() for output in (teacher, student)]
    terms = {"crd": divergence(*maps, temperature), "fd": feature_distance(*features)}
    if "rgb_features" in student:
        cell = maps[0].argmax(1)
        pairs = [
            tuple(embedding_at(output[f"{branch}_features"], cell) for branch in ("rgb", "aux"))
            for output in (teacher, student)
        ]
        terms |= cross_modal_terms(*pairs, SCALE, SCALE)
    return terms


def embedding_at(features: Tensor, cell: Tensor) -> Tensor:
    """(B, C) unit vectors of (B, C, H, W) features at the cells (B,), counted row by row."""
    samples = torch.arange(len(cell), device=cell.device)
    return F.normalize(features.float().flatten(2)[samples, :, cell], dim=1)


# No source says what the contrastive loss of the task should weigh in a tracker: 0.1 keeps it well
# below the tracking loss.
TRACKING = Perspectives(tracking_terms, CLIP_KD | {TASK: 0.1})
