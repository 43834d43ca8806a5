"""Swin transformer to its third stage: attention in windows that shift from block to block.

Liu et al., "Swin Transformer", ICCV 2021. Feature maps are (B, H, W, C). Unlike most versions, the
one that SwinTrack's weights expect also shifts where one window covers the whole map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn
from torch.nn import functional

PATCH = 4
STAGES = 3
SEPARATE = -100.0  # added between places of a shifted window that are not neighbours


class WindowAttention(nn.Module):
    """Self-attention inside windows, with a learned bias per displacement.

    Args:
        window: places along a side of a window.
    """

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        reach = 2 * window - 1
        self.relative_position_bias_table = nn.Parameter(torch.zeros(reach**2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        rows, columns = np.divmod(np.arange(window**2), window)
        down, right = (values[:, None] - values + window - 1 for values in (rows, columns))
        index = down * reach + right
        self.register_buffer("relative_position_index", torch.from_numpy(index), persistent=False)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, windows: Tensor, mask: Tensor | None, extra: int) -> Tensor:
        """Mixes (B, windows, N, C); the first ``extra`` tokens have no place and no bias.

        ``mask`` (windows, places, places) is added to the attention logits.
        """
        bias = self.relative_position_bias_table[self.relative_position_index]
        bias = bias.permute(2, 0, 1)[None]  # (windows, heads, places, places)
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(windows.shape[0], 1, 1, 1)
        bias = functional.pad(bias, (extra, 0, extra, 0))
        # Every window of the batch as a sample of its own: fused kernels take four axes.
        qkv = self.qkv(windows).flatten(0, 1).unflatten(2, (3, self.heads, -1))
        mixed = functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4), attn_mask=bias)
        return self.proj(mixed.transpose(1, 2).flatten(2)).unflatten(0, windows.shape[:2])


class SwinBlock(nn.Module):
    """Window attention and MLP.

    Args:
        shift: places by which the windows are moved, or 0.
        prompts: learned tokens that every window attends to, renewed at each block (UPVPT).
    """

    def __init__(
        self, dim: int, heads: int, window: int, shift: int, drop_path: float, prompts: int
    ) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)
        self.drop_path = DropPath(drop_path)
        self.prompt = nn.Parameter(torch.empty(prompts, dim)) if prompts else None
        if self.prompt is not None:
            nn.init.trunc_normal_(self.prompt, std=0.02)

    def forward(self, maps: Tensor, mask: Tensor) -> Tensor:
        """(B, H, W, C); ``mask`` is that of ``separation`` and applies to shifted windows."""
        normed = self.norm1(maps)
        moved = normed.roll((-self.shift, -self.shift), (1, 2)) if self.shift else normed
        windows = partition(moved, self.window)
        extra = 0
        if self.prompt is not None:
            prompt = self.norm1(self.prompt).expand(*windows.shape[:2], -1, -1)
            windows, extra = torch.cat((prompt, windows), 2), len(self.prompt)
        mixed = self.attn(windows, mask if self.shift else None, extra)[:, :, extra:]
        moved = merge(mixed, self.window, maps.shape[1])
        mixed = moved.roll((self.shift, self.shift), (1, 2)) if self.shift else moved
        maps = maps + self.drop_path(mixed)
        return maps + self.drop_path(self.mlp(self.norm2(maps)))


def partition(maps: Tensor, window: int) -> Tensor:
    """(B, H, W, C) to (B, windows, window * window, C)."""
    split = maps.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return split.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def merge(windows: Tensor, window: int, side: int) -> Tensor:
    """The inverse of ``partition`` for square maps of ``side`` places."""
    number = side // window
    split = windows.unflatten(1, (number, number)).unflatten(3, (window, window))
    return split.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def separation(side: int, window: int, shift: int, like: Tensor) -> Tensor:
    """(windows, places, places): ``SEPARATE`` between the regions that a shift brings together."""
    line = torch.zeros(side, device=like.device, dtype=like.dtype)
    line[side - window :] = 1
    line[side - shift :] = 2
    regions = partition((3 * line[:, None] + line)[None, :, :, None], window)[0, :, :, 0]
    return SEPARATE * (regions[:, :, None] != regions[:, None]).to(like.dtype)


class PatchStem(nn.Module):
    """4x4 patches and a norm: (B, 3, H, W) to (B, H / 4, W / 4, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, PATCH)
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """Joins 2x2 places: half the resolution, twice the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        corners = [maps[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, 3)))


class Stage(nn.Module):
    """Blocks at one resolution, after the layer that makes it; every second one is shifted."""

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int,
        rates: Sequence[float],
        prompts: int,
        pre_stage: nn.Module,
    ) -> None:
        super().__init__()
        self.window = window
        self.blocks = nn.ModuleList(
            SwinBlock(dim, heads, window, index % 2 * (window // 2), rate, prompts)
            for index, rate in enumerate(rates)
        )
        self.pre_stage = pre_stage

    def forward(self, maps: Tensor) -> Tensor:
        maps = self.pre_stage(maps)
        mask = separation(maps.shape[1], self.window, self.window // 2, maps)
        for block in self.blocks:
            maps = block(maps, mask)
        return maps


class Swin(nn.Module):
    """Images (B, 3, H, W) to tokens (B, H * W / 256, 4 * dim).

    Args:
        dim: channels of the first stage; they double at each.
        depths, heads: blocks and heads of each stage.
        window: side of the attention windows in places.
        drop_path: stochastic depth in training, rising linearly over the blocks.
        prompts: see ``SwinBlock``.
    """

    def __init__(
        self,
        dim: int,
        depths: tuple[int, ...],
        heads: tuple[int, ...],
        window: int,
        drop_path: float,
        prompts: int = 0,
    ) -> None:
        super().__init__()
        rates = torch.linspace(0, drop_path, sum(depths), device="cpu").split(depths)
        self.stages = nn.ModuleList(
            Stage(
                dim << stage,
                heads[stage],
                window,
                rates[stage].tolist(),
                prompts,
                PatchMerging(dim << (stage - 1)) if stage else PatchStem(dim),
            )
            for stage in range(STAGES)
        )
        self.norm2 = nn.LayerNorm(dim << (STAGES - 1))

    def forward(self, images: Tensor) -> Tensor:
        for stage in self.stages:
            images = stage(images)
        return self.norm2(images).flatten(1, 2)
