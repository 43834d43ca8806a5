"""The diagonal of the empirical Fisher information: mean squares of per-sample gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from srft_plugin.prior.capture import LossFn, checked_losses, only_requires_grad


def diagonal_spectra(
    network: nn.Module,
    loss_fn: LossFn,
    batches: list[Any],
    groups: dict[str, list[str]],
    top_k: int,
) -> tuple[dict[str, Tensor], int]:
    """Diagonal of the Fisher block of each group, not sorted; ``top_k`` does not matter.

    One backward pass for each sample, through its whole batch.

    Returns:
        Group to the diagonal, as many float32 values as the group has parameters, none where the
        losses do not depend on it; and the number of samples.
    """
    named = dict(network.named_parameters())
    names = [name for members in groups.values() for name in members]
    squares: dict[str, Tensor] = {}
    samples = 0
    with only_requires_grad(network, names):
        for batch in batches:
            losses = checked_losses(network, loss_fn, batch)
            samples += len(losses)
            for index, loss in enumerate(losses if losses.requires_grad else ()):
                again = index + 1 < len(losses)
                gradients = torch.autograd.grad(
                    loss, [named[n] for n in names], retain_graph=again, allow_unused=True
                )
                for name, gradient in zip(names, gradients, strict=True):
                    if gradient is not None:
                        square = gradient.float().square()
                        squares[name] = squares[name].add_(square) if name in squares else square
    spectra = {}
    for group, members in groups.items():
        known = any(name in squares for name in members)
        parts = [squares.get(n, torch.zeros_like(named[n])).flatten() for n in members]
        spectra[group] = torch.cat(parts).cpu() / samples if known else torch.empty(0)
    return spectra, samples
