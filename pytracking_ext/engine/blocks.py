"""Transformer blocks of a network in a form that computes the same with fewer operations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltr_ext.models.network import split_modalities
from ltr_ext.models.ostrack import OSTrackBackbone
from ltr_ext.models.two_branch import TwoBranchBackbone
from ltr_ext.models.vit import Block

ONES = 8  # columns after the features, of which the first is 1: so many keep rows aligned
# A product that is still to be added, and its bias where it has none of its own.
Update = tuple[Tensor, Tensor | None] | None


class PatchLinear(nn.Module):
    """A convolution of patches that do not overlap, as a product: ten times as fast on a GPU."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.sides = convolution.kernel_size
        self.weight, self.bias = fixed(convolution.weight.flatten(1)), convolution.bias

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, out, H / side, W / side)."""
        height, width = self.sides
        patches = images.unflatten(3, (-1, width)).unflatten(2, (-1, height))
        patches = patches.permute(0, 2, 4, 1, 3, 5)  # (B, rows, columns, C, height, width)
        patches = patches.to(self.weight.dtype, memory_format=torch.contiguous_format)
        return functional.linear(patches.flatten(3), self.weight, self.bias).permute(0, 3, 1, 2)


class StackedLinear(nn.Module):
    """A linear layer of every branch as one batched product.

    Args:
        layers: one per branch.
        norms: the LayerNorm before each, whose scale and shift are folded into it.
        by_kernels: beside the kernels a product has no bias of its own: after a norm, that is a row
            of the weight, for the column of ones of ``add_norm``; else it is left to the caller.

    Attributes:
        bias: (branches, out) float32.
    """

    def __init__(
        self,
        layers: Sequence[nn.Linear],
        norms: Sequence[nn.LayerNorm] = (),
        by_kernels: bool = False,
    ) -> None:
        super().__init__()
        self.by_kernels = by_kernels
        weights = [layer.weight.double() for layer in layers]
        biases = [layer.bias.double() for layer in layers]
        for index, norm in enumerate(norms):
            biases[index] = biases[index] + weights[index] @ norm.bias.double()
            weights[index] = weights[index] * norm.weight.double()
        weight, bias = torch.stack(weights).transpose(1, 2), torch.stack(biases)
        if norms and by_kernels:
            weight = functional.pad(weight, (0, 0, 0, ONES))
            weight[:, -ONES] = bias
        self.weight = fixed(weight.contiguous().to(layers[0].weight.dtype))
        self.register_buffer("bias", bias.detach().float())

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., in) to (..., out); the rows are those of the branches in turn."""
        rows = tokens.reshape(len(self.weight), -1, tokens.shape[-1])
        if self.by_kernels:
            product = torch.bmm(rows, self.weight)
        else:
            product = torch.baddbmm(self.bias[:, None], rows, self.weight)
        return product.view(*tokens.shape[:-1], product.shape[-1])


def add_norm(
    tokens: Tensor, update: Update, eps: float, dtype: torch.dtype, by_kernels: bool = False
) -> tuple[Tensor, Tensor]:
    """The sum of ``tokens`` and the update, and its LayerNorm as the next layer reads it.

    Args:
        tokens: (streams, B, N, C) float32; may be written.
        update: a product of that shape, and its bias (branches, C) float32, of each ``branches``-th
            part of the streams.
        eps: of the norm.
        dtype: of the norm.
        by_kernels: run ``kernels.add_norm``.

    Returns:
        The sum, and its norm; of the kernels (streams, B, N, C + ONES) with a one after the
        features, then zeros.
    """
    if by_kernels:
        from pytracking_ext.engine import kernels

        product, bias = update or (None, None)
        width = tokens.shape[-1] + ONES
        return tokens, kernels.add_norm(tokens, product, bias, eps, width, dtype)
    tokens = added(tokens, update)
    return tokens, functional.layer_norm(tokens, tokens.shape[-1:], eps=eps).to(dtype)


def added(tokens: Tensor, update: Update) -> Tensor:
    """The sum of (streams, B, N, C) tokens and the update."""
    if update is None:
        return tokens
    product, bias = update
    if bias is None:
        return tokens + product
    parts = product.unflatten(0, (len(bias), -1)) + bias[:, None, None, None]
    return tokens + parts.flatten(0, 1)


class StackedBlock(nn.Module):
    """Transformer blocks as one: those of every branch at one depth, or one that joins them.

    A single block attends to the tokens of all streams together.
    """

    def __init__(self, blocks: Sequence[Block], by_kernels: bool) -> None:
        super().__init__()
        self.by_kernels = by_kernels
        norms = [block.norm1 for block in blocks], [block.norm2 for block in blocks]
        self.heads, self.eps = blocks[0].attn.num_heads, blocks[0].norm1.eps
        self.qkv = StackedLinear([block.attn.qkv for block in blocks], norms[0], by_kernels)
        self.proj = StackedLinear([block.attn.proj for block in blocks], (), by_kernels)
        self.fc1 = StackedLinear([block.mlp.fc1 for block in blocks], norms[1], by_kernels)
        self.fc2 = StackedLinear([block.mlp.fc2 for block in blocks], (), by_kernels)

    def forward(self, tokens: Tensor, update: Update) -> tuple[Tensor, Update]:
        """(streams, B, N, C) and what is still to be added to it, to the same."""
        how = self.eps, self.qkv.weight.dtype, self.by_kernels
        tokens, normed = add_norm(tokens, update, *how)
        mixed = self._attend(self.qkv(normed))
        tokens, normed = add_norm(tokens, self._update(self.proj, mixed), *how)
        return tokens, self._update(self.fc2, functional.gelu(self.fc1(normed)))

    def _update(self, layer: StackedLinear, inputs: Tensor) -> Update:
        return layer(inputs), layer.bias if self.by_kernels else None

    def _attend(self, heads: Tensor) -> Tensor:
        """Attention of (streams, B, N, 3 * C) queries, keys and values: (streams, B, N, C)."""
        streams, batch = heads.shape[:2]
        joint = len(self.qkv.weight) < streams
        heads = heads.transpose(0, 1).flatten(1, 2) if joint else heads.flatten(0, 1)
        heads = heads.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        if joint:
            return mixed.unflatten(1, (streams, -1)).transpose(0, 1)
        return mixed.unflatten(0, (streams, batch))


class StackedBackbone(nn.Module):
    """``TwoBranchBackbone`` whose branches run as one."""

    def __init__(self, backbone: TwoBranchBackbone, by_kernels: bool) -> None:
        super().__init__()
        self.patch_embed_rgb = backbone.patch_embed_rgb
        self.patch_embed_aux = backbone.patch_embed_aux
        self.positions = fixed(backbone.positions())
        self.blocks = nn.ModuleList()
        for index, pair in enumerate(zip(backbone.blocks_rgb, backbone.blocks_aux, strict=True)):
            self.blocks.append(StackedBlock(pair, by_kernels))
            if index in backbone.fuse_after:
                joining = backbone.fusion[backbone.fuse_after.index(index)]
                self.blocks.append(StackedBlock([joining], by_kernels))
        self.norm_rgb, self.norm_aux = backbone.norm_rgb, backbone.norm_aux

    def forward(self, template: Tensor, search: Tensor) -> tuple[Tensor, Tensor]:
        (template_rgb, template_aux), (search_rgb, search_aux) = split_modalities(template, search)
        rgb = self.patch_embed_rgb.pack(template_rgb, search_rgb)
        aux = self.patch_embed_aux.pack(template_aux, search_aux)
        rgb, aux = run_blocks(self.blocks, torch.stack((rgb, aux)) + self.positions)
        return self.norm_rgb(rgb), self.norm_aux(aux)


class FusedBackbone(nn.Module):
    """``OSTrackBackbone`` that keeps all candidates, by the same blocks and the kernels."""

    def __init__(self, backbone: OSTrackBackbone) -> None:
        super().__init__()
        self.patch_embed, self.norm = backbone.patch_embed, backbone.norm
        self.positions = fixed(backbone.positions())
        self.blocks = nn.ModuleList(StackedBlock([block], True) for block in backbone.blocks)

    def forward(self, template: Tensor, search: Tensor) -> Tensor:
        tokens = self.patch_embed.pack(template, search) + self.positions
        return self.norm(run_blocks(self.blocks, tokens[None])[0])


def run_blocks(blocks: Sequence[StackedBlock], tokens: Tensor) -> Tensor:
    """(streams, B, N, C) through all blocks."""
    update: Update = None
    for block in blocks:
        tokens, update = block(tokens, update)
    return added(tokens, update)


def fixed(values: Tensor) -> nn.Parameter:
    """A parameter that does not train."""
    return nn.Parameter(values.detach(), requires_grad=False)
