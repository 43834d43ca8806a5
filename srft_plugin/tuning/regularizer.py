"""What holds fine-tuning back, behind one interface: chosen by one word in a recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from srft_plugin.errors import UserError
from srft_plugin.optimizer import SRFT
from srft_plugin.prior import BoundPrior, Prior, bind_operations


class Regularizer:
    """No regularization (full fine-tuning), and the base of those that do something.

    A training loop calls ``wrap_optimizer`` once, adds ``loss_term()`` to every loss, calls
    ``after_step()`` after every optimizer step, and stores ``state_dict()`` in its checkpoints.
    """

    def wrap_optimizer(self, optimizer: Optimizer) -> Optimizer:
        """The optimizer to train with."""
        return optimizer

    def loss_term(self) -> Tensor | float:
        """What to add to the loss of the current batch."""
        return 0.0

    def after_step(self) -> None:
        """Act on the weights after an optimizer step."""

    def state_dict(self) -> dict[str, Any]:
        """State that the optimizer does not hold; tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``."""


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
}


def make_regularizer(
    name: str,
    network: nn.Module,
    prior: Prior | None = None,
    total_steps: int | None = None,
    **options: Any,
) -> Regularizer:
    """The regularizer called ``name`` for ``network``.

    Args:
        name: a key of ``REGULARIZERS``.
        network: at the weights to start from, with ``requires_grad`` as it will be trained.
        prior: prior sensitivities with the operations of ``network`` (see ``Prior.renamed``).
        total_steps: optimizer steps of the whole training.
        options: settings of the regularizer, such as ``kappa``.

    Raises:
        UserError: an unknown name, or something that the regularizer needs is missing.
    """
    if name not in REGULARIZERS:
        raise UserError(f"unknown regularizer {name!r}; known: {', '.join(REGULARIZERS)}")
    return REGULARIZERS[name](network, prior, total_steps, **options)
