"""Means over seeds with their intervals, and paired differences between two ways of training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pytracking_ext.analysis.significance import LEVEL
from srft_plugin.errors import UserError


class Estimate(NamedTuple):
    """A mean over seeds; ``half`` is half the width of its 95 % interval, NaN with one seed."""

    mean: float
    half: float

    @property
    def is_real(self) -> bool:
        """Whether the interval leaves 0 out."""
        return abs(self.mean) > self.half


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of independent repetitions and Student's t interval: t * s / sqrt(n)."""
    data = np.asarray(values, np.float64)
    if len(data) < 2:
        return Estimate(float(data.mean()), math.nan)
    quantile = _student().ppf((1 + LEVEL) / 2, len(data) - 1)
    return Estimate(float(data.mean()), float(quantile * data.std(ddof=1) / math.sqrt(len(data))))


def paired(values: dict[int, float], reference: dict[int, float]) -> Estimate:
    """Mean of ``values - reference`` over the seeds that both have, with its interval.

    Args:
        values, reference: by seed, with at least one seed in common.
    """
    seeds = sorted(values.keys() & reference.keys())
    return estimate([values[seed] - reference[seed] for seed in seeds])


def _student():
    try:
        from scipy.stats import t
    except ImportError as error:
        raise UserError('the study needs scipy: pip install -e ".[study]"') from error
    return t
