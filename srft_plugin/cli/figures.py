"""`srft sensitivity` and `srft plot`: the figures of the paper, drawn from one's own runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from srft_plugin.errors import UserError


def add_commands(subparsers) -> None:
    """Mounts the sub-commands on the `srft` parser."""
    sensitivity = subparsers.add_parser(
        "sensitivity",
        help="estimate the prior sensitivity and draw its map",
        description=_sensitivity.__doc__,
    )
    _add_config(sensitivity)
    sensitivity.add_argument("--out", type=Path, required=True, help="folder to write to")
    sensitivity.set_defaults(run=_sensitivity)

    plot = subparsers.add_parser("plot", help="draw figures of runs", description=__doc__)
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
    sparsity = figures.add_parser(
        "gradient-sparsity", help="Eq. 9 per operation (Fig. 5)", description=_sparsity.__doc__
    )
    _add_config(sparsity)
    for parser, run in (
        (training, _training), (distance, _weight_distance), (sparsity, _sparsity),
    ):  # fmt: skip
        parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
        parser.set_defaults(run=run)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, help="a recipe of ltr_ext/train_settings/srft")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")
    parser.add_argument("--device", default="cpu")


def _sensitivity(arguments: argparse.Namespace) -> int:
    """Estimate the prior sensitivity of a recipe's base tracker on RGB data, write it as
    prior.safetensors, and draw the map of Fig. 4."""
    import torch

    from ltr_ext.recipe import load_recipe
    from ltr_ext.run_training import base_file, load_network, source_prior
    from srft_plugin.plots import sensitivity_map

    recipe = load_recipe(arguments.config).override(arguments.overrides)
    if recipe.base is None:
        raise UserError(f"{arguments.config} starts from scratch: there is no prior to measure")
    base = load_network(base_file(recipe.base))
    prior = source_prior(recipe, base, torch.device(arguments.device))
    arguments.out.mkdir(parents=True, exist_ok=True)
    prior.save(arguments.out / "prior.safetensors")
    sensitivity_map(prior, arguments.out / "sensitivity.png")
    ranked = sorted(prior.sensitivity().items(), key=lambda item: -item[1])
    width = max(len(name) for name, _ in ranked)
    for name, value in ranked:
        print(f"{name:<{width}}  {value:.4g}")
    print(f"written: {arguments.out / 'prior.safetensors'}, {arguments.out / 'sensitivity.png'}")
    return 0


def _training(arguments: argparse.Namespace) -> int:
    """Draw loss and IoU of the training pairs over the steps of one or more runs."""
    from matplotlib.figure import Figure

    from ltr_ext.run_training import run_dir

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for run in arguments.runs:
        folder = Path(run) if Path(run).is_dir() else run_dir(run)
        log = folder / "log.jsonl"
        if not log.is_file():
            raise UserError(f"no run {run!r}: {log} is not there; give its name or its folder")
        records = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
        for axis, key in zip(axes, ("loss", "iou"), strict=True):
            axis.plot([r["step"] for r in records], [r[key] for r in records], label=folder.name)
            axis.set(xlabel="step", ylabel=key)
    axes[0].legend()
    figure.savefig(arguments.out, dpi=120)
    print(f"written: {arguments.out}")
    return 0


def _weight_distance(arguments: argparse.Namespace) -> int:
    """Draw how far tuning moved each operation, relative to its norm."""
    from ltr_ext.models.checkpoint import load_network
    from ltr_ext.models.registry import build_network
    from srft_plugin.groups import operation_groups
    from srft_plugin.plots import weight_distance
    from srft_plugin.plots.distance import operation_distances

    start, end = load_network(arguments.start), load_network(arguments.end)
    if start.spec.name != end.spec.name:
        base, start = start, build_network(end.spec.name)
        start.copy_base(base)
    distances = operation_distances(start.state_dict(), end.state_dict(), operation_groups(end))
    weight_distance(distances, arguments.out)
    print(f"written: {arguments.out}")
    return 0


def _sparsity(arguments: argparse.Namespace) -> int:
    """Draw how sparse the first gradient of a recipe is, per operation."""
    import torch

    from ltr_ext.actors.tracking import TrackingActor, to_device
    from ltr_ext.recipe import load_recipe
    from ltr_ext.run_training import (
        base_file,
        load_network,
        make_loader,
        trainable_network,
        training_pairs,
    )
    from srft_plugin.groups import operation_groups
    from srft_plugin.plots import gradient_sparsity

    recipe = load_recipe(arguments.config).override(arguments.overrides)
    base = None if recipe.base is None else load_network(base_file(recipe.base))
    device = torch.device(arguments.device)
    network = trainable_network(recipe, base).to(device).train()
    data = training_pairs(recipe, recipe.datasets, network, recipe.batch_size, recipe.seed)
    (batch,) = make_loader(data, recipe.batch_size)
    loss, _ = TrackingActor(network)(to_device(batch, device))
    loss.backward()
    gradients = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    gradient_sparsity(gradients, operation_groups(network), arguments.out)
    print(f"written: {arguments.out}")
    return 0
