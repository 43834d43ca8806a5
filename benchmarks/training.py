"""Training speed: our loop with SRFT, without, and a plain loop with sorted ranks after the step.

    python benchmarks/training.py [--network two_branch_tiny] [--device cpu] [--batch 4]

The loops take turns on one batch in memory, and the smallest time of each counts (on a CPU, time
that the process computes). The plain loop is float32 and eager; ours takes --precision and
--compile. Then some steps of our loop on generated videos tell the share of waiting for data.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ltr_ext.actors.tracking import TrackingActor, to_device
from ltr_ext.data.loader import make_loader
from ltr_ext.dataset.training_sets import training_pairs
from ltr_ext.models.network import TrackingNetwork
from ltr_ext.models.registry import build_network
from ltr_ext.recipe import Recipe
from ltr_ext.timing import single_step, smallest_times
from srft_plugin.schedule import MAX_SENSITIVITY
from srft_plugin.tuning.trainable import select_trainable


def tuned_network(recipe: Recipe) -> TrackingNetwork:
    """The network of the recipe, random, with what trains marked."""
    torch.manual_seed(0)
    network = build_network(recipe.network)
    select_trainable(network, recipe.trainable)
    return network.train()


def plain_loop(recipe: Recipe, device: torch.device) -> Callable[[dict[str, Tensor]], None]:
    """A step of float32 AdamW, then each update scaled by the sorted rank of its gradient."""
    network = tuned_network(recipe).to(device)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    actor = TrackingActor(network)

    def step(batch: dict[str, Tensor]) -> None:
        loss, log = actor(batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, recipe.grad_clip)
        before = [p.detach().clone() for p in parameters]
        optimizer.step()
        with torch.no_grad():
            for p, old in zip(parameters, before, strict=True):
                order = p.grad.flatten().abs().argsort()
                ranks = torch.empty_like(old).view(-1)
                ranks[order] = torch.linspace(0, MAX_SENSITIVITY, len(order), device=device)
                p.lerp_(old, ranks.view_as(old))
        log["loss"].item()

    return step


def our_loop(
    recipe: Recipe, regularizer: str, device: torch.device
) -> Callable[[dict[str, Tensor]], None]:
    """A step of the trainer."""
    recipe = recipe.override([f"regularizer={regularizer}"])
    return single_step(recipe, tuned_network(recipe), None, device)


def data_wait(
    step: Callable[[dict[str, Tensor]], None], batches: Iterator, device: torch.device
) -> float:
    """Share of the wall time that ``step`` waits for its batches, the first left out."""
    next(batches)
    waited, start = 0.0, time.perf_counter()
    mark = start
    for batch in batches:
        waited += time.perf_counter() - mark
        step(to_device(batch, device))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        mark = time.perf_counter()
    return waited / (mark - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="two_branch_tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--steps", type=int, default=12, help="steps that tell the data wait")
    arguments = parser.parse_args()
    device, size = torch.device(arguments.device), arguments.batch
    recipe = Recipe(
        arguments.network,
        ("synthetic_rgbd",),
        base=None,
        regularizer="none",
        samples_per_epoch=size * 1000,
        batch_size=size,
        precision=arguments.precision,
        compile=arguments.compile,
    )
    pairs = training_pairs(recipe, recipe.datasets, tuned_network(recipe), size * 1000, 0)
    batch = to_device(next(iter(make_loader(pairs, size))), device)
    loops = {
        "ours with SRFT": our_loop(recipe, "srft:transfer", device),
        "ours without": our_loop(recipe, "none", device),
        "plain, sorted": plain_loop(recipe, device),
    }
    steps = {name: functools.partial(step, batch) for name, step in loops.items()}
    times = smallest_times(steps, arguments.rounds, device)
    srft = times["ours with SRFT"]
    print(f"{arguments.network}, batch {size}, {torch.get_num_threads()} threads, {device.type}")
    for name, seconds in times.items():
        print(
            f"{name:16s} {size / seconds:8.1f} samples/s, ours with SRFT is {seconds / srft:.3f}x"
        )
    samples = size * (arguments.steps + 1)
    loader = make_loader(pairs, size, 0, samples, workers=arguments.workers)
    share = data_wait(loops["ours with SRFT"], iter(loader), device)
    print(f"waiting for data: {share:.1%} with {arguments.workers} workers")


if __name__ == "__main__":
    main()
