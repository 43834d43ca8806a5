"""Result files of the VOT toolkit: reading, checking, removing. The toolkit itself is not needed.

A run (a sequence, or one anchor of a sequence) is NAME.bin, the trajectory, with one text file per
property beside it, NAME_confidence.value and NAME_time.value, one line per frame. The toolkit takes
a run as done when NAME.bin exists and scores missing confidences as 0, so a run counts here only if
its files are whole.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HEADER = struct.Struct("<hI")  # version 1, number of frames
SPECIAL_TYPE, SPECIAL = 0, struct.Struct("<BI")  # type, code
RECTANGLE_TYPE, RECTANGLE = 1, struct.Struct("<Bffff")  # type, x, y, width, height


class DamagedResult(Exception):
    """A result file that is missing, truncated, or of another length than its run."""


@dataclass(frozen=True)
class Run:
    """One start of the tracker: result name and the frames (0-based) in the order shown to it."""

    name: str
    frames: range


def runs_of(sequence: Path, multistart: bool) -> list[Run]:
    """The runs that a protocol makes on a sequence folder of a workspace.

    Long-term: one from the first frame. Multistart: forward ones (anchor > 0) before backward ones.
    """
    length = sequence_length(sequence)
    if not multistart:
        return [Run(f"{sequence.name}_001", range(length))]
    anchors = [float(line) for line in (sequence / "anchor.value").read_text().split()]
    name = f"{sequence.name}_%08d"
    forward = [Run(name % i, range(i, length)) for i, value in enumerate(anchors) if value > 0]
    backward = [Run(name % i, range(i, -1, -1)) for i, value in enumerate(anchors) if value < 0]
    return forward + backward


def sequence_length(sequence: Path) -> int:
    """Number of frames that the ``sequence`` file of a workspace states."""
    for line in (sequence / "sequence").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition("=")
        if key == "length":
            return int(value)
    raise DamagedResult(f"{sequence / 'sequence'} has no length")


def read_run(folder: Path, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and confidences of a run.

    Returns:
        (N, 4) float32 xywh, NaN where the toolkit stored a special region (the first frame), and
        (N,) float64 confidences, NaN where none was reported.

    Raises:
        DamagedResult: a file is missing, truncated, unreadable or of another length.
    """
    boxes = _read_trajectory(folder / f"{run.name}.bin")
    path = folder / f"{run.name}_confidence.value"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        confidences = np.array([float(line) if line else np.nan for line in lines[:-1]])
    except FileNotFoundError as error:
        raise DamagedResult(f"{path} is missing") from error
    except ValueError as error:
        raise DamagedResult(f"{path}: {error}") from error
    for what, count in (("boxes", len(boxes)), ("confidences", len(confidences))):
        if count != len(run.frames):
            raise DamagedResult(f"{folder / run.name}: {count} {what}, {len(run.frames)} frames")
    if lines[-1]:
        raise DamagedResult(f"{path} is truncated")
    return boxes, confidences


def is_done(folder: Path, run: Run) -> bool:
    """Whether the run's files are there and whole."""
    try:
        read_run(folder, run)
    except DamagedResult:
        return False
    return True


def run_files(folder: Path, run: Run) -> list[Path]:
    """All files of a run, its trajectory first."""
    trajectory = [path for path in (folder / f"{run.name}.bin",) if path.exists()]
    return trajectory + sorted(folder.glob(f"{run.name}_*.value"))


def _read_trajectory(path: Path) -> np.ndarray:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DamagedResult(f"{path} is missing") from error
    boxes = []
    try:
        version, length = HEADER.unpack_from(data)
        offset = HEADER.size
        for _ in range(length):
            if data[offset] == SPECIAL_TYPE:
                boxes.append((np.nan,) * 4)
                offset += SPECIAL.size
            elif data[offset] == RECTANGLE_TYPE:
                boxes.append(RECTANGLE.unpack_from(data, offset)[1:])
                offset += RECTANGLE.size
            else:
                raise DamagedResult(f"{path} holds a region of type {data[offset]}, not a box")
    except (struct.error, IndexError) as error:
        raise DamagedResult(f"{path} is truncated ({len(data)} bytes)") from error
    if version != 1 or offset != len(data):
        raise DamagedResult(f"{path} is not a trajectory of {length} frames")
    return np.array(boxes, np.float32).reshape(-1, 4)
