"""Operation groups: how a network's parameters are split into theta^1 ... theta^N (III-B)."""

from __future__ import annotations

from torch import nn


def operation_groups(network: nn.Module) -> dict[str, list[str]]:
    """Split the parameters of ``network`` into operations.

    An operation is a module without children together with all parameters that it owns
    (``"blocks.3.attn.qkv"``: its weight and bias). A parameter that a container holds directly
    (``"pos_embed"``) is an operation of its own. A parameter shared by several modules belongs to
    the first of them.

    Args:
        network: any module; frozen parameters are included.

    Returns:
        Operation name to the names of its parameters, disjoint, in the order of
        ``network.named_parameters()``.
    """
    modules = dict(network.named_modules())
    groups: dict[str, list[str]] = {}
    for name, _ in network.named_parameters():
        owner = name.rpartition(".")[0]
        is_container = next(modules[owner].children(), None) is not None
        operation = name if is_container else owner or type(network).__name__
        groups.setdefault(operation, []).append(name)
    return groups
