"""Scores of one tracker on one benchmark, per sequence and in total."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pytracking_ext.analysis import metrics
from pytracking_ext.analysis.conventions import Convention
from srft_plugin.errors import UserError


@dataclass(frozen=True)
class SequenceTruth:
    """What a sequence is scored against.

    Attributes:
        boxes: (N, 4) xywh, NaN rows where the target is absent.
        size: (width, height) of the images; long-term scores and clipping need it.
    """

    boxes: NDArray[np.float64]
    size: tuple[int, int] | None = None

    @property
    def visible(self) -> NDArray[np.bool_]:
        """(N,) frames with a target."""
        return np.isfinite(self.boxes).all(1) & (self.boxes[:, 2:] > 0).all(1)


@dataclass(frozen=True)
class Prediction:
    """What a tracker reported: boxes (N, 4) and, for long-term scores, confidences (N,)."""

    boxes: NDArray[np.float64]
    confidences: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class SequenceScore:
    """Per counted frame: overlap (n,), centre distance (n,) and normalised distance (n,)."""

    overlaps: NDArray[np.float64]
    distances: NDArray[np.float64]
    normalised: NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """Scores in [0, 1]: in total by metric, and per sequence by metric."""

    total: dict[str, float]
    sequences: dict[str, dict[str, float]]


def score_sequence(
    truth: SequenceTruth, prediction: Prediction, how: Convention, name: str = "sequence"
) -> SequenceScore:
    """Compares one sequence frame by frame under a convention.

    Raises:
        UserError: the numbers of rows differ and the convention refuses that.
    """
    boxes, true = _aligned(prediction.boxes, truth.boxes, how, name)
    visible = SequenceTruth(true).visible
    if not visible.any():
        raise UserError(f"{name}: the target is annotated in no frame, nothing can be scored")
    start = int(visible.argmax())
    if how.invalid == "previous":
        boxes = _repeat_previous(boxes)
    if how.in_image and truth.size is not None:
        boxes = _clipped(boxes, truth.size)
    counted = np.arange(len(true)) >= start + (not how.first_frame)
    if how.absent == "skip":
        counted &= visible
    boxes, true = boxes[counted], true[counted]
    failed = ~SequenceTruth(boxes).visible | ~SequenceTruth(true).visible
    overlaps = np.where(failed, 0.0, metrics.overlap(boxes, true))
    distances, normalised = (
        np.where(failed, np.inf, metrics.centre_distance(boxes, true, normalise))
        for normalise in (False, True)
    )
    return SequenceScore(overlaps, distances, normalised)


def score_benchmark(
    truths: Mapping[str, SequenceTruth], predictions: Mapping[str, Prediction], how: Convention
) -> Score:
    """Scores every sequence that has a prediction.

    Raises:
        UserError: nothing to score, or a prediction that does not fit its sequence.
    """
    names = [name for name in truths if name in predictions]
    if not names:
        raise UserError("no sequence of the benchmark has a result")
    frames = {name: score_sequence(truths[name], predictions[name], how, name) for name in names}
    sequences = {name: frame_metrics([frames[name]], how) for name in names}
    if how.average == "frames":
        total = frame_metrics(list(frames.values()), how)
    else:
        total = {
            metric: float(np.mean([sequences[name][metric] for name in names]))
            for metric in next(iter(sequences.values()))
        }
    if "F" in how.metrics:
        total |= long_term_metrics([truths[n] for n in names], [predictions[n] for n in names])
        for name in names:
            sequences[name] |= long_term_metrics([truths[name]], [predictions[name]])
    return Score(
        {metric: total[metric] for metric in how.metrics},
        {n: {metric: row[metric] for metric in how.metrics} for n, row in sequences.items()},
    )


def frame_metrics(scores: list[SequenceScore], how: Convention) -> dict[str, float]:
    """Metrics of the frames of ``scores`` taken together."""
    overlaps, distances, normalised = (
        np.concatenate([getattr(score, field) for score in scores])
        for field in ("overlaps", "distances", "normalised")
    )
    return {
        "IoU": float(overlaps.mean()),
        "SR": float(metrics.success_curve(overlaps, strict=how.strict).mean()),
        "PR": float(metrics.precision_curve(distances, [how.pixels])[0]),
        "NPR": float(metrics.precision_curve(normalised, [how.normalised_pixels])[0]),
    }


def long_term_metrics(
    truths: list[SequenceTruth], predictions: list[Prediction]
) -> dict[str, float]:
    """Pr, Re, F as the VOT toolkit counts them.

    Raises:
        UserError: a prediction without confidences.
    """
    overlaps, confidences, visible = [], [], []
    for truth, prediction in zip(truths, predictions, strict=True):
        if prediction.confidences is None:
            raise UserError(
                "long-term scores need a confidence per frame; put <sequence>_confidence.txt or "
                "<sequence>_001_confidence.value beside the boxes"
            )
        if truth.size is None:
            raise UserError("long-term scores need the size of the images")
        values = metrics.raster_overlap(prediction.boxes, truth.boxes, truth.size)
        confidence = np.nan_to_num(prediction.confidences, nan=0.0)
        # The toolkit stores no box and no confidence for the frame that starts the tracker.
        start = int(truth.visible.argmax())
        values[: start + 1] = confidence[: start + 1] = 0
        overlaps.append(values)
        confidences.append(confidence)
        visible.append(int(truth.visible.sum()))
    score = metrics.long_term(overlaps, confidences, visible)
    return {"Pr": score.precision, "Re": score.recall, "F": score.f_score}


def _aligned(boxes: NDArray, truth: NDArray, how: Convention, name: str) -> tuple[NDArray, NDArray]:
    if len(boxes) == len(truth):
        return boxes, truth
    if how.lengths == "refuse":
        raise UserError(
            f"{name}: the result has {len(boxes)} boxes but the ground truth {len(truth)}; "
            "track the sequence again, or score with lengths='cut'"
        )
    shorter = min(len(boxes), len(truth))
    return boxes[:shorter], truth[:shorter]


def _repeat_previous(boxes: NDArray) -> NDArray:
    """Invalid rows replaced by the last valid row before them; leading ones stay."""
    valid = SequenceTruth(boxes).visible
    source = np.maximum.accumulate(np.where(valid, np.arange(len(boxes)), -1))
    return np.where((source >= 0)[:, None], boxes[np.maximum(source, 0)], boxes)


def _clipped(boxes: NDArray, size: tuple[int, int]) -> NDArray:
    low = np.clip(boxes[:, :2], 0, size)
    high = np.clip(boxes[:, :2] + boxes[:, 2:], 0, size)
    return np.concatenate((low, high - low), 1)
