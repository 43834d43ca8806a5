"""The golden values' recipe: weights and inputs from names and seeds (shared/golden/README.md)."""

from __future__ import annotations

import json
import zlib
from math import prod, sqrt
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ltr_ext.models.checkpoint import load_weights, translate
from ltr_ext.models.network import joined
from ltr_ext.models.registry import build_network

TOLERANCE = 1e-4
# Network to golden files; files of one network differ in their inputs.
NETWORKS = {
    "ostrack256": ["ostrack_b256"],
    "ostrack256_ce": ["ostrack_b256_ce"],
    "ostrack384_ce": ["ostrack_b384_ce"],
    "droptrack384": ["droptrack_b384_ce"],
    "sutrack_t224": ["sutrack_t224", "sutrack_t224_text"],
    "sutrack_b224": ["sutrack_b224", "sutrack_b224_text"],
    "sutrack_b384": ["sutrack_b384", "sutrack_b384_text"],
    "two_branch_ostrack256": ["srtrack_ostrack_b256"],
    "two_branch_droptrack384": ["srtrack_droptrack_b384"],
    "vipt256": ["vipt_deep_b256_ce"],
    "vipt256_shallow": ["vipt_shaw_b256_ce"],
    "sdstrack256": ["sdstrack_b256_ce"],
    "untrack256": ["untrack_b256_ce"],
    "swintrack_t224": ["swintrack_t224"],
    "swintrack_b384": ["swintrack_b384"],
}


class Golden:
    """One file pair of the golden folder: ``meta``, ``shapes`` (name to shape) and ``outputs``."""

    def __init__(self, folder: Path, name: str):
        record = json.loads((folder / "golden" / f"{name}.json").read_text())
        self.meta = record["meta"]
        self.shapes = {key: (tuple(s), dtype) for key, (s, dtype) in record["state_dict"].items()}
        self.outputs = dict(np.load(folder / "golden" / f"{name}.npz"))

    def official_state(self) -> dict[str, Tensor]:
        """The official file's tensors; counters and tables of indices are 0, and not compared."""
        return {
            key: torch.from_numpy(weight(key, shape))
            if dtype.startswith("float")
            else torch.zeros(shape, dtype=getattr(torch, dtype))
            for key, (shape, dtype) in self.shapes.items()
        }

    def inputs(self) -> tuple:
        """Arguments of the network's ``forward``."""
        meta = self.meta
        if "templates" not in meta:
            template, search = images(meta["template"]), images(meta["search"])
            if search.shape[1] == 9:  # UnTrack: channels 6 to 8 hold the index of the modality
                return template[:, :6], search[:, :6], torch.arange(len(search))
            return template, search
        boxes = []
        for xywh in map(torch.tensor, meta["template_annos_xywh_norm"]):
            boxes.append(torch.cat((xywh[:, :2] + xywh[:, 2:] / 2, xywh[:, 2:]), 1))
        text = images(meta["text"]) if meta["text"] else None
        return [images(recipe) for recipe in meta["templates"]], images(meta["search"]), boxes, text

    def errors(self, network: nn.Module) -> dict[str, float]:
        """Largest difference per output of a network with these weights."""
        tokens = []
        hook = network.backbone.register_forward_hook(
            lambda module, inputs, output: tokens.append(joined(output))
        )
        with torch.no_grad():
            ours = network(*self.inputs())
        hook.remove()
        ours["backbone_feat_mean"] = tokens[0].mean(-1)
        ours["class_score"], ours["bbox"] = ours["score_map"], box_map(ours)
        return {
            name: float(np.abs(ours[name].numpy().reshape(value.shape) - value).max())
            for name, value in self.outputs.items()
        }


def golden_errors(folder: Path, name: str) -> dict[str, float]:
    """Largest difference per output of network ``name`` over its golden files.

    The network must take the official tensors by name and leave none.
    """
    references = [Golden(folder, file) for file in NETWORKS[name]]
    with torch.device("meta"):
        network = build_network(name).eval()
    official = references[0].official_state()
    own = network.state_dict()
    assert translate(official, type(network), own).keys() == own.keys()
    load_weights(network, official, name)
    errors: dict[str, float] = {}
    for reference in references:
        for output, error in reference.errors(network).items():
            errors[output] = max(error, errors.get(output, 0.0))
    return errors


def box_map(outputs: dict[str, Tensor]) -> Tensor:
    """(B, H, W, 4) cxcywh box of every cell: SwinTrack's own form of its output."""
    offset = outputs["offset_map"]
    height, width = offset.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centre = (offset + torch.stack((columns, rows))) / torch.tensor([width, height])[:, None, None]
    return torch.cat((centre, outputs["size_map"]), 1).permute(0, 2, 3, 1)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, dtype=np.float32)
    if name.endswith("running_var"):
        x = 1 + 0.1 * abs(x)
    elif len(shape) <= 1:
        x = 1 + 0.1 * x if name.endswith("weight") else 0.1 * x
    elif shape[0] == 1:
        x = 0.02 * x
    else:
        x = x / sqrt(prod(shape[1:]))
    return np.asarray(x, np.float32)


def images(recipe: list[int]) -> Tensor:
    seed, *shape = recipe
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))
