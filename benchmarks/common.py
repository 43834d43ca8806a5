"""What several benchmarks need: a batch of noise."""

from __future__ import annotations

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
