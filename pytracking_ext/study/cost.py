"""What each way of fine-tuning costs: parameters, time of a step, time of the prior."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from tqdm import tqdm

from ltr_ext.actors.tracking import to_device
from ltr_ext.admin.files import read_object, write_text
from ltr_ext.data.loader import make_loader
from ltr_ext.dataset.training_sets import training_pairs
from ltr_ext.models.checkpoint import load_network
from ltr_ext.priors import run_prior
from ltr_ext.run_training import base_file, trainable_network
from ltr_ext.timing import single_step, smallest_times
from ltr_ext.trainers.processes import Processes
from pytracking_ext.analysis.tables import Table

from .plan import VARIANTS, Budget, Cell, recipe

FILE = "cost.json"
REFERENCE = "fft"
ROUNDS = 8
DATA = "synthetic_rgbd"  # drawn on demand; what the images show has no part in the cost


class _Made(NamedTuple):
    """A variant ready for a step: ``values`` train, and ``prior_seconds`` went by before."""

    step: Callable[[], None]
    values: int
    prior_seconds: float


def write_costs(plan: Iterable[Cell], budget: Budget, folder: Path, device: str) -> None:
    """Measures every variant of ``plan`` that trains by a step of its own; writes ``cost.json``.

    Each takes turns with full fine-tuning, on a batch in memory: the ratio is of the smallest
    times. A prior's time is in those steps as well.
    """
    costs, where = {}, torch.device(device)
    reference = _make(REFERENCE, budget, where)
    variants = dict.fromkeys(cell.variant for cell in plan)
    for variant in tqdm([v for v in variants if _has_a_step(v)], desc="costs", disable=None):
        made = _make(variant, budget, where)
        steps = {"reference": reference.step, "own": made.step}
        seconds = smallest_times(steps, ROUNDS, where)
        costs[variant] = {
            "values": made.values,
            "step": seconds["own"] / seconds["reference"],
            "prior": made.prior_seconds / seconds["reference"],
        }
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE, json.dumps(costs, indent=2) + "\n")


def cost_table(folder: Path, variants: Iterable[str]) -> Table | None:
    """A row for each of ``variants`` that was measured; None if nothing was."""
    if not (folder / FILE).is_file():
        return None
    costs = read_object(folder / FILE, "`srft study cost` measures it again")
    table = Table("What does it cost?", ["variant", "trained (M)", "step", "prior"])
    for variant in variants:
        if cost := costs.get(variant):
            prior = f"{cost['prior']:.0f}" if cost["prior"] else "-"
            table.add(variant, [f"{cost['values'] / 1e6:.2f}", f"{cost['step']:.2f}", prior])
    return table if table.rows else None


def _has_a_step(variant: str) -> bool:
    """Whether its step is not another's: longer ones, other priors and other images share one."""
    found = VARIANTS[variant]
    return found is not None and found.prior is None and found.form is None and found.length == 1


def _make(variant: str, budget: Budget, device: torch.device) -> _Made:
    settings = recipe(Cell("depth", variant, 0), budget, DATA)
    base = load_network(base_file(settings.base))
    network = trainable_network(settings, base)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds = float("inf")
    for _ in range(2):  # the first warms up
        start = clock()
        with TemporaryDirectory() as folder:
            prior = run_prior(settings, network, base, Path(folder), device, Processes())
        seconds = 0.0 if prior is None else min(seconds, clock() - start)
    values = sum(p.numel() for p in network.parameters() if p.requires_grad)
    size = settings.batch_size
    pairs = training_pairs(settings, settings.datasets, network, size, settings.seed)
    batch = to_device(next(iter(make_loader(pairs, size))), device)
    step = single_step(settings, network, prior, device)
    return _Made(partial(step, batch), values, seconds)
