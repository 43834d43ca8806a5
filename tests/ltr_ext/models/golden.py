"""The golden values' recipe: weights and inputs from names and seeds (shared/golden/README.md)."""

from __future__ import annotations

import json
import zlib
from math import prod, sqrt
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

TOLERANCE = 1e-4


class Golden:
    """One file pair of the golden folder: ``meta``, ``shapes`` (name to shape) and ``outputs``."""

    def __init__(self, folder: Path, name: str):
        record = json.loads((folder / "golden" / f"{name}.json").read_text())
        self.meta = record["meta"]
        self.shapes = {key: (tuple(s), dtype) for key, (s, dtype) in record["state_dict"].items()}
        self.outputs = dict(np.load(folder / "golden" / f"{name}.npz"))

    def official_state(self) -> dict[str, Tensor]:
        """The official file's tensors; counters of seen batches, the only integers, are 0."""
        return {
            key: torch.from_numpy(weight(key, shape))
            if dtype.startswith("float")
            else torch.zeros(shape, dtype=getattr(torch, dtype))
            for key, (shape, dtype) in self.shapes.items()
        }

    def input(self, name: str) -> Tensor:
        return images(self.meta[name])

    def errors(self, outputs: dict[str, Tensor], tokens: Tensor) -> dict[str, float]:
        """Largest difference per output."""
        ours = {**outputs, "backbone_feat_mean": tokens.mean(-1)}
        return {
            name: float(np.abs(ours[name].numpy().reshape(value.shape) - value).max())
            for name, value in self.outputs.items()
        }


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
