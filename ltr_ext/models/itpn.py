"""Fast-iTPN, the encoder of SUTrack: two convolutional stages, then transformer blocks.

Tian et al., "Fast-iTPN: Integrally Pre-Trained Transformer Pyramid Network with Token Migration".
Feature maps are (B, H, W, C) throughout: their 1x1 convolutions and norms act on channels.
"""

from __future__ import annotations

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn import functional

from .vit import Pointwise, layer_norm

MLP_RATIO = 3
HEAD_DIM = 64
LAYER_SCALE = 0.1


class ConvMlp(nn.Module):
    """Two 1x1 convolutions with a norm between."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = Pointwise(dim, MLP_RATIO * dim)
        self.ffn_ln = layer_norm(MLP_RATIO * dim)
        self.fc2 = Pointwise(MLP_RATIO * dim, dim)

    def forward(self, maps: Tensor) -> Tensor:
        return self.fc2(self.ffn_ln(functional.gelu(self.fc1(maps))))


class ConvBlock(nn.Module):
    """Block of the convolutional stages: an MLP per place, no attention."""

    def __init__(self, dim: int, drop_path: float) -> None:
        super().__init__()
        self.norm2 = layer_norm(dim)
        self.mlp = ConvMlp(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.drop_path(self.mlp(self.norm2(maps)))


class Merge(nn.Module):
    """Halves the resolution and doubles the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = layer_norm(dim)
        self.reduction = nn.Conv2d(dim, 2 * dim, 2, 2)

    def forward(self, maps: Tensor) -> Tensor:
        return self.reduction(self.norm(maps).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class SwiGLU(nn.Module):
    """Gated MLP with a norm on the hidden units."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(dim, MLP_RATIO * dim)
        self.w2 = nn.Linear(dim, MLP_RATIO * dim)
        self.ffn_ln = layer_norm(MLP_RATIO * dim)
        self.w3 = nn.Linear(MLP_RATIO * dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.w3(self.ffn_ln(functional.silu(self.w1(tokens)) * self.w2(tokens)))


class SplitAttention(nn.Module):
    """Self-attention with separate projections; the keys have no bias."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = (
            values.unflatten(2, (-1, HEAD_DIM)).transpose(1, 2)
            for values in (
                self.q_proj(tokens) + self.q_bias,
                self.k_proj(tokens),
                self.v_proj(tokens) + self.v_bias,
            )
        )
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class MainBlock(nn.Module):
    """Transformer block with layer scale."""

    def __init__(self, dim: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = layer_norm(dim)
        self.attn = SplitAttention(dim)
        self.norm2 = layer_norm(dim)
        self.mlp = SwiGLU(dim)
        self.gamma_1 = nn.Parameter(torch.full((dim,), LAYER_SCALE))
        self.gamma_2 = nn.Parameter(torch.full((dim,), LAYER_SCALE))
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop_path(self.gamma_1 * self.attn(self.norm1(tokens)))
        return tokens + self.drop_path(self.gamma_2 * self.mlp(self.norm2(tokens)))


class Stem(nn.Module):
    """4x4 patches: (B, channels, H, W) to (B, H / 4, W / 4, dim)."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, 4, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).permute(0, 2, 3, 1)


def itpn_blocks(dim: int, stage_depth: int, depth: int, drop_path: float) -> nn.ModuleList:
    """All blocks of an encoder in the order, and by the numbers, of its checkpoints.

    Two times ``stage_depth`` blocks and a merge, on ``dim`` / 4 and ``dim`` / 2 channels, then
    ``depth`` transformer blocks on ``dim``.
    """
    rates = iter(torch.linspace(0, drop_path, 2 * stage_depth + depth, device="cpu").tolist())
    blocks: list[nn.Module] = []
    for width in (dim // 4, dim // 2):
        blocks += [ConvBlock(width, next(rates)) for _ in range(stage_depth)]
        blocks.append(Merge(width))
    blocks += [MainBlock(dim, rate) for rate in rates]
    return nn.ModuleList(blocks)
