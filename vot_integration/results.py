"""Result files of the VOT toolkit: reading, checking, writing. The toolkit itself is not needed.

A run (a sequence, or one anchor of a sequence) is NAME.bin, the trajectory, with one text file per
property beside it, NAME_confidence.value and NAME_time.value, one line per frame. The toolkit takes
a run as done when NAME.bin exists and scores missing confidences as 0, so a run counts here only if
its files are whole.
"""

from __future__ import annotations

import glob
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ltr_ext.admin.files import atomic_write
from ltr_ext.dataset.annotation import numbered_lines, read_flags
from ltr_ext.dataset.base import read_properties
from pytracking_ext.evaluation.loading import read_result_boxes
from srft_plugin.errors import UserError

HEADER = struct.Struct("<hI")  # format version 1, number of frames
INITIALIZATION = struct.pack("<BI", 0, 1)  # a special region, code 1: the frame with the given box
RECTANGLE = struct.Struct("<Bffff")  # region type 1, x, y, width, height


@dataclass(frozen=True)
class Run:
    """One start of the tracker: result name and the frames (0-based) in the order shown to it."""

    name: str
    frames: range


def runs_of(sequence: Path, multistart: bool) -> list[Run]:
    """The runs that a protocol makes on a sequence folder of a workspace.

    Long-term: one from the first frame. Multistart: forward ones (anchor > 0) before backward ones.

    Raises:
        UserError: the folder states no length, or its anchors cannot be read.
    """
    length = sequence_length(sequence)
    if not multistart:
        return [Run(f"{sequence.name}_001", range(length))]
    anchors = read_flags(sequence / "anchor.value")
    name = f"{sequence.name}_%08d"
    forward = [Run(name % i, range(i, length)) for i, value in enumerate(anchors) if value > 0]
    backward = [Run(name % i, range(i, -1, -1)) for i, value in enumerate(anchors) if value < 0]
    return forward + backward


def sequence_length(sequence: Path) -> int:
    """Number of frames that the ``sequence`` file of a workspace states.

    Raises:
        UserError: it states none, or no number.
    """
    length = read_properties(sequence).get("length", "")
    if not length.isdecimal():
        raise UserError(
            f"{sequence / 'sequence'}: found length={length or '(none)'}, expected the number of "
            "frames; make the workspace anew with `srft vot init`"
        )
    return int(length)


def ground_truth(sequence: Path) -> np.ndarray:
    """Boxes of a workspace's sequence: (N, 4) float32 xywh, NaN where the target is absent.

    Raises:
        UserError: there are polygons, no boxes, or more boxes than frames.
    """
    path, length = sequence / "groundtruth.txt", sequence_length(sequence)
    rows = [line.split(",") for _, line in numbered_lines(path)]
    if any(len(row) != 4 for row in rows):
        raise UserError(f"{path} has polygons; only the toolkit's own commands can use them")
    if len(rows) > length:
        raise UserError(
            f"{path} has {len(rows)} boxes for {length} frames; make the workspace anew with "
            "`srft vot init`"
        )
    boxes = np.full((length, 4), np.nan, np.float32)
    boxes[: len(rows)] = np.array(rows, np.float32)
    boxes[~np.isfinite(boxes).all(1)] = np.nan
    return boxes


def read_run(folder: Path, run: Run) -> tuple[np.ndarray, np.ndarray | None]:
    """Boxes and confidences of a run.

    Returns:
        (N, 4) float64 xywh, NaN where the toolkit stored a special region (the first frame), and
        (N,) float64 confidences, 0 where a frame has none; None if the tracker reported none.

    Raises:
        UserError: a file is missing, truncated, unreadable or of another length.
    """
    path = folder / f"{run.name}.bin"
    if not path.is_file():
        raise UserError(f"{path} is missing; `srft vot evaluate` makes it")
    boxes, confidences = read_result_boxes(path), None
    _check_length(path, len(boxes), run)
    path = folder / f"{run.name}_confidence.value"
    if path.is_file():
        *lines, rest = path.read_text(encoding="utf-8", errors="replace").split("\n")
        if rest:
            raise UserError(f"{path} is truncated; track the sequence again")
        try:
            confidences = np.array([float(line or 0) for line in lines])
        except ValueError as error:
            raise UserError(f"{path}: {error}; expected one number per line") from error
        _check_length(path, len(confidences), run)
    return boxes, confidences


def is_done(folder: Path, run: Run) -> bool:
    """Whether the run's files are there and whole; the SRFT server reports every confidence.

    Of a run of one frame there is nothing to report.
    """
    try:
        return read_run(folder, run)[1] is not None or len(run.frames) == 1
    except UserError:
        return False


def write_run(
    folder: Path, run: Run, boxes: np.ndarray, properties: Mapping[str, Iterable[object | None]]
) -> None:
    """Writes a run as the toolkit does, the trajectory last, so that it is complete or not there.

    Args:
        folder: made if needed.
        boxes: (N, 4) xywh; the first row, the given box, is not stored.
        properties: N values each, None for a frame without.

    Raises:
        UserError: the folder cannot be written to.
    """
    regions = [RECTANGLE.pack(1, *box) for box in boxes[1:]]
    files = {
        f"{run.name}_{key}.value": "".join(
            "\n" if value is None else f"{value}\n" for value in values
        ).encode()
        for key, values in properties.items()
    }
    files[f"{run.name}.bin"] = b"".join((HEADER.pack(1, len(boxes)), INITIALIZATION, *regions))
    for name, data in files.items():
        atomic_write(folder / name, lambda partial, data=data: partial.write_bytes(data))


def run_files(folder: Path, run: Run) -> list[Path]:
    """All files of a run that exist, its trajectory first."""
    trajectory = folder / f"{run.name}.bin"
    return [trajectory] * trajectory.exists() + sorted(
        folder.glob(f"{glob.escape(run.name)}_*.value")
    )


def _check_length(path: Path, count: int, run: Run) -> None:
    if count != len(run.frames):
        raise UserError(
            f"{path} has {count} rows, the run {len(run.frames)} frames; track the sequence again"
        )
