"""Every family of networks at a size that takes milliseconds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ltr_ext.models.network import TrackingNetwork
from ltr_ext.models.registry import build_network

SIZES = {"template_size": 32, "search_size": 64, "head_channels": 32}
VIT = SIZES | {"dim": 64, "depth": 4, "heads": 2}
ELIMINATING = VIT | {"eliminate_at": (1, 2)}
ITPN = SIZES | {"dim": 64, "stage_depth": 1, "depth": 4}
SWIN = {"template_size": 32, "search_size": 64, "dim": 32, "depths": (1, 1, 2), "heads": (1, 2, 4),
        "window": 2, "encoder_layers": 1}  # fmt: skip
FAMILIES = {
    "ostrack256": VIT,
    "ostrack256_ce": ELIMINATING,
    "droptrack384": ELIMINATING,
    "two_branch_ostrack256": VIT,
    "two_branch_droptrack384": VIT,
    "vipt256": ELIMINATING | {"prompts": 4},
    "sdstrack256": ELIMINATING | {"cross_at": (1, 3)},
    "untrack256": ELIMINATING,
    "upvpt_ostrack256": ELIMINATING,
    "sutrack_t224": ITPN,
    "two_branch_sutrack_t224": ITPN,
    "swintrack_t224": SWIN,
    "upvpt_swintrack_t224": SWIN,
}


def _small(name: str, **changes: object) -> TrackingNetwork:
    torch.manual_seed(0)
    network = build_network(name, **FAMILIES[name] | changes).eval()
    network.metadata = {"modality": "depth"}
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # new statistics would make the folding trivial
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 3, 0.3)  # maps with some relief
            nn.init.normal_(module.bias, 0, 0.1)
        elif isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, 1, 0.1)
            nn.init.normal_(module.bias, 0, 0.1)
    return network


@pytest.fixture
def small():
    """Makes the small network of a family."""
    return _small


@pytest.fixture(params=FAMILIES)
def family(request) -> TrackingNetwork:
    """The small network of every family in turn."""
    return _small(request.param)


@pytest.fixture(params=FAMILIES)
def family_keeping_all(request) -> TrackingNetwork:
    """The same without candidate elimination, which decides between near equals."""
    off = {"eliminate_at": ()} if "eliminate_at" in FAMILIES[request.param] else {}
    return _small(request.param, **off)


@pytest.fixture
def images():
    """Makes the inputs of a network for a batch."""

    def make(network: TrackingNetwork, batch: int, seed: int) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        spec = network.spec

        def noise(size: int) -> torch.Tensor:
            return torch.randn(batch, spec.in_channels, size, size, generator=generator)

        made = {"template": noise(spec.template_size), "search": noise(spec.search_size)}
        made["template_box"] = torch.tensor([[0.45, 0.5, 0.5, 0.4]]).expand(batch, 4)
        made["modality"] = torch.ones(batch, dtype=torch.long)
        return [made[name] for name in network.input_names]

    return make
