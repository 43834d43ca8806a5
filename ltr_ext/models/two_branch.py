"""The two-branch RGB-X network (section III-A): a ViT per modality, and blocks that join them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from torch import Tensor, nn

from srft_plugin.errors import UserError

from .network import (
    TrackingNetwork,
    fuse_branches,
    fusion_places,
    split_modalities,
    two_branch_origin,
)
from .ostrack import OSTrack, Positions, ViTSpec, ViTTracker
from .sutrack import SUTrack, TwoBranchSUTrack
from .vit import Block, initialise, layer_norm


@dataclass(frozen=True, kw_only=True)
class TwoBranchSpec(ViTSpec):
    """A ViT tracker with an auxiliary branch; fusion comes after every quarter of the depth."""

    in_channels: int = 6

    @property
    def fuse_after(self) -> tuple[int, ...]:
        """Blocks (zero-based) that a fusion block follows, and is copied from."""
        return fusion_places(self.depth)

    @classmethod
    def of(cls, base: ViTSpec) -> TwoBranchSpec:
        """The spec of ``base`` with an auxiliary branch, as its public configurations have it.

        None of them eliminates candidates; all have search factor 4, but for DropTrack's 5.
        "ostrack256" and "ostrack256_ce" give "two_branch_ostrack256", "ostrack_tiny" gives
        "two_branch_tiny".
        """
        name = "two_branch_" + base.name.removesuffix("_ce").removeprefix("ostrack_")
        changes = {
            "name": name.removesuffix("_aux"),
            "in_channels": 6,
            "aux_only": False,
            "eliminate_at": (),
            "search_factor": base.search_factor if base.temporal else 4.0,
        }
        return cls(**asdict(base) | changes)


class TwoBranchBackbone(Positions):
    """Two branches that share position embeddings, and fusion blocks on the tokens of both."""

    def __init__(self, spec: TwoBranchSpec) -> None:
        super().__init__(spec)
        self.patch_embed_rgb = spec.patches()
        self.patch_embed_aux = spec.patches()
        self.blocks_rgb = spec.blocks()
        self.blocks_aux = spec.blocks()
        rates = spec.drop_paths()
        self.fuse_after = spec.fuse_after
        self.fusion = nn.ModuleList(
            Block(spec.dim, spec.heads, rates[index]) for index in spec.fuse_after
        )
        self.norm_rgb = layer_norm(spec.dim)
        self.norm_aux = layer_norm(spec.dim)
        self.apply(initialise)

    def forward(self, template: Tensor, search: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 6, Hz, Wz) and (B, 6, Hs, Ws) to (B, Nz + Nx, dim) of RGB and of the auxiliary."""
        (template_rgb, template_aux), (search_rgb, search_aux) = split_modalities(template, search)
        positions = self.positions()
        rgb = self.patch_embed_rgb.pack(template_rgb, search_rgb) + positions
        aux = self.patch_embed_aux.pack(template_aux, search_aux) + positions
        blocks = zip(self.blocks_rgb, self.blocks_aux, strict=True)
        rgb, aux = fuse_branches(rgb, aux, blocks, self.fusion, self.fuse_after)
        return self.norm_rgb(rgb), self.norm_aux(aux)


class TwoBranch(ViTTracker):
    """The RGB-X tracker that SRFT tunes: 12 + 12 blocks and 4 fusion blocks on ViT-B."""

    official_names = (
        ("patch_embed_event", "patch_embed_aux"),
        ("blocks_event", "blocks_aux"),
        ("blocks_cross", "fusion"),
        ("norm_event", "norm_aux"),
    )
    backbone_class = TwoBranchBackbone
    spec: TwoBranchSpec

    def base_name(self, name: str) -> str:
        return two_branch_origin(name, self.spec.fuse_after)


def two_branch_from(base: TrackingNetwork) -> TrackingNetwork:
    """The two-branch network with both branches and the fusion blocks copied from ``base``.

    Args:
        base: ``OSTrack`` in any size (DropTrack is one), or ``SUTrack``.

    Raises:
        UserError: ``base`` is of another kind.
    """
    if type(base) is OSTrack:
        network = TwoBranch(TwoBranchSpec.of(base.spec))
    elif type(base) is SUTrack:
        network = TwoBranchSUTrack(base.spec.two_branch())
    else:
        raise UserError(
            f"no two-branch network is defined on {type(base).__name__}; expected an RGB base "
            "network such as ostrack256, droptrack384, sutrack_b384 or ostrack_tiny"
        )
    network.copy_base(base)
    return network
