"""Parts of the ViT trackers: patches, the block, and candidate elimination."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from timm.models import vision_transformer as timm_vit
from torch import Tensor, nn
from torch.nn import functional

KEEP = 0.7  # share of search tokens that a trained network keeps at each elimination


class Halving(nn.Module):
    """3x3 convolution, norm and GELU: (B, inputs, H, W) to (B, outputs, H / 2, W / 2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, 2, 1)
        self.norm = layer_norm(outputs)

    def forward(self, images: Tensor) -> Tensor:
        # In the memory order that the norm needs, convolutions are as fast.
        images = self.conv(images.contiguous(memory_format=torch.channels_last))
        return functional.gelu(self.norm(images.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class PatchEmbed(nn.Module):
    """Square patches to tokens: (B, channels, H, W) to (B, H * W / patch^2, dim).

    Args:
        patch: side of a patch in pixels.
        channels: of the images.
        dim: of the tokens.
        stem: widths of convolutions in front, each of which halves the image: Xiao et al., "Early
            Convolutions Help Transformers See Better", NeurIPS 2021. Empty as in ViT.
    """

    def __init__(self, patch: int, channels: int, dim: int, stem: Sequence[int] = ()) -> None:
        super().__init__()
        widths = (channels, *stem)
        self.stem = nn.Sequential(*(Halving(*pair) for pair in pairwise(widths)))
        patch >>= len(stem)
        self.proj = nn.Conv2d(widths[-1], dim, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(self.stem(images)).flatten(2).transpose(1, 2)

    def pack(self, template: Tensor, search: Tensor) -> Tensor:
        """Tokens of the template, then of the search region: (B, Nz + Nx, dim)."""
        return torch.cat((self(template), self(search)), 1)


class Pointwise(nn.Conv2d):
    """A 1x1 convolution, as some checkpoints store it, on (..., channels)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)
        nn.init.xavier_uniform_(self.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        return functional.linear(tokens, self.weight.flatten(1), self.bias)


class Attention(timm_vit.Attention):
    """Multi-head self-attention that can also tell where one token looks."""

    def split_heads(self, tokens: Tensor) -> Tensor:
        """Queries, keys and values of (B, N, C) tokens: (3, B, heads, N, C / heads)."""
        return self.qkv(tokens).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)

    def forward_with_focus(self, tokens: Tensor, query: int) -> tuple[Tensor, Tensor]:
        """The output, and the attention of token ``query`` to all, (B, N), mean over heads.

        Only that row of the attention map is made; the output itself comes from the fused kernel.
        """
        q, k, v = self.split_heads(tokens)
        row = q[:, :, query : query + 1] @ k.transpose(2, 3) * self.scale
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2)), row.softmax(3).mean((1, 2))


class Block(timm_vit.Block):
    """Pre-norm transformer block with qkv bias, and ViT's LayerNorm unless told otherwise."""

    def __init__(
        self,
        dim: int,
        heads: int,
        drop_path: float = 0.0,
        norm_layer: Callable[..., nn.Module] | None = None,
    ) -> None:
        super().__init__(
            dim,
            heads,
            qkv_bias=True,
            drop_path=drop_path,
            norm_layer=norm_layer or layer_norm,
            attn_layer=Attention,
        )


class Candidates:
    """Candidate elimination (OSTrack, section 3.3): search tokens that look unlike the target go.

    Holds which search tokens are left while the blocks run, and puts the others back as zeros.

    Args:
        template_grid: cells along a side of the template.
        search_tokens: number of search tokens at the start.
    """

    def __init__(self, template_grid: int, search_tokens: int) -> None:
        self.template_tokens = template_grid**2
        self.search_tokens = search_tokens
        centre = (template_grid - 1) // 2
        self.query = centre * template_grid + centre
        self.kept: Tensor | None = None  # (B, left) positions of the tokens left; None: all

    def run(self, block: Block, tokens: Tensor, keep: float) -> Tensor:
        """``block`` on (B, N, C) tokens, with elimination between its attention and its MLP."""
        tokens = self.attend(block, tokens, keep)
        return tokens + block.drop_path2(block.mlp(block.norm2(tokens)))

    def attend(self, block: Block, tokens: Tensor, keep: float) -> Tensor:
        """The attention half of ``block``, then elimination."""
        mixed, focus = block.attn.forward_with_focus(block.norm1(tokens), self.query)
        return self.eliminate(tokens + block.drop_path1(mixed), focus, keep)

    def eliminate(self, tokens: Tensor, focus: Tensor, keep: float) -> Tensor:
        """The share ``keep`` of the search tokens in (B, N, C), and the template.

        ``focus`` (B, N) is the attention that the template's centre token ``query`` pays to each.
        """
        scores = focus[:, self.template_tokens :]
        number = math.ceil(keep * scores.shape[1])
        if number == scores.shape[1]:
            return tokens
        best = scores.topk(number, dim=1).indices
        self.kept = best if self.kept is None else self.kept.gather(1, best)
        return self._take(tokens, best)

    def select(self, tokens: Tensor) -> Tensor:
        """Of (B, N, C) with all tokens, those that are left."""
        return tokens if self.kept is None else self._take(tokens, self.kept)

    def _take(self, tokens: Tensor, positions: Tensor) -> Tensor:
        template, search = tokens.tensor_split([self.template_tokens], 1)
        index = positions[:, :, None].expand(-1, -1, tokens.shape[2])
        return torch.cat((template, search.gather(1, index)), 1)

    def restore(self, tokens: Tensor) -> Tensor:
        """All tokens at their places, zeros where eliminated."""
        if self.kept is None:
            return tokens
        template, search = tokens.tensor_split([self.template_tokens], 1)
        index = self.kept[:, :, None].expand(-1, -1, tokens.shape[2])
        full = search.new_zeros(search.shape[0], self.search_tokens, search.shape[2])
        return torch.cat((template, full.scatter(1, index, search)), 1)


def keep_ratio(epoch: float, start: int, end: int, final: float = KEEP) -> float:
    """Share of the search tokens kept in training: 1 until ``start``, then a cosine to ``final``.

    Args:
        epoch: now.
        start, end: epochs in which elimination begins and in which it is complete.
        final: share kept from then on.
    """
    progress = min(max((epoch - start) / (end - start), 0.0), 1.0)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def layer_norm(dim: int, **options: object) -> nn.LayerNorm:
    """LayerNorm with ViT's epsilon."""
    return nn.LayerNorm(dim, eps=1e-6, **options)


def initialise(module: nn.Module) -> None:
    """ViT's initialisation of linear layers; for ``module.apply``."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
