"""From the checkpoints of other projects to ours, from a base network to one that extends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ltr_ext.admin.files import atomic_write
from ltr_ext.data.representation import MODALITIES
from srft_plugin.errors import UserError, unknown

from .checkpoint import guess_network, load_network, read_checkpoint, save_network
from .classifier import from_classifier, is_classifier
from .network import TrackingNetwork
from .registry import build_network, network_names, network_spec
from .two_branch import two_branch_from

TWO_BRANCH = "two_branch"


def convert(
    source: str | Path,
    target: str | Path,
    to: str | None = None,
    modality: str | None = None,
    name: str | None = None,
    *,
    partial: bool = False,
    resize_positions: bool = False,
) -> TrackingNetwork:
    """Reads a checkpoint and writes it as safetensors, on request as a network that extends it.

    Args:
        source: an official checkpoint or one of ours; or an image classifier, for the backbone of
            the network ``name``.
        target: a .safetensors file.
        to: ``two_branch``, or the name of a network to start from these weights.
        modality: ``depth``, ``thermal`` or ``event``: written to the metadata.
        name: network that ``source`` holds, where its tensors fit several, or that it starts.
        partial, resize_positions: see ``checkpoint.load_weights``; they need ``name``. Of a
            classifier a part is taken in any case, and its positions are resized.

    Returns:
        The network that was written.

    Raises:
        UserError: an unreadable file, an unknown name, a network that cannot extend this one, no
            name for weights that do not fit as they are, or a target that cannot be written.
    """
    if Path(target).suffix != ".safetensors":
        raise UserError(f"{target}: converted checkpoints end in .safetensors")
    if name is None and (partial or resize_positions):
        raise UserError("weights are made to fit a network that is named: add --network ostrack384")
    if modality not in (None, *MODALITIES):
        raise unknown("modality", modality, MODALITIES)
    state, _ = read_checkpoint(source)
    if not is_classifier(state):
        network = load_network(source, name, partial=partial, resize_positions=resize_positions)
    elif name is None:
        raise UserError(
            f"{source} holds an image classifier; say which tracker it starts, for example "
            "--network ostrack256"
        )
    else:
        network = from_classifier(state, name, source)
    if to is not None:
        base, network = network, extend(network, to)
        network.metadata = {**base.metadata, "base": base.spec.name}
    described = {"modality": modality} if modality else {}
    atomic_write(Path(target), lambda file: save_network(network, file, **described))
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


def contents(path: str | Path) -> dict[str, Any]:
    """What a checkpoint holds: file, network and its sizes, metadata, and parts.

    ``parts`` maps the first two words of the tensors' names to numbers of tensors and values.
    """
    state, metadata = read_checkpoint(path)
    name = metadata.get("network") or guess_network(state)
    found: dict[str, Any] = {"file": str(path), "network": name}
    if name in network_names():
        spec = network_spec(name)
        sizes = ("template_size", "search_size", "in_channels")
        found |= {size: getattr(spec, size) for size in sizes}
    found |= {key: value for key, value in metadata.items() if key != "network"}
    parts: dict[str, dict[str, int]] = {}
    for key, value in state.items():
        part = parts.setdefault(".".join(key.split(".")[:2]), {"tensors": 0, "values": 0})
        part["tensors"] += 1
        part["values"] += value.numel()
    return found | {"parts": parts}


def inspect(path: str | Path) -> str:
    """`contents` as a table for people."""
    found = contents(path)
    parts = found.pop("parts")
    found["network"] = found["network"] or "unknown"
    lines = [f"{key:<14} {value}" for key, value in found.items()]
    rows = [(part, row["tensors"], row["values"]) for part, row in parts.items()]
    rows.append(("total", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    width = max(len(part) for part, _, _ in rows)
    lines += ["", f"{'part':<{width}}  tensors        values"]
    lines += [f"{part:<{width}}  {number:>7}  {size:>12,}" for part, number, size in rows]
    return "\n".join(lines)
