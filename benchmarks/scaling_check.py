"""Checks scaling_model.py on this machine: two processes of one thread train the tiny network.

In turns: a step of one process, of both without a word between them, an all-reduce of a gradient,
some of a single number, the trainer's own step by DDP and by FSDP, and FSDP's update alone. The
model gets the medians of what was measured alone. What it then says of DDP and FSDP is compared
with their medians, as is the step alone, which is what a model without any exchange would say, and
the bytes that a process keeps with their count.
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from common import noise_batch  # beside this file
from scaling_model import FLOAT, MACHINES, UPDATE, KernelCounter, Machine, Work, count, step
from training import tuned_network

from ltr_ext.recipe import load_recipe
from ltr_ext.trainers.preparation import prepare
from ltr_ext.trainers.processes import Processes
from ltr_ext.trainers.trainer import Trainer
from srft_plugin.ranking import local
from srft_plugin.tuning.regularizer import make_regularizer

ROUNDS, SAMPLES, REDUCTIONS = 15, 1, 20  # turns, samples of a process, all-reduces of one number
RECIPE = load_recipe("tiny_depth").override(["regularizer=srft:transfer"])


def check() -> None:
    """Measures in two processes; the first prints."""
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(measure, (folder,), nprocs=2)


def measure(rank: int, folder: str) -> None:
    """One of the processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    together = Processes(rank, 2)
    alone, ddp, fsdp = (
        trainer(parallel, processes, Path(folder))
        for parallel, processes in (("ddp", Processes()), ("ddp", together), ("fsdp", together))
    )
    batch = noise_batch(alone.network.spec, SAMPLES)
    gradient = torch.zeros(sum(p.numel() for p in alone.parameters))
    number = torch.zeros(1)
    ways: dict[str, Callable[[], object]] = {
        "one": lambda: rank or alone._train_step(0, batch),
        "both": lambda: alone._train_step(0, batch),
        "update": alone.optimizer.step,
        "reduce": lambda: dist.all_reduce(gradient),
        "latency": lambda: [dist.all_reduce(number) for _ in range(REDUCTIONS)],
        "ddp": lambda: ddp._train_step(0, batch),
        "fsdp": lambda: fsdp._train_step(0, batch),
        "fsdp update": fsdp.optimizer.step,
    }
    turns = [{name: timed(run) for name, run in ways.items()} for _ in range(ROUNDS + 1)]
    wall, processor = (
        {name: statistics.median(turn[name][clock] for turn in turns[1:]) for name in ways}
        for clock in (0, 1)  # the first turn warms up caches and states
    )
    with KernelCounter() as update:
        alone.optimizer.step()
    kept = {"ddp": kept_bytes(ddp), "fsdp": kept_bytes(fsdp)}
    if rank == 0:
        report(wall, processor, kept, update.count / len(alone.parameters))
    dist.barrier()
    dist.destroy_process_group()


def trainer(parallel: str, processes: Processes, folder: Path) -> Trainer:
    """That of a run of ``RECIPE``; only steps are taken, nothing is written."""
    recipe, device = replace(RECIPE, parallel=parallel), torch.device("cpu")
    network = tuned_network(recipe)
    model = prepare(network, recipe, device, processes)
    made = make_regularizer(recipe.regularizer, network, None, recipe.total_steps)
    return Trainer(network, model, recipe, made, iter, None, folder, device, processes)


def timed(run: Callable[[], object]) -> list[float]:
    """Seconds by the clock and of the processor until the slower process is done.

    Both start together; a process that waits for the other computes nothing.
    """
    dist.barrier()
    start = time.perf_counter(), time.process_time()
    run()
    stop = time.perf_counter(), time.process_time()
    seconds = torch.tensor(stop, dtype=torch.float64) - torch.tensor(start, dtype=torch.float64)
    dist.all_reduce(seconds, dist.ReduceOp.MAX)
    return seconds.tolist()


def kept_bytes(trainer: Trainer) -> float:
    """Weights, gradients and moments of this process, of the process that has more."""
    tensors = list(trainer.network.parameters())
    tensors += [p.grad for p in trainer.parameters]
    tensors += [v for state in trainer.adamw.state.values() for v in state.values() if v.ndim]
    size = torch.tensor(float(sum(local(tensor).nbytes for tensor in tensors)))
    dist.all_reduce(size, dist.ReduceOp.MAX)
    return size.item()


def report(
    wall: dict[str, float], processor: dict[str, float], kept: dict[str, float], operations: float
) -> None:
    """What was measured alone; predicted, measured and their ratio for DDP and FSDP."""
    work = count(RECIPE)
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}: what else runs here disturbs all "
        "times, by the clock more than of the processor\n\n"
        "| measured alone, ms | clock | processor |\n|---|---|---|"
    )
    names = {
        "one": "step of one process",
        "both": "step of each of two",
        "update": "the update in it",
        "fsdp update": "the same on FSDP's shares",
        "reduce": f"all-reduce of {FLOAT * work.trained / 1e6:.1f} MB",
        "latency": f"{REDUCTIONS} all-reduces of a number",
    }
    for name, text in names.items():
        print(f"| {text} | {wall[name] * 1e3:.1f} | {processor[name] * 1e3:.1f} |")
    print(f"\nSRFT's update: {operations:.1f} operations per tensor.")
    print(
        "\n| | predicted | measured | predicted / measured | alone / measured |\n"
        "|---|---|---|---|---|"
    )
    for way in ("ddp", "fsdp"):
        clocks = (("clock", wall, 0), ("clock", wall, 1), ("processor", processor, 0))
        for clock, seconds, overlap in clocks:
            machine = measured_machine(work, seconds, overlap)
            predicted = step(work, machine, 2, 2 * SAMPLES, fsdp=way == "fsdp").seconds
            print(
                f"| {way}, {clock}, overlap {overlap} | {predicted * 1e3:.0f} ms "
                f"| {seconds[way] * 1e3:.0f} ms | {predicted / seconds[way]:.2f} "
                f"| {seconds['both'] / seconds[way]:.2f} |"
            )
        state = work.state(2 if way == "fsdp" else 1)
        print(
            f"| {way}, weights, gradients, moments | {state / 1e6:.2f} MB "
            f"| {kept[way] / 1e6:.2f} MB | {state / kept[way]:.4f} | |"
        )


def measured_machine(work: Work, seconds: dict[str, float], overlap: float) -> Machine:
    """This machine as what was measured alone has it; data never wait."""
    return replace(
        MACHINES["h100"],
        peak=SAMPLES * work.flops / (seconds["both"] - seconds["update"]),
        utilisation=1,
        bandwidth=UPDATE * work.trained / seconds["update"],
        memory=math.inf,
        node_link=FLOAT * work.trained / seconds["reduce"],  # 2 (n-1)/n is 1 for two processes
        latency=seconds["latency"] / REDUCTIONS,
        overlap=overlap,
        launch=0,
        cores=math.inf,
    )
