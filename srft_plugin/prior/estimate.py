"""The prior sensitivity of a network, by any of the methods (III-B.1)."""

from __future__ import annotations

import hashlib
import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from srft_plugin.errors import UserError, some, unknown
from srft_plugin.groups import operation_groups
from srft_plugin.prior.capture import LossFn
from srft_plugin.prior.curvature import finite_difference_spectra, lanczos_spectra
from srft_plugin.prior.diagonal import diagonal_spectra
from srft_plugin.prior.fisher import fisher_spectra
from srft_plugin.prior.store import Prior

METHODS: dict[str, Callable[..., tuple[dict[str, Tensor], int]]] = {
    "fisher": fisher_spectra,
    "lanczos": lanczos_spectra,
    "finite_difference": finite_difference_spectra,
    "diagonal": diagonal_spectra,
}
COMMON = 5  # arguments that all methods have


def estimate_prior(
    network: nn.Module,
    loss_fn: LossFn,
    batches: Iterable[Any],
    groups: Mapping[str, list[str]] | None = None,
    method: str = "fisher",
    top_k: int = 10,
    data: str | None = None,
    **options: Any,
) -> Prior:
    """Leading eigenvalues of the Fisher information of each operation of a pre-trained network.

    Args:
        network: at its pre-trained weights; used in eval mode and left as it was.
        loss_fn: (network, batch) to the (n,) losses of the samples of the batch. The loss of a
            sample may depend on no other sample, and dimension 0 of what the layers see must be
            the samples.
        batches: data of the pre-training domain D_0, on the network's device; all are held.
        groups: operation to the names of its parameters; ``operation_groups(network)`` if None.
        method: ``"fisher"``, exact for the empirical Fisher; ``"lanczos"``, the Hessian, a check;
            ``"finite_difference"``, Eq. 7 as printed, for comparison; ``"diagonal"``, not spectra
            but diagonals (``srft_plugin.tuning.anchored.estimate_diagonal``).
        top_k: K of Eq. 8, the eigenvalues to keep of each operation.
        data: name of the source data, for the prior's metadata.
        options: further arguments of the method.

    Returns:
        The prior; operations that the losses do not depend on have none (with a warning).

    Raises:
        UserError: no batches or an empty one, fewer samples than ``top_k``, a loss that is NaN or
            infinite, no operation with a gradient, an unknown method or option, groups that
            overlap or name something else than parameters.
    """
    if method not in METHODS:
        raise unknown("method for the prior", method, METHODS)
    known = list(inspect.signature(METHODS[method]).parameters)[COMMON:]
    for option in options:
        if option not in known:
            raise unknown(f"option of {method}", option, known)
    if top_k < 1:
        raise UserError(f"top_k is {top_k}; expected at least 1 eigenvalue (the paper uses 10)")
    groups = operation_groups(network) if groups is None else dict(groups)
    _check_groups(network, groups)
    batches = list(batches)
    if not batches:
        raise UserError("the prior was given no batches; expected samples of the source domain")
    modes = {module: module.training for module in network.modules()}
    try:
        network.eval()
        spectra, samples = METHODS[method](network, loss_fn, batches, groups, top_k, **options)
    finally:
        for module, training in modes.items():
            module.training = training
    _check(spectra, samples, top_k)
    shapes = {name: list(p.shape) for name, p in network.named_parameters()}
    metadata = {
        "method": method,
        "top_k": str(top_k),
        "samples": str(samples),
        "weights_sha256": weights_sha256(network),
        **({} if data is None else {"data": data}),
        **{name: str(value) for name, value in options.items()},
    }
    return Prior(spectra, {g: [shapes[p] for p in ps] for g, ps in groups.items()}, metadata)


def weights_sha256(network: nn.Module) -> str:
    """SHA-256 over names and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        if not isinstance(value, Tensor):  # what a module adds by get_extra_state
            continue
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _check_groups(network: nn.Module, groups: Mapping[str, list[str]]) -> None:
    known = {name for name, _ in network.named_parameters()}
    members = Counter(name for group in groups.values() for name in group)
    if strange := [name for name in members if name not in known]:
        raise UserError(
            f"the groups name {some(strange)}, which the network has no parameters of; take names "
            f"of network.named_parameters(), where a shared parameter has the first of its names"
        )
    if twice := [name for name, count in members.items() if count > 1]:
        raise UserError(f"{some(twice)} is in more than one group; groups are disjoint (III-B)")


def _check(spectra: dict[str, Tensor], samples: int, top_k: int) -> None:
    unused = [name for name, spectrum in spectra.items() if not len(spectrum)]
    if len(unused) == len(spectra):
        raise UserError(
            "the loss gives no parameter of the network a gradient; does loss_fn use the network "
            "it is handed, without torch.no_grad or detach?"
        )
    if samples < top_k:
        raise UserError(
            f"top_k is {top_k} but the batches hold {samples} samples, which give at most as many "
            f"eigenvalues; use more samples or a smaller top_k"
        )
    if unused:
        warnings.warn(
            f"the loss does not depend on {', '.join(unused)}: no prior for them", stacklevel=3
        )
