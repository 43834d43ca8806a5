"""Conventions by hand, official scripts' rules, the VOT toolkit's figures."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from ltr_ext.dataset.kinds import KINDS
from pytracking_ext.analysis.conventions import CONVENTIONS, Convention, convention, parse_choice
from pytracking_ext.analysis.frames import Prediction, SequenceTruth, score_frames
from pytracking_ext.analysis.scoring import METRICS, frame_curves, score_benchmark
from pytracking_ext.analysis.tables import render
from pytracking_ext.evaluation.scores import total_table
from srft_plugin.errors import UserError

NAN = [np.nan] * 4
SQUARE = [0.0, 0, 10, 10]
# first frame, one third overlap, target absent, no prediction
TRUTH = SequenceTruth(np.array([SQUARE, SQUARE, NAN, SQUARE]))
BOXES = np.array([[0, 0, 10, 10], [5, 0, 10, 10], [9, 9, 9, 9], NAN], float)
MISS, HIT = np.nan, -1


@pytest.mark.parametrize(
    "changes, overlaps, distances",
    [
        ({}, [1 / 3, MISS], [5, MISS]),
        ({"first_frame": "truth"}, [1, 1 / 3, MISS], [0, 5, MISS]),
        ({"absent": "miss"}, [1 / 3, MISS, MISS], [5, MISS, MISS]),
        ({"absent": "hit"}, [1 / 3, MISS, MISS], [5, HIT, MISS]),
        # the box of the frame before, [9, 9, 9, 9]: one of 81 + 100 - 1 pixels
        ({"invalid": "previous"}, [1 / 3, 1 / 180], [5, np.hypot(8.5, 8.5)]),
        ({"rim": "miss"}, [MISS, MISS], [MISS, MISS]),
        ({"rim": "hit"}, [MISS, MISS], [HIT, HIT]),
    ],
)
def test_choices_by_hand(changes, overlaps, distances):
    scores = score_frames(TRUTH, Prediction(BOXES), Convention(**changes))
    np.testing.assert_allclose(scores.overlaps, overlaps)
    np.testing.assert_allclose(scores.distances, distances)


def test_the_first_frame_as_reported():
    boxes = BOXES.copy()
    boxes[0, 0] = 5
    scores = score_frames(TRUTH, Prediction(boxes), Convention(first_frame="prediction"))
    np.testing.assert_allclose(scores.overlaps, [1 / 3, 1 / 3, MISS])
    assert boxes[0, 0] == 5  # scoring changes nothing that it is given
    score_frames(TRUTH, Prediction(boxes), Convention(first_frame="truth"))
    assert boxes[0, 0] == 5


def test_thresholds_strict_or_not():
    truth = SequenceTruth(np.tile(SQUARE, (3, 1)))
    boxes = np.array([SQUARE, [0, 0, 5, 10], [20, 0, 10, 10]])  # overlap 0.5; distance 20
    strict = frame_curves(score_frames(truth, Prediction(boxes), Convention()), Convention())
    assert strict.success[10] == 0 and strict.success[9] == 0.5
    assert strict.precision[20] == 1 and strict.precision[19] == 0.5
    how = Convention(strict_overlap=False, strict_distance=True)
    loose = frame_curves(score_frames(truth, Prediction(boxes), how), how)
    assert loose.success[10] == 0.5 and loose.precision[20] == 0.5 and loose.precision[21] == 1


def test_a_miss_fails_even_at_threshold_zero():
    how = Convention(strict_overlap=False)
    curves = frame_curves(score_frames(TRUTH, Prediction(BOXES), how), how)
    assert curves.success[0] == 0.5  # of two counted frames one has no prediction


def test_lengths():
    with pytest.raises(UserError, match="bag: the result has 3 boxes but the ground truth 4"):
        score_frames(TRUTH, Prediction(BOXES[:3]), Convention(), "bag")
    longer = np.concatenate((BOXES, BOXES))
    with pytest.raises(UserError, match="8 boxes"):
        score_frames(TRUTH, Prediction(longer), Convention())
    for rule in ("cut", "pad"):
        cut = score_frames(TRUTH, Prediction(longer), Convention(lengths=rule))
        np.testing.assert_allclose(cut.overlaps, [1 / 3, MISS])
    with pytest.raises(UserError, match="3 boxes"):
        score_frames(TRUTH, Prediction(BOXES[:3]), Convention(lengths="cut"))
    padded = score_frames(TRUTH, Prediction(BOXES[:3]), Convention(lengths="pad"))
    np.testing.assert_allclose(padded.overlaps, [1 / 3, MISS])


def test_frames_without_a_result_are_misses_though_invalid_boxes_repeat_the_previous_one():
    truth = SequenceTruth(np.tile([1.0, 1, 10, 10], (5, 1)))
    result = Prediction(np.array([[1.0, 1, 10, 10], NAN]))
    found = score_frames(truth, result, convention("fe108"))
    np.testing.assert_allclose(found.overlaps, [1, 1, MISS, MISS, MISS])


def test_the_better_of_two_ground_truths():
    second = np.array([SQUARE, [5, 0, 10, 10.0], SQUARE, SQUARE])
    truth = SequenceTruth(TRUTH.boxes, second=second)
    better = score_frames(truth, Prediction(BOXES), Convention(truths="better"))
    np.testing.assert_allclose(better.overlaps, [1, MISS])
    np.testing.assert_allclose(better.distances, [0, MISS])
    first = score_frames(truth, Prediction(BOXES), Convention())
    np.testing.assert_allclose(first.overlaps, [1 / 3, MISS])
    with pytest.raises(UserError, match="bag: the second ground truth has 3 rows, the first 4"):
        score_frames(replace(truth, second=second[:3]), Prediction(BOXES), Convention(), "bag")


def test_clipping_to_the_image():
    truth = SequenceTruth(np.tile([0.0, 0, 10, 10], (2, 1)), size=(10, 10))
    boxes = np.array([SQUARE, [-5, 0, 20, 10.0]])
    how = Convention(in_image=True)
    np.testing.assert_allclose(score_frames(truth, Prediction(boxes), how).overlaps, [1])
    np.testing.assert_allclose(score_frames(truth, Prediction(boxes), Convention()).overlaps, [0.5])


def test_area_as_mean_or_trapezoids():
    truth = SequenceTruth(np.tile(SQUARE, (2, 1)))
    perfect = Prediction(truth.boxes)
    mean, trapezoid = (
        score_benchmark({"a": truth}, {"a": perfect}, Convention(metrics=("SR",), area=area))
        for area in ("mean", "trapezoid")
    )
    # an overlap of 1 is not above the threshold 1: 20 of 21 thresholds, 19.5 of 20 trapezoids
    assert mean.total["SR"] == pytest.approx(20 / 21)
    assert trapezoid.total["SR"] == pytest.approx(19.5 / 20)


def test_normalised_precision_at_a_threshold_or_as_area():
    truth = SequenceTruth(np.tile([10.0, 10, 10, 20], (2, 1)))
    boxes = np.array([truth.boxes[0], [13, 18, 10, 20.0]])  # 0.3 wide and 0.4 high: distance 0.5
    for normalised, expected in ((0.2, 0.0), (0.5, 1.0), (None, 1 / 51)):
        how = Convention(metrics=("NPR",), normalised=normalised)
        score = score_benchmark({"a": truth}, {"a": Prediction(boxes)}, how)
        assert score.total["NPR"] == pytest.approx(expected)


# Six frames, one for each of the things in which the benchmarks differ; overlap and distance are
# 1/3 and 5 (given), 1 and 0, - (absent), 1 and 0 (at the rim), - (no box; the one before overlaps
# by 0 at distance 20), 1/4 and 6 (the other camera: 1 and 0).
TARGET, RIM = [20.0, 20, 10, 10], [0.0, 20, 10, 10]
SIX_TRUTHS = SequenceTruth(
    np.array([TARGET, TARGET, NAN, RIM, TARGET, TARGET]),
    size=(100, 100),
    second=np.array([TARGET, TARGET, NAN, RIM, TARGET, [20, 26, 10, 10]]),
)
SIX_BOXES = np.array([[25, 20, 10, 10], TARGET, TARGET, RIM, NAN, [20, 26, 10, 10]])
# Of the 21 thresholds an overlap of 1 passes 20, 1/3 passes 7, 1/4 passes 5.


@pytest.mark.parametrize(
    "benchmark, expected",
    [
        ("my own set", {"IoU": 2.25 / 4, "SR": 45 / 21 / 4, "PR": 3 / 4, "NPR": 2 / 4}),
        ("lasher", {"SR": 45 / 21 / 6, "PR": 6 / 6, "NPR": 4 / 6}),
        ("visevent", {"SR": 45 / 21 / 6, "PR": 5 / 6}),
        ("coesot", {"SR": 45 / 21 / 6, "PR": 5 / 6}),
        ("fe108", {"SR": 65 / 21 / 6, "PR": 5 / 6}),
        ("lasot", {"AUC": 45 / 21 / 6, "P": 5 / 6, "P_norm": 3 / 6}),
        ("tnl2k", {"AUC": 45 / 21 / 6, "P": 5 / 6, "P_norm": 3 / 6}),
        ("trackingnet", {"AUC": 45 / 21 / 6, "P": 4 / 6, "P_norm": 2 / 6}),
        ("otb", {"AUC": 45 / 21 / 6, "P": 5 / 6}),
        ("uav123", {"AUC": 45 / 21 / 6, "P": 6 / 6}),
        ("got10k", {"AO": 2.25 / 4, "SR_0.5": 2 / 4, "SR_0.75": 2 / 4}),
        ("rgbt234", {"MSR": (7 + 3 * 20) / 21 / 6, "MPR": 4 / 6}),
        # trapezoids: half of the first threshold's pass counts less; 5 pixels are not below 5
        ("gtot", {"MSR": (6.5 + 3 * 19.5) / 20 / 6, "MPR": 3 / 6}),
    ],
)
def test_every_benchmark_by_hand(benchmark, expected):
    how = convention(benchmark)
    kind = KINDS.get(benchmark)
    start = [kind.layout.first_pixel if kind else 0] * 2 + [0, 0]  # readers count from 0
    truth = replace(SIX_TRUTHS, boxes=SIX_TRUTHS.boxes - start, second=SIX_TRUTHS.second - start)
    score = score_benchmark({"a": truth}, {"a": Prediction(SIX_BOXES - start)}, how)
    assert score.total == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("benchmark", CONVENTIONS)
def test_the_rim_is_that_of_the_benchmarks_files(benchmark):
    """A box in the first column is inside of the image, whether files call that 0 or 1."""
    how = convention(benchmark)
    assert how.first_pixel == KINDS[benchmark].layout.first_pixel
    if how.first_pixel:
        truth = np.tile([0.0, 20, 10, 10], (2, 1))
        found = score_frames(SequenceTruth(truth), Prediction(truth), how)
        np.testing.assert_allclose(found.overlaps, [1, 1])


def lasot_script(truth, boxes, absent):
    """The rules of the official MATLAB scripts, frame by frame (absent: label per frame)."""
    boxes = boxes.copy()
    for i in range(1, len(truth)):
        if np.isnan(boxes[i]).any() or boxes[i, 2] <= 0 or boxes[i, 3] <= 0:
            boxes[i] = boxes[i - 1]
    boxes[0] = truth[0]
    success, precision = np.zeros(21), np.zeros(51)
    for i in range(len(truth)):
        if absent[i]:
            continue
        if (truth[i] > 0).all():
            low = np.maximum(truth[i, :2], boxes[i, :2])
            high = np.minimum(truth[i, :2] + truth[i, 2:], boxes[i, :2] + boxes[i, 2:])
            both = np.maximum(high - low, 0).prod()
            overlap = both / (truth[i, 2:].prod() + boxes[i, 2:].prod() - both)
            distance = np.linalg.norm(truth[i, :2] + truth[i, 2:] / 2 - boxes[i, :2]
                                      - boxes[i, 2:] / 2)  # fmt: skip
        else:
            overlap = distance = -1
        success += overlap > np.linspace(0, 1, 21)
        precision += distance <= np.arange(51)
    return success.mean() / len(truth), precision[20] / len(truth)


@pytest.mark.parametrize("benchmark", ["visevent", "coesot", "lasot", "lasher"])
def test_benchmarks_derived_from_lasots_scripts(benchmark):
    rng = np.random.default_rng(3)
    truth = rng.uniform(-5, 60, (200, 4)).round(1)
    truth[:, 2:] = np.abs(truth[:, 2:]) + 1
    truth[0, :2] = 5
    boxes = truth + rng.normal(0, 8, truth.shape)
    boxes[rng.random(200) < 0.1] = np.nan
    absent = rng.random(200) < 0.2
    absent[0] = False
    shown = truth.copy()
    shown[absent] = np.nan
    raw = np.where(absent[:, None], 0, truth)
    labels = np.zeros(200, bool) if benchmark == "lasher" else absent  # LasHeR has no labels
    expected = lasot_script(raw, boxes, labels)
    how = convention(benchmark, metrics=("SR", "PR"))
    score = score_benchmark({"a": SequenceTruth(shown)}, {"a": Prediction(boxes)}, how)
    assert (score.total["SR"], score.total["PR"]) == pytest.approx(expected, abs=1e-12)


def test_averages_over_sequences_or_frames():
    truths = {
        "a": SequenceTruth(np.tile(SQUARE, (5, 1))),
        "b": SequenceTruth(np.tile(SQUARE, (2, 1))),
    }
    predictions = {
        "a": Prediction(np.tile(SQUARE, (5, 1))),
        "b": Prediction(np.tile([50.0, 50, 10, 10], (2, 1))),
    }
    by_sequence = score_benchmark(truths, predictions, Convention(metrics=("AO", "SR_0.5")))
    assert by_sequence.total == {"AO": 0.5, "SR_0.5": 0.5}
    by_frame = score_benchmark(
        truths, predictions, Convention(metrics=("AO", "SR_0.5"), average="frames")
    )
    assert by_frame.total == {"AO": 0.8, "SR_0.5": 0.8}


def test_missing_sequences_are_listed():
    score = score_benchmark({"a": TRUTH, "b": TRUTH}, {"a": Prediction(BOXES)}, Convention())
    assert score.missing == ("b",)
    assert "1 of 2 sequences have no result" in render(total_table("x", {"mine": score}))
    with pytest.raises(UserError, match="no sequence of the benchmark has a result"):
        score_benchmark({"a": TRUTH}, {}, Convention())


def test_a_sequence_that_is_gone_after_its_first_frame_costs_no_other_its_score():
    gone = SequenceTruth(np.array([SQUARE, NAN, NAN, NAN]))
    predictions = {name: Prediction(BOXES) for name in ("a", "gone")}
    score = score_benchmark({"a": TRUTH, "gone": gone}, predictions, Convention())
    assert score.uncounted == ("gone",) and not score.missing
    assert score.total == score_benchmark({"a": TRUTH}, predictions, Convention()).total
    assert "left out are sequences without the target" in render(total_table("x", {"mine": score}))
    with pytest.raises(UserError, match="gone: no frame is left to score after the first one"):
        score_benchmark({"gone": gone}, predictions, Convention())
    everything = Convention(first_frame="truth")
    assert score_benchmark({"gone": gone}, predictions, everything).sequences["gone"]["IoU"] == 1


def test_long_term_scores_need_confidences_and_sizes():
    how = convention("depthtrack")
    with pytest.raises(UserError, match="a confidence per frame"):
        score_benchmark({"a": TRUTH}, {"a": Prediction(BOXES)}, how)
    with pytest.raises(UserError, match="size of the images"):
        score_benchmark({"a": TRUTH}, {"a": Prediction(BOXES, np.ones(4))}, how)
    truth = SequenceTruth(TRUTH.boxes, size=(40, 40))
    with pytest.raises(UserError, match="track the sequence again"):
        score_benchmark({"a": truth}, {"a": Prediction(BOXES, np.ones(3))}, how)


def test_conventions_are_checked():
    assert convention("lasher").absent == "hit"
    assert convention("my own set") == Convention()
    assert convention("lasher", absent="skip").absent == "skip"
    with pytest.raises(UserError, match="unknown convention 'abscent'; did you mean 'absent'"):
        convention("lasher", abscent="skip")
    assert parse_choice("absent", "skip") == "skip" and parse_choice("in_image", "true") is True
    assert parse_choice("pixels", "0") == 0 and parse_choice("normalised", "none") is None
    for name, text in (("absent", "no"), ("in_image", "1"), ("pixels", "few"), ("pixel", "5"),
                       ("pixels", "none"), ("pixels", "nan"), ("pixels", "-1"),
                       ("normalised", "-0.1")):  # fmt: skip
        with pytest.raises(UserError, match=f"{name}"):
            parse_choice(name, text)
    with pytest.raises(UserError, match="no metric 'mAP'"):
        score_benchmark({"a": TRUTH}, {"a": Prediction(BOXES)}, Convention(metrics=("mAP",)))
    for how in CONVENTIONS.values():
        assert set(how.metrics) <= {*METRICS, "Pr", "Re", "F"}


def test_long_term_figures_equal_the_vot_toolkits():
    """Pr, Re and F of three sequences with absences, by the toolkit's own functions."""
    longterm = pytest.importorskip("vot.analysis.longterm", reason="no VOT toolkit")
    from vot.region import Special
    from vot.region.shapes import Rectangle

    rng = np.random.default_rng(5)
    truths, predictions, toolkit = {}, {}, []
    for name, length in (("a", 120), ("b", 300), ("c", 75)):
        truth = rng.uniform(-10, 90, (length, 4)).round(2)
        truth[:, 2:] = rng.uniform(5, 40, (length, 2)).round(2)
        boxes = truth + rng.normal(0, 6, truth.shape)
        boxes[:, 2:] = np.abs(boxes[:, 2:])
        truth[1:][rng.random(length - 1) < 0.25] = np.nan
        confidences = rng.random(length).round(2)
        truths[name] = SequenceTruth(truth, (100, 80))
        predictions[name] = Prediction(boxes, confidences)
        regions = [Special(1), *(Rectangle(*box) for box in boxes[1:])]
        annotation = [Special(0) if np.isnan(box).any() else Rectangle(*box) for box in truth]
        sequence = SimpleNamespace(groundtruth=lambda a=annotation: a, size=(100, 80))
        toolkit.append((regions, [0, *confidences[1:]], sequence))
    thresholds = longterm.determine_thresholds([c for _, row, _ in toolkit for c in row], 100)
    curves = [longterm.compute_tpr_curves(*item, thresholds) for item in toolkit]
    precision, recall = np.mean(curves, axis=0)
    f_scores = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    best = f_scores.argmax()
    expected = {"Pr": precision[best], "Re": recall[best], "F": f_scores[best]}
    how = convention("depthtrack", metrics=("Pr", "Re", "F"))
    assert score_benchmark(truths, predictions, how).total == pytest.approx(expected, abs=1e-12)
