"""The experiments without TraX: all runs in this process, several in each network call.

The result files are what the TraX run would have written, times apart. The protocol's text has four
decimals for a box, and so have the boxes here, those given and those found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ltr_ext.data.io import read_raw, read_rgb
from ltr_ext.dataset.sequence import Sequence as Video
from pytracking_ext.evaluation.results import TrackResult
from pytracking_ext.evaluation.running import track_many
from srft_plugin.errors import UserError

from .answers import reportable
from .parameters import auxiliary_channel, is_ours, load_parameters, modality_of
from .results import Run, ground_truth, run_files, write_run
from .tasks import Outcome, Task
from .workspace import Workspace, tracker_environment

DECIMALS = 4  # of a box in the TraX protocol


@dataclass(frozen=True)
class RunFrames:
    """The images of a run in the order in which the tracker sees them.

    Attributes:
        sequence: folder in the workspace.
        order: frame numbers from 0.
        channel: auxiliary channel, ``"depth"`` or ``"ir"``.
    """

    sequence: Path
    order: range
    channel: str

    def __len__(self) -> int:
        return len(self.order)

    def rgb(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        return read_rgb(self._file("color", index))

    def aux(self, index: int) -> np.ndarray:
        """The image as stored; the tracker turns it into what the network sees."""
        return read_raw(self._file(self.channel, index))

    def _file(self, channel: str, index: int) -> Path:
        folder = self.sequence / channel
        for suffix in (".jpg", ".png"):
            path = folder / f"{self.order[index] + 1:08d}{suffix}"
            if path.is_file():
                break
        return path


@dataclass
class _Open:
    """A sequence some of whose runs are under way."""

    task: Task
    runs: dict[str, Run]
    seconds: float = 0.0
    rgb_only: int = 0
    error: str | None = None

    def outcome(self) -> Outcome:
        frames = sum(len(run.frames) - 1 for run in self.runs.values())
        return Outcome(
            self.task.tracker, self.task.sequence, frames, self.seconds, self.rgb_only, self.error
        )


def run_in_process(
    workspace: Workspace, tasks: Sequence[Task], batch: int = 8
) -> Iterator[Outcome]:
    """Runs all tasks and yields what became of each sequence when its last run has ended.

    Args:
        batch: runs that share a network call. As many threads read images ahead as torch has,
            and two at least.

    Raises:
        UserError: a tracker of the ``module:factory`` kind, which only its server can run.
    """
    threads = max(2, torch.get_num_threads())
    for tracker in dict.fromkeys(task.tracker for task in tasks):
        environment = tracker_environment(workspace, tracker)
        if not is_ours(environment.get("SRFT_TRACKER")):
            raise UserError(f"{tracker} is no SRFT tracker; evaluate it without --in-process")
        parameters = load_parameters(environment)
        channel = auxiliary_channel(environment)
        opened = {}
        for task in tasks:
            if task.tracker == tracker:
                runs = workspace.runs_to_make(tracker, task.sequence, task.force)
                opened[task.sequence] = _Open(task, {run.name: run for run in runs})
        yield from (state.outcome() for state in opened.values() if not state.runs)
        waiting = {name: set(state.runs) for name, state in opened.items()}
        videos = [
            video
            for state in opened.values()
            for video in _videos(workspace, state, channel, parameters.network.spec.reads_aux)
        ]
        for video, result in track_many(videos, parameters, batch, threads, progress=False):
            sequence = video.frames.sequence.name
            state = opened[sequence]
            if isinstance(result, TrackResult):
                state.seconds += float(result.times.sum())
                state.rgb_only += result.aux_missing
                _store(workspace.results(tracker, sequence), state.runs[video.name], result)
            else:
                state.error = result
            waiting[sequence].discard(video.name)
            if not waiting[sequence]:
                yield state.outcome()


def _videos(workspace: Workspace, state: _Open, channel: str, reads_aux: bool) -> Iterator[Video]:
    source = workspace.source(state.task.sequence)
    truth = ground_truth(source).astype(float).round(DECIMALS)
    for run in state.runs.values():
        images = RunFrames(source, run.frames, channel)
        # None: the images are not even read.
        modality = modality_of(channel) if reads_aux else None
        yield Video(run.name, images, truth[list(run.frames)], modality)


def _store(folder: Path, run: Run, result: TrackResult) -> None:
    last = tuple(result.boxes[0])
    boxes, confidences = [last], [None]
    for answer in zip(result.boxes[1:], result.confidences[1:], strict=True):
        last, confidence = reportable(*answer, last)
        boxes.append(last)
        confidences.append(confidence)
    boxes = np.array(boxes, np.float32).astype(float).round(DECIMALS)
    for path in run_files(folder, run):  # of a damaged or discarded result
        path.unlink()
    write_run(folder, run, boxes, {"confidence": confidences, "time": map(float, result.times)})
