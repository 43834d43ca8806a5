"""One sequence of one tracker, compared with the truth frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pytracking_ext.analysis import metrics
from pytracking_ext.analysis.conventions import Convention
from srft_plugin.errors import UserError

Boxes = NDArray[np.float64]


@dataclass(frozen=True)
class SequenceTruth:
    """What a sequence is scored against.

    Attributes:
        boxes: (N, 4) xywh, NaN rows where the target is absent.
        size: (width, height) of the images; long-term scores and clipping need it.
        second: the other ground truth, (N, 4), where there is one (thermal camera).
        attributes: names of the challenges in the sequence.
    """

    boxes: Boxes
    size: tuple[int, int] | None = None
    second: Boxes | None = None
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prediction:
    """What a tracker reported.

    Attributes:
        boxes: (N, 4) xywh.
        confidences: (N,), which long-term scores need.
        times: (N,) seconds per frame.
    """

    boxes: Boxes
    confidences: NDArray[np.float64] | None = None
    times: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class FrameScores:
    """The counted frames of a sequence.

    Attributes:
        frames: (n,) their indices.
        overlaps: (n,) NaN for a miss or a hit.
        distances: (n,) centre distance in pixels, NaN for a miss, -1 for a hit.
        normalised: (n,) the same with the size of the true box as unit.
    """

    frames: NDArray[np.int64]
    overlaps: NDArray[np.float64]
    distances: NDArray[np.float64]
    normalised: NDArray[np.float64]


def score_frames(
    truth: SequenceTruth, prediction: Prediction, how: Convention, name: str = "sequence"
) -> FrameScores:
    """Compares one sequence frame by frame under a convention.

    Raises:
        UserError: no frame has a target, or the lengths differ and the convention refuses that.
    """
    boxes = _fitted(np.asarray(prediction.boxes, float), len(truth.boxes), how, name)
    visible = present(truth.boxes)
    if not visible.any():
        raise UserError(f"{name}: the target is annotated in no frame, nothing can be scored")
    start = int(visible.argmax())
    frames = counted_frames(truth, how)
    if not len(frames):
        raise UserError(f"{name}: no frame is left to score after the first one")
    if truth.second is not None and len(truth.second) != len(truth.boxes):
        raise UserError(
            f"{name}: the second ground truth has {len(truth.second)} rows, the first "
            f"{len(truth.boxes)}; expected as many, correct the file"
        )
    if how.invalid == "previous":
        delivered = len(prediction.boxes)  # what is missing after it is a miss
        boxes[:delivered] = _repeat_previous(boxes[:delivered])
    if how.first_frame == "truth":
        boxes[start] = truth.boxes[start]
    if how.in_image:
        boxes = _clipped(boxes, truth, name)
    compared = [_compare(boxes[frames], truth.boxes[frames], how)]
    if how.truths == "better" and truth.second is not None:
        compared.append(_compare(boxes[frames], truth.second[frames], how))
    overlaps, distances, normalised = (np.stack(item) for item in zip(*compared, strict=True))
    # fmax and fmin prefer the ground truth that has a box.
    return FrameScores(
        frames,
        np.fmax.reduce(overlaps),
        np.fmin.reduce(distances),
        np.fmin.reduce(normalised),
    )


def counted_frames(truth: SequenceTruth, how: Convention) -> NDArray[np.int64]:
    """(n,) the frames that a convention counts; none where only the first one shows the target."""
    visible = present(truth.boxes)
    counted = np.arange(len(visible)) >= visible.argmax() + (how.first_frame == "skip")
    return np.flatnonzero(counted & visible if how.absent == "skip" else counted)


def _compare(boxes: Boxes, truth: Boxes, how: Convention) -> tuple[NDArray, NDArray, NDArray]:
    """Overlap, distance and normalised distance per frame; a miss is NaN."""
    there = present(truth)
    usable = present(boxes) & there
    values = [
        np.where(usable, value, np.nan)
        for value in (
            metrics.overlap(boxes, truth),
            metrics.centre_distance(boxes, truth),
            metrics.centre_distance(boxes, truth, normalised=True),
        )
    ]
    rim = there & (truth[:, :2] + how.first_pixel <= 0).any(1)
    for frames, rule in ((~there, how.absent), (rim, how.rim)):
        if rule in ("miss", "hit"):
            for value, hit in zip(values, (np.nan, -1, -1), strict=True):
                value[frames] = hit if rule == "hit" else np.nan
    return tuple(values)


def long_term_frames(
    truth: SequenceTruth, prediction: Prediction, name: str = "sequence"
) -> tuple[NDArray, NDArray, int]:
    """Overlaps (N,), confidences (N,) and number of visible frames, as the VOT toolkit has them.

    Raises:
        UserError: a prediction without confidences, of another length, or an unknown image size.
    """
    if prediction.confidences is None:
        raise UserError(
            f"{name}: long-term scores need a confidence per frame; put {name}_confidence.txt or "
            f"{name}_001_confidence.value beside the boxes"
        )
    if truth.size is None:
        raise UserError(f"{name}: long-term scores need the size of the images")
    if not len(prediction.boxes) == len(prediction.confidences) == len(truth.boxes):
        raise UserError(
            f"{name}: {len(prediction.boxes)} boxes and {len(prediction.confidences)} confidences "
            f"for {len(truth.boxes)} frames; track the sequence again"
        )
    overlaps = metrics.raster_overlap(prediction.boxes, truth.boxes, truth.size)
    confidences = np.nan_to_num(prediction.confidences, nan=0.0)
    visible = np.isfinite(truth.boxes).all(1)
    # The toolkit stores no box and no confidence for the frame that starts the tracker.
    start = int(visible.argmax())
    overlaps[: start + 1] = confidences[: start + 1] = 0
    return overlaps, confidences, int(visible.sum())


def present(boxes: Boxes) -> NDArray[np.bool_]:
    """(N,) rows that are a box: finite, with a positive area."""
    return np.isfinite(boxes).all(1) & (boxes[:, 2:] > 0).all(1)


def _fitted(boxes: Boxes, length: int, how: Convention, name: str) -> Boxes:
    """A copy of ``boxes`` with ``length`` rows, where the convention allows that."""
    if len(boxes) != length and (
        how.lengths == "refuse" or (how.lengths == "cut" and len(boxes) < length)
    ):
        raise UserError(
            f"{name}: the result has {len(boxes)} boxes but the ground truth {length}; "
            "track the sequence again, or allow it with lengths=pad"
        )
    fitted = np.full((length, 4), np.nan)
    fitted[: len(boxes)] = boxes[:length]
    return fitted


def _repeat_previous(boxes: Boxes) -> Boxes:
    """Invalid rows replaced by the last valid row before them; leading ones stay."""
    source = np.maximum.accumulate(np.where(present(boxes), np.arange(len(boxes)), -1))
    return np.where((source >= 0)[:, None], boxes[np.maximum(source, 0)], boxes)


def _clipped(boxes: Boxes, truth: SequenceTruth, name: str) -> Boxes:
    if truth.size is None:
        raise UserError(f"{name}: clipping to the image needs its size")
    low = np.clip(boxes[:, :2], 0, truth.size)
    high = np.clip(boxes[:, :2] + boxes[:, 2:], 0, truth.size)
    return np.concatenate((low, high - low), 1)
