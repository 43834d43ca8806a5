"""OSTrack, DropTrack and the small default tracker: one ViT over template and search tokens.

OSTrack: Ye et al., "Joint Feature Learning and Relation Modeling for Tracking", ECCV 2022.
DropTrack (DropMAE, CVPR 2023) is OSTrack with a learned embedding for template and for search.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .head import CenterHead
from .network import NetworkSpec, TrackingNetwork, sincos_positions
from .vit import KEEP, Block, Candidates, PatchEmbed, initialise, keep_ratio, layer_norm


@dataclass(frozen=True, kw_only=True)
class ViTSpec(NetworkSpec):
    """Sizes of a ViT tracker.

    Attributes:
        dim, depth, heads: of the ViT; the default is ViT-B.
        stem: widths of the convolutions before the patches (``PatchEmbed``); empty as in ViT.
        head_channels: first width of the CENTER head.
        eliminate_at: blocks (zero-based) with candidate elimination; empty for none.
        eliminate_during: epochs in which training begins to eliminate and does so in full.
        temporal: DropTrack's embeddings of the two roles.
        drop_path: stochastic depth in training, rising linearly over the blocks.
    """

    dim: int = 768
    depth: int = 12
    heads: int = 12
    stem: tuple[int, ...] = ()
    head_channels: int = 256
    eliminate_at: tuple[int, ...] = ()
    eliminate_during: tuple[int, int] = (20, 100)
    temporal: bool = False
    drop_path: float = 0.1

    def drop_paths(self) -> list[float]:
        """Rate of each block."""
        return torch.linspace(0, self.drop_path, self.depth, device="cpu").tolist()

    def patches(self) -> PatchEmbed:
        """From the image of one modality to its tokens."""
        return PatchEmbed(self.stride, 3, self.dim, self.stem)

    def blocks(self) -> nn.ModuleList:
        """The stack of blocks of one branch."""
        return nn.ModuleList(Block(self.dim, self.heads, rate) for rate in self.drop_paths())


class Positions(nn.Module):
    """Position embeddings of template and search region, and DropTrack's temporal ones.

    A base class of backbones, so that their parameters keep the names of the public checkpoints.
    """

    def __init__(self, spec: ViTSpec) -> None:
        super().__init__()
        self.pos_embed_z = nn.Parameter(sincos_positions(spec.template_grid, spec.dim))
        self.pos_embed_x = nn.Parameter(sincos_positions(spec.grid, spec.dim))
        self.temporal_pos_embed_z = self.temporal_pos_embed_x = None
        if spec.temporal:
            self.temporal_pos_embed_z = nn.Parameter(torch.zeros(1, 1, spec.dim))
            self.temporal_pos_embed_x = nn.Parameter(torch.zeros(1, 1, spec.dim))

    def positions(self) -> Tensor:
        """(1, Nz + Nx, C), what is added to the tokens of template and search region."""
        template, search = self.pos_embed_z, self.pos_embed_x
        if self.temporal_pos_embed_z is not None:
            template = template + self.temporal_pos_embed_z
            search = search + self.temporal_pos_embed_x
        return torch.cat((template, search), 1)


class OSTrackBackbone(Positions):
    """ViT over the concatenated tokens, with candidate elimination where the spec asks for it.

    Attributes:
        keep: share of search tokens kept at each elimination in training (``vit.keep_ratio``).
    """

    def __init__(self, spec: ViTSpec) -> None:
        super().__init__(spec)
        self.spec = spec
        self.keep = KEEP
        self.patch_embed = spec.patches()
        self.blocks = spec.blocks()
        self.norm = layer_norm(spec.dim)
        self.apply(initialise)

    def forward(self, template: Tensor, search: Tensor) -> Tensor:
        """(B, 3, Hz, Wz) and (B, 3, Hs, Ws) to (B, Nz + Nx, dim)."""
        tokens = self.patch_embed.pack(template, search) + self.positions()
        candidates = self.candidates()
        for index in range(self.spec.depth):
            tokens = self.run_block(index, tokens, candidates)
        return candidates.restore(self.norm(tokens))

    def candidates(self) -> Candidates:
        """All search tokens, before any is eliminated."""
        return Candidates(self.spec.template_grid, self.spec.grid**2)

    def keep_now(self) -> float:
        """Share of search tokens that the next elimination keeps."""
        return self.keep if self.training else KEEP

    def run_block(self, index: int, tokens: Tensor, candidates: Candidates) -> Tensor:
        """One block, with elimination if the spec places it there."""
        if index in self.spec.eliminate_at:
            return candidates.run(self.blocks[index], tokens, self.keep_now())
        return self.blocks[index](tokens)


class ViTTracker(TrackingNetwork):
    """A ViT backbone and the CENTER head; subclasses say which backbone."""

    official_unused = r"backbone\.(cls_token|pos_embed)"
    backbone_class: type[nn.Module]
    spec: ViTSpec

    def __init__(self, spec: ViTSpec) -> None:
        super().__init__(spec)
        self.backbone = self.backbone_class(spec)
        self.box_head = CenterHead(spec.dim, spec.head_channels)

    def start_epoch(self, epoch: int) -> None:
        """Warms candidate elimination up: fewer search tokens are kept as training goes on.

        The public codes, whose epochs ``eliminate_during`` has, count from 1.
        """
        if self.spec.eliminate_at:
            self.backbone.keep = keep_ratio(epoch + 1, *self.spec.eliminate_during)


class OSTrack(ViTTracker):
    """OSTrack and its relatives; the spec tells them apart."""

    backbone_class = OSTrackBackbone
