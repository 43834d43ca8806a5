"""A network's parts in a form that computes the same with fewer operations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.layers import Mlp
from torch import nn

from ltr_ext.models.head import CenterHead
from ltr_ext.models.network import TrackingNetwork
from ltr_ext.models.ostrack import OSTrackBackbone
from ltr_ext.models.two_branch import TwoBranchBackbone
from ltr_ext.models.vit import PatchEmbed
from pytracking_ext.engine import packed, quantised
from pytracking_ext.engine.blocks import (
    FusedBackbone,
    PatchLinear,
    StackedBackbone,
    StackedLinear,
)
from pytracking_ext.engine.heads import DenseHead, FusedHead, InFloat32
from pytracking_ext.engine.precision import has_kernels
from srft_plugin.errors import UserError

PRODUCTS = (nn.Linear, nn.Conv2d, PatchLinear, StackedLinear)


def fuse(
    network: TrackingNetwork, dtype: torch.dtype = torch.float32, pack: bool = True
) -> TrackingNetwork:
    """``network`` in eval mode with its parts replaced by faster ones where there are any.

    Args:
        dtype: of the weights of the backbone's products: bfloat16 and float16 run in autocast, int8
            in ``quantised``. The norms, the sums over the blocks and the head stay in float32, as
            boxes are read from them (but for the first layers of a CENTER head, beside the former).
        pack: on a CPU, arrange the weights of wide layers for its product (``packed``);
            torch.compile wants them as they are.

    Raises:
        UserError: int8, and a weight is NaN or infinite.
    """
    if dtype == torch.int8:
        _check_finite(network)  # the quantised weights would hide it
    network.requires_grad_(False)
    device = next(network.parameters()).device
    by_kernels = has_kernels(device)
    if isinstance(network.box_head, CenterHead):
        low = torch.float32 if dtype == torch.int8 else dtype
        head = FusedHead(network.box_head, low)
        network.box_head = DenseHead(head) if by_kernels else head
    if dtype == torch.int8:
        _replace_linear(network, quantised.Int8Linear, quantised.WORTHWHILE)
        return network
    if by_kernels:
        for module in list(network.modules()):
            if isinstance(module, PatchEmbed):
                module.proj = PatchLinear(module.proj)
    pack = pack and device.type == "cpu" and packed.available()
    two_branch = isinstance(network.backbone, TwoBranchBackbone)
    # There is no batched product of packed weights; wide branches gain more by packing.
    if two_branch and not (pack and network.spec.dim >= packed.WORTHWHILE):
        network.backbone = StackedBackbone(network.backbone, by_kernels)
    elif by_kernels and type(network.backbone) is OSTrackBackbone and not network.spec.eliminate_at:
        network.backbone = FusedBackbone(network.backbone)
    if dtype != torch.float32:
        in_head = set(network.box_head.modules())
        for module in network.modules():
            if isinstance(module, PRODUCTS) and module not in in_head:
                for values in module.parameters(recurse=False):
                    values.data = values.to(dtype)
    if pack:
        _replace_linear(network, packed.PackedLinear, packed.WORTHWHILE)
        _join_gelu(network)
    if dtype != torch.float32:
        network.box_head = InFloat32(network.box_head)
    return network


def _check_finite(network: TrackingNetwork) -> None:
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(
                f"{network.spec.name}: {name} is not finite, so it has no int8 form; its training "
                "has diverged"
            )


def _replace_linear(
    network: TrackingNetwork, kind: Callable[[nn.Linear], nn.Module], least: int
) -> None:
    """Puts ``kind`` in place of the linear layers outside of the head that are ``least`` wide."""
    in_head = set(network.box_head.modules())
    for name, module in list(network.named_modules()):
        if type(module) is not nn.Linear or module in in_head:
            continue
        if min(module.in_features, module.out_features) >= least:
            network.set_submodule(name, kind(module))


def _join_gelu(network: TrackingNetwork) -> None:
    """Lets packed products do the GELU after them."""
    for module in network.modules():
        if not isinstance(module, Mlp) or not isinstance(module.fc1, packed.PackedLinear):
            continue
        if isinstance(module.act, nn.GELU) and module.act.approximate == "none":
            module.fc1.then, module.act = "gelu", nn.Identity()
