"""A tracker that starts from an image classifier: from a ViT (MAE's) or from Swin."""

from __future__ import annotations

import math
import re
from pathlib import Path

from torch import Tensor

from srft_plugin.errors import UserError

from .checkpoint import listed, resized
from .network import TrackingNetwork
from .registry import build_network

# Names of the public Swin files, whose stages end with the merging that ours begin with.
_SWIN_NAMES = (
    (r"^patch_embed\.", r"stages.0.pre_stage."),
    (r"^layers\.(\d)\.blocks\.", r"stages.\1.blocks."),
    (r"^layers\.0\.downsample\.", r"stages.1.pre_stage."),
    (r"^layers\.1\.downsample\.", r"stages.2.pre_stage."),
)
_NEW = r"temporal_pos_embed_[zx]|norm2\.(weight|bias)"  # what a tracker's backbone adds


def is_classifier(state: dict[str, Tensor]) -> bool:
    """Whether these are the tensors of an image classifier (or of MAE's encoder)."""
    return "patch_embed.proj.weight" in state


def from_classifier(state: dict[str, Tensor], name: str, source: str | Path) -> TrackingNetwork:
    """The network ``name`` with a classifier's backbone; all outside the backbone is random.

    Position embeddings of a ViT are resized to the grids of template and search region.

    Args:
        state: tensors of the classifier; what comes after the tracker's last block is left out.
        name: a network on ViT (``ostrack256``) or on Swin (``swintrack_t224``).
        source: file that errors name.

    Raises:
        UserError: the backbone lacks a tensor, or has it in another shape.
    """
    network = build_network(name)
    wanted = network.backbone.state_dict()
    found = {_tracker_name(key, "layers.0.blocks.0.norm1.weight" in state): value
             for key, value in state.items()}  # fmt: skip
    if "pos_embed" in found:
        places = found.pop("pos_embed")
        if places.ndim == 3 and math.isqrt(places.shape[1]) ** 2 != places.shape[1]:
            places = places[:, 1:]  # without that of the class token
        for part in ("z", "x"):
            key = f"pos_embed_{part}"
            if key in wanted:
                found[key] = resized(places, wanted[key].shape[1], f"{source}: pos_embed")
    wrong = [
        f"{key} {tuple(value.shape)}"
        for key, value in wanted.items()
        if (key not in found or found[key].shape != value.shape) and not re.fullmatch(_NEW, key)
    ]
    if wrong:
        raise UserError(
            f"{source} is not the classifier of {name}: its backbone needs "
            f"{listed('tensors more', wrong)}"
        )
    network.backbone.load_state_dict(wanted | {k: v for k, v in found.items() if k in wanted})
    return network.eval()


def _tracker_name(key: str, is_swin: bool) -> str:
    for theirs, ours in _SWIN_NAMES if is_swin else ():
        key = re.sub(theirs, ours, key)
    return key
