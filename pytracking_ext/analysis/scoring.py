"""Scores of one tracker on one benchmark: per sequence, per attribute and in total."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pytracking_ext.analysis import metrics
from pytracking_ext.analysis.conventions import LONG_TERM_METRICS, Convention
from pytracking_ext.analysis.frames import (
    FrameScores,
    Prediction,
    SequenceTruth,
    counted_frames,
    long_term_frames,
    score_frames,
)
from srft_plugin.errors import UserError


@dataclass(frozen=True)
class Curves:
    """Success (21,), precision (51,) and normalised precision (51,), and what is read off them.

    ``values`` are ``overlap``, the mean, and ``precision`` and ``normalised`` where the convention
    reads them.
    """

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
        uncounted: sequences with a result but no frame that counts, left out.
        long_term: Pr, Re and F with their curves; None in benchmarks without that protocol.
        attributes: names of the challenges in each sequence, where it has any.
    """

    total: dict[str, float]
    sequences: dict[str, dict[str, float]]
    weights: dict[str, float]
    curves: Curves
    missing: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()
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
    """Scores every sequence that has a prediction and a frame that counts.

    Raises:
        UserError: nothing to score, or a prediction that does not fit its sequence.
    """
    unknown = set(how.metrics) - {*METRICS, *LONG_TERM_METRICS}
    if unknown:
        raise UserError(f"no metric {min(unknown)!r}; known are {', '.join([*METRICS, 'Pr,Re,F'])}")
    found = [name for name in truths if name in predictions]
    if not found:
        raise UserError("no sequence of the benchmark has a result")
    names = [name for name in found if len(counted_frames(truths[name], how))] or found
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
        tuple(name for name in found if name not in names),
        long_term,
        {name: truths[name].attributes for name in names if truths[name].attributes},
    )


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
