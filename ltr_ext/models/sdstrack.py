"""SDSTrack: one frozen ViT runs on both modalities and, at four blocks, across them.

Hou et al., "SDSTrack: Self-Distillation Symmetric Adapter Learning", CVPR 2024. Only adapters, the
auxiliary patch embedding and the last norm train, with a masked copy of the input as a second
student.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .network import split_modalities
from .ostrack import OSTrackBackbone, ViTSpec, ViTTracker
from .vit import Block, Candidates, PatchEmbed, initialise

MASKED = 0.3  # share of tokens hidden from the masked copy, in each modality


@dataclass(frozen=True, kw_only=True)
class SDSTrackSpec(ViTSpec):
    """OSTrack whose blocks ``cross_at`` (zero-based) also run across the modalities."""

    in_channels: int = 6
    cross_at: tuple[int, ...] = (3, 6, 9, 11)


class Adapter(nn.Module):
    """Two layers with a bottleneck of a quarter of the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.D_fc1 = nn.Linear(dim, dim // 4)
        self.D_fc2 = nn.Linear(dim // 4, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.D_fc2(functional.gelu(self.D_fc1(tokens)))


class AdapterBlock(Block):
    """A ViT block that serves three passes: RGB as it is, auxiliary and cross with adapters."""

    def __init__(self, dim: int, heads: int, drop_path: float, crosses: bool) -> None:
        super().__init__(dim, heads, drop_path)
        self.Space_X_DTE_Adapter, self.MLP_X_DTE_Adapter = Adapter(dim), Adapter(dim)
        if crosses:
            self.Space_X_X_DTE_Adapter, self.MLP_X_X_DTE_Adapter = Adapter(dim), Adapter(dim)

    def run(
        self, tokens: Tensor, candidates: Candidates | None, keep: float, auxiliary: bool
    ) -> Tensor:
        """The RGB or the auxiliary pass on (B, N, C); no elimination if ``candidates`` is None."""
        normed = self.norm1(tokens)
        if candidates is None:
            mixed, focus = self.attn(normed), None
        else:
            mixed, focus = self.attn.forward_with_focus(normed, candidates.query)
        if auxiliary:
            mixed = mixed + self.Space_X_DTE_Adapter(mixed)
        tokens = tokens + self.drop_path1(mixed)
        if candidates is not None:
            tokens = candidates.eliminate(tokens, focus, keep)
        return self._mlp(tokens, self.MLP_X_DTE_Adapter if auxiliary else None)

    def cross(self, tokens: Tensor) -> Tensor:
        """(B, 2 N, C), RGB then auxiliary: every token attends to the other modality alone."""
        q, k, v = self.attn.split_heads(self.norm1(tokens))
        k, v = (torch.cat(values.chunk(2, 2)[::-1], 2) for values in (k, v))
        # The two modalities as heads of their own: fused kernels take four axes.
        q, k, v = (values.unflatten(2, (2, -1)).flatten(1, 2) for values in (q, k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v)
        mixed = mixed.unflatten(1, (-1, 2)).flatten(2, 3)
        mixed = self.attn.proj(mixed.transpose(1, 2).flatten(2))
        mixed = mixed + self.Space_X_X_DTE_Adapter(mixed)
        return self._mlp(tokens + self.drop_path1(mixed), self.MLP_X_X_DTE_Adapter)

    def _mlp(self, tokens: Tensor, adapter: Adapter | None) -> Tensor:
        normed = self.norm2(tokens)
        mixed = self.mlp(normed)
        if adapter is None:
            return tokens + mixed  # without stochastic depth, as in the public code
        return tokens + self.drop_path2(mixed + 0.5 * adapter(normed))


class SDSTrackBackbone(OSTrackBackbone):
    """Both modalities through the same blocks; the output is the norm of their mean."""

    def __init__(self, spec: SDSTrackSpec) -> None:
        super().__init__(spec)
        self.blocks = nn.ModuleList(
            AdapterBlock(spec.dim, spec.heads, rate, index in spec.cross_at)
            for index, rate in enumerate(spec.drop_paths())
        )
        self.patch_embed_multimodal = PatchEmbed(spec.stride, 3, spec.dim)
        self.apply(initialise)

    def forward(self, template: Tensor, search: Tensor) -> Tensor:
        """(B, 6, Hz, Wz) and (B, 6, Hs, Ws) to (B, Nz + Nx, dim)."""
        return self.fuse(*self.patches(template, search))[0]

    def patches(self, template: Tensor, search: Tensor) -> tuple[Tensor, Tensor]:
        """(B, Nz + Nx, C) patches of the RGB images and of the auxiliary ones."""
        (template_rgb, template_aux), (search_rgb, search_aux) = split_modalities(template, search)
        rgb = self.patch_embed.pack(template_rgb, search_rgb)
        return rgb, self.patch_embed_multimodal.pack(template_aux, search_aux)

    def fuse(self, rgb: Tensor, aux: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The backbone's output, and the joint tokens after every block across modalities."""
        positions = self.positions()
        rgb, aux = rgb + positions, aux + positions
        left_rgb, left_aux = self.candidates(), self.candidates()
        joint = []
        for index, block in enumerate(self.blocks):
            eliminates = index in self.spec.eliminate_at
            rgb = block.run(rgb, left_rgb if eliminates else None, self.keep_now(), auxiliary=False)
            aux = block.run(aux, left_aux if eliminates else None, self.keep_now(), auxiliary=True)
            if index in self.spec.cross_at:
                joint.append(block.cross(torch.cat((rgb, aux), 1)))
                rgb, aux = joint[-1].chunk(2, 1)
        return self.norm((left_rgb.restore(rgb) + left_aux.restore(aux)) / 2), joint


class SDSTrack(ViTTracker):
    """SDSTrack; in training, a masked copy of the input goes through it, too."""

    criterion = "distilled"
    whole_blocks = False
    peft_pattern = r"Adapter|multimodal|backbone\.norm\."
    # The public network has adapters for the cross pass in all blocks, and runs it in four.
    official_unused = (
        r"backbone\.(cls_token|pos_embed|pos_embed_(z_z|x_x)_dte)"
        r"|backbone\.blocks\.([0-24578]|10)\.\w+_X_X_DTE_Adapter\..*"
    )
    backbone_class = SDSTrackBackbone
    spec: SDSTrackSpec

    def base_name(self, name: str) -> str | None:
        return None if "Adapter" in name or "multimodal" in name else name

    def forward(self, template: Tensor, search: Tensor) -> dict[str, Any]:
        """As ``TrackingNetwork.forward``; in training mode also what the masked copy gives.

        In the copy, a token of RGB is zero with probability 0.3; where it is not, the auxiliary
        one is, with the same probability: no place loses both.

        Returns:
            In training mode also ``masked``, the output for the copy, and ``distance`` (B,), the
            mean squared difference of the joint tokens of input and copy.
        """
        if not self.training:
            return super().forward(template, search)
        self.check_pair(template, search)
        rgb, aux = self.backbone.patches(template, search)
        chance = torch.rand(2, *rgb.shape[:2], 1, device=rgb.device)
        hide_rgb = chance[0] < MASKED
        hide_aux = ~hide_rgb & (chance[1] < MASKED)
        clean, clean_joint = self.backbone.fuse(rgb, aux)
        masked, masked_joint = self.backbone.fuse(
            rgb.masked_fill(hide_rgb, 0), aux.masked_fill(hide_aux, 0)
        )
        pairs = zip(clean_joint, masked_joint, strict=True)
        distances = [(one - other).square().mean((1, 2)) for one, other in pairs]
        distance = torch.stack(distances).mean(0)
        return self.locate(clean) | {"masked": self.locate(masked), "distance": distance}
