"""Both protocols from their definitions, independent of the toolkit (no import, other algorithms).

Long-term (DepthTrack, CDTB): `pytracking_ext.analysis.metrics.long_term`. Multistart (VOT-RGBD2022;
Kristan et al., VOT2020 challenge results): accuracy, robustness and expected average overlap over
runs from anchors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ltr_ext.data.io import read_rgb
from pytracking_ext.analysis import metrics

from .results import ground_truth, read_run, sequence_length
from .workspace import Workspace, eao_range

MINIMUM, GRACE = 0.1, 10  # a failure: GRACE frames in a row with at most MINIMUM overlap
FEW_FRAMES = 1000  # below, the 100 thresholds of the long-term protocol are coarse


@dataclass(frozen=True)
class Score:
    """Figures in [0, 1] under the benchmark's names.

    Attributes:
        figures: over all sequences.
        per_sequence: by sequence; Pr, Re and F at the threshold that is best over all sequences.
        warnings: where a figure does not mean what it seems to, one line each.
        long_term: what precision-recall curves are drawn from; None for multistart.
        expected_overlaps: (high,) by the number of frames; None for the long-term protocol.
    """

    figures: dict[str, float]
    per_sequence: dict[str, dict[str, float]]
    warnings: list[str] = field(default_factory=list)
    long_term: metrics.LongTermScore | None = None
    expected_overlaps: np.ndarray | None = None


@dataclass(frozen=True)
class TrackedRun:
    """One run against the ground truth, in the order in which the tracker saw the frames.

    Attributes:
        overlaps: (N,) intersection over union; 0 in the first frame, whose box is given.
        confidences: (N,); 0 in the first frame and where none was reported.
        visible: (N,) bool, whether the target is in the frame.
    """

    overlaps: np.ndarray
    confidences: np.ndarray
    visible: np.ndarray

    @cached_property
    def survived(self) -> int:
        """Frames before the failure; all if there is none."""
        in_a_row = 0
        for index, lost in enumerate((self.overlaps <= MINIMUM) & self.visible):
            in_a_row = in_a_row + 1 if lost else 0
            if in_a_row == GRACE:
                return index + 1 - GRACE
        return len(self.overlaps)


def score(workspace: Workspace, tracker: str) -> Score:
    """Scores the results of one tracker.

    Raises:
        UserError: results are missing or damaged, or the ground truth has polygons.
    """
    runs = {name: tracked_runs(workspace, tracker, name) for name in workspace.sequences}
    if workspace.benchmark.multistart:
        lengths = {name: sequence_length(workspace.source(name)) for name in runs}
        return multistart(runs, lengths, *eao_range(workspace))
    return long_term({name: run for name, (run,) in runs.items()})


def tracked_runs(workspace: Workspace, tracker: str, sequence: str) -> list[TrackedRun]:
    """The runs of a tracker on one sequence.

    Raises:
        UserError: as for `score`.
    """
    folder, source = workspace.results(tracker, sequence), workspace.source(sequence)
    truth, size = ground_truth(source), _image_size(source)
    tracked = []
    for run in workspace.runs(sequence):
        boxes, confidences = read_run(folder, run)
        expected = truth[list(run.frames)]
        tracked.append(
            TrackedRun(
                overlaps=metrics.raster_overlap(boxes, expected, size),
                confidences=np.zeros(len(boxes)) if confidences is None else confidences,
                visible=np.isfinite(expected).all(1),
            )
        )
    return tracked


def long_term(runs: Mapping[str, TrackedRun]) -> Score:
    """Precision, recall and F-score at the confidence threshold with the best F."""
    result = metrics.long_term(
        [run.overlaps for run in runs.values()],
        [run.confidences for run in runs.values()],
        [int(run.visible.sum()) for run in runs.values()],
    )
    precision, recall = result.precisions.mean(0), result.recalls.mean(0)
    best = int(metrics.f_measure(precision, recall).argmax())
    at_best = np.stack((result.precisions[:, best], result.recalls[:, best]))
    per_sequence = zip(*at_best, metrics.f_measure(*at_best), strict=True)
    return Score(
        figures={"Pr": result.precision, "Re": result.recall, "F": result.f_score},
        per_sequence={
            name: dict(zip(("Pr", "Re", "F"), map(float, row), strict=True))
            for name, row in zip(runs, per_sequence, strict=True)
        },
        warnings=_confidence_warnings(runs),
        long_term=result,
    )


def multistart(
    runs: Mapping[str, Sequence[TrackedRun]], lengths: Mapping[str, int], low: int, high: int
) -> Score:
    """Expected average overlap, accuracy and robustness.

    A run fails at the first of ten consecutive frames that show the target and overlap by at most
    0.1. Accuracy is the mean overlap before the failure; robustness the share of frames before it,
    weighted by the length of the sequence. EAO averages, over lengths ``low`` to ``high`` - 1, the
    mean overlap of the runs cut to that length; a run that ended without failure counts only up to
    its own length.
    """
    flat = [run for sequence in runs.values() for run in sequence]
    kept = {name: sum(run.survived for run in group) for name, group in runs.items()}
    frames = {name: sum(len(run.overlaps) for run in group) for name, group in runs.items()}
    gained = {
        name: sum(run.overlaps[: run.survived].sum() for run in group)
        for name, group in runs.items()
    }
    curve = expected_overlaps(flat, high)
    weights = np.array([lengths[name] for name in runs])
    shares = np.array([kept[name] / frames[name] for name in runs])

    def accuracy(gained: float, kept: int) -> float:
        return float(gained / kept) if kept else 0.0

    return Score(
        figures={
            "EAO": float(curve[low:].mean()),
            "A": accuracy(sum(gained.values()), sum(kept.values())),
            "R": float(weights @ shares / weights.sum()),
        },
        per_sequence={
            name: {
                "EAO": float(expected_overlaps(runs[name], high)[low:].mean()),
                "A": accuracy(gained[name], kept[name]),
                "R": kept[name] / frames[name],
            }
            for name in runs
        },
        warnings=_length_warnings(flat, low, high),
        expected_overlaps=curve,
    )


def expected_overlaps(runs: Sequence[TrackedRun], high: int) -> np.ndarray:
    """(high,) mean overlap of runs cut to each length from 0 to ``high`` - 1."""
    total, count = np.zeros(high), np.zeros(high)
    for run in runs:
        failed = run.survived < len(run.overlaps)
        padded = np.zeros(high)
        used = min(run.survived, high)
        padded[:used] = run.overlaps[:used]
        padded[0] = 0  # frame 0 initialises
        reach = high if failed else min(len(run.overlaps), high)
        steps = np.arange(high)
        # The protocol divides by one frame less beyond the end of a failed run.
        divisor = np.where(steps < len(run.overlaps), steps, steps - 1)
        means = np.divide(padded.cumsum(), divisor, out=np.zeros(high), where=divisor > 0)
        total[1:reach] += means[1:reach]
        count[1:reach] += 1
    return np.divide(total, count, out=np.zeros(high), where=count > 0)


def _confidence_warnings(runs: Mapping[str, TrackedRun]) -> list[str]:
    values = np.concatenate([run.confidences[1:] for run in runs.values()])
    if np.isnan(values).any():
        return [f"{np.isnan(values).sum()} confidences are NaN; such frames count at no threshold"]
    if len(np.unique(values)) == 1:
        return [
            f"every confidence is {values[0]:g} (or none was reported): there is one threshold, "
            "and F is that of all frames"
        ]
    if len(values) < FEW_FRAMES:
        return [
            f"only {len(values)} frames: F depends on how the protocol picks its 100 thresholds; "
            "do not compare small differences"
        ]
    return []


def _length_warnings(runs: Sequence[TrackedRun], low: int, high: int) -> list[str]:
    longest = max(len(run.overlaps) for run in runs)
    if longest >= high:
        return []
    return [
        f"EAO averages runs of {low} to {high - 1} frames, and the longest here has {longest}; "
        "beyond it the expected overlap counts as 0. Read A and R, or set low and high in the "
        "stack file"
    ]


def _image_size(sequence: Path) -> tuple[int, int]:
    first = next(path for path in (sequence / "color").iterdir() if path.stem == f"{1:08d}")
    height, width, _ = read_rgb(first).shape
    return width, height
