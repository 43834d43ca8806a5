"""One cell of the study: trains one variant with one seed, and measures what came of it."""

from __future__ import annotations

import json
from collections.abc import Sequence as Many
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltr_ext.actors.tracking import TrackingActor, to_device
from ltr_ext.admin.files import read_object, write_text
from ltr_ext.data.augment import Augmentation
from ltr_ext.data.loader import make_loader
from ltr_ext.data.sampler import PairDataset
from ltr_ext.dataset.sequence import Sequence
from ltr_ext.models.checkpoint import load_network, save_network
from ltr_ext.models.network import TrackingNetwork
from ltr_ext.recipe import Recipe
from ltr_ext.run_training import base_file, train, trainable_network
from ltr_ext.trainers.log import FILE as LOG
from ltr_ext.trainers.log import read_log
from ltr_ext.trainers.settings import move_settings
from ltr_ext.trainers.trainer import NETWORK
from pytracking_ext.evaluation.running import judged_overlaps, track_many
from pytracking_ext.parameter.srft import TrackerParameters, from_checkpoint
from srft_plugin.errors import UserError
from srft_plugin.groups import operation_groups
from srft_plugin.plots.distance import operation_distances
from srft_plugin.prior.estimate import weights_sha256

from .data import StudyData, VideoSet
from .plan import REVISION, VARIANTS, VIDEOS, Budget, Cell, recipe
from .priors import prior_file

PAIR_SEED = 1 << 20  # of the pairs that are measured, far from any training seed
BATCH = 8
RESULT, ORIGIN = "result.json", "origin.json"
AGAIN = "delete its folder, and the cell is run again"
PATHS = ("datasets", "prior", "base")  # settings that differ from machine to machine


def run_cell(cell: Cell, budget: Budget, folder: Path, data: StudyData, device: str) -> dict:
    """Trains and measures ``cell`` in its folder, unless it was done; a stopped one goes on.

    Returns:
        What ``result.json`` holds: the recipe, and the measurements (IoU in [0, 1]).

    Raises:
        UserError: the folder holds a cell of other settings.
    """
    home = folder / cell.path
    result = finished_result(cell, budget, folder)
    if result is not None:
        return result
    settings = recipe(cell, budget, data.train_set(cell.seed), prior_file(cell, folder))
    home.mkdir(parents=True, exist_ok=True)
    file, origin = home / ORIGIN, cell_origin(cell, budget)
    if file.exists():
        _check_origin(file, read_object(file, AGAIN), origin)
        move_settings(home, settings, PATHS)
    write_text(file, json.dumps(origin, indent=2) + "\n")
    network_file = _network_file(cell, settings, home, device)
    measured = measure(network_file, settings, data, cell.seed, budget, device)
    result = {"origin": origin, **measured}
    if VARIANTS[cell.variant] is not None:
        result |= _training(home)
    write_text(home / RESULT, json.dumps(result, indent=2) + "\n")
    return result


def finished_result(cell: Cell, budget: Budget, folder: Path) -> dict | None:
    """What ``result.json`` of ``cell`` holds; None if there is none yet.

    Raises:
        UserError: it is of other settings, another budget or another base tracker.
    """
    file = folder / cell.path / RESULT
    if not file.is_file():
        return None
    result = read_object(file, AGAIN)
    _check_origin(file, result.get("origin", {}), cell_origin(cell, budget))
    return result


def cell_origin(cell: Cell, budget: Budget) -> dict[str, Any]:
    """What a result belongs to: the base tracker, the videos, and the recipe's settings."""
    settings = recipe(cell, budget, "videos of the study")
    changed = {
        field.name: getattr(settings, field.name)
        for field in fields(settings)
        if field.name not in PATHS and getattr(settings, field.name) != field.default
    }
    videos = {name: getattr(budget, name) for name in (*VIDEOS, "test_pairs")}
    made = {"base_sha256": _base_sha256(settings.base), "revision": REVISION, "videos": videos}
    return json.loads(json.dumps(changed | made))


@cache
def _base_sha256(base: str) -> str:
    return weights_sha256(load_network(base_file(base)))


def _check_origin(file: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    differing = [key for key in found | expected if found.get(key) != expected.get(key)]
    if differing:
        key = differing[0]
        other = "name its tracker by --base" if key == "base_sha256" else "delete its folder"
        raise UserError(
            f"{file} is of another study: found {key}={found.get(key)}, expected "
            f"{expected.get(key)}; choose another --out, or {other}"
        )


def _network_file(cell: Cell, settings: Recipe, home: Path, device: str) -> Path:
    if VARIANTS[cell.variant] is not None:
        return train(settings, home, device)
    base = base_file(settings.base)
    if cell.variant == "rgb":
        return base
    untuned = home / NETWORK
    save_network(trainable_network(settings, load_network(base)), untuned)
    return untuned


def measure(
    file: Path, settings: Recipe, data: StudyData, seed: int, budget: Budget, device: str
) -> dict[str, Any]:
    """Plasticity, stability and generalization of one network.

    Returns:
        ``target``, ``rgb``: mean IoU of tracked videos per sequence, by sequence, with the second
        camera and without (both branches see the RGB image). ``attributes``: names of the
        ``target`` videos that have an attribute, by attribute. ``train_pairs``, ``target_pairs``,
        ``rgb_pairs``: mean IoU of pairs. ``moved``: relative distance from the start per operation.
    """
    network = load_network(file)
    result: dict[str, Any] = {"moved": _moved(network, settings)}
    parameters = from_checkpoint(file, device)
    videos = {"train": data.train(seed), "target": data.target(), "rgb": data.rgb()}
    for name in ("target", "rgb"):
        result[name] = tracked_ious(parameters, videos[name])
    result["attributes"] = _by_attribute(videos["target"])
    network = network.to(device).eval()
    for name, sequences in videos.items():
        result[f"{name}_pairs"] = _pairs(network, sequences, settings, budget, device)
    return result


def tracked_ious(parameters: TrackerParameters, sequences: Many[Sequence]) -> dict[str, float]:
    """Mean IoU of every video over the frames that show the target, the first one left out."""
    overlaps = {}
    for sequence, outcome in track_many(list(sequences), parameters, BATCH, progress=False):
        if isinstance(outcome, str):
            raise UserError(f"{sequence.name}: {outcome}")
        overlaps[sequence.name] = float(np.mean(judged_overlaps(outcome, sequence)))
    return dict(sorted(overlaps.items()))


def _by_attribute(sequences: VideoSet) -> dict[str, list[str]]:
    having: dict[str, list[str]] = {}
    for sequence in sequences:
        for attribute in sequence.extra.get("attributes", ()):
            having.setdefault(attribute, []).append(sequence.name)
    return {attribute: sorted(names) for attribute, names in sorted(having.items())}


@torch.no_grad()
def _pairs(
    network: TrackingNetwork, sequences: VideoSet, settings: Recipe, budget: Budget, device: str
) -> float:
    """Mean IoU over pairs drawn as in training, but neither mirrored nor shaded."""
    pairs = PairDataset(
        [sequences],
        None,
        network.spec,
        budget.test_pairs,
        PAIR_SEED,
        settings.max_gap,
        settings.centre_jitter,
        settings.scale_jitter,
        Augmentation(0, 0, 0, 0),
    )
    actor = TrackingActor(network)
    total = [actor(to_device(batch, torch.device(device)))[1]["iou"]
             for batch in make_loader(pairs, BATCH)]  # fmt: skip
    return float(torch.stack(total).mean())


def _moved(network: TrackingNetwork, settings: Recipe) -> dict[str, float]:
    """Relative distance of the operations that were copied from the base tracker and trained."""
    if network.spec.name != settings.network:
        return {}
    base = load_network(base_file(settings.base))
    start = trainable_network(settings, base)
    trained = {name for name, p in start.named_parameters() if p.requires_grad}
    origin = start.prior_sources(base)
    groups = {
        operation: names
        for operation, names in operation_groups(start).items()
        if origin[operation] is not None and trained.issuperset(names)
    }
    return operation_distances(start.state_dict(), network.state_dict(), groups)


def _training(home: Path) -> dict[str, float]:
    """What only a variant that trains has, from the run's log."""
    return {"train_loss": read_log(home / LOG)[-1]["loss"]}
