"""Trains a recipe: `python -m ltr_ext.run_training srft <config> [key=value ...]`.

The same command resumes a run that was stopped. Results are in
``<workspace>/checkpoints/ltr/srft/<config>``: checkpoints, ``log.jsonl``, TensorBoard files,
``prior.safetensors``, and for tracking ``best.safetensors`` and, at the end,
``network.safetensors``.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from ltr_ext.actors.distillation import TRACKING
from ltr_ext.admin.environment import default_device, environment, remedy
from ltr_ext.commands import ACCEPT_CHANGES, add_training_arguments, parse_arguments, run_training
from ltr_ext.data.loader import PairLoader, even_batch, make_loader
from ltr_ext.data.sampler import PairDataset
from ltr_ext.dataset.training_sets import training_pairs
from ltr_ext.models.checkpoint import BUNDLED, load_network
from ltr_ext.models.network import TrackingNetwork
from ltr_ext.models.registry import build_network
from ltr_ext.priors import run_prior
from ltr_ext.recipe import Recipe
from ltr_ext.trainers.checkpoints import CheckpointFolder
from ltr_ext.trainers.lock import run_lock
from ltr_ext.trainers.log import FILE
from ltr_ext.trainers.preparation import parameter_groups, prepare
from ltr_ext.trainers.processes import Processes, join_processes, seed_everything
from ltr_ext.trainers.settings import check_settings
from ltr_ext.trainers.trainer import NETWORK, Trainer
from srft_plugin.errors import UserError, out_of_memory, report_errors
from srft_plugin.kernels import triton_lacks
from srft_plugin.tuning.regularizer import make_regularizer, read_options, takes
from srft_plugin.tuning.trainable import select_trainable, trainable_table

log = logging.getLogger(__name__)


def run_dir(name: str, workspace: Path | None = None) -> Path:
    """Folder of the run called ``name``: upstream's ``checkpoints/<project_path>``."""
    return (workspace or environment().workspace_dir) / "checkpoints" / "ltr" / "srft" / name


def train(
    recipe: Recipe,
    folder: Path,
    device: str | torch.device = "cpu",
    accept_changes: bool = False,
) -> Path:
    """Runs ``recipe`` to its end in ``folder``, from where it stopped if it was begun there.

    Args:
        accept_changes: go on with a run that was begun with other settings.

    Returns:
        The network file, ready for tracking.

    Raises:
        UserError: wrong data, checkpoint or settings, or another process trains in ``folder``; see
            the message.
    """
    processes, device = join_processes(str(device))
    try:
        return _train(recipe, folder, device, accept_changes, processes)
    except RuntimeError as error:  # torch raises it wherever the training happens to be
        if out_of_memory(error):
            raise UserError(
                f"{device} has too little memory: lower batch_size, or compute it in parts by "
                f"accumulate=2 or more; precision=bf16 and checkpoint_activations=true take less "
                f"({str(error).splitlines()[0]})"
            ) from error
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            "a process that prepares batches has died, as where memory, or the shared memory "
            "of a container (/dev/shm), is short: lower workers, or give it more "
            f"({str(error).splitlines()[0]})"
        ) from error


def _train(
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    accept_changes: bool,
    processes: Processes,
) -> Path:
    share = processes.share(recipe.batch_size, recipe.accumulate)
    if CheckpointFolder(folder).started():  # before anything of the run is made anew
        check_settings(folder, recipe, accept_changes)
    seed_everything(recipe.seed)
    base = None if recipe.base is None else load_network(base_file(recipe.base))
    network = trainable_network(recipe, base)
    if base is None and recipe.trainable != "all":
        log.warning(
            "base=none starts from random weights, and trainable=%s leaves some of them so; "
            "trainable=all trains every one", recipe.trainable,
        )  # fmt: skip
    samples, ratios = recipe.samples_per_epoch, recipe.ratios
    data = training_pairs(recipe, recipe.datasets, network, samples, recipe.seed, ratios)
    network.metadata = {"modality": data.modality} if data.modality else {}
    validation = None
    if recipe.validation:
        samples, seed = recipe.validation_samples, recipe.seed + 2
        if samples < processes.count:
            raise UserError(
                f"validation_samples is {samples}, fewer than the {processes.count} processes that "
                "share them; raise it"
            )
        pairs = training_pairs(recipe, recipe.validation, network, samples, seed)
        part = even_batch(samples // processes.count, share)
        validation = _loader(recipe, pairs, part, 0, samples, processes, device)
    parameter_groups(network, recipe)  # a wrong rate shows before the prior is estimated
    with run_lock(folder) if processes.is_first else nullcontext():  # nothing is written before
        prior = run_prior(recipe, network, base, folder, device, processes)
        model = prepare(network, recipe, device, processes)
        options = regularizer_options(recipe, updates_by_kernels(recipe, device, processes))
        name, steps = recipe.regularizer, recipe.total_steps
        regularizer = make_regularizer(name, network, prior, steps, **options)

        def batches(step: int):
            start, stop = (n * recipe.batch_size for n in (step, recipe.total_steps))
            return _loader(recipe, data, share, start, stop, processes, device)

        if processes.is_first:
            print(f"what trains:\n{trainable_table(network)}")
            # all that is to be seen where no bar is drawn
            print(f"log: {folder / FILE}", flush=True)
        trainer = Trainer(
            network, model, recipe, regularizer, batches, validation, folder, device, processes
        )
        trainer.train(accept_changes)
        file = folder / NETWORK
        trainer.write_network(file)
        if processes.is_first:
            trainer.checkpoints.tidy()  # also where only the network was left to write
            print(f"network: {file}")
        processes.leave()
        return file


def _loader(
    recipe: Recipe,
    data: PairDataset,
    share: int,
    start: int,
    stop: int,
    processes: Processes,
    device: torch.device,
) -> PairLoader:
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


def base_file(base: str) -> Path:
    """The checkpoint that ``Recipe.base`` names: ``default``, a path, or a file in pretrained_dir.

    Raises:
        UserError: there is no such file.
    """
    if base == "default":
        return BUNDLED
    pretrained = environment().pretrained_dir
    for path in (Path(base).expanduser(), pretrained / base):
        if path.is_file():
            return path
    raise UserError(
        f"base checkpoint {base}: no such file, nor in {pretrained}; give base=PATH, or put it "
        f"there. For another folder, {remedy('pretrained_dir')}"
    )


def trainable_network(recipe: Recipe, base: TrackingNetwork | None) -> TrackingNetwork:
    """The network to train, at its starting weights, with ``requires_grad`` as it will train."""
    network = build_network(recipe.network)
    if base is not None:
        network.copy_base(base)
    select_trainable(network, recipe.trainable)
    return network


def updates_by_kernels(recipe: Recipe, device: torch.device, processes: Processes) -> bool:
    """Whether SRFT's update is fused: where it is compiled, and on GPUs wherever Triton works.

    Processes step their weights alike, so they do as the one that lacks something.
    """
    if not takes(recipe.regularizer, "fused") or device.type != "cuda":
        return recipe.compile
    lacking = next(filter(None, processes.collect(triton_lacks())), None)
    if lacking and processes.is_first:
        log.warning("the update of SRFT is ten times as slow as it could be: it needs %s", lacking)
    return not lacking


def regularizer_options(recipe: Recipe, fused: bool) -> dict[str, Any]:
    """Settings of the recipe's regularizer: those that every recipe has, and its own."""
    general = {"kappa": recipe.kappa, "fused": fused, "perspectives": TRACKING}
    taken = {name: value for name, value in general.items() if takes(recipe.regularizer, name)}
    return taken | read_options(recipe.regularizer, recipe.regularizer_options)


def run_in_host(recipe: Recipe, settings: Any) -> None:
    """Trains from pytracking's `run_training.py`: the name of the run is that of its settings.

    Overrides, and ``--accept-changes``, come from the environment variable ``SRFT_OVERRIDES``,
    split and quoted as in a shell, as the host's command line has no room for them.

    Raises:
        SystemExit: wrong input, with status 2, as our own commands end.
    """
    if status := report_errors(_train_in_host, recipe, settings):
        sys.exit(status)


def _train_in_host(recipe: Recipe, settings: Any) -> None:
    given = os.environ.get("SRFT_OVERRIDES", "")
    try:
        words = shlex.split(given)
    except ValueError as error:
        raise UserError(f"SRFT_OVERRIDES is {given}: {error}") from error
    accept_changes = ACCEPT_CHANGES in words
    recipe = recipe.override([word for word in words if word != ACCEPT_CHANGES])
    device = default_device() if settings.use_gpu else "cpu"
    train(recipe, run_dir(settings.script_name), device, accept_changes)


def main(argv: list[str] | None = None) -> int:
    """`python -m ltr_ext.run_training srft <config>`, as upstream's command line has it."""
    parser = argparse.ArgumentParser(description="Train a recipe, or resume it.")
    parser.add_argument("module", choices=("srft",), help="upstream's name for a set of configs")
    add_training_arguments(parser)
    return report_errors(run_training, parse_arguments(parser, argv))


if __name__ == "__main__":
    sys.exit(main())
