"""The CENTER head in a form that computes the same with fewer operations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ltr_ext.models.head import TOWERS, CenterHead
from pytracking_ext.engine.blocks import fixed

LOW_LAYERS = 2  # nearly all of the work; the narrow ones after them decide how exact a box is


class Convolutions(nn.Sequential):
    """Convolutions and what is between them, each in the format of its weights."""

    def forward(self, maps: Tensor) -> Tensor:
        maps = maps.contiguous(memory_format=torch.channels_last)
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                maps = maps.to(layer.weight.dtype)
            maps = layer(maps)
        return maps


class FusedHead(CenterHead):
    """The CENTER head with batch norm folded into its convolutions, its towers side by side.

    The first layer of all towers is one convolution of the features, the later ones are grouped.

    Args:
        head: on the device to run on.
        dtype: of the first ``LOW_LAYERS`` convolutions.
    """

    def __init__(self, head: CenterHead, dtype: torch.dtype = torch.float32) -> None:
        nn.Module.__init__(self)
        layers = []
        for layer in range(1, 5):
            pairs = [head.get_submodule(f"conv{layer}_{tower}")[:2] for tower in TOWERS]
            weights, biases = zip(*(_folded(*pair) for pair in pairs), strict=True)
            weight = torch.cat(weights)
            groups = 1 if layer == 1 else len(TOWERS)
            convolution = nn.Conv2d(weight.shape[1] * groups, len(weight), 3, padding=1,
                                    groups=groups, device=weight.device)  # fmt: skip
            convolution.weight, convolution.bias = fixed(weight), fixed(torch.cat(biases))
            layers += [convolution, nn.ReLU(inplace=True)]
        self.layers = Convolutions(*layers).to(memory_format=torch.channels_last)
        self.layers[: 2 * LOW_LAYERS].to(dtype)
        self.outputs = nn.ModuleList(head.get_submodule(f"conv5_{tower}") for tower in TOWERS)

    def towers(self, features: Tensor) -> list[Tensor]:
        maps = self.layers(features)
        parts = maps.chunk(len(TOWERS), 1)
        return [output(part) for output, part in zip(self.outputs, parts, strict=True)]


class DenseHead(nn.Module):
    """The same for a GPU, whose grouped convolutions are slower than ones with zeros between.

    What follows the convolutions is one kernel.
    """

    def __init__(self, head: FusedHead) -> None:
        super().__init__()
        layers = [
            _dense(layer.weight.chunk(layer.groups), layer.bias)
            if isinstance(layer, nn.Conv2d)
            else layer
            for layer in head.layers
        ]
        last = _dense(
            [output.weight for output in head.outputs],
            torch.cat([output.bias for output in head.outputs]),
        )
        self.layers = Convolutions(*layers, last).to(memory_format=torch.channels_last)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        from pytracking_ext.engine import kernels

        maps, boxes = kernels.read_maps(self.layers(features))
        score, size, offset = maps.split((1, 2, 2), 1)
        return {"score_map": score, "size_map": size, "offset_map": offset, "pred_boxes": boxes}


def _dense(parts: Sequence[Tensor], bias: Tensor) -> nn.Conv2d:
    """Convolutions side by side, each of inputs of its own, as one with zeros between them."""
    inputs, outputs = (sum(part.shape[axis] for part in parts) for axis in (1, 0))
    side = parts[0].shape[-1]
    weight = parts[0].new_zeros(outputs, inputs, side, side)
    row = column = 0
    for part in parts:
        weight[row : row + len(part), column : column + part.shape[1]] = part
        row, column = row + len(part), column + part.shape[1]
    dense = nn.Conv2d(inputs, outputs, side, padding=side // 2, device="meta")
    dense.weight, dense.bias = fixed(weight), fixed(bias)
    return dense


class InFloat32(nn.Module):
    """A module that autocast leaves alone."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        with torch.autocast(features.device.type, enabled=False):
            return self.module(features.float())


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that also does the batch norm after it."""
    return fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps,
        norm.weight, norm.bias,
    )  # fmt: skip
