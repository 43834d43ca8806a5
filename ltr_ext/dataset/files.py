"""Frames that are image files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence as Many
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np

from ltr_ext.data.crop import Window, cut
from ltr_ext.data.io import decode_top, read_aux, read_raw, read_rgb
from ltr_ext.data.representation import depth_range, represent, represent_depth
from srft_plugin.errors import UserError

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"))
_DIGITS = re.compile(r"(\d+)")


def natural_order(name: str) -> list[str | int]:
    """Sort key under which ``v2.jpg`` comes before ``v10.jpg``."""
    return [int(part) if part.isdecimal() else part for part in _DIGITS.split(name)]


def image_names(folder: Path) -> list[str]:
    """Names of the image files in a folder, in natural order; hidden files are left out.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        names = [path.name for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error
    return sorted((name for name in names if not name.startswith(".")), key=natural_order)


@dataclass(frozen=True)
class FileFrames:
    """Frames in one or two folders.

    Attributes:
        rgb_folder, rgb_names: the colour images.
        aux_folder, aux_names: the auxiliary images, name by name the partners of the colour ones,
            "" where there is none; None for an RGB sequence.
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
        """File of auxiliary image ``index``, None where there is none."""
        name = self.aux_names[index] if self.aux_folder else ""
        return self.aux_folder / name if name else None

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
        return read_aux(self._partner(index), self.modality) if self.aux_folder else None

    def _partner(self, index: int) -> Path:
        path = self.aux_path(index)
        if path is None:
            raise UserError(f"{self.rgb_path(index)}: no image in {self.aux_folder} belongs to it")
        return path

    def regions(self, index: int, cuts: Many[tuple[Window, int]], aux: bool) -> list[np.ndarray]:
        """Windows of frame ``index``, resized: (size, size, 3), with ``aux`` (size, size, 6) each.

        The pixels of ``cut`` on whole images, but only the regions are brought into their colours,
        and JPEG files are decoded once, no further down than the windows reach; those of a thermal
        camera whose first picture is grey without their colour planes.

        Args:
            index: of the frame.
            cuts: each window with the size of the result.
            aux: whether the auxiliary image is wanted, too.

        Raises:
            UserError: a file is absent, truncated, no image, or the two differ in size.
        """
        rows = max(window.top + window.side for window, _ in cuts)
        path = self.rgb_path(index)
        colour, shape = decode_top(path, rows)
        images = _cut_all(colour, cuts, None, path)
        if not aux or self.aux_folder is None:
            return images
        path = self._partner(index)
        first = self.aux_folder / next(filter(None, self.aux_names))
        colourless = self.modality == "thermal" and _is_grey(first)
        raw, aux_shape = decode_top(path, rows, colourless)
        if aux_shape != shape:
            raise UserError(
                f"{path}: {aux_shape[1]}x{aux_shape[0]} pixels, but the colour image has "
                f"{shape[1]}x{shape[0]}; register the images to one size"
            )
        second = _cut_all(raw, cuts, self.modality, path)
        return [cv2.merge(pair) for pair in zip(images, second, strict=True)]


@cache
def _is_grey(path: Path) -> bool:
    """Whether an image has three equal channels, as most thermal ones that are stored as JPEG."""
    try:
        image = read_raw(path)
    except UserError:
        return False  # nobody asked for this frame
    return image.ndim == 3 and bool((image == image[..., :1]).all())


def _cut_all(
    raw: np.ndarray, cuts: Many[tuple[Window, int]], modality: str | None, path: Path
) -> list[np.ndarray]:
    """Windows of an image as decoded, (size, size, 3) each, as a network sees them.

    Args:
        raw: the image; the range of depth is taken from all of it.
        cuts: each window with the size of the result.
        modality: None for a colour image.
        path: of the image, for the error.

    Raises:
        UserError: an image that the modality cannot have.
    """
    if modality == "depth" and raw.ndim == 2 and raw.dtype == np.uint16:
        recolour = partial(represent_depth, span=depth_range(raw))
        return [cut(raw, window, size, recolour) for window, size in cuts]
    # channels are resized one by one, so that they may be ordered and copied afterwards
    parts = [cut(raw, window, size) for window, size in cuts]
    if raw.ndim == 3:
        parts = [cv2.cvtColor(part, cv2.COLOR_BGR2RGB) for part in parts]
    try:
        return [represent(part, modality) for part in parts]
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def image_number(name: str) -> int | None:
    """The last number in the name of an image, None without any."""
    digits = re.findall(r"\d+", name)
    return int(digits[-1]) if digits else None


def has_gaps(names: Many[str]) -> bool:
    """Whether the numbers of images, in natural order, do not follow one another."""
    numbers = [image_number(name) for name in names]
    return None in numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers)))


def misnamed(names: Many[str]) -> list[str]:
    """Images whose name, its digits aside, is not like that of nearly all others."""
    shapes = [re.sub(r"\d+", "#", name) for name in names]
    usual, count = Counter(shapes).most_common(1)[0] if shapes else ("", 0)
    if count < 0.8 * len(names):
        return []  # no rule that could be broken
    return [name for name, shape in zip(names, shapes, strict=True) if shape != usual]


def missing_numbers(names: Many[str]) -> list[int]:
    """Numbers that a consecutive numbering leaves out."""
    odd = set(misnamed(names))
    numbers = [image_number(name) for name in names if name not in odd]
    if None in numbers or len(numbers) < 2:
        return []
    steps = np.diff(numbers)
    if np.mean(steps == 1) < 0.5:
        return []  # not numbered consecutively
    return [
        number
        for before, step in zip(numbers, steps, strict=False)
        for number in range(before + 1, before + min(int(step), 100))
    ]


def pair_by_number(frames: FileFrames) -> list[tuple[str, str]] | None:
    """(colour, auxiliary) names with the same number; None where numbers do not tell them apart.

    Where the cameras count from different numbers, the difference that pairs most images counts.
    """
    rgb = {image_number(name): name for name in frames.rgb_names}
    aux = {image_number(name): name for name in frames.aux_names}
    if None in rgb or None in aux:
        return None
    if len(rgb) < len(frames.rgb_names) or len(aux) < len(frames.aux_names):
        return None
    offsets = (0, min(aux) - min(rgb), max(aux) - max(rgb)) if rgb and aux else (0,)
    candidates = [
        [(name, aux[number + offset]) for number, name in rgb.items() if number + offset in aux]
        for offset in offsets
    ]
    pairs = max(candidates, key=len)  # the first of equals
    return pairs if len(pairs) >= 0.5 * min(len(rgb), len(aux)) else None
