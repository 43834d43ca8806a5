"""Floating point operations of a forward pass, counted alike on every device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@torch.no_grad()  # not inference mode, in which the counter's hooks trip over parameters
def count_flops(network: nn.Module, inputs: Sequence[Tensor]) -> tuple[int, int]:
    """In all, and of linear layers and convolutions alone, as Table XII; a multiply-add is two.

    On the device ``meta`` nothing is computed.
    """
    # The plain implementation of attention is made of products that the counter knows: ``bmm``.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        network(*inputs)
    total = counter.get_total_flops()
    return total, total - counter.get_flop_counts()["Global"].get(torch.ops.aten.bmm, 0)
