"""The independent implementation of both protocols against the toolkit, on random results."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from srft_plugin.errors import UserError
from vot_integration.analysis import analyse
from vot_integration.report import TOLERANCE, check_against_toolkit, curves, figures_table
from vot_integration.results import write_run
from vot_integration.runner import all_runs
from vot_integration.score import Score, TrackedRun, expected_overlaps, score
from vot_integration.workspace import Workspace


def write_results(workspace: Workspace, seed: int, confidences: int) -> None:
    """Results that follow the target for a while, then drift; ``confidences`` distinct values."""
    rng = np.random.default_rng(seed)
    for folder, run in all_runs(workspace, "blob"):
        sequence = workspace.directory / "sequences" / folder.name
        truth = np.genfromtxt(sequence / "groundtruth.txt", delimiter=",")[list(run.frames)]
        boxes = np.where(np.isfinite(truth), truth, truth[0])
        error = rng.normal(0, 1, boxes.shape).cumsum(0) * rng.choice([0, 0.3, 2])
        boxes = boxes + error
        wild = rng.random(len(boxes)) < 0.1  # far away, outside the image, tiny or huge
        boxes[wild] = rng.uniform(-20, 80, (int(wild.sum()), 4))
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 0.3)
        values = rng.integers(confidences, size=len(boxes)) / max(1, confidences - 1)
        write_run(folder, run, boxes, {"confidence": [None, *map(float, values[1:])]})


def set_eao_range(workspace: Workspace, low: int, high: int) -> None:
    path = workspace.directory / workspace.benchmark.stack
    path.write_text(path.read_text().replace("115", str(low)).replace("755", str(high)))


@pytest.mark.parametrize("benchmark", ["depthtrack", "vot-rgbd2022"])
def test_equal_to_the_toolkit(make_workspace, benchmark):
    workspace = make_workspace(benchmark=benchmark)
    if benchmark == "vot-rgbd2022":
        set_eao_range(workspace, 5, 24)

    @settings(
        max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(seed=st.integers(0, 2**32), confidences=st.sampled_from([1, 2, 1000]))
    def check(seed, confidences):
        write_results(workspace, seed, confidences)
        ours, official = score(workspace, "blob").figures, analyse(workspace)["blob"]
        assert list(ours) == list(workspace.benchmark.measures)
        for measure, value in ours.items():
            assert abs(value - official[measure]) <= TOLERANCE[measure], (ours, official)

    check()


def test_a_perfect_tracker(make_workspace):
    workspace = make_workspace()
    for folder, run in all_runs(workspace, "blob"):
        truth = np.genfromtxt(
            workspace.directory / "sequences" / folder.name / "groundtruth.txt", delimiter=","
        )
        visible = np.isfinite(truth).all(1)
        boxes = np.where(visible[:, None], truth, truth[0])
        write_run(folder, run, boxes, {"confidence": [None, *visible[1:].astype(float)]})
    found = score(workspace, "blob")
    lengths = {"a": 20 - 4, "b": 30 - 6, "c": 25 - 5}  # visible frames; the first one scores 0
    expected = np.mean([(n - 1) / n for n in lengths.values()])
    assert found.figures["Pr"] == 1
    assert found.figures["Re"] == pytest.approx(expected, abs=1e-15)
    for name, length in lengths.items():
        recall = (length - 1) / length
        assert found.per_sequence[name] == pytest.approx(
            {"Pr": 1, "Re": recall, "F": 2 * recall / (1 + recall)}
        )


def run_with(overlaps: list[float]) -> TrackedRun:
    count = len(overlaps)
    return TrackedRun(np.array(overlaps), np.zeros(count), np.ones(count, bool))


def test_expected_overlap_by_hand():
    def expected_overlap(runs, low, high):
        return expected_overlaps(runs, high)[low:].mean()

    whole = run_with([0, 0.6, 0.6, 0.6, 0.6])
    assert expected_overlap([whole], 2, 4) == pytest.approx(0.6)
    assert expected_overlap([whole], 4, 6) == pytest.approx(0.3)  # no run has 5 frames after it
    failed = run_with([0, 0.6] + [0.0] * 10)
    assert expected_overlap([failed], 4, 5) == pytest.approx(0.6 / 4)
    assert expected_overlap([failed], 20, 21) == pytest.approx(0.6 / 19)
    # the run without failure counts only up to its own length
    assert expected_overlap([whole, failed], 4, 5) == pytest.approx((0.6 + 0.15) / 2)
    assert expected_overlap([whole, failed], 20, 21) == pytest.approx(0.6 / 19)


def test_warnings(make_workspace):
    workspace = make_workspace()
    write_results(workspace, seed=0, confidences=1)
    (warning,) = score(workspace, "blob").warnings
    assert "one threshold" in warning
    write_results(workspace, seed=0, confidences=1000)
    (warning,) = score(workspace, "blob").warnings
    assert "only 72 frames" in warning


def test_short_sequences_and_eao(make_workspace):
    workspace = make_workspace(benchmark="vot-rgbd2022")
    write_results(workspace, seed=0, confidences=2)
    (warning,) = score(workspace, "blob").warnings
    assert "the longest here has 30" in warning


def test_a_wrong_figure_is_noticed(make_workspace):
    workspace = make_workspace()
    write_results(workspace, seed=0, confidences=5)
    found = score(workspace, "blob")
    assert check_against_toolkit(workspace, {"blob": found}) == 0
    wrong = {**found.figures, "Re": found.figures["Re"] + 1e-9}
    with pytest.raises(UserError, match="Re of blob is"):
        check_against_toolkit(workspace, {"blob": Score(wrong, {})})


def test_the_report_draws_the_expected_overlap(make_workspace):
    workspace = make_workspace(benchmark="vot-rgbd2022")
    set_eao_range(workspace, 5, 20)
    write_results(workspace, seed=0, confidences=2)
    found = score(workspace, "blob")
    (plot,) = curves({"blob": found})
    frames, overlaps = plot.lines["blob"]
    assert len(frames) == len(overlaps) == 20
    assert np.mean(overlaps[5:]) == found.figures["EAO"]
    assert overlaps[0] == 0 and 0 < overlaps[1:].min() < overlaps.max() < 1


def test_missing_results_are_refused(make_workspace):
    workspace = make_workspace()
    with pytest.raises(UserError, match=r"a_001\.bin is missing"):
        score(workspace, "blob")


def test_the_paper_stands_beside(make_workspace):
    workspace = make_workspace(benchmark="vot-rgbd2022")
    found = {"blob": Score({"EAO": 0.5, "A": 0.6, "R": 0.7}, {})}
    table = figures_table(workspace, found)
    assert table.rows == [("blob", [50, 60, 70])]
    assert "all 127 sequences of vot_rgbd2022" in table.notes[0]
    full = replace(workspace, sequences=tuple(map(str, range(127))))
    rows = dict(figures_table(full, found).rows)
    assert rows["SRFT (OSTrack-B256)"] == [74.1, 82.1, 88.8]  # EAO, Acc, Rob of Table II
