"""`srft sensitivity` and `srft plot`: the figures of the paper, drawn from one's own runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ltr_ext.admin.environment import default_device, device_name
from srft_plugin.errors import UserError

if TYPE_CHECKING:
    from srft_plugin.prior import Prior

METHODS = ("fisher", "lanczos", "finite_difference")


def add_commands(subparsers) -> None:
    """Mounts the sub-commands on the `srft` parser."""
    sensitivity = subparsers.add_parser(
        "sensitivity",
        help="estimate the prior sensitivity and draw its map",
        description=_sensitivity.__doc__,
    )
    _add_config(sensitivity)
    sensitivity.add_argument(
        "--method", choices=METHODS, default="fisher", help="of the estimate (default: fisher)"
    )
    sensitivity.add_argument("--out", type=Path, required=True, help="folder to write to")
    sensitivity.add_argument("--json", action="store_true", help="print JSON")
    sensitivity.set_defaults(run=_sensitivity)

    plot = subparsers.add_parser(
        "plot", help="draw figures of runs", description="Draw a figure of the paper from own runs."
    )
    figures = plot.add_subparsers(title="figures", metavar="FIGURE", required=True)
    training = figures.add_parser(
        "training", help="curves of runs (Fig. 1)", description=_training.__doc__
    )
    training.add_argument("runs", nargs="+", help="names of runs, or their folders")
    distance = figures.add_parser(
        "weight-distance", help="what moved how far (Fig. 8)", description=_weight_distance.__doc__
    )
    distance.add_argument("start", type=Path, help="network file before, or the base tracker")
    distance.add_argument("end", type=Path, help="network file after")
    weighted = figures.add_parser(
        "weighted-distance",
        help="what moved, by its prior sensitivity, over training (Fig. 9)",
        description=_weighted_distance.__doc__,
    )
    weighted.add_argument("runs", nargs="+", help="names of runs, or their folders")
    weighted.add_argument("--prior", type=Path, help="prior of the base tracker; that of a run")
    sparsity = figures.add_parser(
        "gradient-sparsity", help="Eq. 9 per operation (Fig. 5)", description=_sparsity.__doc__
    )
    _add_config(sparsity)
    for parser, run in (
        (training, _training), (distance, _weight_distance), (weighted, _weighted_distance),
        (sparsity, _sparsity),
    ):  # fmt: skip
        parser.add_argument("--out", type=_png, required=True, help="PNG file to write")
        parser.set_defaults(run=run)


def _png(text: str) -> Path:
    """Type of arguments that name a PNG file."""
    if Path(text).suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a name that ends in .png")
    return Path(text)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, help="a recipe of ltr_ext/train_settings/srft")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")
    parser.add_argument("--device", type=device_name, help="default: the GPU where there is one")


def _sensitivity(arguments: argparse.Namespace) -> int:
    """Estimate the prior sensitivity of a recipe's base tracker on RGB data, write it as
    prior.safetensors, and draw the map of Fig. 4."""
    import torch

    from ltr_ext.admin.files import atomic_write
    from ltr_ext.models.checkpoint import load_network
    from ltr_ext.priors import PRIORS, source_prior
    from ltr_ext.recipe import load_recipe
    from ltr_ext.run_training import base_file
    from srft_plugin.plots import sensitivity_map
    from srft_plugin.prior import Prior

    recipe = load_recipe(arguments.config).override(arguments.overrides)
    if recipe.base is None:
        raise UserError(f"{arguments.config} starts from scratch: there is no prior to measure")
    base = load_network(base_file(recipe.base))
    device = torch.device(arguments.device or default_device())
    prior = source_prior(recipe, base, device, method=arguments.method)
    prior_file, picture = arguments.out / PRIORS[Prior], arguments.out / "sensitivity.png"
    atomic_write(prior_file, prior.save)
    atomic_write(picture, lambda file: sensitivity_map(prior, file))
    ranked = dict(sorted(prior.sensitivity().items(), key=lambda item: -item[1]))
    if arguments.json:
        files = {"prior": str(prior_file), "map": str(picture)}
        print(json.dumps({**files, "metadata": prior.metadata, "sensitivity": ranked}, indent=2))
        return 0
    width = max(map(len, ranked))
    for name, value in ranked.items():
        print(f"{name:<{width}}  {value:.4g}")
    print(f"written: {prior_file}, {picture}")
    return 0


def _training(arguments: argparse.Namespace) -> int:
    """Draw loss and IoU of one or more runs over their steps: of the training pairs, and dashed
    those of the validation pairs where a run has some."""
    from ltr_ext.admin.files import atomic_write
    from ltr_ext.trainers.log import FILE, read_log
    from srft_plugin.plots import training_curves

    logs = [_run_file(run, FILE) for run in arguments.runs]
    labels = _labels(arguments.runs)
    figure = training_curves(dict(zip(labels, map(read_log, logs), strict=True)))
    atomic_write(arguments.out, lambda file: figure.savefig(file, format="png", dpi=120))
    print(f"written: {arguments.out}")
    return 0


def _labels(runs: list[str]) -> list[str]:
    """Names of the folders; where two have the same, the paths as they were given."""
    names = [Path(run).resolve().name for run in runs]
    return names if len(set(names)) == len(names) else runs


def _weight_distance(arguments: argparse.Namespace) -> int:
    """Draw how far tuning moved each operation, relative to its norm."""
    from ltr_ext.admin.files import atomic_write
    from ltr_ext.models.checkpoint import load_network
    from ltr_ext.models.registry import build_network
    from srft_plugin.groups import operation_groups
    from srft_plugin.plots import weight_distance
    from srft_plugin.plots.distance import operation_distances

    start, end = load_network(arguments.start), load_network(arguments.end)
    groups = operation_groups(end)
    if start.spec.name != end.spec.name:
        base, start = start, build_network(end.spec.name)
        start.copy_base(base)
        origin = start.prior_sources(base)  # what is new has no start
        groups = {name: members for name, members in groups.items() if origin[name] is not None}
    distances = operation_distances(start.state_dict(), end.state_dict(), groups)
    atomic_write(arguments.out, lambda file: weight_distance(distances, file))
    print(f"written: {arguments.out}")
    return 0


def _weighted_distance(arguments: argparse.Namespace) -> int:
    """Draw the mean weight distance of the operations, weighted by their prior sensitivity, over
    the checkpoints that runs have kept (keep=100 in a recipe keeps 100)."""
    from ltr_ext.admin.files import atomic_write
    from ltr_ext.priors import PRIORS
    from ltr_ext.trainers.settings import FILE
    from srft_plugin.plots import weighted_distance_curves
    from srft_plugin.prior import Prior

    folders = [_run_file(run, FILE).parent for run in arguments.runs]
    files = [arguments.prior] if arguments.prior else [f / PRIORS[Prior] for f in folders]
    # One prior for all, also for runs that made none: full fine-tuning.
    prior = Prior.load(next((file for file in files if file.is_file()), files[0]))
    distances = [_distances_of_run(folder, prior) for folder in folders]
    curves = dict(zip(_labels(arguments.runs), distances, strict=True))
    atomic_write(arguments.out, lambda file: weighted_distance_curves(curves, file))
    print(f"written: {arguments.out}")
    return 0


def _distances_of_run(folder: Path, prior: Prior) -> list[tuple[int, float]]:
    """Step and sensitivity-weighted distance from the start, for every checkpoint in ``folder``."""
    from ltr_ext.models.checkpoint import load_network
    from ltr_ext.run_training import base_file, trainable_network
    from ltr_ext.trainers.checkpoints import CheckpointFolder
    from ltr_ext.trainers.settings import read_recipe
    from srft_plugin.groups import operation_groups
    from srft_plugin.plots.distance import sensitivity_weighted_distance

    recipe = read_recipe(folder)
    if recipe.base is None:
        raise UserError(f"{folder} holds a run from scratch: it has no start to measure from")
    base = load_network(base_file(recipe.base))
    start = trainable_network(recipe, base)
    prior = prior.renamed(start.prior_sources(base))
    points, checkpoints = [(0, 0.0)], CheckpointFolder(folder)
    for file in checkpoints.files():
        state = checkpoints.load(file)
        distance = sensitivity_weighted_distance(
            start.state_dict(), state["net"], operation_groups(start), prior
        )
        points.append((state["epoch"] * recipe.steps_per_epoch, distance))
    if len(points) == 1:
        raise UserError(f"{folder} holds no checkpoints yet; wait for the end of the first epoch")
    return points


def _run_file(run: str, name: str) -> Path:
    """The file ``name`` of a run, given by its name or its folder."""
    from ltr_ext.run_training import run_dir

    file = (Path(run) if Path(run).is_dir() else run_dir(run)) / name
    if not file.is_file():
        raise UserError(f"no run {run!r}: {file} is not there; give its name or its folder")
    return file


def _sparsity(arguments: argparse.Namespace) -> int:
    """Draw how sparse the first gradient of a recipe is, per operation."""
    import torch

    from ltr_ext.actors.tracking import TrackingActor, to_device
    from ltr_ext.admin.files import atomic_write
    from ltr_ext.data.loader import make_loader
    from ltr_ext.dataset.training_sets import training_pairs
    from ltr_ext.models.checkpoint import load_network
    from ltr_ext.recipe import load_recipe
    from ltr_ext.run_training import base_file, trainable_network
    from srft_plugin.groups import operation_groups
    from srft_plugin.plots import gradient_sparsity

    recipe = load_recipe(arguments.config).override(arguments.overrides)
    base = None if recipe.base is None else load_network(base_file(recipe.base))
    device = torch.device(arguments.device or default_device())
    network = trainable_network(recipe, base).to(device).train()
    data = training_pairs(recipe, recipe.datasets, network, recipe.batch_size, recipe.seed)
    (batch,) = make_loader(data, recipe.batch_size)
    loss, _ = TrackingActor(network)(to_device(batch, device))
    loss.backward()
    gradients = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    groups = operation_groups(network)
    atomic_write(arguments.out, lambda file: gradient_sparsity(gradients, groups, file))
    print(f"written: {arguments.out}")
    return 0
