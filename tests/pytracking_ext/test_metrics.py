"""Metrics against hand-worked values, slow references, and the VOT toolkit."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytracking_ext.analysis import metrics


def test_overlap_by_hand():
    truth = [[0, 0, 10, 10]] * 5
    predicted = [[0, 0, 10, 10], [5, 0, 10, 10], [10, 0, 5, 5], [0, 0, 0, 5], [math.nan] * 4]
    result = metrics.overlap(predicted, truth)
    np.testing.assert_allclose(result[:4], [1, 50 / 150, 0, 0])
    assert math.isnan(result[4])


def test_centre_distance_by_hand():
    truth = [[0, 0, 10, 20], [0, 0, 10, 20], [0, 0, 0, 20]]
    predicted = [[3, 4, 10, 20], [-1, 0, 12, 20], [3, 4, 10, 20]]
    np.testing.assert_allclose(metrics.centre_distance(predicted, truth), [5, 0, math.hypot(8, 4)])
    normalised = metrics.centre_distance(predicted, truth, normalised=True)
    np.testing.assert_allclose(normalised, [math.hypot(0.3, 0.2), 0, math.inf])


def test_success_and_precision_by_hand():
    overlaps = [0.5, 0.52, 1.0, 0.0, math.nan]
    strict = metrics.success_curve(overlaps, [0, 0.5, 1])
    np.testing.assert_allclose(strict, [3 / 5, 2 / 5, 0])
    loose = metrics.success_curve(overlaps, [0, 0.5, 1], strict=False)
    np.testing.assert_allclose(loose, [4 / 5, 3 / 5, 1 / 5])
    distances = [0, 20, 20.5, math.inf, math.nan]
    np.testing.assert_allclose(metrics.precision_curve(distances, [20]), [2 / 5])
    assert len(metrics.SUCCESS_THRESHOLDS) == 21
    assert metrics.SUCCESS_THRESHOLDS[10] == 0.5


side = st.floats(0, 60).map(lambda v: round(v, 3))
edge = st.floats(-40, 120).map(lambda v: round(v, 3))
box = st.tuples(edge, edge, side, side)


@given(a=box, b=box)
def test_overlap_properties(a, b):
    value = metrics.overlap([a], [b])[0]
    assert 0 <= value <= 1
    assert value == metrics.overlap([b], [a])[0]
    if a[2] > 0 and a[3] > 0:
        assert metrics.overlap([a], [a])[0] == pytest.approx(1)


@settings(deadline=None, max_examples=20)
@given(pairs=st.lists(st.tuples(box, box | st.none()), min_size=1, max_size=20))
def test_raster_overlap_equals_the_toolkits(pairs):
    region = pytest.importorskip("vot.region", reason="the VOT toolkit is not installed")
    from vot.region.shapes import Rectangle

    expected = [
        region.calculate_overlap(
            Rectangle(*a), region.Special(0) if b is None else Rectangle(*b), (80, 60)
        )
        for a, b in pairs
    ]
    predicted = [a for a, _ in pairs]
    truth = [[math.nan] * 4 if b is None else b for _, b in pairs]
    result = metrics.raster_overlap(predicted, truth, (80, 60))
    np.testing.assert_allclose(result, expected, atol=1e-12)


def reference_long_term(overlaps, confidences, visible, thresholds):
    """The protocol's definition, one threshold and one sequence at a time."""
    best = (0.0, 0.0, 0.0)
    for threshold in thresholds:
        precisions, recalls = [], []
        for values, scores, count in zip(overlaps, confidences, visible, strict=True):
            kept = [v for v, s in zip(values, scores, strict=True) if s >= threshold]
            precisions.append(sum(kept) / len(kept) if kept else 1.0)
            recalls.append(sum(kept) / count)
        p, r = np.mean(precisions), np.mean(recalls)
        f = 2 * p * r / (p + r) if p + r else 0.0
        if f > best[2]:
            best = (p, r, f)
    return best


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), lengths=st.lists(st.integers(2, 80), min_size=1, max_size=4))
def test_long_term_equals_the_definition(seed, lengths):
    rng = np.random.default_rng(seed)
    overlaps = [rng.random(n) for n in lengths]
    confidences = [np.round(rng.random(n), 1) for n in lengths]
    visible = [int(rng.integers(1, n + 1)) for n in lengths]
    score = metrics.long_term(overlaps, confidences, visible)
    expected = reference_long_term(overlaps, confidences, visible, score.thresholds)
    np.testing.assert_allclose(score[:3], expected, atol=1e-12)


@given(st.lists(st.floats(0, 1) | st.just(math.nan), min_size=1, max_size=400))
def test_thresholds_equal_the_toolkits(scores):
    longterm = pytest.importorskip("vot.analysis.longterm", reason="no VOT toolkit")
    np.testing.assert_array_equal(
        metrics.confidence_thresholds(scores), longterm.determine_thresholds(scores, 100)
    )
