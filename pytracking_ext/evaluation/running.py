"""Runs trackers over sequences and keeps what they say."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ltr_ext.dataset.sequence import Sequence
from pytracking_ext.evaluation.results import TrackResult, box_file, write_result
from pytracking_ext.tracker.srft import SRFTTracker
from srft_plugin.errors import UserError

log = logging.getLogger(__name__)


def first_visible(sequence: Sequence) -> int:
    """Index of the frame where tracking starts: the first with an annotated target.

    Raises:
        UserError: the target is annotated nowhere.
    """
    visible = sequence.visible
    if not visible.any():
        raise UserError(f"sequence {sequence.name!r} has no annotated target in any frame")
    return int(visible.argmax())


def frame_info(sequence: Sequence, index: int) -> dict[str, Any]:
    """The auxiliary image of a frame, empty where it is missing or cannot be read."""
    if sequence.modality is None:
        return {}
    try:
        return {"aux": sequence.frames.aux(index)}
    except UserError as error:
        log.warning("%s; frame %d is tracked by its RGB image alone", error, index)
        return {}


def track_sequence(tracker: SRFTTracker, sequence: Sequence) -> TrackResult:
    """Tracks one sequence from its first annotated frame to its end."""
    start, length = first_visible(sequence), len(sequence)
    boxes = np.full((length, 4), np.nan)
    confidences, times = np.full(length, np.nan), np.zeros(length)
    for index in range(start, length):
        image, info = sequence.frames.rgb(index), frame_info(sequence, index)
        began = time.perf_counter()
        if index == start:
            info["init_bbox"] = tuple(sequence.boxes[start])
            answer = tracker.initialize(image, info)
        else:
            answer = tracker.track(image, info)
        times[index] = time.perf_counter() - began
        boxes[index] = answer["target_bbox"]
        confidences[index] = answer["object_presence_score"]
    return TrackResult(boxes, confidences, times, tracker.aux_missing)


def track_dataset(
    sequences: Iterable[Sequence],
    make_tracker: Callable[[], SRFTTracker],
    directory: Path,
    progress: bool = True,
) -> dict[str, str]:
    """Tracks what ``directory`` has no result of yet.

    A sequence that fails is left out and named; the others go on.

    Returns:
        The message of each sequence that failed.
    """
    failures: dict[str, str] = {}
    waiting = [s for s in sequences if not box_file(directory, s.name).exists()]
    for sequence in tqdm(waiting, desc="sequences", unit="seq", disable=not progress):
        try:
            result = track_sequence(make_tracker(), sequence)
        except UserError as error:
            failures[sequence.name] = str(error)
        except Exception as error:
            log.exception("sequence %s", sequence.name)
            failures[sequence.name] = f"{type(error).__name__}: {error}"
        else:
            if result.aux_missing:
                log.warning(
                    "%s: %d of %d frames had no auxiliary image and were tracked by RGB alone",
                    sequence.name, result.aux_missing, len(sequence),
                )  # fmt: skip
            write_result(directory, sequence.name, result)
    return failures
