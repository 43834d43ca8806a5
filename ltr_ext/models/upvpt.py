"""UPVPT: learned prompt tokens at every layer, on OSTrack and on SwinTrack.

Zhang et al., "Robust Tracking via Unifying Pretrain-Finetuning and Visual Prompt Tuning", MMAsia
2023, sections 3.2 and 3.3: each layer gets its own m prompt tokens, which it discards; prompts and
MLPs train. The paper does not state m.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .ostrack import OSTrackBackbone, ViTSpec, ViTTracker
from .swintrack import SwinTrack
from .vit import Candidates

PROMPTS = 10  # 0.1 % of ViT-B's parameters


@dataclass(frozen=True, kw_only=True)
class UPVPTSpec(ViTSpec):
    """OSTrack with ``prompts`` tokens before those of the template, at each layer."""

    prompts: int = PROMPTS


class UPVPTBackbone(OSTrackBackbone):
    """Eq. 3: each block reads its own prompts; only the image tokens go on to the next."""

    def __init__(self, spec: UPVPTSpec) -> None:
        super().__init__(spec)
        self.prompts = nn.Parameter(torch.empty(spec.depth, 1, spec.prompts, spec.dim))
        nn.init.trunc_normal_(self.prompts, std=0.02)

    def run_block(self, index: int, tokens: Tensor, candidates: Candidates) -> Tensor:
        """As in OSTrack; the prompts leave after the attention, for the MLP mixes no tokens."""
        block = self.blocks[index]
        prompts = self.prompts[index].expand(tokens.shape[0], -1, -1)
        number = prompts.shape[1]
        normed = block.norm1(torch.cat((prompts, tokens), 1))
        if index in self.spec.eliminate_at:
            mixed, focus = block.attn.forward_with_focus(normed, number + candidates.query)
            tokens = tokens + block.drop_path1(mixed[:, number:])
            tokens = candidates.eliminate(tokens, focus[:, number:], self.keep_now())
        else:
            tokens = tokens + block.drop_path1(block.attn(normed)[:, number:])
        return tokens + block.drop_path2(block.mlp(block.norm2(tokens)))


class UPVPT(ViTTracker):
    """OSTrack with prompts; they and the MLPs train."""

    whole_blocks = False
    peft_pattern = r"backbone\.(prompts|.*\.mlp\.)"
    backbone_class = UPVPTBackbone

    def base_name(self, name: str) -> str | None:
        return None if "prompt" in name else name


class UPVPTSwinTrack(SwinTrack):
    """SwinTrack whose windows all attend to the prompts of their block."""

    peft_pattern = r"backbone\..*(\.prompt$|\.mlp\.)"

    def base_name(self, name: str) -> str | None:
        return None if name.endswith(".prompt") else name
