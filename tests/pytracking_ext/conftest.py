"""A network that finds white squares, videos with one, and a tracker of both."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ltr_ext.dataset.sequence import Sequence
from ltr_ext.models.network import NetworkSpec, TrackingNetwork
from pytracking_ext.parameter.srft import TrackerParameters, from_checkpoint


class WhiteFinder(TrackingNetwork):
    """Reports the extent of the bright pixels of one channel of the search region.

    Exact to a pixel of the search region, so that geometry can be tested without training.
    """

    def __init__(self, in_channels: int = 3, channel: int = 0, aux_only: bool = False) -> None:
        super().__init__(
            NetworkSpec(
                name="white_finder",
                template_size=64,
                search_size=128,
                in_channels=in_channels,
                aux_only=aux_only,
            )
        )
        self.channel = channel
        self.weight = nn.Parameter(torch.ones(1))
        self.batch_sizes: list[int] = []

    def forward(self, template: torch.Tensor, search: torch.Tensor) -> dict[str, torch.Tensor]:
        self.batch_sizes.append(len(search))
        assert template.shape[1:] == (self.spec.in_channels, 64, 64)
        assert search.shape[1:] == (self.spec.in_channels, 128, 128)
        bright = search[:, self.channel] > 1
        maps = {
            "score_map": torch.full((len(search), 1, 8, 8), 1e-4),
            "size_map": torch.zeros(len(search), 2, 8, 8),
            "offset_map": torch.zeros(len(search), 2, 8, 8),
        }
        for index, mask in enumerate(bright):
            if not mask.any():
                continue
            (top, bottom), (left, right) = (
                (int(line.nonzero().min()), int(line.nonzero().max()) + 1)
                for line in (mask.any(1), mask.any(0))
            )
            cx, cy = (left + right) / 256, (top + bottom) / 256
            column, row = min(int(cx * 8), 7), min(int(cy * 8), 7)
            maps["score_map"][index, 0, row, column] = 0.9
            maps["size_map"][index, :, row, column] = torch.tensor(
                ((right - left) / 128, (bottom - top) / 128)
            )
            maps["offset_map"][index, :, row, column] = torch.tensor(
                (cx * 8 - column, cy * 8 - row)
            )
        return maps


class Frames:
    """Images in memory; a frame that is an exception is raised when it is read."""

    def __init__(self, rgb: list, aux: list | None = None) -> None:
        self.images, self.auxiliary = rgb, aux

    def __len__(self) -> int:
        return len(self.images)

    def rgb(self, index: int) -> np.ndarray:
        return _read(self.images[index])

    def aux(self, index: int) -> np.ndarray | None:
        return None if self.auxiliary is None else _read(self.auxiliary[index])


def _read(item: np.ndarray | Exception) -> np.ndarray:
    if isinstance(item, Exception):
        raise item
    return item


def _draw(box: np.ndarray, height: int = 120, width: int = 160) -> np.ndarray:
    """Black (H, W, 3) uint8 image with a white box."""
    image = np.zeros((height, width, 3), np.uint8)
    x, y, w, h = np.round(box).astype(int)
    image[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = 255
    return image


def _white_square(name: str = "square", length: int = 12, speed: float = 3, **kwargs) -> Sequence:
    """A white 20x16 box that moves to the right and slowly down."""
    steps = np.arange(length)
    boxes = np.stack(
        (20 + speed * steps, 30 + steps, np.full(length, 20), np.full(length, 16)), 1
    ).astype(float)
    return Sequence(name, Frames([_draw(box) for box in boxes]), boxes, **kwargs)


@pytest.fixture
def parameters(tmp_path) -> TrackerParameters:
    checkpoint = tmp_path / "network.safetensors"
    checkpoint.write_bytes(b"weights")
    return TrackerParameters(network=WhiteFinder().eval(), checkpoint=checkpoint)


@pytest.fixture
def white_finder() -> type[WhiteFinder]:
    """The network class."""
    return WhiteFinder


@pytest.fixture
def draw():
    """Makes an image with a white box."""
    return _draw


@pytest.fixture
def white_square():
    """Makes a video of a white box."""
    return _white_square


@pytest.fixture
def tiny_parameters(base) -> TrackerParameters:
    """The smallest real network, untrained."""
    return from_checkpoint(base)
