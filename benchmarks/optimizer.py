"""Cost of an SRFT step in units of AdamW's fastest step, and what it adds to an iteration.

    python benchmarks/optimizer.py [--network two_branch_tiny] [--device cpu] [--rounds 7]

All variants take turns in every round, and the smallest time of each counts; on a CPU it is the
time that the process computes, so other work on the machine disturbs the ratios little. --blocks
measures on that many ViT-B blocks instead of a whole network: every parameter costs the same.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import AdamW

from ltr_ext.models.registry import build_network
from srft_plugin import SRFT, bind_operations
from srft_plugin.optimizer import RANKINGS


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


def smallest_times(
    variants: dict[str, Callable[[], object]], rounds: int, device: str
) -> dict[str, float]:
    """Seconds of each variant, measured in turns."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    best = dict.fromkeys(variants, float("inf"))
    for _ in range(rounds + 1):  # the first warms up caches and states
        for name, run in variants.items():
            start = clock()
            run()
            if device == "cuda":
                torch.cuda.synchronize()
            best[name] = min(best[name], clock() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="two_branch_tiny")
    parser.add_argument("--blocks", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--exact", action="store_true", help="measure the sort-based ranks as well")
    arguments = parser.parse_args()
    build = vit_blocks(arguments.blocks) if arguments.blocks else build_network(arguments.network)
    network = build.to(arguments.device)
    parameters = list(network.parameters())
    for p in parameters:
        p.grad = torch.randn_like(p)
    operations = bind_operations(network)
    variants: dict[str, Callable[[], object]] = {
        "AdamW fused": AdamW(parameters, lr=1e-9, fused=True).step,
        "AdamW foreach": AdamW(parameters, lr=1e-9, foreach=True).step,
    }
    for ranking in RANKINGS if arguments.exact else RANKINGS[:2]:
        inner = AdamW(parameters, lr=1e-9, fused=True)
        optimizer = SRFT(inner, operations, 10**9, mode="transfer", ranking=ranking)
        variants[f"SRFT {ranking}"] = optimizer.step
    times = smallest_times(variants, arguments.rounds, arguments.device)
    elements = sum(p.numel() for p in parameters)
    unit = min(times["AdamW fused"], times["AdamW foreach"])
    print(f"{elements / 1e6:.1f} M parameters, {torch.get_num_threads()} threads")
    for name, seconds in times.items():
        print(f"{name:16s} {seconds * 1e3:9.2f} ms {seconds / unit:7.2f} x AdamW's fastest step")


if __name__ == "__main__":
    main()
