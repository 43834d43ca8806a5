"""Two other estimates of the prior sensitivity, to compare: Lanczos, and Eq. 7 as printed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from srft_plugin.errors import UserError
from srft_plugin.prior.capture import LossFn, checked_losses, only_requires_grad

Product = Callable[[Tensor], Tensor | None]


def lanczos_spectra(
    network: nn.Module,
    loss_fn: LossFn,
    batches: list[Any],
    groups: dict[str, list[str]],
    top_k: int,
    steps: int = 30,
    seed: int = 0,
) -> tuple[dict[str, Tensor], int]:
    """Leading eigenvalues of the Hessian block of each group, by Lanczos iteration.

    Each step takes one Hessian-vector product over all batches, so a group costs ``steps`` times
    some three forward and backward passes. The leading eigenvalues converge first; all steps are
    reorthogonalised. An eigenvalue that occurs several times is found once, unless the steps
    exhaust the group. Unlike the Fisher, the Hessian away from a minimum has negative eigenvalues.

    Args:
        network: in eval mode.
        loss_fn: (network, batch) to (n,) losses, twice differentiable.
        batches: all samples.
        groups: operation to the names of its parameters.
        top_k: eigenvalues to return, largest first.
        steps: Lanczos steps, at least ``top_k``; never more than the group has parameters.
        seed: of the start vectors.

    Raises:
        UserError: fewer steps than eigenvalues.
    """
    if steps < top_k:
        raise UserError(f"{steps} Lanczos steps give {steps} eigenvalues, top_k is {top_k}")
    generator = torch.Generator().manual_seed(seed)
    named = dict(network.named_parameters())
    samples = _count(network, loss_fn, batches)
    spectra = {}
    for group, members in groups.items():
        block = [named[name] for name in members]
        with only_requires_grad(network, members), sdpa_kernel(SDPBackend.MATH):
            spectra[group] = _lanczos(
                lambda v, block=block: _hessian_product(network, loss_fn, batches, block, v),
                torch.randn(sum(p.numel() for p in block), generator=generator).to(block[0]),
                steps,
                generator,
            )[:top_k]
    return spectra, samples


def _lanczos(product: Product, start: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Ritz values, descending; empty where the operator has no value."""
    basis = start.new_empty(0, len(start))
    vector, beside = start / start.norm(), start.new_zeros(())
    diagonal: list[Tensor] = []
    off_diagonal: list[Tensor] = []
    for _ in range(min(steps, len(start))):
        if diagonal:
            off_diagonal.append(beside)
        basis = torch.cat([basis, vector[None]])
        image = product(vector)
        if image is None:
            return torch.empty(0, dtype=torch.float64)
        diagonal.append(image @ vector)
        image = _orthogonal(image, basis)
        beside = image.norm()
        # What is left is round-off: the space is invariant. Eigenvalues of its complement, among
        # them further copies of those found, need a new start.
        if beside <= 1e2 * torch.finfo(image.dtype).eps * torch.stack(diagonal).abs().max():
            fresh = torch.randn(len(start), generator=generator).to(start)
            image, beside = _orthogonal(fresh, basis), start.new_zeros(())
        vector = image / image.norm()
    matrix = torch.diag(torch.stack(diagonal).double())
    if off_diagonal:
        beside = torch.stack(off_diagonal).double()
        matrix = matrix + torch.diag(beside, 1) + torch.diag(beside, -1)
    return torch.linalg.eigvalsh(matrix.cpu()).flip(0)


def _orthogonal(vector: Tensor, basis: Tensor) -> Tensor:
    """``vector`` without its components in the rows of ``basis``."""
    for _ in range(2):  # once leaves round-off that grows
        vector = vector - basis.mT @ (basis @ vector)
    return vector


def _hessian_product(
    network: nn.Module, loss_fn: LossFn, batches: list[Any], block: list[Tensor], vector: Tensor
) -> Tensor | None:
    """Hessian block of the mean loss times ``vector``; None if the loss has no gradient there."""
    parts = vector.split([p.numel() for p in block])
    total, samples = torch.zeros_like(vector), 0
    for batch in batches:
        losses = checked_losses(network, loss_fn, batch)
        samples += len(losses)
        if not losses.requires_grad:
            return None
        gradients = torch.autograd.grad(
            losses.sum(), block, create_graph=True, materialize_grads=True
        )
        along = sum((g.flatten() * v).sum() for g, v in zip(gradients, parts, strict=True))
        if not along.requires_grad:  # the loss is linear in the block
            continue
        products = torch.autograd.grad(along, block, materialize_grads=True)
        total += torch.cat([h.flatten() for h in products])
    return total / samples


def finite_difference_spectra(
    network: nn.Module,
    loss_fn: LossFn,
    batches: list[Any],
    groups: dict[str, list[str]],
    top_k: int,
    probes: int = 100,
    rho: float = 1e-5,
    dtype: torch.dtype | None = torch.float64,
    seed: int = 0,
) -> tuple[dict[str, Tensor], int]:
    """Eq. 7 as printed: the largest curvatures of the mean loss along random directions.

    In d dimensions the curvature along a random direction concentrates at trace / d, so this
    measures the mean eigenvalue rather than the leading ones; in float32 the second difference at
    rho = 1e-5 is round-off. It is here to be compared with; see docs/method.md.

    Args:
        network: in eval mode.
        loss_fn: (network, batch) to (n,) losses.
        batches: all samples.
        groups: operation to the names of its parameters.
        top_k: values to keep of each group, largest first.
        probes: directions per group; each costs two forward passes over all batches.
        rho: length of a perturbation over that of the parameters of the group.
        dtype: what to compute in; None for that of the network.
        seed: of the directions.

    Raises:
        UserError: fewer probes than values.
    """
    if probes < top_k:
        raise UserError(f"{probes} probes give {probes} values, top_k is {top_k}")
    network = copy.deepcopy(network)
    if dtype is not None:
        network, batches = network.to(dtype), [_cast(batch, dtype) for batch in batches]
    generator = torch.Generator().manual_seed(seed)
    named = dict(network.named_parameters())
    samples = _count(network, loss_fn, batches)
    centre = _mean_loss(network, loss_fn, batches)
    spectra = {}
    for group, members in groups.items():
        block = [named[name] for name in members]
        values = [
            _curvature(network, loss_fn, batches, block, rho, centre, generator)
            for _ in range(probes)
        ]
        spectra[group] = torch.tensor(values).double().sort(descending=True).values[:top_k]
    return spectra, samples


@torch.no_grad()
def _curvature(
    network: nn.Module,
    loss_fn: LossFn,
    batches: list[Any],
    block: Sequence[Tensor],
    rho: float,
    centre: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """(L(theta + e) - 2 L(theta) + L(theta - e)) / |e|^2 for one direction, |e| = rho |theta|."""
    directions = [torch.randn(p.shape, generator=generator).to(p) for p in block]
    length = rho * torch.cat([p.flatten() for p in block]).norm()
    scale = length / torch.cat([e.flatten() for e in directions]).norm()
    before = [p.clone() for p in block]
    sides = []
    for sign in (1, -1):
        for p, start, e in zip(block, before, directions, strict=True):
            p.copy_(start + sign * scale * e)
        sides.append(_mean_loss(network, loss_fn, batches))
    for p, start in zip(block, before, strict=True):
        p.copy_(start)
    # All-zero parameters leave no radius to probe: their curvature is not measured.
    return (sides[0] - 2 * centre + sides[1]) / length**2 if length > 0 else torch.zeros(())


@torch.no_grad()
def _mean_loss(network: nn.Module, loss_fn: LossFn, batches: list[Any]) -> Tensor:
    return torch.cat([checked_losses(network, loss_fn, batch) for batch in batches]).mean()


@torch.no_grad()
def _count(network: nn.Module, loss_fn: LossFn, batches: list[Any]) -> int:
    return sum(len(checked_losses(network, loss_fn, batch)) for batch in batches)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating-point tensors inside dicts, lists and tuples as ``dtype``."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _cast(item, dtype) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_cast(item, dtype) for item in value)
    return value
