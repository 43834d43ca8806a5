"""What each regularizer adds to a training step, in time and memory.

    python benchmarks/regularizers.py [--network two_branch_tiny] [--batch 8] [--device cpu]

A step is forward, backward and fused AdamW, with all that the regularizer does. Each has a process
of its own, and the smallest time of ``--rounds`` steps counts: on a CPU, the time that the process
computes, so other work on the machine disturbs the ratios little. Memory is what the process needs
at its peak beyond that of ``none``, in copies of the parameters that train: what is held, what is
needed for a moment, and what the allocator makes of it. On a CPU it is the resident memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys

import torch
from common import noise_batch  # beside this file

from ltr_ext.actors.distillation import TRACKING
from ltr_ext.actors.tracking import TrackingActor
from ltr_ext.models.registry import build_network
from ltr_ext.timing import smallest_times
from srft_plugin.groups import operation_groups
from srft_plugin.prior import Prior
from srft_plugin.tuning.anchored import DiagonalFisher
from srft_plugin.tuning.regularizer import make_regularizer, prior_kind, takes
from srft_plugin.tuning.trainable import select_trainable

NAMES = (
    "none", "srft", "l2sp", "ewc", "ewc:diagonal", "tracer", "tracer:ema", "effective",
    "srft:random", "srft:reversed",
)  # fmt: skip


def made_up_prior(kind: type[Prior] | None, network: torch.nn.Module) -> Prior | None:
    """A prior of random numbers: what it costs to use does not depend on them."""
    if kind is None:
        return None
    named = dict(network.named_parameters())
    if kind is DiagonalFisher:
        groups = {name: [name] for name in named}
        spectra = {name: torch.rand(p.numel()) for name, p in named.items()}
    else:
        groups = operation_groups(network)
        spectra = {name: torch.rand(1) for name in groups}
    return kind(spectra, {g: [list(named[p].shape) for p in ps] for g, ps in groups.items()})


def measure(name: str, network_name: str, batch_size: int, rounds: int, device: str) -> dict:
    """Seconds of a step and peak bytes with the regularizer ``name``."""
    torch.manual_seed(0)
    network = build_network(network_name).to(device)
    select_trainable(network, "backbone")
    network.train()
    prior = made_up_prior(prior_kind(name), network)
    options = {"perspectives": TRACKING} if takes(name, "perspectives") else {}
    if name == "tracer:ema":
        options["every"] = 1
    regularizer = make_regularizer(name, network, prior, 1000, **options)
    prior = None
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = regularizer.wrap_optimizer(torch.optim.AdamW(trained, 1e-6, fused=True))
    actor = TrackingActor(network, regularizer)
    batch = noise_batch(network.spec, batch_size, device)

    def step() -> None:
        loss, _ = actor(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        regularizer.after_step()

    seconds = smallest_times({"step": step}, rounds, device)["step"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device != "cpu":
        peak = torch.cuda.max_memory_allocated(device)
    return {"seconds": seconds, "peak": peak, "copy": 4 * sum(p.numel() for p in trained)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="two_branch_tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--names", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    settings = (arguments.network, arguments.batch, arguments.rounds, arguments.device)
    if arguments.one:
        print(json.dumps(measure(arguments.one, *settings)))
        return
    results = {}
    for name in dict.fromkeys(("none", *arguments.names)):
        child = subprocess.run(
            [sys.executable, __file__, "--one", name, *sys.argv[1:]],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        results[name] = found = json.loads(child.stdout.splitlines()[-1])
        unit = results["none"]
        copies = (found["peak"] - unit["peak"]) / found["copy"]
        ratio = found["seconds"] / unit["seconds"]
        shown = f"{found['seconds']:8.3f} s {ratio:6.2f} x none {copies:+6.2f} copies"
        print(f"{name:14s} {shown}", flush=True)


if __name__ == "__main__":
    main()
