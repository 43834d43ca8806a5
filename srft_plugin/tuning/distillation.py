"""What a student may learn from a teacher: the perspectives of TRACER.

CRD, FD, ICL and cross-KD are the four that TRACER's training script offers. Its authors do not
state their weights; those of CRD, FD and ICL are from CLIP-KD (Yang et al., CVPR 2024), where these
losses come from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from srft_plugin.errors import UserError

TASK = "contrastive"  # the one term that is a loss of the task, without a teacher
Pair = tuple[Tensor, Tensor]  # (n, d) unit vectors of two towers, row by row of one sample


@dataclass(frozen=True)
class Perspectives:
    """How the outputs of a kind of network are compared.

    Attributes:
        terms: (teacher's output, student's output, temperature) to losses by name.
        weights: weight of each term by default. ``contrastive`` is a loss of the task; the
            coefficient of the distillation is for the others.
    """

    terms: Callable[[Any, Any, float], dict[str, Tensor]]
    weights: dict[str, float]


def divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher || student) of (n, k) logits over the temperature, mean of the n rows."""
    teacher, student = (F.log_softmax(logits / temperature, 1) for logits in (teacher, student))
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def feature_distance(teacher: Tensor, student: Tensor, dim: int = 1) -> Tensor:
    """FD: mean squared error of the features, normalised along ``dim``."""
    return F.mse_loss(F.normalize(student, dim=dim), F.normalize(teacher, dim=dim))


def info_nce(logits: Tensor) -> Tensor:
    """(n, n) logits whose diagonal are the matches: mean cross entropy of the rows."""
    return F.cross_entropy(logits, torch.arange(len(logits), device=logits.device))


def cross_modal_terms(
    teacher: Pair, student: Pair, teacher_scale: float | Tensor, scale: float | Tensor
) -> dict[str, Tensor]:
    """ICL and cross-KD between the towers of teacher and student, and the student's own InfoNCE.

    With a, b the towers and primes for the teacher: ICL is the mean InfoNCE of (a, b') and
    (b, a'); cross-KD the mean KL of the logits (a', b') from (a, b') and of (b', a') from (b, a');
    ``contrastive`` the mean InfoNCE of (a, b) and (b, a), the loss of CLIP. Other samples of the
    batch are the negatives; with several processes, those of the same process.

    Args:
        teacher_scale: factor on the teacher's cosines.
        scale: factor on all cosines that the student has a part in.
    """
    (first, second), (first_t, second_t) = student, teacher
    crossed = (scale * first @ second_t.mT, scale * second @ first_t.mT)
    targets = (teacher_scale * first_t @ second_t.mT, teacher_scale * second_t @ first_t.mT)
    own = scale * first @ second.mT
    divergences = (divergence(*pair) for pair in zip(targets, crossed, strict=True))
    return {
        "icl": sum(map(info_nce, crossed)) / 2,
        "cross_kd": sum(divergences) / 2,
        TASK: (info_nce(own) + info_nce(own.mT)) / 2,
    }


def _logit_terms(teacher: Any, student: Any, temperature: float) -> dict[str, Tensor]:
    if not isinstance(student, Tensor) or student.dim() != 2:
        found = tuple(student.shape) if isinstance(student, Tensor) else type(student).__name__
        raise UserError(
            f"the network returns {found}; without perspectives of its own, distillation expects "
            "(n, classes) logits. Pass perspectives=Perspectives(...) for this network"
        )
    return {"crd": divergence(teacher.float(), student.float(), temperature)}


def _two_tower_terms(teacher: Any, student: Any, temperature: float) -> dict[str, Tensor]:
    if not (isinstance(student, tuple) and len(student) == 3):
        raise UserError(
            f"the network returns {type(student).__name__}; contrastive_wma expects a tuple of the "
            "features of two towers, (n, d) each, and the factor on their cosines"
        )
    pairs = [tuple(F.normalize(f.float(), dim=1) for f in out[:2]) for out in (teacher, student)]
    logits = [out[2] * a @ b.mT for out, (a, b) in zip((teacher, student), pairs, strict=True)]
    directions = (logits, [values.mT for values in logits])
    return {
        "crd": sum(divergence(t, s, temperature) for t, s in directions) / 2,
        "fd": sum(feature_distance(t, s) for t, s in zip(*pairs, strict=True)),
        **cross_modal_terms(*pairs, teacher[2], student[2]),
    }


CLIP_KD = {"crd": 1.0, "fd": 2000.0, "icl": 1.0, "cross_kd": 1.0}
LOGITS = Perspectives(_logit_terms, {"crd": 1.0})
TWO_TOWERS = Perspectives(_two_tower_terms, CLIP_KD | {TASK: 1.0})
