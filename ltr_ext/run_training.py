"""Trains a recipe: `python -m ltr_ext.run_training srft <config> [key=value ...]`.

The same command resumes a run that was stopped. Results are in
``<workspace>/checkpoints/ltr/srft/<config>``: checkpoints, ``log.jsonl``, TensorBoard files,
``prior.safetensors``, and for tracking ``best.safetensors`` and, at the end,
``network.safetensors``.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ltr_ext.actors.distillation import TRACKING
from ltr_ext.actors.tracking import sample_loss, to_device
from ltr_ext.admin.environment import default_device, environment, remedy
from ltr_ext.admin.files import atomic_write
from ltr_ext.commands import ACCEPT_CHANGES, add_training_arguments, parse_arguments, run_training
from ltr_ext.data.loader import PairLoader, make_loader
from ltr_ext.data.sampler import PairDataset
from ltr_ext.dataset.training_sets import open_training_sets
from ltr_ext.models.checkpoint import BUNDLED, load_network
from ltr_ext.models.network import TrackingNetwork
from ltr_ext.models.registry import build_network
from ltr_ext.recipe import DRAWN_BY, Recipe
from ltr_ext.trainers.checkpoints import CheckpointFolder
from ltr_ext.trainers.lock import run_lock
from ltr_ext.trainers.log import FILE
from ltr_ext.trainers.preparation import parameter_groups, prepare
from ltr_ext.trainers.processes import Processes, join_processes, seed_everything
from ltr_ext.trainers.settings import check_settings
from ltr_ext.trainers.trainer import NETWORK, Trainer
from srft_plugin.errors import UserError, out_of_memory, report_errors
from srft_plugin.kernels import triton_lacks
from srft_plugin.prior import Prior, estimate_prior
from srft_plugin.prior.estimate import weights_sha256
from srft_plugin.tuning.anchored import DiagonalFisher, estimate_diagonal
from srft_plugin.tuning.regularizer import make_regularizer, prior_kind, read_options, takes
from srft_plugin.tuning.trainable import select_trainable, trainable_table

log = logging.getLogger(__name__)

PRIORS = {Prior: "prior.safetensors", DiagonalFisher: "fisher_diagonal.safetensors"}
PRIOR_BATCH = 16  # samples per backward pass of the prior estimate


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


def training_pairs(
    recipe: Recipe,
    names: tuple[str, ...],
    network: TrackingNetwork,
    samples: int,
    seed: int,
    ratios: tuple[float, ...] = (),
) -> PairDataset:
    """Pairs from the data sets ``names``, drawn for ``network`` as the recipe says."""
    return PairDataset(
        open_training_sets(names),
        ratios or None,
        network.spec,
        samples,
        seed,
        recipe.max_gap,
        recipe.centre_jitter,
        recipe.scale_jitter,
        skip_unreadable=recipe.skip_unreadable,
    )


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


def even_batch(samples: int, most: int) -> int:
    """Size of the fewest batches that hold ``samples``, ``most`` in each, all but a few of them."""
    return samples // math.ceil(samples / most)


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
