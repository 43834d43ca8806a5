"""What several benchmarks need: a batch of noise, and times of functions in turns."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from ltr_ext.models.network import NetworkSpec


def noise_batch(
    spec: NetworkSpec, size: int, device: str | torch.device = "cpu"
) -> dict[str, Tensor]:
    """A batch of ``size`` samples as ``PairDataset`` gives it: images of noise, boxes inside."""
    templates = (spec.templates,) if spec.templates > 1 else ()

    def images(*shape: int) -> Tensor:
        return torch.randint(256, (size, *shape), dtype=torch.uint8)

    def boxes(*shape: int) -> Tensor:
        return torch.rand(size, *shape, 4) * 0.3 + 0.3

    batch = {
        "template": images(*templates, spec.in_channels, spec.template_size, spec.template_size),
        "search": images(spec.in_channels, spec.search_size, spec.search_size),
        "template_box": boxes(*templates),
        "search_box": boxes(),
        "modality": torch.ones(size, dtype=torch.int64),
    }
    return {name: values.to(device) for name, values in batch.items()}


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
