"""What holds fine-tuning back, behind one interface: chosen by one word in a recipe."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from torch import nn
from torch.optim import Optimizer

from srft_plugin.errors import UserError
from srft_plugin.optimizer import SRFT
from srft_plugin.prior import BoundPrior, Prior, bind_operations
from srft_plugin.tuning.anchored import ewc, l2sp
from srft_plugin.tuning.base import Regularizer

__all__ = ["REGULARIZERS", "Regularizer", "make_regularizer", "regularizer_names"]


class SRFTRegularizer(Regularizer):
    """Sensitivity-aware regularized tuning: all of it is in the optimizer and its state."""

    def __init__(self, operations: BoundPrior, total_steps: int, kappa: float, mode: str) -> None:
        self.operations = operations
        self.total_steps = total_steps
        self.kappa = kappa
        self.mode = mode

    def wrap_optimizer(self, optimizer: Optimizer) -> Optimizer:
        return SRFT(optimizer, self.operations, self.total_steps, self.kappa, mode=self.mode)


def _srft(mode: str) -> Callable[..., Regularizer]:
    def make(
        network: nn.Module, prior: Prior | None, total_steps: int | None, kappa: float = 0.6
    ) -> Regularizer:
        if total_steps is None:
            raise UserError("srft needs the total number of optimizer steps (T of Eq. 14)")
        if mode == "transfer":
            return SRFTRegularizer(bind_operations(network), total_steps, kappa, mode)
        if prior is None:
            raise UserError(
                "srft needs a prior: make one with estimate_prior, or use srft:transfer without"
            )
        return SRFTRegularizer(prior.bind(network), total_steps, kappa, mode)

    return make


def _none(
    network: nn.Module, prior: Prior | None, total_steps: int | None, **_: Any
) -> Regularizer:
    return Regularizer()


REGULARIZERS: dict[str, Callable[..., Regularizer]] = {
    "none": _none,
    "srft": _srft("both"),
    "srft:prior": _srft("prior"),
    "srft:transfer": _srft("transfer"),
    "l2sp": l2sp,
    "ewc": ewc,
}
ENTRY_POINTS = "srft.regularizers"


def regularizer_names() -> list[str]:
    """All names that ``make_regularizer`` knows, those of installed packages included."""
    return [*REGULARIZERS, *entry_points(group=ENTRY_POINTS).names]


def make_regularizer(
    name: str,
    network: nn.Module,
    prior: Prior | None = None,
    total_steps: int | None = None,
    **options: Any,
) -> Regularizer:
    """The regularizer called ``name`` for ``network``.

    Other packages add their own under the entry point group ``srft.regularizers``: a function of
    (network, prior, total_steps, **options) that returns a ``Regularizer``.

    Args:
        name: one of ``regularizer_names()``.
        network: at the weights to start from, with ``requires_grad`` as it will be trained.
        prior: prior sensitivities with the operations of ``network`` (see ``Prior.renamed``).
        total_steps: optimizer steps of the whole training.
        options: settings of the regularizer, such as ``kappa``.

    Raises:
        UserError: an unknown name, or something that the regularizer needs is missing.
    """
    make = REGULARIZERS.get(name)
    if make is None:
        found = entry_points(group=ENTRY_POINTS, name=name)
        if not found:
            raise UserError(
                f"unknown regularizer {name!r}; known: {', '.join(regularizer_names())}"
            )
        make = next(iter(found)).load()
    return make(network, prior, total_steps, **options)
