"""One annotated video, the unit that every data set, sampler, tracker and metric works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


class FrameSource(Protocol):
    """Where the frames of a sequence come from: files, an event stream, a renderer."""

    def __len__(self) -> int:
        """Number of frames."""

    def rgb(self, index: int) -> np.ndarray:
        """RGB image of frame ``index``: (H, W, 3) uint8."""

    def aux(self, index: int) -> np.ndarray | None:
        """Auxiliary image as a network sees it, (H, W, 3) uint8, or None for an RGB sequence."""


@dataclass(frozen=True)
class Sequence:
    """A video with one target.

    Attributes:
        name: unique within its data set.
        frames: the images, read on demand.
        boxes: (N, 4) float64 xywh in pixels, top-left origin; NaN rows where the target is absent.
        modality: ``"depth"``, ``"thermal"``, ``"event"`` or None for RGB alone.
        extra: what only some data sets have (second ground truth, attributes, properties).
    """

    name: str
    frames: FrameSource
    boxes: np.ndarray
    modality: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def visible(self) -> np.ndarray:
        """(N,) bool: frames whose box is finite and has a positive area."""
        return np.isfinite(self.boxes).all(1) & (self.boxes[:, 2:] > 0).all(1)
