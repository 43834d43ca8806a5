"""Runs trackers over sequences, several in one batch, and keeps what they say."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ltr_ext.dataset.sequence import Sequence
from pytracking_ext.analysis.metrics import overlap
from pytracking_ext.evaluation.results import TrackResult, is_tracked, write_result
from pytracking_ext.parameter.srft import TrackerParameters
from pytracking_ext.tracker.srft import SRFTTracker, track_together
from srft_plugin.errors import UserError, out_of_memory

log = logging.getLogger(__name__)

AHEAD = 3  # frames decoded ahead per sequence: enough to hide a slow image, little memory


def first_visible(sequence: Sequence) -> int:
    """Index of the frame where tracking starts: the first with an annotated target.

    Raises:
        UserError: the target is annotated nowhere.
    """
    visible = sequence.visible
    if not visible.any():
        raise UserError(f"sequence {sequence.name!r} has no annotated target in any frame")
    return int(visible.argmax())


def judged_frames(sequence: Sequence) -> NDArray[np.bool_]:
    """(frames,) which of them show the target, the one that the tracker was given left out."""
    judged = sequence.visible.copy()
    judged[: judged.argmax() + 1] = False
    return judged


def judged_overlaps(result: TrackResult, sequence: Sequence) -> NDArray[np.float64]:
    """(n,) IoU in the ``judged_frames``."""
    judged = judged_frames(sequence)
    return overlap(result.boxes[judged], sequence.boxes[judged])


def read_frame(
    sequence: Sequence, index: int, aux: bool = True
) -> tuple[np.ndarray, dict[str, Any]]:
    """RGB image of a frame and the tracker's ``info`` about it, with ``aux`` the auxiliary image.

    An auxiliary image that cannot be read is left out, with a warning: the frame is tracked by RGB.

    Raises:
        UserError: the RGB image cannot be read.
    """
    image = sequence.frames.rgb(index)
    if not aux or sequence.modality is None:
        return image, {}
    try:
        return image, {"aux": sequence.frames.aux(index), "modality": sequence.modality}
    except UserError as error:
        log.warning("%s; frame %d is tracked by its RGB image alone", error, index)
        return image, {}


class Lane:
    """One sequence on its way through its tracker; frames are decoded ahead by ``readers``."""

    def __init__(self, sequence: Sequence, tracker: SRFTTracker, readers: Executor) -> None:
        self.sequence, self.tracker = sequence, tracker
        self.start = self.index = first_visible(sequence)
        length = len(sequence)
        self._boxes = np.full((length, 4), np.nan)
        self._confidences = np.full(length, np.nan)
        self._times = np.zeros(length)
        self._readers = readers
        self._unread: Iterator[int] = iter(range(self.start, length))
        self._reading: deque[Future] = deque()
        for _ in range(AHEAD):
            self._read_ahead()

    @property
    def finished(self) -> bool:
        """Whether every frame has been tracked."""
        return self.index == len(self.sequence)

    def frame(self) -> tuple[np.ndarray, dict[str, Any]]:
        """The next frame, as :func:`read_frame` gives it."""
        self._read_ahead()
        image, info = self._reading.popleft().result()
        if self.index == self.start:
            info["init_bbox"] = tuple(self.sequence.boxes[self.start])
        return image, info

    def record(self, answer: dict[str, Any], seconds: float) -> None:
        """Keeps the tracker's answer to the frame and goes on to the next."""
        self._boxes[self.index] = answer["target_bbox"]
        self._confidences[self.index] = answer["object_presence_score"]
        self._times[self.index] = seconds
        self.index += 1

    def result(self) -> TrackResult:
        """All answers."""
        return TrackResult(self._boxes, self._confidences, self._times, self.tracker.aux_missing)

    def close(self) -> None:
        """Drops the frames that nobody will ask for."""
        for future in self._reading:
            future.cancel()

    def _read_ahead(self) -> None:
        index = next(self._unread, None)
        if index is not None:
            aux = self.tracker.spec.reads_aux
            self._reading.append(self._readers.submit(read_frame, self.sequence, index, aux))


def track_sequence(tracker: SRFTTracker, sequence: Sequence) -> TrackResult:
    """Tracks one sequence from its first annotated frame to its end.

    Raises:
        UserError: an image that cannot be read, or no annotated target.
    """
    with ThreadPoolExecutor(1) as readers:
        lane, batches = Lane(sequence, tracker, readers), _Batches()
        while not lane.finished:
            for error in batches.step([lane]).values():
                lane.close()
                raise error
    return lane.result()


def track_dataset(
    sequences: Iterable[Sequence],
    parameters: TrackerParameters,
    directory: Path,
    batch: int = 1,
    threads: int = 2,
    progress: bool = True,
) -> dict[str, str]:
    """Tracks the sequences that ``directory`` has no result of.

    ``batch`` sequences advance in lock-step, one network call per round; where one ends the next
    takes its place, the longest first. A sequence that fails is left out and named; the others go
    on.

    Args:
        sequences: any number.
        parameters: of the tracker.
        directory: for the result files.
        batch: sequences that share a network call.
        threads: that decode images and cut search regions.
        progress: show a bar.

    Returns:
        The message of each sequence that failed.

    Raises:
        UserError: ``directory`` has results of other sequences.
    """
    failures: dict[str, str] = {}
    waiting = [s for s in sequences if not is_tracked(directory, s)]
    for sequence, outcome in track_many(waiting, parameters, batch, threads, progress):
        if isinstance(outcome, TrackResult):
            _keep(sequence, outcome, directory)
        else:
            failures[sequence.name] = outcome
    return failures


def track_many(
    sequences: Iterable[Sequence],
    parameters: TrackerParameters,
    batch: int = 1,
    threads: int = 2,
    progress: bool = True,
) -> Iterator[tuple[Sequence, TrackResult | str]]:
    """Tracks sequences as :func:`track_dataset` does, without storing anything.

    Yields:
        Each sequence when it has ended, with its result or the message of its failure.
    """
    waiting = sorted(sequences, key=len)
    lanes: list[Lane] = []
    frames = tqdm(
        total=sum(map(len, waiting)),
        desc="tracking",
        unit="frame",
        disable=None if progress else True,
    )
    # Cutting has threads of its own: behind the images of later rounds it would have to wait for
    # them, and the network with it.
    with frames, ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(threads) as cutters:
        batches = _Batches(cutters.map if batch > 1 else map)
        while waiting or lanes:
            while waiting and len(lanes) < batch:
                sequence = waiting.pop()
                try:
                    lanes.append(Lane(sequence, SRFTTracker(parameters), readers))
                except UserError as error:
                    yield sequence, str(error)
            failed = batches.step(lanes)
            frames.update(len(lanes) - len(failed))
            for lane, error in failed.items():
                lane.close()
                yield lane.sequence, _message(lane, error)
            for lane in lanes:
                if lane.finished:
                    yield lane.sequence, lane.result()
            lanes = [lane for lane in lanes if lane not in failed and not lane.finished]


class _Batches:
    """Advances lanes together, fewer at once after the memory was too small for a batch."""

    def __init__(self, cut_all: Callable = map) -> None:
        self._cut_all = cut_all
        self._largest = sys.maxsize  # batch that fits into memory

    def step(self, lanes: list[Lane]) -> dict[Lane, Exception]:
        """Advances every lane by one frame; gives the lanes that could not."""
        failed: dict[Lane, Exception] = {}
        starting, running = [], []
        for lane in lanes:
            try:
                image, info = lane.frame()
            except Exception as error:
                failed[lane] = error
                continue
            (starting if "init_bbox" in info else running).append((lane, image, info))
        for lane, image, info in starting:
            began = time.perf_counter()
            try:
                answer = lane.tracker.initialize(image, info)
            except Exception as error:
                failed[lane] = error
            else:
                lane.record(answer, time.perf_counter() - began)
        return failed | self._track(running, self._largest)

    def _track(self, running: list[tuple], most: int) -> dict[Lane, Exception]:
        """Batches of ``most`` at once."""
        failed: dict[Lane, Exception] = {}
        for start in range(0, len(running), most):
            failed |= self._batch(running[start : start + most])
        return failed

    def _batch(self, running: list[tuple]) -> dict[Lane, Exception]:
        """One batch; when it raises, its members one by one, so that only the culprit fails."""
        lanes, images, infos = (list(part) for part in zip(*running, strict=True))
        began = time.perf_counter()
        try:
            trackers = [lane.tracker for lane in lanes]
            answers = track_together(trackers, images, infos, self._cut_all)
        except Exception as error:
            if len(lanes) == 1:
                return {lanes[0]: error}
            short = out_of_memory(error)
        else:
            seconds = (time.perf_counter() - began) / len(lanes)
            for lane, answer in zip(lanes, answers, strict=True):
                lane.record(answer, seconds)
            return {}
        if not short:
            return self._track(running, 1)
        self._largest = len(lanes) // 2
        log.warning(
            "a batch of %d exceeds the memory; tracking at most %d at once (--batch)",
            len(lanes), self._largest,
        )  # fmt: skip
        return self._track(running, self._largest)


def _message(lane: Lane, error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    log.error("sequence %s, frame %d", lane.sequence.name, lane.index, exc_info=error)
    return f"frame {lane.index}: {type(error).__name__}: {error}"


def _keep(sequence: Sequence, result: TrackResult, directory: Path) -> None:
    if result.aux_missing:
        log.warning(
            "%s: %d of %d frames had no auxiliary image and were tracked by RGB alone",
            sequence.name,
            result.aux_missing,
            len(sequence),
        )
    write_result(directory, sequence.name, result)
