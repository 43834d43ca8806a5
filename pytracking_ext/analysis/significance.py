"""How sure a score is: bootstrap over sequences."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pytracking_ext.analysis.scoring import Score
from srft_plugin.errors import UserError

REPEATS = 2000
LEVEL = 0.95
FEWEST = 6  # of fewer sequences, all can agree by chance alone: 2 * 0.5 ** 5 > 1 - LEVEL


class Interval(NamedTuple):
    """Bounds that hold the central share ``LEVEL`` of the resampled scores."""

    low: float
    high: float


def intervals(score: Score) -> dict[str, Interval]:
    """Percentile interval of every metric of the total.

    Sequences are what a benchmark samples, so they, not frames, are drawn with replacement.
    """
    samples = score.resampled(_draws(len(score.sequences)))
    return {metric: _interval(values) for metric, values in samples.items()}


def differences(first: Score, second: Score) -> dict[str, Interval]:
    """Interval of ``first - second`` per metric, both trackers on the same drawn sequences.

    Raises:
        UserError: the trackers were scored on different sequences.
    """
    if list(first.sequences) != list(second.sequences):
        only = sorted(set(first.sequences) ^ set(second.sequences))
        raise UserError(
            f"both trackers must have results of the same sequences; {len(only)} differ, "
            f"for example {only[0]}"
        )
    draws = _draws(len(first.sequences))
    a, b = first.resampled(draws), second.resampled(draws)
    return {metric: _interval(a[metric] - b[metric]) for metric in a}


def verdict(difference: Interval, sequences: int) -> str:
    """What a difference over so many sequences is: real when its interval does not contain 0.

    The interval of a few is too narrow, that of a single one has no width.
    """
    if sequences < FEWEST:
        return "too few sequences to tell"
    return "real" if difference.low > 0 or difference.high < 0 else "within chance"


def _draws(count: int) -> NDArray[np.int64]:
    """(REPEATS, count): how often each sequence is drawn, the same at every call."""
    return np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), REPEATS)


def _interval(values: NDArray) -> Interval:
    tail = (1 - LEVEL) / 2
    return Interval(*(float(value) for value in np.quantile(values, (tail, 1 - tail))))
