"""Linear layers in int8: weights per output channel, activations per call."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

WORTHWHILE = 64  # features; narrower layers cost more to quantise than they save


def available() -> bool:
    """Whether this torch has the operators; they are to leave it one day."""
    return (
        hasattr(torch, "quantize_per_channel")
        and hasattr(torch.ops.quantized, "linear_dynamic")
        and torch.backends.quantized.engine != "none"
    )


class Int8Linear(nn.Module):
    """``layer`` with int8 weights, one scale per output channel.

    The input, float32, is quantised by its own range at every call, to 7 bits on processors without
    VNNI; the output is float32.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach()
        scales = (weight.abs().amax(1).double() / 127).clamp(min=torch.finfo(torch.float32).tiny)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.quantize_per", UserWarning)
            zeros = torch.zeros(len(weight), dtype=torch.int64)
            whole = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        bias = None if layer.bias is None else layer.bias.detach()
        with _fastest_products():
            self.packed = torch.ops.quantized.linear_prepack(whole, bias)

        # Without VNNI, products are added in pairs in 16 bits, which eight bits of input overflow.
        self.reduce_range = not torch.cpu._is_vnni_supported()
        self.out_features = layer.out_features

    def forward(self, tokens: Tensor) -> Tensor:
        if not tokens.numel():  # the operator finds no range in them
            return tokens.new_empty(*tokens.shape[:-1], self.out_features)
        return torch.ops.quantized.linear_dynamic(tokens, self.packed, self.reduce_range)


@contextmanager
def _fastest_products() -> Iterator[None]:
    """Packs weights for oneDNN where there is AMX: twice as fast there as what torch takes."""
    usual = torch.backends.quantized.engine
    if (
        torch.cpu._is_amx_tile_supported()
        and "onednn" in torch.backends.quantized.supported_engines
    ):
        torch.backends.quantized.engine = "onednn"
    try:
        yield
    finally:
        torch.backends.quantized.engine = usual
