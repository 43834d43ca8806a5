"""The interface of everything that holds fine-tuning back."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from srft_plugin.errors import UserError


class Regularizer:
    """No regularization (full fine-tuning), and the base of those that do something.

    A training loop calls ``wrap_optimizer`` once, adds ``loss_term`` to every loss, calls
    ``after_step()`` after every optimizer step, and stores ``state_dict()`` in its checkpoints. One
    that skips steps whose gradients are not finite calls ``take_back`` for them.
    """

    def wrap_optimizer(self, optimizer: Optimizer) -> Optimizer:
        """The optimizer to train with."""
        return optimizer

    def loss_term(self, inputs: tuple[Tensor, ...], output: Any) -> Tensor | float:
        """What to add to the loss of the current batch.

        Args:
            inputs: what the network was called with.
            output: what it returned, with its gradient graph.
        """
        return 0.0

    def after_step(self) -> None:
        """Act on the weights after an optimizer step."""

    def take_back(self, steps: int) -> None:
        """Do not count the last ``steps`` of the optimizer: it skipped them."""

    def state_dict(self) -> dict[str, Any]:
        """State that the optimizer does not hold; tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore ``state_dict``."""


def refuse_shards(network: nn.Module) -> None:
    """For regularizers that hold copies of whole parameters.

    Raises:
        UserError: the parameters of ``network`` are spread over processes.
    """
    if any(isinstance(p, DTensor) for p in network.parameters()):
        raise UserError(
            "this regularizer holds copies of whole parameters, and those of this network are "
            "sharded (FSDP); take none or srft, or train with parallel=ddp"
        )


def at_least(name: str, value: float, least: float) -> None:
    """Raises UserError unless the option ``name`` is a number of at least ``least``."""
    if not value >= least:
        raise UserError(f"{name} is {value}; expected at least {least:g}")
