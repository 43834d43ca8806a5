"""What to log about the gradients of a step, for any optimizer (Eq. 9, 12)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from srft_plugin.precision import widened

ELEMENTS = 1 << 14  # of a norm that a CPU takes at a time


@torch.no_grad()
def gradient_statistics(optimizer: Optimizer, sigma: float = 1.0) -> dict[str, Tensor]:
    """Sparsity and adaptation risk of the gradients that ``optimizer`` steps with.

    Two norms of every gradient, and no wait for the device: the values are 0-d tensors to be read
    when they are written down. Gradients of sharded parameters count as a whole, so then every
    process has to call this.

    Args:
        optimizer: with gradients in its parameters, before or after a step.
        sigma: standard deviation of the noise of an update in Eq. 12.

    Returns:
        ``"gradient_sparsity"``, Eq. 9 over all parameters that have a gradient: from 1 for equal
        magnitudes down to 1/sqrt(n). ``"adaptation_risk"``, Eq. 12 as printed with the learning
        rate of each parameter group: sqrt(2 sigma^2) times the norm of alpha * g. Without any
        gradient, no entries.
    """
    norms: list[tuple[Tensor, Tensor, float | Tensor]] = []
    elements = 0
    for group in optimizer.param_groups:
        gradients = [p.grad for p in group["params"] if p.grad is not None]
        if not gradients:
            continue
        elements += sum(g.numel() for g in gradients)
        absolute, euclidean = (_norm(gradients, order) for order in (1, 2))
        norms.append((absolute, euclidean, group["lr"]))
    if not norms:
        return {}
    absolute = torch.stack([a for a, _, _ in norms]).sum()
    euclidean = torch.stack([e for _, e, _ in norms]).norm()
    risk = torch.stack([lr * e for _, e, lr in norms]).norm() * 2**0.5 * sigma
    return {
        "gradient_sparsity": absolute / (elements**0.5 * euclidean),
        "adaptation_risk": risk,
    }


def _norm(gradients: list[Tensor], order: int) -> Tensor:
    """Norm of all gradients as one vector, float64."""
    parts = [part for g in gradients for part in _parts(g)]
    norms = [n.full_tensor() if isinstance(n, DTensor) else n
             for n in torch._foreach_norm(parts, order)]  # fmt: skip
    return torch.stack([n.double() for n in norms]).norm(order)


def _parts(gradient: Tensor) -> Sequence[Tensor]:
    """The gradient in at least float32; on a CPU, where a norm adds one element after the other, in
    parts so short that little is rounded off."""
    gradient = widened(gradient)
    if isinstance(gradient, DTensor) or not gradient.is_cpu or gradient.is_sparse:
        return (gradient,)
    return gradient.flatten().split(ELEMENTS)
