"""Result files: one folder per tracker and data set, one text file per sequence.

``<results>/srft/<param>/<dataset>/<sequence>.txt`` holds x,y,w,h per frame with decimals,
``_confidence.txt`` and ``_time.txt`` beside it one number per frame; ``run.json`` says which
weights and settings made them. The box file is written last: where it exists, the sequence is done.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltr_ext.admin.files import file_sha256, write_text
from ltr_ext.dataset.annotation import read_boxes
from ltr_ext.dataset.sequence import Sequence
from srft_plugin.errors import UserError

HEADER = "run.json"
ROUNDED = 1e-3  # pixels; boxes are stored with four decimals


@dataclass(frozen=True)
class TrackResult:
    """What a tracker said about one sequence, row i about frame i.

    Attributes:
        boxes: (N, 4) xywh in pixels; NaN before the initialisation frame.
        confidences: (N,).
        times: (N,) seconds for the frame, image reading left out.
        aux_missing: frames tracked without their auxiliary image.
    """

    boxes: NDArray[np.float64]
    confidences: NDArray[np.float64]
    times: NDArray[np.float64]
    aux_missing: int = 0


def box_file(directory: Path, sequence: str) -> Path:
    """Where the boxes of a sequence are kept."""
    return directory / f"{sequence}.txt"


def write_result(directory: Path, sequence: str, result: TrackResult) -> None:
    """Stores the result of one sequence; the box file, written last, marks it complete."""
    for suffix, values in (("time", result.times), ("confidence", result.confidences)):
        text = "".join(f"{value:.9g}\n" for value in values)
        write_text(directory / f"{sequence}_{suffix}.txt", text)
    rows = (",".join(f"{value:.4f}" for value in row) for row in result.boxes)
    write_text(box_file(directory, sequence), "".join(f"{row}\n" for row in rows))


def is_tracked(directory: Path, sequence: Sequence) -> bool:
    """Whether ``directory`` has a result of ``sequence``.

    Raises:
        UserError: it has one of another sequence of that name, which had another length, or began
            with another box.
    """
    path = box_file(directory, sequence.name)
    if not path.exists():
        return False
    boxes, start = read_boxes(path), int(sequence.visible.argmax())
    own = sequence.boxes[start]
    if len(boxes) != len(sequence):
        found, expected = f"{len(boxes)} rows", f"one for each of {len(sequence)} frames"
    elif not np.allclose(boxes[start], own, rtol=0, atol=ROUNDED):
        found, expected = (f"{box.round(2).tolist()} at the start" for box in (boxes[start], own))
    else:
        return True
    raise UserError(
        f"{path} is the result of another sequence {sequence.name}: found {found}, expected "
        f"{expected}; use another --runid or --results, or delete that folder"
    )


def read_header(directory: Path) -> dict[str, Any]:
    """What :func:`open_results` wrote; empty for the results of other programs.

    Raises:
        UserError: the header is damaged.
    """
    path = directory / HEADER
    return read_record(path) if path.is_file() else {}


def read_record(path: Path) -> dict[str, Any]:
    """A JSON object that says how the results beside it were made.

    Raises:
        UserError: the file holds something else.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        record = error
    if not isinstance(record, dict):
        raise UserError(
            f"{path} is damaged: found {record!r:.80}, expected a JSON object; nobody knows what "
            "made these results, delete the folder and track again"
        )
    return record


def open_results(
    directory: Path,
    checkpoint: Path,
    parameters: dict[str, Any],
    about: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Makes the folder and its header, or checks that an existing one is of the same tracker.

    Args:
        directory: for the results.
        checkpoint: the weights; their hash is kept.
        parameters: settings that decide the results.
        about: gives what else is worth keeping (device, size); called for a new header.

    Raises:
        UserError: the folder holds results of other weights or settings.
    """
    header: dict[str, Any] = {
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": file_sha256(checkpoint),
        "parameters": parameters,
        "versions": {name: version(name) for name in ("srft", "torch", "numpy", "opencv-python")},
        "python": platform.python_version(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    path = directory / HEADER
    if not path.exists():
        write_text(path, json.dumps(header | about(), indent=2) + "\n")
        return
    existing = read_record(path)
    before, after = _identity(existing), _identity(header)
    differing = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
    if differing:
        was, now = (", ".join(f"{key}={run.get(key)}" for key in differing)
                    for run in (before, after))  # fmt: skip
        raise UserError(
            f"{directory} holds results of another tracker ({was}; now {now}); "
            "use another --runid, or delete that folder"
        )


def _identity(header: dict[str, Any]) -> dict[str, Any]:
    """What makes two runs different; the rest of a header is for people."""
    return {
        "checkpoint_sha256": header.get("checkpoint_sha256"),
        **(header.get("parameters") or {}),
    }
