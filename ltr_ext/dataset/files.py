"""Frames that are image files."""

from __future__ import annotations

import re
from collections.abc import Sequence as Many
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ltr_ext.data.io import read_aux, read_rgb

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"))
_DIGITS = re.compile(r"(\d+)")


def natural_order(name: str) -> list[str | int]:
    """Sort key under which ``v2.jpg`` comes before ``v10.jpg``."""
    return [int(part) if part.isdigit() else part for part in _DIGITS.split(name)]


def image_names(folder: Path) -> list[str]:
    """Names of the image files in a folder, in natural order; hidden files are left out."""
    names = (path.name for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted((name for name in names if not name.startswith(".")), key=natural_order)


@dataclass(frozen=True)
class FileFrames:
    """Frames in one or two folders.

    Attributes:
        rgb_folder, rgb_names: the colour images.
        aux_folder, aux_names: the auxiliary images, name by name the partners of the colour ones;
            None for an RGB sequence.
        modality: of the auxiliary images.
    """

    rgb_folder: Path
    rgb_names: Many[str]
    aux_folder: Path | None = None
    aux_names: Many[str] = ()
    modality: str | None = None

    def __len__(self) -> int:
        return len(self.rgb_names)

    def rgb_path(self, index: int) -> Path:
        """File of colour image ``index``."""
        return self.rgb_folder / self.rgb_names[index]

    def aux_path(self, index: int) -> Path | None:
        """File of auxiliary image ``index``, None for an RGB sequence."""
        return self.aux_folder / self.aux_names[index] if self.aux_folder else None

    def rgb(self, index: int) -> np.ndarray:
        """Colour image: (H, W, 3) uint8.

        Raises:
            UserError: the file is absent, truncated or no image.
        """
        return read_rgb(self.rgb_path(index))

    def aux(self, index: int) -> np.ndarray | None:
        """Auxiliary image as a network sees it: (H, W, 3) uint8, None for an RGB sequence.

        Raises:
            UserError: the file is absent, truncated or no image of the modality.
        """
        path = self.aux_path(index)
        return None if path is None else read_aux(path, self.modality)
