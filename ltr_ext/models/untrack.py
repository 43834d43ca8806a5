"""UnTrack: one network for depth, thermal and event cameras.

Wu et al., "Single-Model and Any-Modality for Video Object Tracking", CVPR 2024. OSTrack with
low-rank prompts, low-rank updates of the attention, and edges as the view that modalities share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltr_ext.data.representation import MODALITIES, MODALITY_INDEX
from srft_plugin.errors import UserError, unknown
from srft_plugin.precision import widened

from .network import split_modalities
from .ostrack import ViTSpec, ViTTracker
from .vipt import PromptedBackbone
from .vit import Attention, PatchEmbed, initialise

WINDOW = 7  # pixels: neighbourhood and reach of the edges


@dataclass(frozen=True, kw_only=True)
class UnTrackSpec(ViTSpec):
    """OSTrack with low-rank prompts.

    Attributes:
        attention_rank, modality_rank, prompt_rank: of the low-rank parts.
    """

    in_channels: int = 6
    attention_rank: int = 4
    modality_rank: int = 4
    prompt_rank: int = 8


class LowRankAttention(nn.Module):
    """Frozen attention and a low-rank linear path beside it."""

    def __init__(self, attention: Attention, dim: int, rank: int) -> None:
        super().__init__()
        self.lora_attn = attention
        self.prompt_w_a = nn.Linear(dim, rank, bias=False)
        self.prompt_w_b = nn.Linear(rank, dim, bias=False)

    def forward(self, tokens: Tensor, **options: Any) -> Tensor:
        """As ``Attention.forward``."""
        mixed = self.lora_attn(tokens, **options)
        return mixed + self.prompt_w_b(self.prompt_w_a(tokens))

    def forward_with_focus(self, tokens: Tensor, query: int) -> tuple[Tensor, Tensor]:
        """As ``Attention.forward_with_focus``."""
        mixed, focus = self.lora_attn.forward_with_focus(tokens, query)
        return mixed + self.prompt_w_b(self.prompt_w_a(tokens)), focus


class ModalityPrompt(nn.Module):
    """The first prompt: the auxiliary tokens by their modality's projection, guided by edges."""

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__()
        self.proj_d, self.proj_t, self.proj_e = (nn.Linear(dim, rank) for _ in range(3))
        self.proj_grad = nn.Linear(dim, rank)
        self.proj_fuse = nn.Linear(3 * rank, rank)
        self.fuse = nn.Linear(rank, rank)
        self.proj_back = nn.Linear(rank, dim)

    def forward(self, tokens: Tensor, edges: Tensor, modality: Tensor) -> Tensor:
        """(B, N, C) tokens of modality (B,), a value of ``MODALITY_INDEX``, and edge tokens."""
        projections = (self.proj_d, self.proj_t, self.proj_e)
        own = [
            projection(tokens * (modality == index)[:, None, None])
            for index, projection in enumerate(projections, 1)
        ]
        low = self.proj_fuse(torch.cat(own, 2)) + self.fuse(self.proj_grad(edges))
        return self.proj_back(low) + edges


class ExchangeBlock(nn.Module):
    """Tokens and last prompt swap the quarter that matters least, at a low rank."""

    def __init__(self, dim: int, rank: int) -> None:
        super().__init__()
        for source in ("x", "mod"):  # tokens, last prompt
            self.add_module(f"gumbel_{source}", nn.Linear(dim, 1))
            self.add_module(f"proj_{source}", nn.Linear(dim, rank))
            self.add_module(f"proj_res_{source}", nn.Linear(dim, rank))
            self.add_module(f"proj_fuse_lvl_{source}", nn.Linear(2 * rank, rank))
        self.proj_back = nn.Linear(rank, dim)

    def forward(self, tokens: Tensor, last: Tensor) -> Tensor:
        exchanged = self._exchange("x", tokens, last) + self._exchange("mod", last, tokens)
        return self.proj_back(exchanged)

    def _exchange(self, source: str, kept: Tensor, offered: Tensor) -> Tensor:
        """Best quarter of ``kept``, worst quarter from ``offered``, the sum of both between."""
        score, main, rest, join = (
            self.get_submodule(f"{part}_{source}")
            for part in ("gumbel", "proj", "proj_res", "proj_fuse_lvl")
        )
        weights = score(kept)[..., 0].softmax(1)
        best, worst = (hard_choice(weights, sign)[..., None] for sign in (1, -1))
        chosen = main(kept * best + offered * worst)
        between = rest((kept + offered) * (1 - worst - best))
        return join(torch.cat((chosen, between), 2))


def hard_choice(weights: Tensor, sign: int) -> Tensor:
    """(B, N): 1 for the quarter with the highest ``sign * weights``, else 0.

    The gradient is that of ``weights`` (straight-through).
    """
    chosen = (sign * weights).topk(weights.shape[1] // 4, dim=1).indices
    hard = torch.zeros_like(weights).scatter(1, chosen, 1.0)
    return hard - weights.detach() + weights


class Edges(nn.Module):
    """(B, C, S, S) to (B, 4 C, S, S): local maximum minus itself shifted in four directions.

    The shift is ``WINDOW`` / 2 pixels; places that it moves in from outside the image are 0.

    Args:
        side: S of the images in pixels.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        # Half a pixel lies between two: which of them is taken is the rounding of float32 in the
        # sampling grid of the public code. As a table it is the same on every device.
        line = torch.linspace(-1, 1, side, device="cpu") * (side - 1) / side
        places = [((line + shift + 1) * side - 1) / 2 for shift in (WINDOW / side, -WINDOW / side)]
        source = torch.stack(places).round().long()
        source[(source < 0) | (source >= side)] = side  # a black line beside the image
        self.register_buffer("source", source, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        margin, dtype = WINDOW // 2, images.dtype
        images = functional.pad(widened(images), [margin] * 4)  # bfloat16 would take other places
        peaks = functional.max_pool2d(images, WINDOW, 1)
        differences = []
        for axis, border in ((3, (0, 1)), (2, (0, 0, 0, 1))):
            framed = functional.pad(peaks, border)
            for source in self.source:
                difference = peaks - framed.index_select(axis, source)
                differences.append(difference.masked_fill(difference == peaks, 0))
        return torch.cat(differences, 1).to(dtype)


class UnTrackBackbone(PromptedBackbone):
    """OSTrack with low-rank attention updates."""

    def __init__(self, spec: UnTrackSpec) -> None:
        super().__init__(
            spec, [ExchangeBlock(spec.dim, spec.prompt_rank) for _ in range(spec.depth)]
        )
        for block in self.blocks:
            block.attn = LowRankAttention(block.attn, spec.dim, spec.attention_rank)
        self.shallow_prompt = ModalityPrompt(spec.dim, spec.modality_rank)
        self.patch_embed_prompt_dte = PatchEmbed(spec.stride, 3, spec.dim)
        self.patch_embed_prompt_grad = PatchEmbed(spec.stride, 27, spec.dim)
        self.patch_embed_prompt_edge = PatchEmbed(spec.stride, 1, spec.dim)
        self.edges = nn.ModuleList(map(Edges, (spec.template_size, spec.search_size)))
        self.apply(initialise)  # the low-rank paths, too: the public code sets them to 0 in vain

    def forward(self, template: Tensor, search: Tensor, modality: Tensor) -> Tensor:
        """(B, 6, Hz, Wz), (B, 6, Hs, Ws) and (B,) indices to (B, Nz + Nx, dim)."""
        rgb, aux = zip(*split_modalities(template, search), strict=True)
        outlines = [edges(images) for edges, images in zip(self.edges, aux, strict=True)]
        # The public network gives the edges of the auxiliary image twice, where the paper has
        # those of RGB and of the auxiliary image; official weights expect that.
        pairs = zip(rgb, outlines, strict=True)
        views = [torch.cat((image, edge, edge), 1) for image, edge in pairs]
        strongest = [edge.abs().amax(1, keepdim=True) for edge in outlines]
        prompt = self.shallow_prompt(
            self.patch_embed_prompt_dte.pack(*aux),
            self.patch_embed_prompt_grad.pack(*views),
            modality,
        )
        guide = self.patch_embed_prompt_edge.pack(*strongest)
        return self.run(self.patch_embed.pack(*rgb), prompt, guide)


class UnTrack(ViTTracker):
    """UnTrack; the samples of a batch may have different modalities."""

    input_names = ("template", "search", "modality")
    peft_pattern = "prompt"
    # The public network holds its blocks under two names; the second, read last, is what it runs.
    official_names = ((r"^backbone\.prompt_model\.", "backbone.blocks."),)
    backbone_class = UnTrackBackbone
    spec: UnTrackSpec

    def base_name(self, name: str) -> str | None:
        origin = super().base_name(name)
        return origin and origin.replace(".attn.lora_attn.", ".attn.")

    def forward(
        self, template: Tensor, search: Tensor, modality: Tensor | None = None
    ) -> dict[str, Tensor]:
        """As ``TrackingNetwork.forward``.

        Args:
            template: (B, 6, Hz, Wz).
            search: (B, 6, Hs, Ws).
            modality: (B,) values of ``MODALITY_INDEX``; by default all are
                ``metadata["modality"]``.
        """
        self.check_pair(template, search)
        if modality is None:
            name = self.metadata.get("modality")
            if name not in MODALITY_INDEX:
                raise unknown("modality", name, MODALITIES)
            modality = torch.full((search.shape[0],), MODALITY_INDEX[name], device=search.device)
        if modality.shape != (search.shape[0],):
            raise UserError(
                f"{self.spec.name}: modality has shape {tuple(modality.shape)}; expected one index "
                f"per sample, ({len(search)},)"
            )
        return self.locate(self.backbone(template, search, modality))
