"""Reading and writing weights: our safetensors files and the official files of other trackers."""

from __future__ import annotations

import functools
import json
import logging
import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Container
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from srft_plugin.errors import UserError, some

from .network import TrackingNetwork
from .registry import build_network, network_names, network_spec

log = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "weights" / "ostrack_tiny.safetensors"  # the default tracker
SMALL = 20_000_000  # numbers in a network that is initialised in a moment
# Modules whose settings and statistics the official files carry beside the weights. Objects of
# these come back as empty stand-ins; a file that names anything else is refused.
SETTINGS_MODULES = (
    "lib.", "ltr.", "pytracking.", "easydict.", "yacs.", "argparse.", "pathlib.", "collections.",
    "numpy.", "builtins.list", "builtins.dict", "builtins.set", "builtins.int", "builtins.object",
)  # fmt: skip
WRAPPED = "module."  # before every name in files of DataParallel and DDP
SHOWN = 5  # names of parameters in an error


class _Ignored:
    """Stands for a pickled object that is not a weight: takes whatever it is given, keeps none."""

    def __new__(cls, *args: Any) -> _Ignored:
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _IgnoredMapping:
    """The same for objects that may be dictionaries, which torch fills only if they are its own."""

    def __new__(cls, *args: Any) -> OrderedDict:
        return OrderedDict()


def _stand_in(name: str) -> tuple[type, str]:
    return (_Ignored if name.startswith("numpy.") else _IgnoredMapping), name


def save_network(
    network: TrackingNetwork,
    path: str | Path,
    weights: dict[str, Tensor] | None = None,
    **metadata: Any,
) -> None:
    """Writes weights as safetensors, with the network's name and ``metadata`` (JSON values).

    Args:
        weights: to write in place of those that the network has.
    """
    record = {**network.metadata, **metadata, "network": network.spec.name}
    weights = network.state_dict() if weights is None else weights
    state = {name: value.contiguous() for name, value in weights.items()}
    # One entry: safetensors writes several in random order, and the hash tells networks apart.
    save_file(state, path, {"srft": json.dumps(record)})


def load_network(
    path: str | Path,
    name: str | None = None,
    *,
    partial: bool = False,
    resize_positions: bool = False,
) -> TrackingNetwork:
    """The network of a checkpoint, in eval mode, with the file's ``.metadata``.

    Args:
        path: a file of ``save_network``, or an official checkpoint (.pth, .pth.tar, .pt).
        name: network to build; by default the one that the file names or that its keys fit.
            Networks with and without candidate elimination have the same keys: say which.
        partial, resize_positions: see ``load_weights``.

    Raises:
        UserError: no such file, not a checkpoint, or weights of another network.
    """
    state, metadata = read_checkpoint(path)
    name = name or metadata.get("network") or guess_network(state)
    if name is None:
        raise UserError(
            f"{path}: its {len(state)} tensors fit none of the known networks "
            f"({', '.join(network_names())}); name the network it is meant for"
        )
    # On the meta device nothing is initialised that the file overwrites, but its first use imports
    # torch's compiler: for a small network that takes longer than to initialise it.
    small = sum(value.numel() for value in state.values()) < SMALL
    on_meta = not (partial or small)
    with torch.random.fork_rng(devices=()), torch.device("meta" if on_meta else "cpu"):
        network = build_network(name)
    load_weights(network, state, path, partial=partial, resize_positions=resize_positions)
    network.metadata = metadata
    return network.eval()


def load_weights(
    network: TrackingNetwork,
    state: dict[str, Tensor],
    source: str | Path,
    *,
    partial: bool = False,
    resize_positions: bool = False,
) -> None:
    """Puts the tensors of a file into ``network``.

    Args:
        network: may be on the meta device; then it takes the tensors themselves.
        state: names as the network has them, or as the official checkpoint has them.
        source: file that errors name.
        partial: accept missing and extra names; a tensor of another shape is still an error.
        resize_positions: interpolate position embeddings (bicubic) to the network's grid.

    Raises:
        UserError: names are missing or extra, all of them with ``partial``, or shapes differ.
    """
    wanted, given = network.state_dict(), state
    state = translate(given, type(network), wanted)
    if resize_positions:
        for key, value in state.items():
            if "pos_embed" in key and key in wanted and value.shape != wanted[key].shape:
                state[key] = resized(value, wanted[key].shape[1], f"{source}: {key}")
    different = differences(wanted, state)
    if partial:
        for what in ("missing", "extra"):
            if names := different.pop(what, None):
                log.warning("%s is taken for all that: %s", source, listed(what, names))
    if different:
        guess = guess_network(given)
        hint = f" The file seems to hold {guess}." if guess else ""
        shapes = different.get("of another shape", [])
        if len(different) == 1 and shapes and all("pos_embed" in shape for shape in shapes):
            hint += (
                f" Its position embeddings can be interpolated: srft convert --network "
                f"{network.spec.name} --resize-positions."
            )
        raise UserError(f"{source} does not fit {network.spec.name}: {shown(different)}.{hint}")
    known = {key: state[key].to(value.dtype) for key, value in wanted.items() if key in state}
    if not known:
        raise UserError(f"{source} has nothing of {network.spec.name}: no name is the same")
    is_meta = next(network.parameters()).is_meta
    network.load_state_dict(known, strict=not partial, assign=is_meta)


def differences(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> dict[str, list[str]]:
    """Names of tensors by how ``given`` differs from ``wanted``; empty where it does not."""
    found = {
        "missing": [key for key in wanted if key not in given],
        "extra": [key for key in given if key not in wanted],
        "of another shape": [
            f"{key} {tuple(given[key].shape)} instead of {tuple(value.shape)}"
            for key, value in wanted.items()
            if key in given and given[key].shape != value.shape
        ],
    }
    return {what: names for what, names in found.items() if names}


def shown(different: dict[str, list[str]]) -> str:
    """``differences``, the first few of each kind, for a message."""
    return "; ".join(listed(what, names) for what, names in different.items())


def translate(
    state: dict[str, Tensor], kind: type[TrackingNetwork], wanted: Container[str]
) -> dict[str, Tensor]:
    """``state`` with official names made ours, without what the public file alone has.

    ``wanted`` names what the network has: smaller ones may use what is idle in the public one.
    """
    renamed = {}
    for key, value in state.items():
        if key not in wanted and re.fullmatch(kind.official_unused, key):
            continue
        for theirs, ours in kind.official_names:
            key = re.sub(theirs, ours, key)
        renamed[key] = value
    return renamed


def guess_network(state: dict[str, Tensor]) -> str | None:
    """Name of the first network whose parameters have exactly these names and shapes."""
    for name in network_names():
        if network_spec(name).aux_only:
            continue  # the same tensors as without
        kind, shapes = _signature(name)
        own = translate(state, kind, shapes)
        if {key: value.shape for key, value in own.items()} == shapes:
            return name
    return None


@functools.cache
def _signature(name: str) -> tuple[type[TrackingNetwork], dict[str, torch.Size]]:
    """Class and tensor shapes of a network, which is not kept."""
    with torch.device("meta"):
        network = build_network(name)
    return type(network), {key: value.shape for key, value in network.state_dict().items()}


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by name, and metadata (empty for files that are not ours); executes nothing.

    Raises:
        UserError: no such file, unreadable, or it asks to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_pickled(path), {}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = json.loads((file.metadata() or {}).get("srft", "{}"))
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path} is not a complete safetensors file: {error}") from error
    if not isinstance(metadata, dict):
        raise UserError(f"{path}: its metadata is {metadata!r}; expected a JSON object")
    return state, metadata


def _read_pickled(path: Path) -> dict[str, Tensor]:
    """Weights of a torch.save file, by torch's unpickler that knows tensors and nothing else."""
    try:
        zipped = zipfile.is_zipfile(path)
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipped else []
        content = _load_with_stand_ins(path, names)
    except UserError:
        raise
    except Exception as error:  # a damaged pickle fails in whatever its bytes happen to say
        raise UserError(
            f"{path} is not a file of torch.save, or not a complete one; get it anew"
        ) from error
    if isinstance(content, dict):
        for key in ("net", "model", "state_dict"):
            content = content[key] if isinstance(content.get(key), dict) else content
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{path} holds a {type(content).__name__}; expected named tensors")
    weights = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not weights:
        raise UserError(f"{path} holds no tensors by name; expected the weights of a network")
    if all(name.startswith(WRAPPED) for name in weights):
        return {name.removeprefix(WRAPPED): value for name, value in weights.items()}
    return weights


def _load_with_stand_ins(path: Path, names: list[str]) -> Any:
    """What a file holds, with stand-ins for the settings that are called ``names`` in it.

    A file of torch before 1.6 does not say what it asks for before it is read: torch names the
    first that it does not know, and the file is read anew.
    """
    if code := [name for name in names if not name.startswith(SETTINGS_MODULES)]:
        raise UserError(
            f"{path} asks to run {', '.join(code)} on loading; a checkpoint of weights does not "
            "need that. It was not loaded; get the file from its authors"
        )
    try:
        with torch.serialization.safe_globals([_stand_in(name) for name in names]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise
    name = found[1] if "." in found[1] else f"builtins.{found[1]}"
    return _load_with_stand_ins(path, [*names, name])


def resized(positions: Tensor, tokens: int, source: str) -> Tensor:
    """(1, N, C) on a square grid, or on two, interpolated to (1, tokens, C).

    Raises:
        UserError: N is of no such grid; ``source`` says whose embeddings these are.
    """
    old, new = _grid_sides(positions.shape[1]) if positions.ndim == 3 else [], _grid_sides(tokens)
    if positions.ndim != 3 or sum(side * side for side in old) != positions.shape[1]:
        raise UserError(
            f"{source} has shape {tuple(positions.shape)}; expected (1, N, C) with a square number "
            "N of places, or that and a quarter of it, so it cannot be interpolated"
        )
    parts = positions.split([side * side for side in old], 1)
    resized = []
    for part, before, after in zip(parts, old, new, strict=True):
        grid = part.transpose(1, 2).unflatten(2, (before, before))
        grid = functional.interpolate(grid, (after, after), mode="bicubic", align_corners=False)
        resized.append(grid.flatten(2).transpose(1, 2))
    return torch.cat(resized, 1)


def _grid_sides(tokens: int) -> list[int]:
    """Side of the grid of so many tokens; of two where a template of half the side is appended."""
    side = math.isqrt(tokens)
    if side * side == tokens:
        return [side]
    side = math.isqrt(tokens * 4 // 5)
    return [side, side // 2]


def listed(what: str, names: list[str]) -> str:
    """So many names, the first of them in full: for errors."""
    return f"{len(names)} {what} ({some(names, SHOWN)})"
