"""What is made of scores: totals per attribute, bootstrap, tables, published rows."""

import json

import numpy as np
import pytest

from pytracking_ext.analysis.conventions import Convention, convention
from pytracking_ext.analysis.frames import Prediction, SequenceTruth
from pytracking_ext.analysis.published import METRICS as PUBLISHED
from pytracking_ext.analysis.published import add_published, published_rows
from pytracking_ext.analysis.scoring import score_benchmark
from pytracking_ext.analysis.significance import differences, intervals
from pytracking_ext.analysis.tables import FORMATS, Table, render
from pytracking_ext.evaluation.scores import attribute_table, sequence_tables, total_table
from srft_plugin.errors import UserError


def random_scores(seed, count, shift=0.0, how=None, length=30):
    rng = np.random.default_rng(seed)
    truths, predictions = {}, {}
    for index in range(count):
        boxes = np.column_stack([rng.uniform(20, 60, (length, 2)), np.full((length, 2), 20.0)])
        noise = np.zeros_like(boxes)
        noise[:, :2] = rng.normal(0, 4, (length, 2)) + shift
        truths[str(index)] = SequenceTruth(
            boxes, (120, 120), attributes=("fast",) if index % 2 else ("fast", "dark")
        )
        predictions[str(index)] = Prediction(boxes + noise, rng.random(length))
    return score_benchmark(truths, predictions, how or Convention(metrics=("IoU", "SR")))


@pytest.mark.parametrize("benchmark", ["generic", "depthtrack", "gtot"])
def test_drawing_every_sequence_once_gives_the_total(benchmark):
    score = random_scores(0, 6, how=convention(benchmark))
    samples = score.resampled(np.ones((1, 6), int))
    assert {key: value[0] for key, value in samples.items()} == pytest.approx(score.total)


def test_intervals_shrink_and_contain_the_total():
    few, many = random_scores(1, 5), random_scores(1, 80)
    for score in (few, many):
        low, high = intervals(score)["IoU"]
        assert low < score.total["IoU"] < high
    widths = [intervals(score)["IoU"] for score in (few, many)]
    assert widths[1].high - widths[1].low < widths[0].high - widths[0].low


@pytest.mark.parametrize("benchmark", ["generic", "depthtrack"])
def test_attributes_are_scored_like_benchmarks_of_their_own(benchmark):
    score = random_scores(0, 6, how=convention(benchmark))
    metric = next(iter(score.total))
    assert score.by_attribute(metric)["fast"] == (pytest.approx(score.total[metric]), 6)
    value, count = score.by_attribute("SR")["dark"]
    assert count == 3
    assert value == pytest.approx(np.mean([score.sequences[name]["SR"] for name in "024"]))


def test_one_long_term_metric_alone():
    every, alone = (
        random_scores(0, 6, how=convention("depthtrack", metrics=metrics))
        for metrics in (("Pr", "Re", "F", "SR"), ("Pr", "SR"))
    )
    assert alone.total == {metric: every.total[metric] for metric in ("Pr", "SR")}
    assert list(intervals(alone)) == ["Pr", "SR"]


def test_real_differences_are_told_from_chance():
    good, same, worse = random_scores(2, 40), random_scores(2, 40), random_scores(2, 40, shift=3)
    assert differences(good, worse)["IoU"].low > 0
    assert differences(good, same)["IoU"] == (0, 0)
    table = render(total_table("x", {"good": good, "worse": worse}, bootstrap=True))
    assert "good - worse, IoU" in table and ", real" in table
    with pytest.raises(UserError, match="same sequences"):
        differences(good, random_scores(2, 39))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_sequences_do_not_tell(count):
    """Of one sequence the interval has no width, and all of five lean one way once in 16 times."""
    good, worse = random_scores(2, count), random_scores(2, count, shift=3)
    assert differences(good, worse)["IoU"].low > 0
    table = render(total_table("x", {"good": good, "worse": worse}, bootstrap=True))
    assert table.count("too few sequences to tell") == 2 and ", real" not in table


def test_tables_in_every_format():
    scores = {"my_tracker": random_scores(0, 4), "b": random_scores(1, 3)}
    table = total_table("visevent", scores)
    assert "all 320 sequences of visevent; here are 4." in render(table)
    add_published(table, "visevent", 320)
    assert {form: bool(render(table, form)) for form in FORMATS} == dict.fromkeys(FORMATS, True)
    assert "SRFT (OSTrack-B256)" in render(table)
    assert r"my\_tracker" in render(table, "latex")
    rows = json.loads(render(table, "json"))["rows"]
    assert rows[0]["tracker"] == "my_tracker"
    assert rows[0]["IoU"] == pytest.approx(100 * scores["my_tracker"].total["IoU"])
    iou, success = sequence_tables(scores)
    assert (iou.title, success.title) == ("IoU per sequence (percent)", "SR per sequence (percent)")
    rows = json.loads(render(success, "json"))["rows"]
    assert rows[3]["b"] is None and rows[3]["my_tracker"] is not None
    (alone,) = sequence_tables({"b": scores["b"]})
    assert alone.columns == ["sequence", "IoU", "SR"] and len(alone.rows) == 3
    attributes = json.loads(render(attribute_table(scores, "SR"), "json"))["rows"]
    assert [row["attribute"] for row in attributes] == ["dark", "fast"]
    assert [row["sequences"] for row in attributes] == [2, 3]
    notes = attribute_table(scores, "SR").notes
    assert notes == ["fast: trackers have results of 3 to 4 of its sequences."]
    odd = render(Table("t", ["a", "b"], [("[x^2\\y~", [None])]), "latex").splitlines()[5]
    assert odd == r"{[}x\textasciicircum{}2\textbackslash{}y\textasciitilde{} & - \\"
    assert render(Table("t", ["a", "b|c"]), "markdown").splitlines()[2] == "| a | b\\|c |"


def test_published_rows_are_complete():
    assert len(published_rows("depthtrack")) == 19
    assert published_rows("visevent")[11].values == (61.8, 78.6)
    assert published_rows("otb") == []
    for benchmark, names in PUBLISHED.items():
        assert all(len(row.values) == len(names) for row in published_rows(benchmark))
