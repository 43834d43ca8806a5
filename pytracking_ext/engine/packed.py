"""Linear layers of a processor, their weights in the order in which oneDNN's product reads them."""

from __future__ import annotations

from typing import Any

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
    """``layer``, whose weights are not rearranged at every call. The output has their type.

    Attributes:
        then: what the product also does to its output: ``none``, or ``gelu`` (by erf).
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.then = "none"
        self.packed = _packed(layer.weight.detach())
        self.bias = None if layer.bias is None else layer.bias.detach()

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens.to(self.packed.dtype)
        product = torch.ops.mkldnn._linear_pointwise
        return product(tokens, self.packed, self.bias, self.then, [], "none")

    def __getstate__(self) -> dict[str, Any]:
        """With the weights as they were: torch neither copies nor stores packed ones."""
        return self.__dict__ | {"packed": self.packed.to_dense()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state | {"packed": _packed(state["packed"])})


def _packed(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
