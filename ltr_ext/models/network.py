"""What all trackers share: their geometry, the checks on their input, and what may be frozen."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from srft_plugin.errors import UserError, some
from srft_plugin.groups import operation_groups

FUSIONS = 4  # fusion blocks of a two-branch network: the public code's number
NOTHING = "(?!)"  # an expression that matches no name
Tokens = Tensor | tuple[Tensor, Tensor]  # (B, N, C): of one branch, or RGB and auxiliary


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """Geometry of a tracker.

    Attributes:
        name: name in the registry.
        template_size, search_size: sides of the two crops in pixels.
        template_factor, search_factor: side of each crop over that of a square target.
        context: how the crops of other targets grow: False, as sqrt(width * height); True, by an
            equal margin on all sides (``ltr_ext.data.crop``).
        stride: pixels per cell of the score map.
        in_channels: 3 (one image) or 6 (RGB, then the auxiliary modality).
        aux_only: the one image is the auxiliary one (Table IX).
        templates: templates that the network takes.
    """

    name: str
    template_size: int
    search_size: int
    template_factor: float = 2.0
    search_factor: float = 4.0
    context: bool = False
    stride: int = 16
    in_channels: int = 3
    aux_only: bool = False
    templates: int = 1

    def __post_init__(self) -> None:
        for field in ("template_size", "search_size"):
            size = getattr(self, field)
            if size <= 0 or size % self.stride:
                raise UserError(
                    f"{self.name}: {field} {size} is not a positive multiple of the stride "
                    f"{self.stride}; the nearest that is: "
                    f"{max(1, round(size / self.stride)) * self.stride}"
                )

    @property
    def reads_aux(self) -> bool:
        """Whether the auxiliary image is needed."""
        return self.in_channels == 6 or self.aux_only

    @property
    def template_grid(self) -> int:
        """Cells along a side of the template."""
        return self.template_size // self.stride

    @property
    def grid(self) -> int:
        """Cells along a side of the search region, and of the maps."""
        return self.search_size // self.stride


class TrackingNetwork(nn.Module):
    """A template and a search region in, score, size and offset maps and a box out.

    Subclasses set ``backbone``, called as ``backbone(template, search)`` and answering
    (B, tokens, C) with the search region's tokens last, or a pair of these, of the RGB and of the
    auxiliary branch; and ``box_head``.

    Attributes:
        spec: geometry.
        input_names: what ``forward`` is called with, by the names that a batch has for it
            (``ltr_ext.data.sampler.PairDataset``); images are normalised.
        criterion: name of what the network is trained with, in ``ltr_ext.actors.criteria``.
        metadata: what the checkpoint said of these weights; empty for a new network.
        whole_blocks: whether the backbone calls its blocks as they are; where it runs them in
            parts, they can be neither recomputed nor shared among processes one by one.
        position_pattern: expression that finds position embeddings by their names.
        peft_pattern: expression that finds the parameters which efficient tuning adds and trains.
        official_names: where names of the public checkpoint differ from ours, as (expression,
            replacement).
        official_unused: expression of whole names that the public checkpoint holds in vain.
    """

    input_names: tuple[str, ...] = ("template", "search")
    criterion: str = "center"
    whole_blocks: bool = True
    position_pattern: str = "pos_embed"
    peft_pattern: str = NOTHING
    official_names: tuple[tuple[str, str], ...] = ()
    official_unused: str = NOTHING
    backbone: nn.Module
    box_head: nn.Module

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.metadata: dict = {}
        self._head_frozen = False

    def forward(self, template: Tensor, search: Tensor) -> dict[str, Tensor]:
        """Locates the template's target in the search region.

        Args:
            template: (B, C, Hz, Wz) normalised images.
            search: (B, C, Hs, Ws) normalised images.

        Returns:
            ``score_map`` (B, 1, H, W) in (0, 1); ``size_map`` (B, 2, H, W), width and height over
            the side of the search region; ``offset_map`` (B, 2, H, W) in cells; ``pred_boxes``
            (B, 4), cxcywh in [0, 1] of the search region, at the highest score; and
            ``search_features`` (B, C, H, W), what the head saw. Two-branch networks add
            ``rgb_features`` and ``aux_features``, whose mean that is.

        Raises:
            UserError: the images are not what ``spec`` says.
        """
        self.check_pair(template, search)
        return self.locate(self.tokens(template, search))

    def tokens(self, template: Tensor, search: Tensor) -> Tokens:
        """Tokens of two batches of images, the search region's last."""
        return self.backbone(template, search)

    def locate(self, tokens: Tokens) -> dict[str, Tensor]:
        """Maps, boxes and features, as of ``forward``, from the tokens."""
        features = self.search_features(joined(tokens))
        branches = {}
        if isinstance(tokens, tuple):
            rgb, aux = map(self.search_features, tokens)
            branches = {"rgb_features": rgb, "aux_features": aux}
        return {**self.box_head(features), "search_features": features, **branches}

    def start_epoch(self, epoch: int) -> None:
        """Told by the trainer before each epoch (from 0); some networks change with it."""

    def search_features(self, tokens: Tensor) -> Tensor:
        """(B, tokens, C), the search region last, to (B, C, H, W)."""
        side = self.spec.grid
        return tokens[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))

    def check_pair(self, template: Tensor, search: Tensor) -> None:
        """Raises UserError unless these are images of the network's sizes, as many of each."""
        self.check_images("template", template, self.spec.template_size)
        self.check_images("search", search, self.spec.search_size)
        if template.shape[0] != search.shape[0]:
            raise UserError(
                f"{self.spec.name}: {len(template)} templates for {len(search)} search regions; "
                "expected as many"
            )

    def check_images(self, what: str, images: Tensor, size: int) -> None:
        """Raises UserError unless ``images`` is a float (B, in_channels, size, size) tensor."""
        expected = f"(B, {self.spec.in_channels}, {size}, {size})"
        if not isinstance(images, Tensor):
            raise UserError(
                f"{self.spec.name}: {what} is a {type(images).__name__}; expected one tensor "
                f"{expected}"
            )
        if images.ndim != 4 or images.shape[1:] != (self.spec.in_channels, size, size):
            raise UserError(
                f"{self.spec.name}: {what} has shape {tuple(images.shape)}; expected {expected}"
            )
        if not images.is_floating_point():
            raise UserError(f"{self.spec.name}: {what} is {images.dtype}; normalise it first")

    def position_parameters(self) -> list[nn.Parameter]:
        """Position embeddings: fixed while the network is tuned, as in the public code."""
        return [
            value
            for name, value in self.named_parameters()
            if re.search(self.position_pattern, name)
        ]

    def freeze(self, head: bool = True) -> None:
        """Fixes what tuning leaves alone: position embeddings, and the box head (section III-A).

        Args:
            head: False trains the head too, the "complete" fine-tuning of Table VII.
        """
        for parameter in self.position_parameters():
            parameter.requires_grad_(False)
        self.box_head.requires_grad_(not head)
        self._head_frozen = head
        self.train(self.training)

    def requires_grad_(self, requires_grad: bool = True) -> TrackingNetwork:
        """Of all parameters; the head is no longer a frozen one."""
        self._head_frozen = False
        super().requires_grad_(requires_grad)
        return self.train(self.training)

    def base_name(self, name: str) -> str | None:
        """The RGB base network's name of what ``name`` is copied from; None for what is new.

        ``name`` is that of a tensor or of an operation (``srft_plugin.groups``).
        """
        return None if re.search(self.peft_pattern, name) else name

    def origin(self, name: str, base: TrackingNetwork) -> str | None:
        """``base_name``, or ``name`` itself where ``base`` is such a network, to be tuned further.

        ``name`` is that of a tensor or of an operation.
        """
        return name if type(base) is type(self) else self.base_name(name)

    def copy_base(self, base: TrackingNetwork) -> None:
        """Copies the weights of the RGB network that this one extends; what is new is left.

        Of a network of this kind, to be tuned further, it copies all.

        Raises:
            UserError: ``base`` lacks a tensor, has it in another shape, or is another network of
                efficient tuning.
        """
        source, state = base.state_dict(), self.state_dict()
        if type(base) is not type(self) and (lost := base.peft_parameter_names()):
            raise UserError(
                f"{self.spec.name} does not take over what {base.spec.name} has tuned: "
                f"{some(lost)}; as base, give the checkpoint of the RGB tracker that it is built on"
            )
        for name, value in state.items():
            if (origin := self.origin(name, base)) is None:
                continue
            if origin not in source or source[origin].shape != value.shape:
                found = tuple(source[origin].shape) if origin in source else "none"
                raise UserError(
                    f"{self.spec.name} does not extend {base.spec.name}: {name} "
                    f"{tuple(value.shape)} comes from the base network's {origin}, found {found}; "
                    "as base, give the checkpoint of the RGB tracker that it is built on"
                )
            state[name] = source[origin]
        self.load_state_dict(state)

    def prior_sources(self, base: TrackingNetwork) -> dict[str, str | None]:
        """Operations to those of ``base`` that ``copy_base`` takes them from; None for new ones.

        The prior sensitivity, measured on the base network, carries over along this map. An
        operation is a module that owns parameters ("backbone.fusion.0.attn.qkv"), or a parameter
        held by a container ("backbone.pos_embed_z").
        """
        return {operation: self.origin(operation, base) for operation in operation_groups(self)}

    def peft_parameter_names(self) -> list[str]:
        """Parameters that the network's own efficient tuning trains; empty for base networks."""
        return [name for name, _ in self.named_parameters() if re.search(self.peft_pattern, name)]

    def train(self, mode: bool = True) -> TrackingNetwork:
        """A frozen head keeps its batch statistics, so it stays in eval mode."""
        super().train(mode)
        if self._head_frozen:
            self.box_head.eval()
        return self


def joined(tokens: Tokens) -> Tensor:
    """Tokens of one branch as they are, those of two as their mean."""
    return tokens if isinstance(tokens, Tensor) else (tokens[0] + tokens[1]) / 2


def split_modalities(*images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(B, 6, H, W) images to pairs of RGB and auxiliary (B, 3, H, W)."""
    return [image.chunk(2, 1) for image in images]


def fusion_places(depth: int) -> tuple[int, ...]:
    """Blocks (zero-based) of ``depth`` that a fusion block follows: the last of every quarter."""
    return tuple(depth * quarter // FUSIONS - 1 for quarter in range(1, FUSIONS + 1))


def fuse_branches(
    rgb: Tensor,
    aux: Tensor,
    blocks: Iterable[tuple[nn.Module, nn.Module]],
    fusion: nn.ModuleList,
    places: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Two branches side by side, joined by fusion blocks (section III-A).

    Args:
        rgb, aux: (B, N, C) tokens.
        blocks: pairs of the branches' blocks.
        fusion: blocks on the (B, 2 N, C) tokens of both.
        places: pairs (zero-based) that a fusion block follows.
    """
    for index, (block_rgb, block_aux) in enumerate(blocks):
        rgb, aux = block_rgb(rgb), block_aux(aux)
        if index in places:
            fuse = fusion[places.index(index)]
            rgb, aux = fuse(torch.cat((rgb, aux), 1)).chunk(2, 1)
    return rgb, aux


def two_branch_origin(name: str, fused: Sequence[int]) -> str:
    """The base network's name of a two-branch network's tensor or operation.

    Args:
        fused: numbers of the base network's blocks that the fusion blocks are copied from.
    """
    head, is_fusion, rest = name.partition("backbone.fusion.")
    if is_fusion:
        index, _, inner = rest.partition(".")
        return f"{head}backbone.blocks.{fused[int(index)]}.{inner}"
    return re.sub(r"_(rgb|aux)(?=\.|$)", "", name)


def sincos_positions(side: int, dim: int) -> Tensor:
    """(1, side * side, dim) sines and cosines of the position from the centre of the grid.

    Half of the channels encode the row, half the column, with the wavelengths of MAE. Template and
    search region have the same scale of pixels, and the target of both is near the centre, so the
    centre is the origin that makes the two encodings comparable.
    """
    steps = torch.arange(side) - (side - 1) / 2
    rates = torch.exp(torch.arange(dim // 4) * (-math.log(10000.0) * 4 / dim))
    angles = steps[:, None] * rates
    line = torch.cat((angles.sin(), angles.cos()), 1)
    rows = line[:, None].expand(side, side, -1)
    return torch.cat((rows, rows.transpose(0, 1)), 2).reshape(1, side * side, dim)
