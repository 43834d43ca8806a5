"""SwinTrack: a Siamese Swin backbone, and transformers that join template and search region.

Lin et al., "SwinTrack: A Simple and Strong Baseline for Transformer Tracking", NeurIPS 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from timm.layers import Mlp
from torch import Tensor, nn
from torch.nn import functional

from srft_plugin.errors import UserError
from srft_plugin.precision import widened

from .head import MARGIN, boxes_at_peak
from .network import NetworkSpec, TrackingNetwork
from .swin import STAGES, Swin
from .vit import Block, initialise

HEADS = 8  # of encoder and decoder


@dataclass(frozen=True, kw_only=True)
class SwinTrackSpec(NetworkSpec):
    """Sizes of a SwinTrack network; the default is Swin-T.

    Attributes:
        dim, depths, heads, window: of the backbone (``swin.Swin``).
        encoder_layers: layers of self-attention over both images.
        drop_path: stochastic depth of the backbone in training.
        prompts: tokens that UPVPT adds to each window.
    """

    context: bool = True
    dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6)
    heads: tuple[int, ...] = (3, 6, 12)
    window: int = 7
    encoder_layers: int = 4
    drop_path: float = 0.2
    prompts: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        step = self.stride * self.window
        if self.template_size % step or self.search_size % step:
            raise UserError(
                f"{self.name}: sizes {self.template_size} and {self.search_size} do not divide "
                f"into windows; expected multiples of {step}"
            )

    @property
    def width(self) -> int:
        """Channels of the tokens."""
        return self.dim << (STAGES - 1)


class LearnedPlaces(nn.Module):
    """A learned vector per row and per column of a square grid."""

    def __init__(self, side: int, dim: int) -> None:
        super().__init__()
        self.w_pos = nn.Parameter(torch.empty(side, dim))
        self.h_pos = nn.Parameter(torch.empty(side, dim))
        nn.init.trunc_normal_(self.w_pos, std=0.02)
        nn.init.trunc_normal_(self.h_pos, std=0.02)

    def forward(self) -> Tensor:
        """(side * side, dim)."""
        return (self.h_pos[:, None] + self.w_pos).flatten(0, 1)


class UntiedPositions(nn.Module):
    """Position as a term of the attention logits, with projections of its own."""

    def __init__(self, side: int, dim: int, queries: bool) -> None:
        super().__init__()
        self.pos = LearnedPlaces(side, dim)
        self.norm = nn.LayerNorm(dim)
        if queries:
            self.pos_q_linear = nn.Linear(dim, dim)
        self.pos_k_linear = nn.Linear(dim, dim)

    def queries(self) -> Tensor:
        """(heads, places, dim / heads), scaled as attention scales queries."""
        queries = self._heads(self.pos_q_linear)
        return queries * queries.shape[2] ** -0.5

    def keys(self) -> Tensor:
        """(heads, places, dim / heads)."""
        return self._heads(self.pos_k_linear)

    def _heads(self, projection: nn.Linear) -> Tensor:
        return projection(self.norm(self.pos())).unflatten(1, (HEADS, -1)).transpose(0, 1)


class RelativePositions(nn.Module):
    """A learned bias per head for every kind of pair of tokens."""

    def __init__(self, kinds: int) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.empty(HEADS, kinds))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)


def pair_kinds(template_grid: int, grid: int, search_queries: bool) -> np.ndarray:
    """Kind of each pair of a query and a key among template and search tokens, in that order.

    A kind is a displacement (rows, columns) between tokens of given images; kinds are numbered in
    lexical order of (rows, columns, query's image, key's image). Queries are all tokens, or the
    search region's alone.
    """
    places = [np.divmod(np.arange(side**2), side) for side in (template_grid, grid)]
    rows, columns = (np.concatenate(values) for values in zip(*places, strict=True))
    image = np.repeat((0, 1), (template_grid**2, grid**2))
    chosen = slice(template_grid**2 if search_queries else 0, None)
    down, right = (values[chosen, None] - values + grid for values in (rows, columns))
    codes = ((down * 2 * grid + right) * 2 + image[chosen, None]) * 2 + image
    return np.unique(codes, return_inverse=True)[1].reshape(codes.shape)


class PairPositions(nn.Module):
    """What encoder and decoder know of positions: absolute and relative, both untied."""

    def __init__(self, spec: SwinTrackSpec, search_queries: bool) -> None:
        super().__init__()
        self.search_queries = search_queries
        self.z_untied_pos_enc = UntiedPositions(spec.template_grid, spec.width, not search_queries)
        self.x_untied_pos_enc = UntiedPositions(spec.grid, spec.width, True)
        kinds = pair_kinds(spec.template_grid, spec.grid, search_queries)
        self.rpe_bias_table = RelativePositions(int(kinds.max()) + 1)
        self.register_buffer("kinds", torch.from_numpy(kinds), persistent=False)

    def bias(self) -> Tensor:
        """(1, heads, queries, keys) to add to the attention logits."""
        queries = self.x_untied_pos_enc.queries()
        if not self.search_queries:
            queries = torch.cat((self.z_untied_pos_enc.queries(), queries), 1)
        keys = torch.cat((self.z_untied_pos_enc.keys(), self.x_untied_pos_enc.keys()), 1)
        relative = self.rpe_bias_table.relative_position_bias_table[:, self.kinds]
        return (queries @ keys.transpose(1, 2) + relative)[None]


class Encoder(PairPositions):
    """Self-attention over the tokens of both images."""

    def __init__(self, spec: SwinTrackSpec) -> None:
        super().__init__(spec, search_queries=False)
        self.layers = nn.ModuleList(
            Block(spec.width, HEADS, 0.0, nn.LayerNorm) for _ in range(spec.encoder_layers)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        bias = self.bias()
        for layer in self.layers:
            tokens = layer(tokens, bias)
        return tokens


class CrossAttention(nn.Module):
    """Attention of one set of tokens to another."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q, self.kv, self.proj = (nn.Linear(dim, size * dim) for size in (1, 2, 1))

    def forward(self, queries: Tensor, tokens: Tensor, bias: Tensor) -> Tensor:
        q = self.q(queries).unflatten(2, (HEADS, -1)).transpose(1, 2)
        k, v = self.kv(tokens).unflatten(2, (2, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class CrossBlock(nn.Module):
    """Pre-norm block with cross-attention."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1_q, self.norm1_kv = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = CrossAttention(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, queries: Tensor, tokens: Tensor, bias: Tensor) -> Tensor:
        mixed = self.attn(self.norm1_q(queries), self.norm1_kv(tokens), bias)
        queries = queries + mixed
        return queries + self.mlp(self.norm2(queries))


class Decoder(PairPositions):
    """The search region's tokens attend to all tokens."""

    def __init__(self, spec: SwinTrackSpec) -> None:
        super().__init__(spec, search_queries=True)
        self.layers = nn.ModuleList([CrossBlock(spec.width)])
        self.template_tokens = spec.template_grid**2

    def forward(self, tokens: Tensor) -> Tensor:
        bias = self.bias()
        search = tokens[:, self.template_tokens :]
        for layer in self.layers:
            search = layer(search, torch.cat((tokens[:, : self.template_tokens], search), 1), bias)
        return search


class Perceptron(nn.Module):
    """Three layers with GELU between."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim, size) for size in (dim, dim, outputs))

    def forward(self, features: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            features = functional.gelu(layer(features))
        return self.layers[-1](features)


class BoxHead(nn.Module):
    """A score and a box for each place."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.cls_mlp = Perceptron(dim, 1)
        self.reg_mlp = Perceptron(dim, 4)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """(B, C, H, W) to the outputs of ``TrackingNetwork.forward``.

        The boxes' centres become offsets from their cells, so that maps mean what they mean for
        the CENTER head.
        """
        features = features.permute(0, 2, 3, 1)
        score = widened(self.cls_mlp(features)).sigmoid().clamp(MARGIN, 1 - MARGIN)
        boxes = widened(self.reg_mlp(features)).sigmoid().permute(0, 3, 1, 2)
        score = score.permute(0, 3, 1, 2)
        height, width = score.shape[2:]
        rows, columns = torch.meshgrid(
            torch.arange(height, device=score.device),
            torch.arange(width, device=score.device),
            indexing="ij",
        )
        size = boxes[:, 2:]
        offset = torch.cat((boxes[:, :1] * width - columns, boxes[:, 1:2] * height - rows), 1)
        peak = boxes_at_peak(score, size, offset)
        return {"score_map": score, "size_map": size, "offset_map": offset, "pred_boxes": peak}


class SwinTrack(TrackingNetwork):
    """SwinTrack: each image through Swin, both through the encoder, the search region decoded."""

    criterion = "dense"
    position_pattern = "untied_pos_enc|rpe_bias_table"
    official_names = ((r"^head\.", "box_head."),)
    official_unused = r".*\.relative_position_index"
    spec: SwinTrackSpec

    def __init__(self, spec: SwinTrackSpec) -> None:
        super().__init__(spec)
        self.backbone = Swin(
            spec.dim, spec.depths, spec.heads, spec.window, spec.drop_path, spec.prompts
        )
        self.encoder = Encoder(spec)
        self.decoder = Decoder(spec)
        self.out_norm = nn.LayerNorm(spec.width)
        self.box_head = BoxHead(spec.width)
        self.apply(initialise)

    def tokens(self, template: Tensor, search: Tensor) -> Tensor:
        """(B, Nx, C) of the search region."""
        tokens = torch.cat((self.backbone(template), self.backbone(search)), 1)
        return self.out_norm(self.decoder(self.encoder(tokens)))
