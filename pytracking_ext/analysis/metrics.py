"""Scores of one tracker, vectorised over frames: overlap, success, precision, long-term Pr/Re/F.

Boxes are (N, 4) arrays, xywh in pixels, NaN where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

SUCCESS_THRESHOLDS = np.linspace(0, 1, 21)
PRECISION_THRESHOLDS = np.arange(51)
NORMALISED_THRESHOLDS = np.linspace(0, 0.5, 51)


def overlap(predicted: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union per frame, (N,).

    NaN where either box is NaN; 0 where either has no area.
    """
    a, b = np.asarray(predicted, float), np.asarray(truth, float)
    low = np.maximum(a[:, :2], b[:, :2])
    high = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    intersection = np.maximum(high - low, 0).prod(1)
    area_a, area_b = (np.maximum(box[:, 2:], 0).prod(1) for box in (a, b))
    union = area_a + area_b - intersection
    ratio = np.divide(intersection, union, out=np.zeros_like(union), where=union != 0)
    return np.minimum(ratio, 1)  # rounding can lift equal boxes above 1


def centre_distance(
    predicted: ArrayLike, truth: ArrayLike, normalised: bool = False
) -> NDArray[np.float64]:
    """Distance of the box centres per frame, (N,), NaN where either box is NaN.

    In pixels, or, ``normalised``, with x and y first divided by the width and height of the true
    box (TrackingNet's definition, also LaSOT's and LasHeR's).
    """
    a, b = np.asarray(predicted, float), np.asarray(truth, float)
    delta = (a[:, :2] + a[:, 2:] / 2) - (b[:, :2] + b[:, 2:] / 2)
    if normalised:
        # A true box without area has no normalised distance: infinitely far, never "precise".
        positive = b[:, 2:] > 0
        delta = np.where(positive, delta / np.where(positive, b[:, 2:], 1), np.inf)
        delta[np.isnan(b).any(1)] = np.nan
    return np.hypot(delta[:, 0], delta[:, 1])


def success_curve(
    overlaps: ArrayLike, thresholds: ArrayLike = SUCCESS_THRESHOLDS, strict: bool = True
) -> NDArray[np.float64]:
    """Share of frames whose overlap exceeds (``strict``) or reaches each threshold, (T,).

    NaN fails.
    """
    values, limits = _against(overlaps, thresholds)
    return (values > limits if strict else values >= limits).mean(1)


def precision_curve(
    distances: ArrayLike, thresholds: ArrayLike = PRECISION_THRESHOLDS, strict: bool = False
) -> NDArray[np.float64]:
    """Share of frames whose centre distance is at most each threshold, (T,).

    ``strict`` demands less than the threshold. NaN fails.
    """
    values, limits = _against(distances, thresholds)
    return (values < limits if strict else values <= limits).mean(1)


def _against(values: ArrayLike, thresholds: ArrayLike) -> tuple[NDArray, NDArray]:
    return np.asarray(values, float), np.asarray(thresholds, float)[:, None]


def raster_overlap(
    predicted: ArrayLike, truth: ArrayLike, size: tuple[int, int]
) -> NDArray[np.float64]:
    """Overlap as the VOT toolkit counts it: in whole pixels, inside the image, (N,).

    Boxes are rounded to pixels in single precision and clipped to ``size`` (width, height). A NaN
    row is an absent target; two empty regions overlap fully.
    """
    sides = [_pixel_edges(boxes) for boxes in (predicted, truth)]
    (low_a, high_a, area_a), (low_b, high_b, area_b) = sides
    low, high = np.minimum(low_a, low_b), np.maximum(high_a, high_b)
    empty = (low >= high).any(1)
    low, high = np.maximum(low, 0), np.minimum(high, np.asarray(size) - 1)

    def count(lowest: NDArray, highest: NDArray) -> NDArray[np.float64]:
        inside = np.minimum(highest, high) - np.maximum(lowest, low) + 1
        return np.maximum(inside, 0).prod(1)

    pixels_a, pixels_b = count(low_a, high_a) * area_a, count(low_b, high_b) * area_b
    both = count(np.maximum(low_a, low_b), np.minimum(high_a, high_b)) * area_a * area_b
    union = pixels_a + pixels_b - both
    inside = (low < high).all(1) & (union > 0)
    return np.where(empty, 1.0, np.where(inside, both / np.where(inside, union, 1), 0.0))


def _pixel_edges(boxes: ArrayLike) -> tuple[NDArray, NDArray, NDArray]:
    """First and last pixel (N, 2) each and whether there is a region at all (N,)."""
    rounded = np.round(np.asarray(boxes, np.float32)).astype(float)
    present = np.isfinite(rounded).all(1)
    rounded[~present] = 0
    low, high = rounded[:, :2], rounded[:, :2] + rounded[:, 2:] - 1
    high[~present] = 0  # the toolkit's bounds of a special region are (0, 0, 0, 0)
    return low, high, present


class LongTermScore(NamedTuple):
    """Precision, recall and F at the best confidence threshold, and the curves they come from.

    ``precisions`` and ``recalls`` are (S, T): per sequence over the T ``thresholds``.
    """

    precision: float
    recall: float
    f_score: float
    precisions: NDArray[np.float64]
    recalls: NDArray[np.float64]
    thresholds: NDArray[np.float64]


def long_term(
    overlaps: Sequence[NDArray],
    confidences: Sequence[NDArray],
    visible: Sequence[int],
    resolution: int = 100,
) -> LongTermScore:
    """The VOT long-term protocol (DepthTrack, CDTB): Pr, Re and F over confidence thresholds.

    Args:
        overlaps: per sequence (N,), :func:`raster_overlap` with 0 at the initialisation frame.
        confidences: per sequence (N,), 0 at the initialisation frame.
        visible: per sequence, frames in which the target is annotated, the first one included.
        resolution: number of thresholds.

    Per sequence, precision is the mean overlap of the frames reported with at least the threshold's
    confidence (1 when there is none) and recall the sum of their overlaps over the visible frames;
    both are averaged over sequences, and F = 2 Pr Re / (Pr + Re) is taken at its best threshold.
    """
    thresholds = confidence_thresholds(np.concatenate(confidences), resolution)
    precisions, recalls = [], []
    for values, confidence, count in zip(overlaps, confidences, visible, strict=True):
        # Sums in the toolkit's order: a matrix product would differ in the last digit.
        reported = [values[rows] for rows in confidence >= thresholds[:, None]]
        precisions.append([chosen.mean() if len(chosen) else 1.0 for chosen in reported])
        recalls.append([chosen.sum() / count for chosen in reported])
    precision, recall = np.mean(precisions, 0), np.mean(recalls, 0)
    f_curve = f_measure(precision, recall)
    best = int(f_curve.argmax())
    return LongTermScore(
        float(precision[best]),
        float(recall[best]),
        float(f_curve[best]),
        np.stack(precisions),
        np.stack(recalls),
        thresholds,
    )


def f_measure(precision: NDArray, recall: NDArray) -> NDArray[np.float64]:
    """Harmonic mean of precision and recall, 0 where both are 0."""
    both = precision + recall
    return np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0)


def confidence_thresholds(confidences: ArrayLike, resolution: int = 100) -> NDArray[np.float64]:
    """Confidences at equally spaced ranks, highest first, between infinity and minus infinity."""
    scores = np.asarray(confidences, float)
    scores = np.sort(scores[~np.isnan(scores)])[::-1]
    inner = resolution - 2
    if len(scores) > inner:
        step = len(scores) // inner
        ranks = np.round(np.linspace(step, len(scores) - step, num=inner)).astype(int)
        scores = scores[ranks]
    return np.concatenate(([np.inf], scores, [-np.inf]))
