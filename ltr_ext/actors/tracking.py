"""From a batch of crops to the loss: what a training step computes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ltr_ext.data.normalise import normalise
from ltr_ext.models.network import TrackingNetwork
from srft_plugin.tuning.base import Regularizer

from .criteria import CRITERIA


class TrackingActor:
    """Runs the network on a batch and judges its outputs by the boxes.

    Args:
        network: a ``TrackingNetwork``, or one wrapped for several processes.
        regularizer: may add a term to the loss of a batch.

    A batch is what ``PairDataset`` gives: ``template`` (B, C, Hz, Wz) and ``search`` (B, C, Hs, Ws)
    uint8, ``search_box`` (B, 4) cxcywh in [0, 1] of the search region, and what else the network
    names.
    """

    def __init__(self, network: nn.Module, regularizer: Regularizer | None = None):
        self.network = network
        self.plain: TrackingNetwork = getattr(network, "module", network)
        self.regularizer = regularizer or Regularizer()

    def inputs(self, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """What the network is called with: of the batch, what its ``input_names`` say."""
        dtype = next(self.plain.parameters()).dtype  # float64 where rounding is to be seen
        images = {"search": normalise(batch["search"]).to(dtype)}
        templates = batch["template"]  # of networks with several, (B, templates, C, H, W)
        images["template"] = normalise(templates.flatten(0, -4)).to(dtype).view(templates.shape)
        return tuple((batch | images)[name] for name in self.plain.input_names)

    def sample_losses(self, output: dict[str, Tensor], box: Tensor) -> dict[str, Tensor]:
        """(B,) tensors of the network's criterion: ``loss``, its terms, and the ``iou``."""
        return CRITERIA[self.plain.criterion](output, box)

    def __call__(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss with gradient, and detached means of everything for the log."""
        inputs = self.inputs(batch)
        output = self.network(*inputs)
        values = self.sample_losses(output, batch["search_box"])
        log = {name: value.detach().mean() for name, value in values.items()}
        loss, term = values["loss"].mean(), self.regularizer.loss_term(inputs, output)
        if isinstance(term, Tensor):
            log["regularizer"] = term.detach()
        return loss + term, log


def sample_loss(network: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """(B,) loss per sample: the function that ``estimate_prior`` takes."""
    actor = TrackingActor(network)
    output = network(*actor.inputs(batch))
    return actor.sample_losses(output, batch["search_box"])["loss"]


def to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Moves a batch without waiting for the copy."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}
