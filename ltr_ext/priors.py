"""The prior of a run: given as a file, kept from an earlier start, or estimated on RGB data."""

from __future__ import annotations

from pathlib import Path

import torch
from tqdm import tqdm

from ltr_ext.actors.tracking import sample_loss, to_device
from ltr_ext.admin.files import atomic_write
from ltr_ext.data.loader import even_batch, make_loader
from ltr_ext.dataset.training_sets import training_pairs
from ltr_ext.models.network import TrackingNetwork
from ltr_ext.recipe import DRAWN_BY, Recipe
from ltr_ext.trainers.processes import Processes
from srft_plugin.errors import UserError
from srft_plugin.prior import Prior, estimate_prior
from srft_plugin.prior.estimate import weights_sha256
from srft_plugin.tuning.anchored import DiagonalFisher, estimate_diagonal
from srft_plugin.tuning.regularizer import prior_kind

PRIORS = {Prior: "prior.safetensors", DiagonalFisher: "fisher_diagonal.safetensors"}
PRIOR_BATCH = 16  # samples per backward pass of the prior estimate


def run_prior(
    recipe: Recipe,
    network: TrackingNetwork,
    base: TrackingNetwork | None,
    folder: Path,
    device: torch.device,
    processes: Processes,
) -> Prior | None:
    """The prior of ``network`` that the regularizer needs, from the run's file or newly made.

    Raises:
        UserError: a prior is needed and there is no base network.
    """
    kind = prior_kind(recipe.regularizer)
    if kind is None:
        return None
    if base is None:
        raise UserError(
            f"regularizer={recipe.regularizer} needs the prior of a base network, and base is "
            "none; name a checkpoint, or take regularizer=none"
        )
    file = folder / PRIORS[kind]
    if processes.is_first:
        if recipe.prior is not None:
            atomic_write(file, given_prior(recipe, base, kind).save)
        elif not has_prior(file, recipe, base, kind):
            atomic_write(file, source_prior(recipe, base, device, kind).save)
    processes.wait()
    names = [name for name, _ in network.named_parameters()]
    parameters = {name: network.origin(name, base) for name in names}
    sources = parameters if kind is DiagonalFisher else network.prior_sources(base)
    return kind.load(file).renamed(sources)


def has_prior(
    file: Path,
    recipe: Recipe,
    base: TrackingNetwork,
    kind: type[Prior] = Prior,
    method: str = "fisher",
) -> bool:
    """Whether ``file`` holds what ``source_prior`` would make, from an earlier start."""
    if not file.exists():
        return False
    wanted = {
        "weights_sha256": weights_sha256(base),
        "data": _prior_data(recipe),
        "samples": str(_prior_count(recipe, kind)),
        "method": "diagonal",
    }
    if kind is Prior:
        wanted |= {"top_k": str(recipe.top_k), "method": method}
    return wanted.items() <= kind.load(file).metadata.items()


def given_prior(recipe: Recipe, base: TrackingNetwork, kind: type[Prior]) -> Prior:
    """The prior in the file that the recipe names, cut to its ``top_k``.

    Raises:
        UserError: no such file, the prior of other weights or of another kind, or one with fewer
            eigenvalues.
    """
    prior = kind.load(recipe.prior)
    if prior.metadata.get("weights_sha256") != weights_sha256(base):
        raise UserError(
            f"{recipe.prior} is not the prior of base={recipe.base}: it was made from other "
            "weights; make one with `srft sensitivity`, or leave prior= out"
        )
    diagonal = prior.metadata.get("method") == "diagonal"
    if diagonal != (kind is DiagonalFisher):
        found, wanted = ("operations", "single parameters")[:: -1 if diagonal else 1]
        raise UserError(
            f"{recipe.prior} is a prior of {found}, and regularizer={recipe.regularizer} needs one "
            f"of {wanted}, the {PRIORS[kind]} of a run; take that, or leave prior= out"
        )
    return prior if kind is DiagonalFisher else prior.leading(recipe.top_k)


def source_prior(
    recipe: Recipe,
    base: TrackingNetwork,
    device: torch.device,
    kind: type[Prior] = Prior,
    method: str = "fisher",
) -> Prior:
    """Prior sensitivity of the base tracker on the recipe's RGB data (III-B.1), by ``method``.

    Raises:
        UserError: no data set, or fewer samples than eigenvalues, before any is read.
    """
    if not recipe.source:
        raise UserError("source names no data set; give one, such as source=synthetic_rgb")
    count = _prior_count(recipe, kind)
    if kind is Prior and count < recipe.top_k:
        raise UserError(
            f"top_k is {recipe.top_k} and prior_samples {recipe.prior_samples}, {count} of them in "
            "whole batches; a sample gives at most one eigenvalue: raise prior_samples or lower "
            "top_k"
        )
    data = training_pairs(recipe, recipe.source, base, recipe.prior_samples, recipe.seed + 1)
    loader = make_loader(data, _prior_batch(recipe, kind), workers=recipe.workers)
    batches = (
        to_device(batch, device) for batch in tqdm(loader, desc="prior sensitivity", disable=None)
    )
    network, names = base.to(device).eval(), _prior_data(recipe)
    if kind is DiagonalFisher:
        prior = estimate_diagonal(network, sample_loss, batches, data=names)
    else:
        prior = estimate_prior(
            network, sample_loss, batches, method=method, top_k=recipe.top_k, data=names
        )
    base.cpu()
    return prior


def _prior_data(recipe: Recipe) -> str:
    """The RGB data of a prior: where it comes from, and how its pairs are drawn."""
    drawn = (f"{name}={getattr(recipe, name)}" for name in DRAWN_BY)
    return " ".join((*recipe.source, *drawn))


def _prior_batch(recipe: Recipe, kind: type[Prior]) -> int:
    return 1 if kind is DiagonalFisher else even_batch(recipe.prior_samples, PRIOR_BATCH)


def _prior_count(recipe: Recipe, kind: type[Prior]) -> int:
    """Samples in whole batches: a remainder is left out."""
    size = _prior_batch(recipe, kind)
    return recipe.prior_samples // size * size
