"""Priors of the base tracker that are not the exact Fisher's: made once, shared by the cells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from ltr_ext.admin.files import atomic_write
from ltr_ext.models.checkpoint import load_network
from ltr_ext.models.network import TrackingNetwork
from ltr_ext.priors import has_prior, source_prior
from ltr_ext.recipe import Recipe
from ltr_ext.run_training import base_file
from srft_plugin.prior import Prior

from .plan import VARIANTS, Budget, Cell, recipe


def prior_file(cell: Cell, folder: Path) -> Path | None:
    """Where the prior of ``cell`` is in the study's folder; None for the recipe's own."""
    variant = VARIANTS[cell.variant]
    if variant is None or variant.prior is None:
        return None
    name = f"random{cell.seed}" if variant.prior == "random" else variant.prior
    return folder / "priors" / f"{name}.safetensors"


def write_priors(plan: Iterable[Cell], budget: Budget, folder: Path, device: str) -> None:
    """Estimates the priors that the cells want and that are not there yet."""
    for cell in plan:
        file = prior_file(cell, folder)
        if file is None:
            continue
        method, make = VARIANTS[cell.variant].prior, _estimate
        settings = recipe(cell, budget, "synthetic_rgbd")  # the training set has no part in it
        if method == "random":
            make = _random
        else:
            # One for all seeds, so of one seed: has_prior asks for the pairs that it was made of.
            settings = replace(settings, prior_samples=budget.curvature_samples, seed=0)
        base = load_network(base_file(settings.base))
        if not has_prior(file, settings, base, method=method):
            atomic_write(file, make(settings, base, method, device).save)


def _estimate(settings: Recipe, base: TrackingNetwork, method: str, device: str) -> Prior:
    return source_prior(settings, base, torch.device(device), method=method)


def _random(settings: Recipe, base: TrackingNetwork, method: str, device: str) -> Prior:
    """The exact Fisher's eigenvalues, dealt out to the operations by lot."""
    prior = source_prior(settings, base, torch.device(device))
    names = list(prior.spectra)
    lot = torch.randperm(len(names), generator=torch.Generator().manual_seed(settings.seed))
    spectra = {name: prior.spectra[names[k]] for name, k in zip(names, lot.tolist(), strict=True)}
    return replace(prior, spectra=spectra, metadata=prior.metadata | {"method": method})
