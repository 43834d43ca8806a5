"""From the checkpoints of other projects to ours, from a base network to one that extends it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from torch import Tensor

from srft_plugin.errors import UserError

from .checkpoint import guess_network, load_network, read_checkpoint, save_network
from .network import TrackingNetwork
from .registry import build_network, network_names, network_spec
from .two_branch import two_branch_from

MODALITIES = ("depth", "thermal", "event")
TWO_BRANCH = "two_branch"


def convert(
    source: str | Path,
    target: str | Path,
    to: str | None = None,
    modality: str | None = None,
    name: str | None = None,
) -> TrackingNetwork:
    """Reads a checkpoint and writes it as safetensors, on request as a network that extends it.

    Args:
        source: an official checkpoint or one of ours.
        target: a .safetensors file.
        to: ``two_branch``, or the name of a network to start from these weights.
        modality: ``depth``, ``thermal`` or ``event``: written to the metadata.
        name: network that ``source`` holds, where its tensors fit several.

    Returns:
        The network that was written.

    Raises:
        UserError: an unreadable file, an unknown name, or a network that cannot extend this one.
    """
    if Path(target).suffix != ".safetensors":
        raise UserError(f"{target}: converted checkpoints end in .safetensors")
    if modality not in (None, *MODALITIES):
        raise UserError(f"unknown modality {modality!r}; expected one of {', '.join(MODALITIES)}")
    network = load_network(source, name)
    if to is not None:
        base, network = network, extend(network, to)
        network.metadata = {**base.metadata, "base": base.spec.name}
    save_network(network, target, **({"modality": modality} if modality else {}))
    return network


def extend(base: TrackingNetwork, name: str) -> TrackingNetwork:
    """The network ``name`` with the weights that it takes from ``base``; what is new is random.

    Args:
        base: an RGB network.
        name: a network that extends it, such as "vipt256"; "two_branch" for the two-branch one.

    Raises:
        UserError: no such network, or it does not extend ``base``.
    """
    if not name.startswith(TWO_BRANCH):
        network = build_network(name)
        network.copy_base(base)
        return network
    network = two_branch_from(base)
    if name not in (TWO_BRANCH, network.spec.name):
        network_spec(name)  # an unknown name is the likelier mistake
        raise UserError(f"{base.spec.name} makes {network.spec.name}, not {name}")
    return network


def inspect(path: str | Path) -> str:
    """What a checkpoint holds: network, sizes, metadata, and values per part, as a table."""
    state, metadata = read_checkpoint(path)
    name = metadata.get("network") or guess_network(state)
    lines = [f"{'file':<12}{path}", f"{'network':<12}{name or 'unknown'}"]
    if name in network_names():
        spec = network_spec(name)
        lines.append(
            f"{'images':<12}template {spec.template_size}, search region {spec.search_size} "
            f"pixels, {spec.in_channels} channels"
        )
    lines += [f"{key:<12}{value}" for key, value in metadata.items() if key != "network"]
    return "\n".join([*lines, "", *_part_table(state)])


def _part_table(state: dict[str, Tensor]) -> list[str]:
    tensors, values = Counter(), Counter()
    for key, value in state.items():
        part = ".".join(key.split(".")[:2])
        tensors[part] += 1
        values[part] += value.numel()
    rows = [(part, tensors[part], values[part]) for part in tensors]
    rows.append(("total", sum(tensors.values()), sum(values.values())))
    width = max(len(part) for part, _, _ in rows)
    lines = [f"{'part':<{width}}  tensors        values"]
    lines += [f"{part:<{width}}  {number:>7}  {size:>12,}" for part, number, size in rows]
    return lines
