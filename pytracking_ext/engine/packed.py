"""Linear layers of a processor, their weights in the order in which oneDNN's product reads them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WORTHWHILE = 256  # features; in narrower layers the usual product is about as fast


def available() -> bool:
    """Whether this torch has the operators, which its compiler uses, and a processor for them."""
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and "AVX512" in torch.backends.cpu.get_cpu_capability()
    )


class PackedLinear(nn.Module):
    """``layer``, whose weights are not rearranged at every call. The output has their type."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().contiguous())
        self.bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens.to(self.packed.dtype)
        return torch.ops.mkldnn._linear_pointwise(tokens, self.packed, self.bias, "none", [], "")
