"""The curves as PDF and PNG, for papers (Figs. 6 and 7)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pytracking_ext.analysis import metrics
from pytracking_ext.analysis.scoring import Score


def write_figures(out: Path, scores: Mapping[str, Score]) -> list[Path]:
    """Success and precision plots, and precision-recall for long-term benchmarks."""
    plots = {
        "success": ("overlap threshold", "success rate", metrics.SUCCESS_THRESHOLDS),
        "precision": ("centre distance (pixels)", "precision", metrics.PRECISION_THRESHOLDS),
    }
    written = []
    for name, (x_label, y_label, thresholds) in plots.items():
        lines = {k: (thresholds, getattr(score.curves, name)) for k, score in scores.items()}
        written += _write(out / name, lines, x_label, y_label)
    if all(score.long_term is not None for score in scores.values()):
        lines = {
            label: (score.long_term.recalls.mean(0), score.long_term.precisions.mean(0))
            for label, score in scores.items()
        }
        written += _write(out / "precision_recall", lines, "recall", "precision")
    return written


def _write(
    stem: Path, lines: Mapping[str, tuple[np.ndarray, np.ndarray]], x_label: str, y_label: str
) -> list[Path]:
    figure = Figure(figsize=(4.2, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for label, (x, y) in lines.items():
        axes.plot(x, y, label=label)
    axes.set(xlabel=x_label, ylabel=y_label, ylim=(0, 1), xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    paths = [stem.with_suffix(suffix) for suffix in (".pdf", ".png")]
    for path in paths:
        figure.savefig(path, dpi=200)
    return paths
