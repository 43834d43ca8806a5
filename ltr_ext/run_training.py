"""Trains a recipe: `python -m ltr_ext.run_training srft <config> [key=value ...]`.

The same command resumes a run that was stopped. Results are in
``<workspace>/checkpoints/ltr/srft/<config>``: checkpoints, ``log.jsonl``, TensorBoard files,
``prior.safetensors`` and, at the end, ``network.safetensors`` for tracking.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ltr_ext.actors.tracking import sample_loss, to_device
from ltr_ext.admin.environment import default_device, environment
from ltr_ext.admin.files import atomic_write
from ltr_ext.commands import add_training_arguments, parse_arguments, run_training
from ltr_ext.data.loader import make_loader
from ltr_ext.data.sampler import PairDataset
from ltr_ext.dataset.training_sets import open_training_sets
from ltr_ext.models.checkpoint import load_network, save_network
from ltr_ext.models.network import TrackingNetwork
from ltr_ext.models.registry import build_network
from ltr_ext.recipe import Recipe
from ltr_ext.trainers.processes import join_processes
from ltr_ext.trainers.trainer import Trainer
from srft_plugin.errors import UserError, report_errors
from srft_plugin.prior import Prior, estimate_prior
from srft_plugin.prior.estimate import weights_sha256
from srft_plugin.tuning.regularizer import make_regularizer
from srft_plugin.tuning.trainable import select_trainable, trainable_table

DEFAULT_BASE = Path(__file__).parent / "models" / "weights" / "ostrack_tiny.safetensors"
PRIOR = "prior.safetensors"
NEED_PRIOR = ("srft", "srft:prior", "ewc")
PRIOR_BATCH = 16  # samples per backward pass of the prior estimate


def run_dir(name: str, workspace: Path | None = None) -> Path:
    """Folder of the run called ``name``: upstream's ``checkpoints/<project_path>``."""
    return (workspace or environment().workspace_dir) / "checkpoints" / "ltr" / "srft" / name


def train(recipe: Recipe, folder: Path, device: str | torch.device = "cpu") -> Path:
    """Runs ``recipe`` to its end in ``folder``, from where it stopped if it was begun there.

    Returns:
        The network file, ready for tracking.

    Raises:
        UserError: wrong data, checkpoint or settings; see the message.
    """
    processes, device = join_processes(str(device))
    share = processes.share(recipe.batch_size)
    seed_everything(recipe.seed)
    base = None if recipe.base is None else load_network(base_file(recipe.base))
    network = trainable_network(recipe, base)
    data = training_pairs(recipe, recipe.datasets, network, recipe.samples_per_epoch, recipe.seed)
    prior = None
    if recipe.regularizer in NEED_PRIOR:
        if processes.is_first and not _has_prior(folder / PRIOR, recipe, base):
            atomic_write(folder / PRIOR, source_prior(recipe, base, device).save)
        processes.wait()
        prior = Prior.load(folder / PRIOR).renamed(network.prior_sources())
    options = {"kappa": recipe.kappa} if recipe.regularizer.startswith("srft") else {}
    regularizer = make_regularizer(
        recipe.regularizer, network, prior, recipe.total_steps, **options
    )

    def batches(step: int):
        start, stop = (n * recipe.batch_size for n in (step, recipe.total_steps))
        return make_loader(
            data,
            share,
            start,
            stop,
            processes.rank,
            processes.count,
            workers=recipe.workers,
            pin_memory=device.type == "cuda",
        )

    if processes.is_first:
        print(f"what trains:\n{trainable_table(network)}")
    trainer = Trainer(network, recipe, regularizer, batches, folder, device, processes)
    trainer.train()
    file = folder / "network.safetensors"
    described = {"steps": recipe.total_steps, "regularizer": recipe.regularizer}
    if processes.is_first:
        atomic_write(file, lambda partial: save_network(network.cpu(), partial, **described))
    return file


def base_file(base: str) -> Path:
    """The checkpoint that ``Recipe.base`` names: ``default``, a path, or a file in pretrained_dir.

    Raises:
        UserError: there is no such file.
    """
    if base == "default":
        return DEFAULT_BASE
    pretrained = environment().pretrained_dir
    for path in (Path(base).expanduser(), pretrained / base):
        if path.is_file():
            return path
    raise UserError(
        f"base checkpoint {base}: no such file, nor in {pretrained}; give base=PATH, or put it "
        "there (`srft env set pretrained_dir PATH` names another folder)"
    )


def seed_everything(seed: int) -> None:
    """Seeds every generator that training may draw from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def trainable_network(recipe: Recipe, base: TrackingNetwork | None) -> TrackingNetwork:
    """The network to train, at its starting weights, with ``requires_grad`` as it will train."""
    network = build_network(recipe.network)
    if base is not None:
        network.copy_base(base)
    select_trainable(network, recipe.trainable)
    return network


def training_pairs(
    recipe: Recipe, names: tuple[str, ...], network: TrackingNetwork, samples: int, seed: int
) -> PairDataset:
    """Pairs from the data sets ``names``, drawn for ``network`` as the recipe says."""
    return PairDataset(
        open_training_sets(names),
        None,
        network.spec,
        samples,
        seed,
        recipe.max_gap,
        recipe.centre_jitter,
        recipe.scale_jitter,
    )


def _has_prior(file: Path, recipe: Recipe, base: TrackingNetwork) -> bool:
    """Whether ``file`` holds the prior of these weights, from an earlier start of the run."""
    if not file.exists():
        return False
    found = Prior.load(file).metadata
    return (found.get("weights_sha256"), found.get("top_k")) == (
        weights_sha256(base),
        str(recipe.top_k),
    )


def source_prior(recipe: Recipe, base: TrackingNetwork, device: torch.device) -> Prior:
    """Prior sensitivity of the base tracker on the recipe's RGB data (III-B.1)."""
    data = training_pairs(recipe, recipe.source, base, recipe.prior_samples, recipe.seed + 1)
    loader = make_loader(data, min(PRIOR_BATCH, recipe.prior_samples), workers=recipe.workers)
    batches = (
        to_device(batch, device) for batch in tqdm(loader, desc="prior sensitivity", disable=None)
    )
    prior = estimate_prior(base.to(device).eval(), sample_loss, batches, top_k=recipe.top_k)
    base.cpu()
    return prior


def run_in_host(recipe: Recipe, settings: Any) -> None:
    """Trains from pytracking's `run_training.py`: paths and names from its settings.

    Overrides come from the environment variable ``SRFT_OVERRIDES`` (separated by spaces), as the
    host's command line has no room for them.
    """
    recipe = recipe.override(os.environ.get("SRFT_OVERRIDES", "").split())
    workspace = Path(settings.env.workspace_dir or environment().workspace_dir)
    device = default_device() if settings.use_gpu else "cpu"
    train(recipe, run_dir(settings.script_name, workspace), device)


def main(argv: list[str] | None = None) -> int:
    """`python -m ltr_ext.run_training srft <config>`, as upstream's command line has it."""
    parser = argparse.ArgumentParser(description="Train a recipe, or resume it.")
    parser.add_argument("module", choices=("srft",), help="upstream's name for a set of configs")
    add_training_arguments(parser)
    return report_errors(run_training, parse_arguments(parser, argv))


if __name__ == "__main__":
    sys.exit(main())
