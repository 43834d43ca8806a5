"""The three estimates of the prior sensitivity: what they agree with, and what they cost.

    python benchmarks/prior.py                      accuracy on a small transformer near an optimum
    python benchmarks/prior.py --figure eq7.png     error of Eq. 7 over rho, float32 and float64
    python benchmarks/prior.py --cost ostrack_tiny --samples 16      cost on a tracker

Costs are in units of one forward and backward pass over the same samples.
"""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import noise_batch  # beside this file
from scipy.stats import spearmanr
from torch import Tensor, nn

from srft_plugin import Prior, estimate_prior, operation_groups
from srft_plugin.prior.curvature import finite_difference_spectra

SAMPLES = 64


class SmallTransformer(nn.Module):
    """Two pre-norm blocks on nine tokens; regresses four numbers."""

    def __init__(self, dim: int = 16) -> None:
        super().__init__()
        self.embed = nn.Linear(6, dim)
        self.position = nn.Parameter(torch.randn(1, 9, dim) * 0.02)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({
                "norm1": nn.LayerNorm(dim),
                "qkv": nn.Linear(dim, 3 * dim),
                "proj": nn.Linear(dim, dim),
                "norm2": nn.LayerNorm(dim),
                "fc1": nn.Linear(dim, 4 * dim),
                "fc2": nn.Linear(4 * dim, dim),
            })
            for _ in range(2)
        )  # fmt: skip
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.position
        for b in self.blocks:
            q, k, v = b["qkv"](b["norm1"](x)).chunk(3, -1)
            x = x + b["proj"](F.scaled_dot_product_attention(q, k, v))
            x = x + b["fc2"](F.gelu(b["fc1"](b["norm2"](x))))
        return self.head(self.norm(x)).mean(1)


def loss_fn(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """(n,) squared errors."""
    return (network(batch[0]) - batch[1]).square().sum(1)


def trained_network(steps: int = 600) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """The small transformer near an optimum of a noisy teacher's task, float64, and its data."""
    torch.manual_seed(0)
    teacher, network = SmallTransformer(), SmallTransformer()
    x = torch.randn(512, 9, 6)
    with torch.no_grad():
        y = 3 * teacher(x)
        y += 0.3 * y.std() * torch.randn_like(y)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        index = torch.randint(0, len(x), (128,))
        optimizer.zero_grad()
        loss_fn(network, (x[index], y[index])).mean().backward()
        optimizer.step()
        schedule.step()
    return network.double(), (x[:SAMPLES].double(), y[:SAMPLES].double())


def spearman(a: dict[str, float], b: dict[str, float]) -> float:
    """Rank correlation over the operations."""
    return spearmanr(*([values[n] for n in a] for values in (a, b))).statistic


def seconds(run: Callable[[], object], repeats: int = 1) -> tuple[float, object]:
    """Smallest computing time of some runs, and the last result."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        result = run()
        best = min(best, time.process_time() - start)
    return best, result


def accuracy() -> None:
    """Rank correlation of every estimate with the leading curvature of the Hessian."""
    network, batch = trained_network()
    unit, _ = seconds(lambda: loss_fn(network, batch).mean().backward(), 5)
    network.zero_grad()
    probes = {"method": "finite_difference", "probes": 100}
    methods = {
        "Lanczos, Hessian": {"method": "lanczos", "steps": 40},
        "Lanczos, GGN": {"method": "lanczos", "steps": 40, "curvature": "ggn"},
        "empirical Fisher (default)": {"method": "fisher"},
        "Eq. 7, float64": probes,
        "Eq. 7, float32": probes | {"dtype": torch.float32},
    }
    truth: Prior | None = None
    print(f"{len(operation_groups(network))} operations, {SAMPLES} samples, K = 10")
    print(f"{'estimate':28s}{'Spearman with Lanczos':>24s}{'with 1/|theta|^2':>18s}{'cost':>10s}")
    named = dict(network.named_parameters())
    inverse_norm = {
        group: 1 / (sum(named[p].square().sum().item() for p in members) + 1e-12)
        for group, members in operation_groups(network).items()
    }
    for name, options in methods.items():
        cost, prior = seconds(lambda o=options: estimate_prior(network, loss_fn, [batch], **o))
        truth = truth or prior
        values = prior.sensitivity()
        print(
            f"{name:28s}{spearman(values, truth.sensitivity()):24.2f}"
            f"{spearman(values, inverse_norm):18.2f}{cost / unit:10.0f}"
        )


def figure(path: str) -> None:
    """Relative error of the second difference of Eq. 7 over rho, in both precisions."""
    from matplotlib.figure import Figure

    network, batch = trained_network()
    members = ["blocks.1.qkv.weight"]
    radii = np.logspace(-6, -0.5, 12)

    def values(rho: float, dtype: torch.dtype) -> Tensor:
        groups = {"qkv": members}
        return finite_difference_spectra(
            network, loss_fn, [batch], groups, 20, probes=20, rho=rho, dtype=dtype
        )[0]["qkv"]

    # Sorted values of the same 20 directions; rho = 1e-3 in float64 is exact to some 1e-6.
    exact = values(1e-3, torch.float64)
    plot = Figure(figsize=(6, 4), layout="constrained")
    axis = plot.add_subplot()
    for dtype in (torch.float32, torch.float64):
        errors = [((values(rho, dtype) - exact).abs() / exact.abs()).median() for rho in radii]
        drawn = [error if error > 0 else math.nan for error in errors]  # the reference is no point
        axis.loglog(radii, drawn, marker=".", label=str(dtype).removeprefix("torch."))
        print(
            dtype,
            " ".join(f"{rho:.0e}:{error:.1e}" for rho, error in zip(radii, errors, strict=True)),
        )
    axis.axvline(1e-5, color="grey", linestyle=":", label="rho of the paper")
    axis.axhline(1, color="grey", linewidth=0.5)
    axis.set(xlabel="rho", ylabel="median relative error of Eq. 7", ylim=(1e-8, 1e6))
    axis.legend()
    plot.savefig(path)


def measured(run: Callable[[], object]) -> tuple[float, int]:
    """Computing time of a run, and the largest resident memory of the process meanwhile (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts over
    time_taken, _ = seconds(run)
    (line,) = re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return time_taken, int(line) * 1024


def cost(name: str, samples: int, repeats: int) -> None:
    """Cost of the default estimate on a tracker, and of Eq. 7 by its number of forward passes."""
    from ltr_ext.actors.tracking import sample_loss
    from ltr_ext.models.registry import build_network

    network = build_network(name).eval()
    batch = noise_batch(network.spec, samples)

    def train() -> None:
        sample_loss(network, batch).sum().backward()

    @torch.no_grad()
    def look() -> None:
        sample_loss(network, batch)

    def estimate() -> None:
        estimate_prior(network, sample_loss, [batch], top_k=min(10, samples))

    results: dict[str, list[tuple[float, int]]] = {"train": [], "look": [], "estimate": []}
    for _ in range(repeats):
        for run in (train, look, estimate):
            network.zero_grad()
            results[run.__name__].append(measured(run))
    unit, forward, fisher = (min(t for t, _ in found) for found in results.values())
    peak, _, fisher_peak = (min(m for _, m in found) for found in results.values())
    groups = len(operation_groups(network))
    probing = 2 * 100 * groups * forward
    print(f"{name}, {samples} samples, {groups} operations; unit {unit:.2f} s")
    print(f"empirical Fisher, exact: {fisher / unit:.2f} units")
    print(f"peak memory: {fisher_peak / peak:.2f} x the unit's {peak / 2**30:.2f} GiB")
    print(
        f"Eq. 7, 100 probes each: {probing / unit:.0f} units, {probing / fisher:.0f} x the Fisher"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", metavar="PNG")
    parser.add_argument("--cost", metavar="NETWORK")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.figure:
        figure(arguments.figure)
    elif arguments.cost:
        cost(arguments.cost, arguments.samples, arguments.repeats)
    else:
        accuracy()


if __name__ == "__main__":
    main()
