"""What a step of a training costs, without the training."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ltr_ext.models.network import TrackingNetwork
from ltr_ext.recipe import Recipe
from ltr_ext.run_training import regularizer_options, updates_by_kernels
from ltr_ext.trainers.preparation import prepare
from ltr_ext.trainers.processes import Processes
from ltr_ext.trainers.trainer import Trainer
from srft_plugin.prior import Prior
from srft_plugin.tuning.regularizer import make_regularizer

ENDLESS = 1_000_000  # steps of the schedule: more than anybody times


def single_step(
    recipe: Recipe, network: TrackingNetwork, prior: Prior | None, device: torch.device
) -> Callable[[dict[str, Tensor]], None]:
    """The first step of the trainer, again and again, on a batch on ``device``.

    Args:
        network: what trains has ``requires_grad``.
        prior: of ``network``, where the recipe's regularizer needs one.
    """
    alone = Processes()
    model = prepare(network.train(), recipe, device, alone)
    options = regularizer_options(recipe, updates_by_kernels(recipe, device, alone))
    made = make_regularizer(recipe.regularizer, network, prior, ENDLESS, **options)
    folder = Path(tempfile.gettempdir())  # nothing is written: only steps are taken
    trainer = Trainer(network, model, recipe, made, iter, None, folder, device, alone)
    return lambda batch: trainer._train_step(0, batch) and None


def smallest_times(
    functions: dict[str, Callable[[], object]], rounds: int, device: str | torch.device
) -> dict[str, float]:
    """Smallest seconds of each function, called in turns; on a CPU, those that it computes.

    What else the machine does disturbs the smallest least.
    """
    on_cpu = torch.device(device).type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    best = dict.fromkeys(functions, float("inf"))
    for turn in range(rounds + 1):  # the first warms up caches and states
        for name, run in functions.items():
            start = clock()
            run()
            if not on_cpu:
                torch.cuda.synchronize(device)
            if turn:
                best[name] = min(best[name], clock() - start)
    return best
