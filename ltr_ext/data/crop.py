"""Square crops around a box, and the way of a box into the crop and back.

The crop of a box (x, y, w, h) with a factor f is the square of side ceil(f * sqrt(w * h)) around
its centre, resized to S x S; what lies outside the image is black. It is OSTrack's crop to the
pixel, so that its descendants' checkpoints see what they were trained on. With ``context``, as in
SiamFC and SwinTrack, the side is ceil(sqrt((w + c) * (h + c))), c = (f - 1) * (w + h) / 2: the same
for square targets, more for long ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike

from srft_plugin.errors import UserError

LARGEST = 16384  # side in pixels up to which a crop is OSTrack's to the pixel


class Window(NamedTuple):
    """A square of the frame in whole pixels; it may reach beyond the image."""

    left: int
    top: int
    side: int


def crop_window(box: ArrayLike, factor: float, context: bool = False) -> Window:
    """The square that is cut around ``box`` (x, y, w, h in pixels).

    Args:
        box: the target.
        factor: side of the square over that of a square target.
        context: the rule for targets that are none.

    Raises:
        UserError: the box has no finite positive area.
    """
    x, y, w, h = given = [float(value) for value in box]
    if context:
        margin = (factor - 1) * ((w + h) / 2)
        w, h, factor = w + margin, h + margin, 1.0
    finite = all(map(math.isfinite, (x, y, w * h * factor)))  # the area may overflow
    if not (finite and min(given[2:]) > 0):
        raise UserError(f"no crop around box {given}: expected x, y, w, h with w, h > 0")
    return _window(box, math.ceil(math.sqrt(w * h) * factor))


def _window(box: ArrayLike, side: int) -> Window:
    x, y, w, h = (float(value) for value in box)
    return Window(round(x + 0.5 * w - side * 0.5), round(y + 0.5 * h - side * 0.5), side)


def cut(
    image: np.ndarray,
    window: Window,
    size: int,
    recolour: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """The window of ``image`` (H, W, C), black outside, resized to (size, size, C).

    ``recolour`` gives the part of the image that lies in the window three uint8 channels: the same
    result as recolouring the whole image before, at a fraction of the cost.

    A window that reaches the right or lower border also loses the last column or row of the image:
    the rule of the public code, kept because published weights were trained with it. One of a side
    above ``LARGEST``, as around a wrong box, is not laid out in memory, and its pixels may differ
    by the rounding of their places.
    """
    height, width = image.shape[:2]
    left, top, side = window
    right, bottom = left + side, top + side
    x0, x1 = max(left, 0), right if right < width else width - 1
    y0, y1 = max(top, 0), bottom if bottom < height else height - 1
    inside = image[y0 : max(y1, y0), x0 : max(x1, x0)]
    if not inside.size:
        channels, kind = (image.shape[2:], image.dtype) if recolour is None else ((3,), np.uint8)
        return np.zeros((size, size, *channels), kind)
    if recolour:
        inside = recolour(inside)
    if side > LARGEST:
        scale = size / side
        x, y = (scale * (at + 0.5) - 0.5 for at in (x0 - left, y0 - top))
        return cv2.warpAffine(inside, np.array([[scale, 0, x], [0, scale, y]]), (size, size))
    if inside.shape[:2] != (side, side):
        padded = np.zeros((side, side, *inside.shape[2:]), inside.dtype)
        padded[y0 - top : y1 - top, x0 - left : x1 - left] = inside
        inside = padded
    if side == size:
        return inside.copy()
    return cv2.resize(inside, (size, size))  # bilinear


def sample_target(
    image: np.ndarray, box: ArrayLike, factor: float, size: int, context: bool = False
) -> tuple[np.ndarray, float]:
    """Cuts the template or search region around a box.

    Args:
        image: (H, W, C) uint8.
        box: x, y, w, h in pixels of the image.
        factor, context: as of ``crop_window``.
        size: side S of the result in pixels.

    Returns:
        The crop, (S, S, C) uint8, and the resize factor: crop pixels per frame pixel.

    Raises:
        UserError: the box has no finite positive area.
    """
    window = crop_window(box, factor, context)
    return cut(image, window, size), size / window.side


def box_to_crop(
    box: ArrayLike, reference: ArrayLike, resize_factor: float, size: int
) -> np.ndarray:
    """A box of the frame (xywh) as (cx, cy, w, h) in pixels of the crop made around ``reference``.

    ``resize_factor`` and ``size`` are those of ``sample_target``. Exact, the rounding of the window
    to whole pixels included; ``box_to_frame`` is its inverse.
    """
    x, y, w, h = np.asarray(box, np.float64)
    left, top, _ = _window(reference, round(size / resize_factor))
    return np.array([x + w / 2 - left, y + h / 2 - top, w, h]) * resize_factor


def box_to_frame(
    box: ArrayLike, reference: ArrayLike, resize_factor: float, size: int
) -> np.ndarray:
    """A box (cx, cy, w, h) in pixels of the crop made around ``reference`` as xywh of the frame."""
    cx, cy, w, h = np.asarray(box, np.float64) / resize_factor
    left, top, _ = _window(reference, round(size / resize_factor))
    return np.array([left + cx - w / 2, top + cy - h / 2, w, h])
