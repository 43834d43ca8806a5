"""TRACER: a weighted-moving-average teacher, and self-distillation from several perspectives."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from srft_plugin.errors import UserError
from srft_plugin.prior import Prior
from srft_plugin.tuning.base import Regularizer, at_least
from srft_plugin.tuning.distillation import LOGITS, TASK, Perspectives
from srft_plugin.tuning.teacher import Teacher, make_teacher


class Tracer(Regularizer):
    """Adds contrastive weight * L_contrastive + lambda * sum_k alpha_k D_k to the loss.

    Args:
        teacher: an average of the network being trained.
        perspectives: how the two outputs are compared.
        coefficient: lambda.
        temperature: of the distributions that CRD compares.
        warmup: share of the training in which lambda rises linearly from 0.
        weights: alpha_k and the contrastive weight, where they are not the perspectives' own.
    """

    def __init__(
        self,
        teacher: Teacher,
        perspectives: Perspectives,
        coefficient: float,
        temperature: float,
        warmup: float,
        weights: dict[str, float],
    ) -> None:
        at_least("coefficient", coefficient, 0)
        for name, weight in weights.items():
            at_least(name, weight, 0)
        if not temperature > 0:
            raise UserError(f"temperature is {temperature}; expected more than 0")
        if not 0 <= warmup <= 1:
            raise UserError(f"warmup is {warmup}; expected a share of the training, 0 to 1")
        self.teacher = teacher
        self.perspectives = perspectives
        self.coefficient = coefficient
        self.temperature = temperature
        self.warmup = warmup
        self.weights = weights

    def loss_term(self, inputs: tuple[Tensor, ...], output: Any) -> Tensor:
        terms = self.perspectives.terms(self.teacher(inputs), output, self.temperature)
        absent = [name for name, weight in self.weights.items() if weight and name not in terms]
        if absent:
            raise UserError(
                f"{', '.join(absent)} cannot be had of this network, which gives "
                f"{', '.join(terms)}: the others need two branches; leave the option out"
            )
        weights = self.perspectives.weights | self.weights
        distilled = sum(weights[name] * value for name, value in terms.items() if name != TASK)
        task = weights[TASK] * terms[TASK] if TASK in terms else 0.0
        return task + self._coefficient() * distilled

    def after_step(self) -> None:
        self.teacher.after_step()

    def state_dict(self) -> dict[str, Any]:
        return self.teacher.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.teacher.load_state_dict(state)

    def _coefficient(self) -> float:
        rising = self.warmup * self.teacher.total_steps
        return self.coefficient * (min(self.teacher.steps / rising, 1.0) if rising else 1.0)


def tracer(
    network: nn.Module,
    prior: Prior | None,
    total_steps: int,
    coefficient: float = 1.0,
    average: str = "wma",
    beta: float = 0.5,
    every: int = 500,
    temperature: float = 1.0,
    warmup: float = 0.0,
    crd: float | None = None,
    fd: float | None = None,
    icl: float | None = None,
    cross_kd: float | None = None,
    contrastive: float | None = None,
    perspectives: Perspectives = LOGITS,
) -> Regularizer:
    """TRACER, or self-distillation from an EMA with ``average="ema"``; see ``Tracer``.

    Args:
        average, beta, every: see ``srft_plugin.tuning.teacher``.
        crd, fd, icl, cross_kd, contrastive: weights of the terms; those of ``perspectives`` unless
            given.
    """
    weights = {"crd": crd, "fd": fd, "icl": icl, "cross_kd": cross_kd, TASK: contrastive}
    given = {name: weight for name, weight in weights.items() if weight is not None}
    teacher = make_teacher(average, network, total_steps, beta, every)
    return Tracer(teacher, perspectives, coefficient, temperature, warmup, given)
