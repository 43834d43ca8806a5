"""Auxiliary images as a network sees them: three uint8 channels."""

from __future__ import annotations

import cv2
import numpy as np

from srft_plugin.errors import UserError, unknown

DEPTH_FORMS = ("jet_bgr", "jet_rgb", "normalised", "raw")
MODALITIES = ("depth", "thermal", "event")
MODALITY_INDEX = {None: 0, **{name: index for index, name in enumerate(MODALITIES, 1)}}  # UnTrack's
FARTHEST = 10_000  # millimetres; beyond it consumer depth cameras measure nothing


def depth_range(depth: np.ndarray) -> tuple[int, int]:
    """Smallest and largest depth of the whole (H, W) frame, clipped at min(3 * median, 10000).

    Zeros, the holes of the sensor, count: the released RGB-D trackers were trained that way.
    """
    low, high = (int(value) for value in cv2.minMaxLoc(depth)[:2])
    return low, int(min(high, 3 * _median(depth, high), FARTHEST))


def _median(depth: np.ndarray, highest: int) -> float:
    """``np.median`` of uint16 values by their histogram: exact, and a third of the time."""
    histogram = cv2.calcHist([depth], [0], None, [highest + 1], [0, highest + 1])
    middle = ((depth.size - 1) // 2, depth.size // 2)  # the same for an odd number
    low, high = np.searchsorted(np.cumsum(histogram, dtype=np.int64), middle, side="right")
    return (int(low) + int(high)) / 2


def represent_depth(
    depth: np.ndarray, form: str = "jet_bgr", span: tuple[int, int] | None = None
) -> np.ndarray:
    """A depth image as three uint8 channels.

    Args:
        depth: (H, W) uint16, millimetres, 0 where nothing was measured.
        form: ``jet_bgr``: JET colour map, channels in OpenCV's order (near is blue, in channel 0),
            as ViPT and its descendants were trained; ``jet_rgb``: the same in RGB order;
            ``normalised``: the span stretched to [0, 255], three times; ``raw``: millimetres
            over 10000 to [0, 255], three times, comparable between frames.
        span: depths that map to 0 and 255; by default ``depth_range(depth)``. Give it when
            ``depth`` is only a part of a frame.

    Raises:
        UserError: unknown form.
    """
    if form not in DEPTH_FORMS:
        raise unknown("depth representation", form, DEPTH_FORMS)
    if form == "raw":
        low, high = 0, FARTHEST
    else:
        low, high = span if span is not None else depth_range(depth)
    levels = _stretch(depth, low, high)
    if not form.startswith("jet"):
        return cv2.merge([levels] * 3)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_JET)
    return colours if form == "jet_bgr" else cv2.cvtColor(colours, cv2.COLOR_BGR2RGB)


def _stretch(depth: np.ndarray, low: int, high: int) -> np.ndarray:
    """[low, high] to [0, 255], rounded to the nearest level; values beyond are clipped."""
    scale = 255 / (high - low) if high > low else 0.0
    if low > 0:
        depth = np.maximum(depth, low)
    return cv2.convertScaleAbs(depth, alpha=scale, beta=-low * scale)  # saturates at 255


def represent(raw: np.ndarray, modality: str | None) -> np.ndarray:
    """An image in the default form of its modality.

    Args:
        raw: depth as (H, W) uint16; others as (H, W), (H, W, 1) or (H, W, 3) uint8. An image of
            three uint8 channels counts as represented and is returned as it is.
        modality: ``depth``, ``thermal`` or ``event``; None for a colour image.

    Returns:
        (H, W, 3) uint8.

    Raises:
        UserError: unknown modality, or an image that it cannot have.
    """
    if modality is not None and modality not in MODALITIES:
        raise unknown("modality", modality, MODALITIES)
    if raw.dtype == np.uint8 and raw.ndim == 3 and raw.shape[2] == 3:
        return raw
    plane = raw[..., 0] if raw.ndim == 3 and raw.shape[2] == 1 else raw
    if plane.ndim == 2:
        if modality == "depth" and plane.dtype == np.uint16:
            return represent_depth(plane)
        if modality != "depth" and plane.dtype == np.uint8:
            return cv2.merge([plane] * 3)
    expected = "(H, W) uint16" if modality == "depth" else "(H, W) uint8"
    remedy = "write millimetres" if modality == "depth" else "scale it to 8 bits"
    raise UserError(
        f"a {modality or 'colour'} image of shape {raw.shape} and type {raw.dtype}: "
        f"expected {expected}, or three uint8 channels; {remedy}"
    )
