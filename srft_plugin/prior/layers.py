"""Per-sample gradients of single layers in factored form, from their inputs and output gradients.

The gradient of sample i for a linear layer with inputs A (n, T, in) and output gradients D
(n, T, out) is D_i' A_i, and need not be multiplied out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from srft_plugin.precision import widened


@dataclass
class Rows:
    """Explicit per-sample gradients, (n, d)."""

    gradients: Tensor


@dataclass
class Outer:
    """Per-sample gradients D_i' A_i of a weight: inputs A (n, T, in), output gradients D
    (n, T, out)."""

    inputs: Tensor
    output_gradients: Tensor


Factors = Rows | Outer
# What one call of a layer leaves behind: its input and, once backward has passed, the gradient of
# its output.
Call = tuple[Tensor, Tensor]


def layer_factors(layer: nn.Module, calls: list[Call]) -> dict[str, Factors]:
    """Per-sample gradients of the parameters of ``layer`` by name, all its calls together."""
    parts = [layer_rule(layer)(layer, widened(x), widened(d)) for x, d in calls]
    factors: dict[str, Factors] = {}
    for name, _ in layer.named_parameters(recurse=False):
        pieces = [part[name] for part in parts]
        if isinstance(pieces[0], Rows):
            factors[name] = Rows(sum(piece.gradients for piece in pieces))
        else:
            factors[name] = Outer(
                torch.cat([piece.inputs for piece in pieces], 1),
                torch.cat([piece.output_gradients for piece in pieces], 1),
            )
    return factors


def _linear(layer: nn.Linear, x: Tensor, d: Tensor) -> dict[str, Factors]:
    x, d = (t.reshape(len(t), -1, t.shape[-1]) for t in (x, d))
    return {"weight": Outer(x, d), "bias": Rows(d.sum(1))}


def _conv2d(layer: nn.Conv2d, x: Tensor, d: Tensor) -> dict[str, Factors]:
    patches = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride).mT
    d = d.flatten(2).mT
    return {"weight": Outer(patches, d), "bias": Rows(d.sum(1))}


def _layer_norm(layer: nn.LayerNorm, x: Tensor, d: Tensor) -> dict[str, Factors]:
    normalised = F.layer_norm(x, layer.normalized_shape, None, None, layer.eps)
    tokens = tuple(range(1, x.dim() - len(layer.normalized_shape)))
    return {"weight": _sum(d * normalised, tokens), "bias": _sum(d, tokens)}


def _batch_norm(layer: _BatchNorm, x: Tensor, d: Tensor) -> dict[str, Factors]:
    normalised = F.batch_norm(x, layer.running_mean.to(x), layer.running_var.to(x), eps=layer.eps)
    positions = tuple(range(2, x.dim()))
    return {"weight": _sum(d * normalised, positions), "bias": _sum(d, positions)}


def _sum(values: Tensor, dims: tuple[int, ...]) -> Rows:
    return Rows((values.sum(dims) if dims else values).flatten(1))


def layer_rule(layer: nn.Module) -> Callable[..., dict[str, Factors]] | None:
    """How to factor the gradients of ``layer``; None if it does anything but the plain thing."""
    # A subclass or an object with its own forward computes something else; so does a weight that is
    # made of others before each call (weight_norm, pruning), under whose names they are.
    forward = getattr(layer.forward, "__func__", None)
    if not {name for name, _ in layer.named_parameters(recurse=False)} <= {"weight", "bias"}:
        return None
    if forward is nn.Linear.forward:
        return _linear
    if forward is nn.Conv2d.forward:
        plain = layer.groups == 1 and layer.padding_mode == "zeros"
        return _conv2d if plain and not isinstance(layer.padding, str) else None
    if forward is nn.LayerNorm.forward:
        return _layer_norm
    if forward is _BatchNorm.forward and layer.running_mean is not None:
        return _batch_norm
    return None
