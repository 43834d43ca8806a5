"""How a network trains: where, compiled or not, what it keeps, and with which learning rates."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import torch
from timm.layers import Attention
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from ltr_ext.models.network import TrackingNetwork
from ltr_ext.recipe import Recipe
from srft_plugin.errors import UserError
from srft_plugin.kernels import compiler_lacks

from .processes import Processes


def prepare(
    network: TrackingNetwork, recipe: Recipe, device: torch.device, processes: Processes
) -> nn.Module:
    """Makes ``network`` ready to train on ``device``; its parameters are final from then on.

    Returns:
        What to call for the outputs: the network, or what shares it among processes.

    Raises:
        UserError: activations are to be recomputed by block, and the network runs parts of blocks;
            it is to be compiled on a CPU, and there is no C++ compiler.
    """
    network.to(device)
    if recipe.checkpoint_activations:
        if not network.whole_blocks:
            raise UserError(
                f"checkpoint_activations: {network.spec.name} runs its blocks in parts, which "
                "cannot be recomputed yet; leave it out, or raise accumulate"
            )
        for block in blocks(network):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    if device.type == "cpu" and recipe.precision == "bf16":
        for module in network.modules():
            if isinstance(module, Attention):
                module.fused_attn = False  # torch's kernel is 2 to 4 times as long on its way back
    if recipe.compile:
        if device.type == "cpu" and (lacking := compiler_lacks()):
            raise UserError(f"compile=true needs {lacking}, or leave compile out")
        network.compile()
    if processes.count == 1:
        return network
    if recipe.parallel == "ddp":
        # Those of 1x1 convolutions may differ, along axes of one element: the memory is the same.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        devices = None if device.type == "cpu" else [device.index]
        return DistributedDataParallel(network, devices)
    mesh = init_device_mesh(device.type, (processes.count,))
    # Where parts of a block run by themselves, as elimination has it, the network is one unit.
    if network.whole_blocks and not getattr(network.spec, "eliminate_at", ()):
        for block in blocks(network):
            fully_shard(block, mesh=mesh)
    return fully_shard(network, mesh=mesh)


def blocks(network: TrackingNetwork) -> list[nn.Module]:
    """The layers that the backbone stacks: members of lists that hold no lists themselves."""
    stacks = [module for module in network.backbone.modules() if isinstance(module, nn.ModuleList)]
    return [
        block
        for stack in stacks
        for block in stack
        if not any(isinstance(module, nn.ModuleList) for module in block.modules())
    ]


def parameter_groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """What trains, by learning rate: a group for each of ``lr_groups``, one for the rest.

    Raises:
        UserError: an expression decides the rate of no parameter.
    """
    rates = recipe.rates()
    groups = [{"params": [], "lr": rate} for rate in (*(rate for _, rate in rates), recipe.lr)]
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            matches = (index for index, (regex, _) in enumerate(rates) if regex.search(name))
            groups[next(matches, -1)]["params"].append(parameter)
    for (regex, _), group in zip(rates, groups, strict=False):
        if not group["params"]:
            raise UserError(
                f"lr_groups: {regex.pattern!r} is found in no name of a parameter that trains, or "
                "an expression before it takes them all; `srft inspect` shows the names"
            )
    return [group for group in groups if group["params"]]
