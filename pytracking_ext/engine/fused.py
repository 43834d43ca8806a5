"""A network's parts in a form that computes the same with fewer operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ltr_ext.models.head import TOWERS, CenterHead
from ltr_ext.models.network import TrackingNetwork, split_modalities
from ltr_ext.models.two_branch import TwoBranchBackbone
from ltr_ext.models.vit import Block
from pytracking_ext.engine import packed, quantised


def fuse(
    network: TrackingNetwork, dtype: torch.dtype = torch.float32, pack: bool = True
) -> TrackingNetwork:
    """``network`` in eval mode with its parts replaced by faster ones where there are any.

    Args:
        dtype: of the weights of the backbone's products: bfloat16 and float16 run in autocast, int8
            in ``quantised``. The norms, the sums over the blocks and the head stay in float32, as
            boxes are read from them.
        pack: on a CPU, arrange the weights of wide layers for its product (``packed``);
            torch.compile wants them as they are.
    """
    network.requires_grad_(False)
    if isinstance(network.box_head, CenterHead):
        network.box_head = FusedHead(network.box_head)
    if dtype == torch.int8:
        _replace_linear(network, quantised.Int8Linear, quantised.WORTHWHILE)
        return network
    on_cpu = next(network.parameters()).device.type == "cpu"
    pack = pack and on_cpu and packed.available()
    two_branch = isinstance(network.backbone, TwoBranchBackbone)
    # There is no batched product of packed weights; wide branches gain more by packing.
    if two_branch and not (pack and network.spec.dim >= packed.WORTHWHILE):
        network.backbone = StackedBackbone(network.backbone)
    if dtype != torch.float32:
        in_head = set(network.box_head.modules())
        for module in network.modules():
            if isinstance(module, PRODUCTS) and module not in in_head:
                module.to(dtype)
    if pack:
        _replace_linear(network, packed.PackedLinear, packed.WORTHWHILE)
    if dtype != torch.float32:
        network.box_head = InFloat32(network.box_head)
    return network


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


class FusedHead(CenterHead):
    """The CENTER head with batch norm folded into its convolutions, its towers side by side.

    The first layer of all towers is one convolution of the features, the later ones are grouped.
    """

    def __init__(self, head: CenterHead) -> None:
        nn.Module.__init__(self)
        layers = []
        for layer in range(1, 5):
            pairs = [head.get_submodule(f"conv{layer}_{tower}")[:2] for tower in TOWERS]
            weights, biases = zip(*(_folded(*pair) for pair in pairs), strict=True)
            weight = torch.cat(weights)
            groups = 1 if layer == 1 else len(TOWERS)
            convolution = nn.Conv2d(weight.shape[1] * groups, len(weight), 3, padding=1,
                                    groups=groups, device=weight.device)  # fmt: skip
            convolution.weight, convolution.bias = _fixed(weight), _fixed(torch.cat(biases))
            layers += [convolution, nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.outputs = nn.ModuleList(head.get_submodule(f"conv5_{tower}") for tower in TOWERS)

    def towers(self, features: Tensor) -> list[Tensor]:
        maps = self.layers(features.contiguous(memory_format=torch.channels_last))
        parts = maps.chunk(len(TOWERS), 1)
        return [output(part) for output, part in zip(self.outputs, parts, strict=True)]


class StackedLinear(nn.Module):
    """A linear layer of every branch as one batched product.

    Args:
        layers: one per branch.
        norms: the LayerNorm before each, whose scale and shift are folded into it.
    """

    def __init__(self, layers: Sequence[nn.Linear], norms: Sequence[nn.LayerNorm] = ()) -> None:
        super().__init__()
        weights = [layer.weight.double() for layer in layers]
        biases = [layer.bias.double() for layer in layers]
        for index, norm in enumerate(norms):
            biases[index] = biases[index] + weights[index] @ norm.bias.double()
            weights[index] = weights[index] * norm.weight.double()
        dtype = layers[0].weight.dtype
        self.weight = _fixed(torch.stack(weights).transpose(1, 2).contiguous().to(dtype))
        self.bias = _fixed(torch.stack(biases)[:, None].to(dtype))

    def forward(self, tokens: Tensor) -> Tensor:
        """(branches, B, N, in) to (branches, B, N, out)."""
        product = torch.baddbmm(self.bias, tokens.flatten(1, 2), self.weight)
        return product.unflatten(1, tokens.shape[1:3])


PRODUCTS = (nn.Linear, nn.Conv2d, StackedLinear)


class InFloat32(nn.Module):
    """A module that autocast leaves alone."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        with torch.autocast(features.device.type, enabled=False):
            return self.module(features.float())


class StackedBlock(nn.Module):
    """The transformer blocks of every branch at one depth as one."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        norms = [block.norm1 for block in blocks], [block.norm2 for block in blocks]
        self.heads, self.eps = blocks[0].attn.num_heads, blocks[0].norm1.eps
        self.qkv = StackedLinear([block.attn.qkv for block in blocks], norms[0])
        self.proj = StackedLinear([block.attn.proj for block in blocks])
        self.fc1 = StackedLinear([block.mlp.fc1 for block in blocks], norms[1])
        self.fc2 = StackedLinear([block.mlp.fc2 for block in blocks])

    def forward(self, tokens: Tensor) -> Tensor:
        """(branches, B, N, C) to the same."""
        heads = self.qkv(self._norm(tokens)).flatten(0, 1).unflatten(2, (3, self.heads, -1))
        mixed = functional.scaled_dot_product_attention(*heads.permute(2, 0, 3, 1, 4))
        tokens = tokens + self.proj(mixed.transpose(1, 2).flatten(2).unflatten(0, tokens.shape[:2]))
        return tokens + self.fc2(functional.gelu(self.fc1(self._norm(tokens))))

    def _norm(self, tokens: Tensor) -> Tensor:
        return functional.layer_norm(tokens, tokens.shape[-1:], eps=self.eps)


class StackedBackbone(nn.Module):
    """``TwoBranchBackbone`` whose branches run as one."""

    def __init__(self, backbone: TwoBranchBackbone) -> None:
        super().__init__()
        self.patch_embed_rgb = backbone.patch_embed_rgb
        self.patch_embed_aux = backbone.patch_embed_aux
        self.positions = _fixed(backbone.positions())
        pairs = zip(backbone.blocks_rgb, backbone.blocks_aux, strict=True)
        self.blocks = nn.ModuleList(map(StackedBlock, pairs))
        self.fuse_after, self.fusion = backbone.fuse_after, backbone.fusion
        self.norm_rgb, self.norm_aux = backbone.norm_rgb, backbone.norm_aux

    def forward(self, template: Tensor, search: Tensor) -> tuple[Tensor, Tensor]:
        (template_rgb, template_aux), (search_rgb, search_aux) = split_modalities(template, search)
        rgb = self.patch_embed_rgb.pack(template_rgb, search_rgb)
        aux = self.patch_embed_aux.pack(template_aux, search_aux)
        tokens = torch.stack((rgb, aux)) + self.positions
        for index, block in enumerate(self.blocks):
            tokens = block(tokens)
            if index in self.fuse_after:
                fuse_tokens = self.fusion[self.fuse_after.index(index)]
                joint = fuse_tokens(tokens.transpose(0, 1).flatten(1, 2))
                tokens = joint.unflatten(1, (2, -1)).transpose(0, 1)
        return self.norm_rgb(tokens[0]), self.norm_aux(tokens[1])


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that also does the batch norm after it."""
    return fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps,
        norm.weight, norm.bias,
    )  # fmt: skip


def _fixed(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach(), requires_grad=False)
