"""What holds fine-tuning back, behind one interface: chosen by one word in a recipe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import entry_points
from typing import Any, get_type_hints

from torch import nn

from srft_plugin.errors import UserError, unknown
from srft_plugin.prior import Prior
from srft_plugin.tuning.anchored import ewc, ewc_diagonal, l2sp
from srft_plugin.tuning.base import Regularizer
from srft_plugin.tuning.distillation import TWO_TOWERS
from srft_plugin.tuning.sensitivity import (
    effective,
    srft,
    srft_indexed,
    srft_prior,
    srft_random,
    srft_reversed,
    srft_transfer,
)
from srft_plugin.tuning.tracer import tracer
from srft_plugin.values import read_value

__all__ = ["REGULARIZERS", "Regularizer", "make_regularizer", "regularizer_names"]


def no_regularizer(network: nn.Module, prior: Prior | None, total_steps: int | None) -> Regularizer:
    """Full fine-tuning."""
    return Regularizer()


# Functions of (network, prior, total_steps, **options). Where the annotation of prior or of
# total_steps leaves out None, it must be given.
REGULARIZERS: dict[str, Callable[..., Regularizer]] = {
    "none": no_regularizer,
    "srft": srft,
    "srft:prior": srft_prior,
    "srft:transfer": srft_transfer,
    "srft:random": srft_random,
    "srft:reversed": srft_reversed,
    "srft:indexed": srft_indexed,
    "effective": effective,
    "l2sp": l2sp,
    "ewc": ewc,
    "ewc:diagonal": ewc_diagonal,
    "tracer": tracer,
    "tracer:ema": partial(tracer, average="ema"),
    "contrastive_wma": partial(tracer, perspectives=TWO_TOWERS),
}
ENTRY_POINTS = "srft.regularizers"
COMMON = ("network", "prior", "total_steps")  # what every regularizer is made from


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
        UserError: an unknown name or option, or something that the regularizer needs is missing.
    """
    make = _find(name)
    if prior is None and prior_kind(name) is not None:
        raise UserError(f"{name} needs a prior: make one with estimate_prior on the source domain")
    if total_steps is None and _hints(make).get("total_steps") is int:
        raise UserError(f"{name} needs the total number of optimizer steps (T of Eq. 14)")
    _check_options(name, options)
    return make(network, prior, total_steps, **options)


def prior_kind(name: str) -> type[Prior] | None:
    """The class of prior that the regularizer ``name`` must be given, None if it does without."""
    hint = _hints(_find(name)).get("prior")
    return hint if isinstance(hint, type) and issubclass(hint, Prior) else None


def takes(name: str, option: str) -> bool:
    """Whether the regularizer ``name`` has the option, under that very name."""
    return option in _options(name)


def read_options(name: str, assignments: Iterable[str]) -> dict[str, Any]:
    """Options of the regularizer ``name`` from ``option=value`` texts.

    A value has the type of the option's annotation; without one, it stays a text.

    Raises:
        UserError: an unknown option, or a value of another type.
    """
    options = {}
    for assignment in assignments:
        option, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"option {assignment!r} of {name}: expected option=value")
        options[option] = text
    _check_options(name, options)
    hints = _hints(_find(name))
    try:
        return {key: read_value(key, text, hints.get(key, str)) for key, text in options.items()}
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def _find(name: str) -> Callable[..., Regularizer]:
    if name in REGULARIZERS:
        return REGULARIZERS[name]
    found = entry_points(group=ENTRY_POINTS, name=name)
    if not found:
        raise unknown("regularizer", name, regularizer_names())
    entry = next(iter(found))
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"regularizer {name} of {entry.dist.name} cannot be loaded from {entry.value}: "
            f"{error}; correct the entry point {ENTRY_POINTS} or the module"
        ) from error


def _hints(make: Callable[..., Regularizer]) -> dict[str, Any]:
    return get_type_hints(make.func if isinstance(make, partial) else make)


def _options(name: str) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(_find(name)).parameters
    return {option: p for option, p in parameters.items() if option not in COMMON}


def _check_options(name: str, options: Iterable[str]) -> None:
    known = _options(name)
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return
    for option in options:
        if option not in known:
            takers = [other for other in REGULARIZERS if takes(other, option)]
            if takers:
                raise UserError(f"{name} has no option {option!r}; {', '.join(takers)} have it")
            raise unknown(f"option of {name}", option, known)
