"""Scores of one tracker on one benchmark: per sequence, per attribute and in total."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pytracking_ext.analysis import metrics
from pytracking_ext.analysis.conventions import LONG_TERM_METRICS, Convention
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


@dataclass(frozen=True)
class Curves:
    """Success (21,), precision (51,) and normalised precision (51,), and what is read off them."""

    success: NDArray[np.float64]
    precision: NDArray[np.float64]
    normalised: NDArray[np.float64]
    values: dict[str, float]


@dataclass(frozen=True)
class Score:
    """Scores in [0, 1].

    Attributes:
        total: by metric.
        sequences: per sequence by metric.
        weights: per sequence its share in the total (1, or its counted frames).
        curves: mean success and precision over the sequences.
        missing: sequences of the benchmark without a result, left out.
        long_term: per sequence what the long-term protocol needs; None in other benchmarks.
        attributes: names of the challenges in each sequence, where it has any.
    """

    total: dict[str, float]
    sequences: dict[str, dict[str, float]]
    weights: dict[str, float]
    curves: Curves
    missing: tuple[str, ...] = ()
    long_term: metrics.LongTermScore | None = None
    attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def by_attribute(self, metric: str) -> dict[str, tuple[float, int]]:
        """Per attribute ``metric`` over the sequences that have it, and their number."""
        names = sorted({name for tags in self.attributes.values() for name in tags})
        rows = {}
        for attribute in names:
            chosen = np.array([attribute in self.attributes.get(n, ()) for n in self.sequences])
            rows[attribute] = self.resampled(chosen[None])[metric][0], int(chosen.sum())
        return rows

    def resampled(self, draws: NDArray) -> dict[str, NDArray[np.float64]]:
        """Totals (R,) by metric when sequence j counts ``draws[i, j]`` times; draws is (R, S).

        Every metric but Pr, Re and F is a weighted mean of the sequences. Those keep the thresholds
        of the whole benchmark, and the best of them is chosen anew.
        """
        shares = draws * np.array(list(self.weights.values()))
        shares = shares / shares.sum(1, keepdims=True)
        rows = list(self.sequences.values())
        totals = {
            metric: shares @ np.array([row[metric] for row in rows])
            for metric in self.total
            if metric not in LONG_TERM_METRICS
        }
        if self.long_term is not None:
            precision, recall = shares @ self.long_term.precisions, shares @ self.long_term.recalls
            f_curves = metrics.f_measure(precision, recall)
            best = f_curves.argmax(1)[:, None]
            for metric, curve in zip(LONG_TERM_METRICS, (precision, recall, f_curves), strict=True):
                totals[metric] = np.take_along_axis(curve, best, 1)[:, 0]
        return {metric: totals[metric] for metric in self.total}


def _success_area(curves: Curves, how: Convention) -> float:
    if how.area == "mean":
        return float(curves.success.mean())
    return float((curves.success[1:] + curves.success[:-1]).sum() / 2 / (len(curves.success) - 1))


def _precision(curves: Curves, how: Convention) -> float:
    return curves.values["precision"]


def _normalised(curves: Curves, how: Convention) -> float:
    return curves.values["normalised"]


def _overlap(curves: Curves, how: Convention) -> float:
    return curves.values["overlap"]


# Papers call the same figure by several names; all are linear in the frames.
METRICS: dict[str, Callable[[Curves, Convention], float]] = {
    "IoU": _overlap,
    "AO": _overlap,
    "SR": _success_area,
    "AUC": _success_area,
    "MSR": _success_area,
    "PR": _precision,
    "P": _precision,
    "MPR": _precision,
    "NPR": _normalised,
    "P_norm": _normalised,
    "SR_0.5": lambda curves, how: float(curves.success[10]),
    "SR_0.75": lambda curves, how: float(curves.success[15]),
}


def score_benchmark(
    truths: Mapping[str, SequenceTruth], predictions: Mapping[str, Prediction], how: Convention
) -> Score:
    """Scores every sequence that has a prediction.

    Raises:
        UserError: nothing to score, or a prediction that does not fit its sequence.
    """
    unknown = set(how.metrics) - {*METRICS, *LONG_TERM_METRICS}
    if unknown:
        raise UserError(f"no metric {min(unknown)!r}; known are {', '.join([*METRICS, 'Pr,Re,F'])}")
    names = [name for name in truths if name in predictions]
    if not names:
        raise UserError("no sequence of the benchmark has a result")
    curves, sequences, weights = {}, {}, {}
    frame_metrics = [metric for metric in how.metrics if metric in METRICS]
    for name in names:
        frames = score_frames(truths[name], predictions[name], how, name)
        curves[name] = frame_curves(frames, how)
        weights[name] = float(len(frames.frames)) if how.average == "frames" else 1.0
        sequences[name] = {metric: METRICS[metric](curves[name], how) for metric in frame_metrics}
    share = np.array([weights[name] for name in names])
    total = {
        metric: float(np.average([sequences[name][metric] for name in names], weights=share))
        for metric in frame_metrics
    }
    long_term = None
    if how.long_term:
        parts = [long_term_frames(truths[name], predictions[name], name) for name in names]
        long_term = metrics.long_term(*zip(*parts, strict=True))
        total |= dict(zip(LONG_TERM_METRICS, long_term[:3], strict=True))
        for name, part in zip(names, parts, strict=True):
            alone = metrics.long_term(*([item] for item in part))
            sequences[name] |= dict(zip(LONG_TERM_METRICS, alone[:3], strict=True))
    return Score(
        {metric: total[metric] for metric in how.metrics},
        {n: {metric: row[metric] for metric in how.metrics} for n, row in sequences.items()},
        weights,
        _mean_curves([curves[name] for name in names], share),
        tuple(name for name in truths if name not in predictions),
        long_term,
        {name: truths[name].attributes for name in names if truths[name].attributes},
    )


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
    counted = np.arange(len(boxes)) >= start + (how.first_frame == "skip")
    if how.absent == "skip":
        counted &= visible
    if not counted.any():
        raise UserError(f"{name}: no frame is left to score after the first one")
    if how.invalid == "previous":
        boxes = _repeat_previous(boxes)
    if how.first_frame == "truth":
        boxes[start] = truth.boxes[start]
    if how.in_image:
        boxes = _clipped(boxes, truth, name)
    frames = np.flatnonzero(counted)
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
    rim = there & (truth[:, :2] <= 0).any(1)
    for frames, rule in ((~there, how.absent), (rim, how.rim)):
        if rule in ("miss", "hit"):
            for value, hit in zip(values, (np.nan, -1, -1), strict=True):
                value[frames] = hit if rule == "hit" else np.nan
    return tuple(values)


def frame_curves(scores: FrameScores, how: Convention) -> Curves:
    """Success and precision over thresholds, and what is read at the convention's thresholds."""

    def precision(distances: NDArray, thresholds: NDArray) -> NDArray:
        return metrics.precision_curve(distances, thresholds, how.strict_distance)

    normalised = precision(scores.normalised, metrics.NORMALISED_THRESHOLDS)
    return Curves(
        metrics.success_curve(scores.overlaps, strict=how.strict_overlap),
        precision(scores.distances, metrics.PRECISION_THRESHOLDS),
        normalised,
        {
            "overlap": float(np.nan_to_num(scores.overlaps).mean()),
            "precision": float(precision(scores.distances, np.array([how.pixels]))[0]),
            "normalised": float(
                normalised.mean()
                if how.normalised is None
                else precision(scores.normalised, np.array([how.normalised]))[0]
            ),
        },
    )


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


def _mean_curves(curves: Sequence[Curves], weights: NDArray) -> Curves:
    mean = {
        name: np.average([getattr(curve, name) for curve in curves], axis=0, weights=weights)
        for name in ("success", "precision", "normalised")
    }
    values = {
        key: float(np.average([curve.values[key] for curve in curves], weights=weights))
        for key in curves[0].values
    }
    return Curves(**mean, values=values)
