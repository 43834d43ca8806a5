"""Two other estimates of the prior sensitivity, to compare: Lanczos, and Eq. 7 as printed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from srft_plugin.errors import UserError, unknown
from srft_plugin.prior.capture import LossFn, checked_losses, only_requires_grad

Product = Callable[[Tensor], Tensor | None]
# Of (network, loss_fn, batch, block, vectors): the product with the curvature of the sum of the
# losses; None if that does not depend on the block.
BatchProduct = Callable[..., Sequence[Tensor] | None]


def lanczos_spectra(
    network: nn.Module,
    loss_fn: LossFn,
    batches: list[Any],
    groups: dict[str, list[str]],
    top_k: int,
    steps: int = 30,
    curvature: str = "hessian",
    seed: int = 0,
) -> tuple[dict[str, Tensor], int]:
    """Leading eigenvalues of the Hessian or GGN block of each group, by Lanczos iteration.

    Each step takes one matrix-vector product over all batches, so a group costs ``steps`` times
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
        curvature: ``"hessian"`` of the mean loss, or ``"ggn"``, the generalized Gauss-Newton matrix
            J'HJ (Schraudolph, 2002) with J the Jacobian of what ``network(...)`` returns and H the
            Hessian of the mean loss in that; it has no negative eigenvalue if the loss is convex.
        seed: of the start vectors.

    Raises:
        UserError: fewer steps than eigenvalues, an unknown curvature, or for ``"ggn"`` a loss that
            does not call the network.
    """
    if curvature not in PRODUCTS:
        raise unknown("curvature", curvature, PRODUCTS)
    if steps < top_k:
        raise UserError(f"{steps} Lanczos steps give {steps} eigenvalues, top_k is {top_k}")
    generator = torch.Generator().manual_seed(seed)
    named = dict(network.named_parameters())
    samples = len(_losses(network, loss_fn, batches))
    spectra = {}
    for group, members in groups.items():
        block = [named[name] for name in members]
        with only_requires_grad(network, members), sdpa_kernel(SDPBackend.MATH):
            spectra[group] = _lanczos(
                lambda v, block=block: _mean_product(
                    PRODUCTS[curvature], network, loss_fn, batches, block, v, samples
                ),
                torch.randn(sum(p.numel() for p in block), generator=generator).to(block[0]),
                steps,
                generator,
            )[:top_k]
    return spectra, samples


def _lanczos(product: Product, start: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Ritz values, descending; empty where the operator has no value, or acts on nothing."""
    if not len(start):
        return torch.empty(0, dtype=torch.float64)
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


def _mean_product(
    product: BatchProduct,
    network: nn.Module,
    loss_fn: LossFn,
    batches: list[Any],
    block: list[Tensor],
    vector: Tensor,
    samples: int,
) -> Tensor | None:
    """The block of the mean loss's curvature times ``vector``; None where no batch reaches it."""
    parts = [v.view_as(p) for v, p in zip(vector.split([p.numel() for p in block]), block,
                                          strict=True)]  # fmt: skip
    total: Tensor | None = None
    for batch in batches:
        image = product(network, loss_fn, batch, block, parts)
        if image is not None:
            flat = torch.cat([part.flatten() for part in image])
            total = flat if total is None else total + flat
    return None if total is None else total / samples


def _hessian_product(
    network: nn.Module, loss_fn: LossFn, batch: Any, block: list[Tensor], vectors: list[Tensor]
) -> Sequence[Tensor] | None:
    losses = checked_losses(network, loss_fn, batch)
    if not losses.requires_grad:
        return None
    return _second_derivative(losses.sum(), block, vectors)


def _ggn_product(
    network: nn.Module, loss_fn: LossFn, batch: Any, block: list[Tensor], vectors: list[Tensor]
) -> Sequence[Tensor] | None:
    """J'HJ times ``vectors``: the network is cut off from the loss at what it returns."""
    outputs: list[Tensor] = []
    leaves: list[Tensor] = []
    calls = []

    def cut(module: nn.Module, args: Any, output: Any) -> Any:
        calls.append(module)
        flat, structure = tree_flatten(output)
        for index, value in enumerate(flat):
            if isinstance(value, Tensor) and value.requires_grad:
                outputs.append(value)
                flat[index] = value.detach().requires_grad_()
                leaves.append(flat[index])
        return tree_unflatten(flat, structure)

    handle = network.register_forward_hook(cut)
    try:
        losses = checked_losses(network, loss_fn, batch)
    finally:
        handle.remove()
    if not calls:
        raise UserError(
            "curvature='ggn' needs to see what the network returns: call network(...) in loss_fn, "
            "not one of its parts"
        )
    if not outputs:
        return None
    # J v is the derivative of J'u, which is linear in u.
    along = [torch.zeros_like(z, requires_grad=True) for z in outputs]
    backward = torch.autograd.grad(outputs, block, along, create_graph=True, materialize_grads=True)
    forward = _inner(backward, vectors)
    if not forward.requires_grad:
        return None
    moved = torch.autograd.grad(forward, along, materialize_grads=True)
    curved = _second_derivative(losses.sum(), leaves, moved)
    return torch.autograd.grad(outputs, block, curved, materialize_grads=True)


def _second_derivative(
    value: Tensor, variables: list[Tensor], vectors: Sequence[Tensor]
) -> Sequence[Tensor]:
    """Hessian of ``value`` times ``vectors``; zero where it is linear."""
    gradients = torch.autograd.grad(value, variables, create_graph=True, materialize_grads=True)
    along = _inner(gradients, vectors)
    if not along.requires_grad:
        return [torch.zeros_like(v) for v in variables]
    return torch.autograd.grad(along, variables, materialize_grads=True)


def _inner(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    return sum((a * b).sum() for a, b in zip(first, second, strict=True))


PRODUCTS: dict[str, BatchProduct] = {"hessian": _hessian_product, "ggn": _ggn_product}


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
        network, batches = network.to(dtype), tree_map(partial(_cast, dtype=dtype), batches)
    generator = torch.Generator().manual_seed(seed)
    named = dict(network.named_parameters())
    losses = _losses(network, loss_fn, batches)
    samples, centre = len(losses), losses.mean()
    spectra = {}
    for group, members in groups.items():
        block = [named[name] for name in members]
        with only_requires_grad(network, members):
            used = any(checked_losses(network, loss_fn, batch).requires_grad for batch in batches)
        values = [
            _curvature(network, loss_fn, batches, block, rho, centre, generator)
            for _ in range(probes if used else 0)
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
        sides.append(_losses(network, loss_fn, batches).mean())
    for p, start in zip(block, before, strict=True):
        p.copy_(start)
    # All-zero parameters leave no radius to probe: their curvature is not measured.
    return (sides[0] - 2 * centre + sides[1]) / length**2 if length > 0 else torch.zeros(())


@torch.no_grad()
def _losses(network: nn.Module, loss_fn: LossFn, batches: list[Any]) -> Tensor:
    """(n,) of all samples."""
    return torch.cat([checked_losses(network, loss_fn, batch) for batch in batches])


def _cast(value: Any, dtype: torch.dtype) -> Any:
    """A floating-point tensor as ``dtype``, anything else as it is."""
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
