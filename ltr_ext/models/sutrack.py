"""SUTrack: one network for RGB, RGB-X and language; and the two-branch network on it.

Chen et al., "SUTrack: Towards Simple and Unified Single Object Tracking", AAAI 2025. Text comes as
tokens; the CLIP text tower that makes them is apart (``text.SentenceEncoder``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from srft_plugin.errors import UserError

from .head import CenterHead
from .itpn import MainBlock, Stem, itpn_blocks
from .network import (
    NetworkSpec,
    TrackingNetwork,
    fuse_branches,
    fusion_places,
    joined,
    two_branch_origin,
)
from .vit import initialise, layer_norm

TASKS = 5  # RGB, language, depth, thermal, event: what the task head tells apart


@dataclass(frozen=True, kw_only=True)
class SUTrackSpec(NetworkSpec):
    """Sizes of a SUTrack network.

    Attributes:
        dim, stage_depth, depth: of Fast-iTPN (``itpn.itpn_blocks``).
        templates: templates that the network takes; one alone is repeated.
        head_channels: first width of the CENTER head.
        drop_path: stochastic depth in training.
    """

    in_channels: int = 6
    dim: int = 512
    stage_depth: int = 3
    depth: int = 24
    templates: int = 2
    head_channels: int = 256
    drop_path: float = 0.1

    def two_branch(self) -> SUTrackSpec:
        """The spec of the two-branch network on this one."""
        return replace(self, name=f"two_branch_{self.name}")

    @property
    def fuse_after(self) -> tuple[int, ...]:
        """Main blocks (zero-based) that a fusion block follows in the two-branch network."""
        return fusion_places(self.depth)


class TokenRoles(nn.Module):
    """What tokens learn of their place and role: a base class of backbones, for its names."""

    def __init__(self, spec: SUTrackSpec) -> None:
        super().__init__()
        self.spec = spec
        self.cls_token = nn.Parameter(torch.zeros(1, 1, spec.dim))
        places = spec.grid**2 + spec.template_grid**2
        self.pos_embed = nn.Parameter(torch.zeros(1, places, spec.dim))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.template_background_token = nn.Parameter(torch.zeros(spec.dim))
        self.template_foreground_token = nn.Parameter(torch.zeros(spec.dim))
        self.search_token = nn.Parameter(torch.zeros(spec.dim))

    def pack(self, search: Tensor, templates: list[Tensor], coverage: list[Tensor]) -> Tensor:
        """Class token, search region, templates, with positions and roles: (B, N, C).

        A template token is a mix of foreground and background by the share ``coverage`` (B, Nz) of
        its patch that the target's box covers.
        """
        places = self.pos_embed.split([self.spec.grid**2, self.spec.template_grid**2], 1)
        tokens = [self.cls_token.expand(search.shape[0], -1, -1)]
        tokens.append(search + places[0] + self.search_token)
        for template, share in zip(templates, coverage, strict=True):
            share = share[:, :, None]
            role = share * self.template_foreground_token
            role = role + (1 - share) * self.template_background_token
            tokens.append(template + places[1] + role)
        return torch.cat(tokens, 1)

    def patches(self, stem: nn.Module, stages: Sequence[nn.Module], images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, H * W / 256, dim): stem and convolutional stages."""
        maps = stem(images)
        for stage in stages:
            maps = stage(maps)
        return maps.flatten(1, 2)


class SUTrackBackbone(TokenRoles):
    """Fast-iTPN on all tokens."""

    def __init__(self, spec: SUTrackSpec) -> None:
        super().__init__(spec)
        self.patch_embed = Stem(6, spec.dim // 4)
        self.blocks = itpn_blocks(spec.dim, spec.stage_depth, spec.depth, spec.drop_path)
        self.fc_norm = layer_norm(spec.dim)
        self.apply(initialise)

    def forward(
        self, templates: list[Tensor], search: Tensor, coverage: list[Tensor], text: Tensor | None
    ) -> Tensor:
        """Tokens (B, 1 + Nx + templates * Nz + text, dim): class, search region, templates."""
        stages, main = self.blocks[: -self.spec.depth], self.blocks[-self.spec.depth :]
        search, *templates = (
            self.patches(self.patch_embed, stages, images) for images in (search, *templates)
        )
        tokens = self.pack(search, templates, coverage)
        if text is not None:
            tokens = torch.cat((tokens, text), 1)
        for block in main:
            tokens = block(tokens)
        return self.fc_norm(tokens)


class TwoBranchSUTrackBackbone(TokenRoles):
    """Two Fast-iTPN that share positions and roles, and fusion blocks on the tokens of both."""

    def __init__(self, spec: SUTrackSpec) -> None:
        super().__init__(spec)
        sizes = (spec.dim, spec.stage_depth, spec.depth, spec.drop_path)
        self.patch_embed_rgb = Stem(3, spec.dim // 4)
        self.patch_embed_aux = Stem(3, spec.dim // 4)
        self.blocks_rgb = itpn_blocks(*sizes)
        self.blocks_aux = itpn_blocks(*sizes)
        self.fuse_after = spec.fuse_after
        main = [block for block in self.blocks_rgb if isinstance(block, MainBlock)]
        self.fusion = nn.ModuleList(
            MainBlock(spec.dim, main[place].drop_path.drop_prob) for place in self.fuse_after
        )
        self.fc_norm_rgb = layer_norm(spec.dim)
        self.fc_norm_aux = layer_norm(spec.dim)
        self.apply(initialise)

    def forward(
        self, templates: list[Tensor], search: Tensor, coverage: list[Tensor], text: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """As ``SUTrackBackbone.forward``, of the RGB and of the auxiliary branch."""
        branches = []
        for part, stem, blocks in (
            (slice(0, 3), self.patch_embed_rgb, self.blocks_rgb),
            (slice(3, 6), self.patch_embed_aux, self.blocks_aux),
        ):
            stages = blocks[: -self.spec.depth]
            own = [self.patches(stem, stages, images[:, part]) for images in (search, *templates)]
            tokens = self.pack(own[0], own[1:], coverage)
            branches.append(tokens if text is None else torch.cat((tokens, text), 1))
        main = (blocks[-self.spec.depth :] for blocks in (self.blocks_rgb, self.blocks_aux))
        blocks = zip(*main, strict=True)
        rgb, aux = fuse_branches(*branches, blocks, self.fusion, self.fuse_after)
        return self.fc_norm_rgb(rgb), self.fc_norm_aux(aux)


class TaskHead(nn.Module):
    """Which task a sample is of, from the mean of all tokens: a training signal."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        sizes = (dim, 256, 256, TASKS)
        self.layers = nn.ModuleList(nn.Linear(sizes[i], sizes[i + 1]) for i in range(3))

    def forward(self, features: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            features = functional.relu(layer(features))
        return self.layers[-1](features)


class SUTrack(TrackingNetwork):
    """SUTrack; for an RGB video, the auxiliary channels repeat the RGB ones."""

    input_names = ("template", "search", "template_box")
    official_names = (
        (r"^encoder\.body\.", "backbone."),
        (r"^task_decoder\.", "task_head."),
        (r"^decoder\.", "box_head."),
    )
    official_unused = r"text_encoder\..*"
    backbone_class: type[nn.Module] = SUTrackBackbone
    spec: SUTrackSpec

    def __init__(self, spec: SUTrackSpec) -> None:
        super().__init__(spec)
        self.backbone = self.backbone_class(spec)
        self.box_head = CenterHead(spec.dim, spec.head_channels)
        self.task_head = TaskHead(spec.dim).requires_grad_(False)
        self.register_buffer("no_text", None, persistent=False)

    def forward(
        self,
        template: Tensor | Sequence[Tensor],
        search: Tensor,
        template_box: Tensor | Sequence[Tensor] | None = None,
        text: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """As ``TrackingNetwork.forward``, and ``task_logits`` (B, 1, TASKS).

        Args:
            template: (B, 6, Hz, Wz); for each of ``spec.templates``, one such tensor in a
                sequence or along a second dimension, (B, templates, 6, Hz, Wz).
            search: (B, 6, Hs, Ws).
            template_box: (B, 4) cxcywh in [0, 1] of the template, or as many as templates, in the
                same way; by default centred, with the area that ``spec.template_factor`` gives.
            text: (B, n, dim) tokens of a sentence; by default ``no_text`` (1, 1, dim) if that is
                set, else none.
        """
        templates = _listed(template, 4)
        for images in templates:
            self.check_pair(images, search)
        if template_box is None:
            # Filled on the device: a copy from the host would wait, and cannot be recorded.
            shape, side = (search.shape[0], 2), 1 / self.spec.template_factor
            parts = [torch.full(shape, value, device=search.device) for value in (0.5, side)]
            template_box = torch.cat(parts, 1)
        boxes = _listed(template_box, 2)
        for box in boxes:
            if box.shape != (search.shape[0], 4):
                raise UserError(
                    f"{self.spec.name}: template_box has shape {tuple(box.shape)}; expected "
                    f"({len(search)}, 4) for each template"
                )
        templates, boxes = (self._repeated(values) for values in (templates, boxes))
        coverage = [
            patch_coverage(box, self.spec.template_size, self.spec.stride).to(search.dtype)
            for box in boxes
        ]
        if text is None and self.no_text is not None:
            text = self.no_text.expand(search.shape[0], -1, -1)
        tokens = self.backbone(templates, search, coverage, text)
        task_logits = self.task_head(joined(tokens).mean(1, keepdim=True))
        return self.locate(tokens) | {"task_logits": task_logits}

    def requires_grad_(self, requires_grad: bool = True) -> SUTrack:
        """Of all parameters but the task head's, which no loss asks."""
        super().requires_grad_(requires_grad)
        self.task_head.requires_grad_(False)
        return self

    def search_features(self, tokens: Tensor) -> Tensor:
        """(B, tokens, C), the search region after the class token, to (B, C, H, W)."""
        side = self.spec.grid
        return tokens[:, 1 : 1 + side * side].transpose(1, 2).unflatten(2, (side, side))

    def _repeated(self, values: list[Tensor]) -> list[Tensor]:
        if len(values) == 1:
            return values * self.spec.templates
        if len(values) != self.spec.templates:
            raise UserError(
                f"{self.spec.name} takes 1 or {self.spec.templates} templates with their boxes, "
                f"not {len(values)}"
            )
        return values


class TwoBranchSUTrack(SUTrack):
    """The two-branch RGB-X network of section III-A on SUTrack."""

    backbone_class = TwoBranchSUTrackBackbone

    def base_name(self, name: str) -> str | None:
        if "patch_embed" in name:
            return None  # of another shape: see copy_base
        stages = 2 * (self.spec.stage_depth + 1)
        return two_branch_origin(name, [stages + place for place in self.spec.fuse_after])

    def copy_base(self, base: TrackingNetwork) -> None:
        """As ``TrackingNetwork.copy_base``; each branch sees one modality where the base sees two.

        A branch's patch embedding is the sum of the two halves of the base network's: on one image
        it does what the base network does on that image given twice.
        """
        super().copy_base(base)
        if isinstance(base, TwoBranchSUTrack):
            return
        stem = base.backbone.patch_embed.proj
        for own in (self.backbone.patch_embed_rgb.proj, self.backbone.patch_embed_aux.proj):
            own.weight.data.copy_(sum(stem.weight.data.chunk(2, 1)))
            own.bias.data.copy_(stem.bias.data)


def _listed(values: Tensor | Sequence[Tensor], dimensions: int) -> list[Tensor]:
    """What is given per template as a list; a tensor of so many ``dimensions`` is of one."""
    if isinstance(values, Tensor):
        return [values] if values.ndim <= dimensions else list(values.unbind(1))
    return list(values)


def patch_coverage(box: Tensor, size: int, patch: int) -> Tensor:
    """Share of each patch's pixels inside a box: (B, 4) cxcywh in [0, 1] to (B, patches)."""
    pixels = torch.arange(size, device=box.device)
    shares = []
    for centre, extent in ((box[:, 0], box[:, 2]), (box[:, 1], box[:, 3])):
        start = ((centre - extent / 2) * size)[:, None]
        inside = (pixels >= start) & (pixels < start + (extent * size)[:, None])
        shares.append(inside.to(box.dtype).unflatten(1, (-1, patch)).mean(2))
    return (shares[1][:, :, None] * shares[0][:, None]).flatten(1)
