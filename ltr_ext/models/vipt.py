"""ViPT: OSTrack with prompts that the auxiliary modality writes into the token stream.

Zhu et al., "Visual Prompt Multi-Modal Tracking", CVPR 2023. Only the prompts train.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .network import split_modalities
from .ostrack import OSTrackBackbone, ViTSpec, ViTTracker
from .vit import PatchEmbed, Pointwise, layer_norm


@dataclass(frozen=True, kw_only=True)
class ViPTSpec(ViTSpec):
    """OSTrack with prompts before the first ``prompts`` blocks: all (deep) or 1 (shallow).

    Attributes:
        hidden: channels inside a prompt block.
    """

    in_channels: int = 6
    prompts: int = 12
    hidden: int = 8


class PromptedBackbone(OSTrackBackbone):
    """OSTrack whose first blocks each get a prompt, made of the tokens and the last prompt.

    Args:
        prompt_blocks: one per prompt; called with tokens and last prompt, both (B, N, C).
    """

    def __init__(self, spec: ViTSpec, prompt_blocks: Iterable[nn.Module]) -> None:
        super().__init__(spec)
        self.prompt_blocks = nn.ModuleList(prompt_blocks)
        self.prompt_norms = nn.ModuleList(layer_norm(spec.dim) for _ in self.prompt_blocks)

    def run(self, rgb: Tensor, aux: Tensor, guide: Tensor | float = 0.0) -> Tensor:
        """(B, Nz + Nx, C) RGB tokens and first prompt to the output; ``guide`` joins later ones."""
        prompt = self.prompt(0, rgb, aux, 0.0)
        tokens = rgb + prompt + self.positions()
        candidates = self.candidates()
        for index in range(self.spec.depth):
            if 0 < index < len(self.prompt_blocks):
                prompt = self.prompt(index, candidates.restore(tokens), prompt, guide)
                tokens = tokens + candidates.select(prompt)
            tokens = self.run_block(index, tokens, candidates)
        return candidates.restore(self.norm(tokens))

    def prompt(self, index: int, tokens: Tensor, last: Tensor, guide: Tensor | float) -> Tensor:
        """(B, Nz + Nx, C) prompt before block ``index``; template and search region apart."""
        tokens = self.prompt_norms[max(index - 1, 0)](tokens)
        last = self.prompt_norms[index](last) + guide
        border = [self.pos_embed_z.shape[1]]
        pairs = zip(tokens.tensor_split(border, 1), last.tensor_split(border, 1), strict=True)
        return torch.cat([self.prompt_blocks[index](*pair) for pair in pairs], 1)


class ViPTBackbone(PromptedBackbone):
    """The first prompt is the auxiliary image, in patches."""

    def __init__(self, spec: ViPTSpec) -> None:
        super().__init__(spec, (PromptBlock(spec.dim, spec.hidden) for _ in range(spec.prompts)))
        self.patch_embed_prompt = PatchEmbed(spec.stride, 3, spec.dim)

    def forward(self, template: Tensor, search: Tensor) -> Tensor:
        """(B, 6, Hz, Wz) and (B, 6, Hs, Ws) to (B, Nz + Nx, dim)."""
        (template_rgb, template_aux), (search_rgb, search_aux) = split_modalities(template, search)
        return self.run(
            self.patch_embed.pack(template_rgb, search_rgb),
            self.patch_embed_prompt.pack(template_aux, search_aux),
        )


class PromptBlock(nn.Module):
    """Tokens and previous prompt, each projected to a few channels, joined and projected back."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.conv0_0 = Pointwise(dim, hidden)
        self.conv0_1 = Pointwise(dim, hidden)
        self.conv1x1 = Pointwise(hidden, dim)
        self.fovea = Fovea()

    def forward(self, tokens: Tensor, previous: Tensor) -> Tensor:
        return self.conv1x1(self.fovea(self.conv0_0(tokens)) + self.conv0_1(previous))


class Fovea(nn.Module):
    """Weighs each channel by a softmax over the positions."""

    def __init__(self) -> None:
        super().__init__()
        self.smooth = nn.Parameter(torch.full((1,), 10.0))

    def forward(self, tokens: Tensor) -> Tensor:
        return (tokens * self.smooth).softmax(1) * tokens


class ViPT(ViTTracker):
    """OSTrack with a prompt per block (deep) or before the first (shallow)."""

    peft_pattern = "prompt"
    backbone_class = ViPTBackbone
    spec: ViPTSpec
