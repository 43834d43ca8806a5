"""Reads result files, our own and those that other trackers' authors publish."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ltr_ext.dataset.annotation import numbered_lines, read_boxes
from pytracking_ext.analysis.frames import Prediction
from srft_plugin.errors import UserError

# Where the boxes of a sequence may be, in the order in which they are tried.
BOX_FILES = (
    "{name}.txt",
    "{name}_001.txt",
    "{name}/{name}_001.txt",  # the VOT toolkit
    "{name}/{name}_001.bin",
)
SCALARS = {
    "confidences": ("_confidence.txt", "_confidence.value", "_object_presence_scores.txt"),
    "times": ("_time.txt", "_time.value"),
}
# Codes of a VOT trajectory file: an unknown or initialisation frame, and a rectangle.
_VOT_CODE, _VOT_BOX = 0, 1


def read_predictions(
    folder: Path, names: Iterable[str], base: int = 0, others: Iterable[str] = ()
) -> dict[str, Prediction]:
    """The results that ``folder`` has of the sequences ``names``; others are left out.

    Args:
        folder: one file of boxes per sequence, see :data:`BOX_FILES`; a common prefix
            (``Tracker_<name>.txt``) is allowed.
        names: of the sequences.
        base: 1 where the files count pixels from one; they are moved to zero.
        others: further names of the data set, such as of sequences that cannot be opened: their
            files are not taken for those of ``names``.

    Raises:
        UserError: no such folder, or a file that cannot be understood.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of results (one text file per sequence)")
    names = list(names)
    known = {*names, *others}
    found = {name: find_boxes(folder, name, known) for name in names}
    predictions = {}
    for name, path in found.items():
        if path is not None:
            boxes = read_result_boxes(path)
            boxes[:, :2] -= base
            scalars = {
                key: _scalars(path, suffixes, len(boxes)) for key, suffixes in SCALARS.items()
            }
            predictions[name] = Prediction(boxes, **scalars)
    return predictions


def find_boxes(folder: Path, name: str, names: Iterable[str] = ()) -> Path | None:
    """The file with the boxes of sequence ``name``, or None.

    Args:
        folder: of the results.
        name: of the sequence.
        names: of all sequences: ``my_bag.txt`` is no result of ``bag`` where there is a ``my_bag``.

    Raises:
        UserError: several files with different prefixes end in that name.
    """
    for pattern in BOX_FILES:
        path = folder / pattern.format(name=name)
        if path.is_file():
            return path
    longer = tuple(f"_{other}" for other in names if other.endswith(f"_{name}"))
    prefixed = [
        path
        for path in folder.glob("*.txt")
        if path.stem.endswith(f"_{name}") and not f"_{path.stem}".endswith(longer)
    ]
    if len(prefixed) > 1:
        raise UserError(
            f"{folder}: {', '.join(sorted(path.name for path in prefixed))} could all be the "
            f"result of {name}; keep one tracker per folder"
        )
    return prefixed[0] if prefixed else None


def read_result_boxes(path: Path) -> NDArray[np.float64]:
    """Boxes (N, 4) xywh of a result file; NaN where the tracker reported none.

    Rows are as in ground-truth files (:func:`ltr_ext.dataset.annotation.read_boxes`). VOT
    trajectories (``.txt`` and ``.bin`` in a folder per sequence) hold codes for frames without a
    box, the initialisation frame among them.

    Raises:
        UserError: names the file and line that cannot be understood.
    """
    if path.suffix == ".bin":
        return _read_vot_binary(path)
    if path.parent.name == path.stem.removesuffix("_001"):
        return _read_vot_text(path)
    return read_boxes(path)


def _read_vot_text(path: Path) -> NDArray[np.float64]:
    rows = []
    for number, line in numbered_lines(path):
        cells = line.split(",")
        try:
            row = [np.nan] * 4 if len(cells) == 1 else [float(cell) for cell in cells]
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}; expected x,y,w,h") from error
        if len(row) != 4:
            raise UserError(f"{path}, line {number}: {len(row)} numbers; expected x,y,w,h")
        rows.append(row)
    return np.array(rows)


def _scalars(path: Path, suffixes: tuple[str, ...], length: int) -> NDArray[np.float64] | None:
    """One number per frame from the file beside ``path``; an empty line is NaN."""
    for suffix in suffixes:
        file = path.with_name(path.stem + suffix)
        if not file.is_file():
            continue
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
            values = np.array([float(line) if line.strip() else np.nan for line in lines])
        except ValueError as error:  # UnicodeDecodeError is one
            raise UserError(f"{file}: {error}; expected one number per line") from error
        if len(values) != length:
            raise UserError(
                f"{file} has {len(values)} rows but {path.name} {length}; delete both and track "
                "the sequence again"
            )
        return values
    return None


def _read_vot_binary(path: Path) -> NDArray[np.float64]:
    data = path.read_bytes()
    rows, offset = [], 0
    try:
        _, count = struct.unpack_from("<hI", data)
        offset = struct.calcsize("<hI")
        for _ in range(count):
            (kind,) = struct.unpack_from("<B", data, offset)
            if kind == _VOT_CODE:
                rows.append((np.nan,) * 4)
                offset += struct.calcsize("<BI")
            elif kind == _VOT_BOX:
                rows.append(struct.unpack_from("<ffff", data, offset + 1))
                offset += struct.calcsize("<Bffff")
            else:
                raise UserError(f"{path}: regions of kind {kind} are not boxes")
    except struct.error as error:
        raise UserError(f"{path} is truncated; track the sequence again") from error
    return np.array(rows, float).reshape(-1, 4)
