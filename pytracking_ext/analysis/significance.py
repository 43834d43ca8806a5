"""How sure a score is: bootstrap over sequences."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pytracking_ext.analysis.conventions import LONG_TERM_METRICS
from pytracking_ext.analysis.metrics import f_measure
from pytracking_ext.analysis.scoring import Score
from srft_plugin.errors import UserError

REPEATS = 2000
LEVEL = 0.95


class Interval(NamedTuple):
    """Bounds that hold the central share ``LEVEL`` of the resampled scores."""

    low: float
    high: float


def intervals(score: Score, repeats: int = REPEATS, seed: int = 0) -> dict[str, Interval]:
    """Percentile interval of every metric of the total.

    Sequences are what a benchmark samples, so they, not frames, are drawn with replacement.
    """
    samples = _resample(score, _draws(len(score.sequences), repeats, seed))
    return {metric: _interval(values) for metric, values in samples.items()}


def differences(
    first: Score, second: Score, repeats: int = REPEATS, seed: int = 0
) -> dict[str, Interval]:
    """Interval of ``first - second`` per metric, both trackers on the same drawn sequences.

    A difference is called real when its interval does not contain 0.

    Raises:
        UserError: the trackers were scored on different sequences.
    """
    if list(first.sequences) != list(second.sequences):
        only = sorted(set(first.sequences) ^ set(second.sequences))
        raise UserError(
            f"both trackers must have results of the same sequences; {len(only)} differ, "
            f"for example {only[0]}"
        )
    draws = _draws(len(first.sequences), repeats, seed)
    a, b = _resample(first, draws), _resample(second, draws)
    return {metric: _interval(a[metric] - b[metric]) for metric in a}


def _draws(count: int, repeats: int, seed: int) -> NDArray[np.int64]:
    """(repeats, count): how often each sequence is drawn."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), repeats)


def _resample(score: Score, draws: NDArray) -> dict[str, NDArray[np.float64]]:
    """(repeats,) totals by metric: every metric but Pr, Re, F is a weighted mean of sequences."""
    rows = list(score.sequences.values())
    shares = draws * np.array(list(score.weights.values()))
    shares = shares / shares.sum(1, keepdims=True)
    samples = {
        metric: shares @ np.array([row[metric] for row in rows])
        for metric in score.total
        if metric not in LONG_TERM_METRICS
    }
    if score.long_term is not None:
        # The thresholds stay those of the whole benchmark, the best of them is chosen anew.
        precision, recall = shares @ score.long_term.precisions, shares @ score.long_term.recalls
        f_curves = f_measure(precision, recall)
        best = f_curves.argmax(1)[:, None]
        for metric, curves in zip(LONG_TERM_METRICS, (precision, recall, f_curves), strict=True):
            samples[metric] = np.take_along_axis(curves, best, 1)[:, 0]
    return samples


def _interval(values: NDArray) -> Interval:
    tail = (1 - LEVEL) / 2
    return Interval(*(float(value) for value in np.quantile(values, (tail, 1 - tail))))
