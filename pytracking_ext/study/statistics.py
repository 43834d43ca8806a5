"""Means over seeds with their intervals, and paired differences between two ways of training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pytracking_ext.analysis.significance import LEVEL
from srft_plugin.errors import UserError


class Estimate(NamedTuple):
    """A mean over seeds.

    Attributes:
        half: half the width of its 95 % interval, NaN with one seed.
        p: two-sided, of a mean of 0; NaN with one seed.
    """

    mean: float
    half: float
    p: float

    @property
    def is_real(self) -> bool:
        """Whether the interval leaves 0 out."""
        return abs(self.mean) > self.half


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of independent repetitions and Student's t interval: t * s / sqrt(n)."""
    data = np.asarray(values, np.float64)
    mean = float(data.mean())
    if len(data) < 2:
        return Estimate(mean, math.nan, math.nan)
    student = require_scipy().t(len(data) - 1)
    error = float(data.std(ddof=1)) / math.sqrt(len(data))
    p = 2 * student.sf(abs(mean) / error) if error else float(mean == 0)
    return Estimate(mean, float(student.ppf((1 + LEVEL) / 2)) * error, float(p))


def paired(values: dict[int, float], reference: dict[int, float]) -> Estimate:
    """Mean of ``values - reference`` over the seeds that both have, with its interval.

    Args:
        values, reference: by seed, with at least one seed in common.
    """
    seeds = sorted(values.keys() & reference.keys())
    return estimate([values[seed] - reference[seed] for seed in seeds])


def discoveries(estimates: Sequence[Estimate]) -> int:
    """How many means differ from 0 if one in twenty of these may be wrong (Benjamini, Hochberg).

    Args:
        estimates: all that were looked at, each of several seeds.
    """
    if not estimates:
        return 0
    adjusted = require_scipy().false_discovery_control([estimate.p for estimate in estimates])
    return int((adjusted <= 1 - LEVEL).sum())


def require_scipy():
    try:
        from scipy import stats
    except ImportError as error:
        raise UserError('the study needs scipy: pip install -e ".[study]"') from error
    return stats
