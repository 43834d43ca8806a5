"""Prints the table of docs/networks.md: parity with public weights, size, FLOPs and time.

    python benchmarks/parity.py [network ...]

Golden values are read from the folder that SRFT_SHARED names (../shared by default); without them
the error column stays empty. FLOPs are of one forward pass (a multiplication and an addition are
two), by torch's counter; those of layers leave out the products inside attention, as Table XII of
the paper does. Time is processor time of forward, loss and backward of one training sample on one
thread, the better of two, over that of ostrack256: a ratio, because machines differ.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path

import torch
from common import noise_batch  # beside this file
from torch import Tensor, nn

from ltr_ext.actors.tracking import TrackingActor
from ltr_ext.models.flops import count_flops
from ltr_ext.models.registry import build_network, network_names, network_spec

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SRFT_SHARED", ROOT.parent / "shared"))
REFERENCE = "ostrack256"
REPEATS = 2


def main() -> None:
    torch.set_num_threads(1)
    golden = _golden_module()
    reference = seconds(build_network(REFERENCE))
    print("| network | max error | values (M) | without head (M) | GFLOPs | of layers | time |")
    print("|---|---|---|---|---|---|---|")
    known = [name for name in network_names() if not network_spec(name).aux_only]
    for name in sys.argv[1:] or known:
        error = "-"
        if name in golden.NETWORKS and SHARED.is_dir():
            error = f"{max(golden.golden_errors(SHARED, name).values()):.1e}"
        network = build_network(name)
        total, head = (
            sum(value.numel() for key, value in network.state_dict().items() if part in key) / 1e6
            for part in ("", "_head.")
        )
        ratio = 1.0 if name == REFERENCE else seconds(network) / reference
        network = network.to("meta").eval()
        flops = count_flops(network, _images(network, "meta"))
        every, layers = (number / 1e9 for number in flops)
        print(
            f"| {name} | {error} | {total:.1f} | {total - head:.1f} | {every:.1f} | {layers:.1f} "
            f"| {ratio:.2f} |",
            flush=True,
        )


def seconds(network: nn.Module) -> float:
    """Processor time of a forward and backward pass of one sample, the best of ``REPEATS``."""
    network.train()
    network.box_head.eval()  # batch statistics of one sample are none
    actor, batch = TrackingActor(network), noise_batch(network.spec, 1)
    best = float("inf")
    for _ in range(REPEATS):
        start = time.process_time()
        loss, _ = actor(batch)
        loss.backward()
        best = min(best, time.process_time() - start)
    network.zero_grad()
    return best


def _images(network: nn.Module, device: str) -> list[Tensor]:
    spec = network.spec
    return [
        torch.randn(1, spec.in_channels, size, size, device=device)
        for size in (spec.template_size, spec.search_size)
    ]


def _golden_module():
    path = ROOT / "tests" / "ltr_ext" / "models" / "golden.py"
    spec = importlib.util.spec_from_file_location("golden", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
