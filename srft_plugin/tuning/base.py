"""The interface of everything that holds fine-tuning back."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer


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
