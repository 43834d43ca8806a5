"""Cost of an SRFT step in units of AdamW's fastest step, and what it adds to an iteration.

    python benchmarks/optimizer.py [--network two_branch_tiny] [--batch 8] [--device cpu]

All variants take turns in every round, and the smallest time of each counts; on a CPU it is the
time that the process computes, so other work on the machine disturbs the ratios little. --blocks
measures on that many ViT-B blocks instead of a whole network: every parameter costs the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from common import noise_batch  # beside this file
from torch import nn
from torch.optim import AdamW

from ltr_ext.actors.tracking import sample_loss
from ltr_ext.models.registry import build_network
from ltr_ext.timing import smallest_times
from srft_plugin import SRFT, bind_operations


def vit_blocks(count: int, dim: int = 768) -> nn.Module:
    """The parameters of ``count`` ViT-B blocks."""
    block = {
        "qkv": (dim, 3 * dim),
        "proj": (dim, dim),
        "fc1": (dim, 4 * dim),
        "fc2": (4 * dim, dim),
    }
    return nn.ModuleList(
        nn.ModuleDict({name: nn.Linear(*size) for name, size in block.items()}
                      | {"norm1": nn.LayerNorm(dim), "norm2": nn.LayerNorm(dim)})
        for _ in range(count)
    )  # fmt: skip


def training_pass(network: nn.Module, batch_size: int, device: str) -> Callable[[], None]:
    """Forward and backward of a tracker on noise."""
    batch = noise_batch(network.spec, batch_size, device)

    def run() -> None:
        network.zero_grad()
        sample_loss(network, batch).mean().backward()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="two_branch_tiny")
    parser.add_argument("--blocks", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=0, help="measure whole iterations as well")
    parser.add_argument("--exact", action="store_true", help="measure the sort-based ranks as well")
    arguments = parser.parse_args()
    build = vit_blocks(arguments.blocks) if arguments.blocks else build_network(arguments.network)
    network = build.to(arguments.device)
    parameters = list(network.parameters())
    for p in parameters:
        p.grad = torch.randn_like(p)
    operations = bind_operations(network)
    variants: dict[str, Callable[[], object]] = {}
    if arguments.batch:
        variants["forward and backward"] = training_pass(network, arguments.batch, arguments.device)
    # All share one state: of a large network there is no room for several.
    inner = AdamW(parameters, lr=1e-9, fused=True)
    foreach = AdamW(parameters, lr=1e-9, foreach=True)
    foreach.state = inner.state
    variants |= {"AdamW fused": inner.step, "AdamW foreach": foreach.step}
    choices = [("sampled", True), ("histogram", True), ("sampled", False), ("histogram", False)]
    for ranking, fused in choices + [("exact", False)] * arguments.exact:
        optimizer = SRFT(inner, operations, 10**9, mode="transfer", ranking=ranking, fused=fused)
        variants[f"SRFT {ranking}{', fused' * fused}"] = optimizer.step
    times = smallest_times(variants, arguments.rounds, arguments.device)
    elements = sum(p.numel() for p in parameters)
    passes = times.pop("forward and backward", None)
    unit = min(times["AdamW fused"], times["AdamW foreach"])
    print(f"{elements / 1e6:.1f} M parameters, {torch.get_num_threads()} threads")
    for name, seconds in times.items():
        line = f"{name:24s} {seconds * 1e3:9.2f} ms {seconds / unit:7.2f} x AdamW's fastest step"
        if passes is not None:
            line += f" {(passes + seconds) / (passes + unit):7.3f} x its iteration"
        print(line)


if __name__ == "__main__":
    main()
