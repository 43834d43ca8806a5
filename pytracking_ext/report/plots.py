"""Which curves a report shows; drawn on the page by `charts`, for papers by `figures`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pytracking_ext.analysis import metrics
from pytracking_ext.analysis.scoring import Score


@dataclass(frozen=True)
class Plot:
    """One diagram.

    Attributes:
        name: of its files.
        x_label, y_label: of its axes; y runs from 0 to 1.
        lines: x and y of each line, by tracker.
    """

    name: str
    x_label: str
    y_label: str
    lines: Mapping[str, tuple[ArrayLike, ArrayLike]]


def benchmark_plots(scores: Mapping[str, Score]) -> list[Plot]:
    """Success and precision plots (Fig. 6); with long-term scores also those of that protocol."""
    success, precision = metrics.SUCCESS_THRESHOLDS, metrics.PRECISION_THRESHOLDS
    curves = {label: score.curves for label, score in scores.items()}
    plots = [
        Plot("success", "overlap threshold", "success rate",
             {label: (success, c.success) for label, c in curves.items()}),
        Plot("precision", "centre distance (pixels)", "precision",
             {label: (precision, c.precision) for label, c in curves.items()}),
    ]  # fmt: skip
    long_term = {k: score.long_term for k, score in scores.items() if score.long_term is not None}
    return plots + (long_term_plots(long_term) if len(long_term) == len(scores) else [])


def long_term_plots(scores: Mapping[str, metrics.LongTermScore]) -> list[Plot]:
    """Precision against recall, and F at every confidence threshold, the strictest first."""
    recall_precision, f_curves = {}, {}
    for label, score in scores.items():
        recall, precision = score.recalls.mean(0), score.precisions.mean(0)
        f_curve = metrics.f_measure(precision, recall)
        recall_precision[label] = recall, precision
        f_curves[label] = np.linspace(0, 1, len(f_curve)), f_curve
    return [
        Plot("precision_recall", "recall", "tracking precision", recall_precision),
        Plot("f_measure", "confidence threshold, by rank", "F-score", f_curves),
    ]
