"""Reading boxes from the text files that data sets ship."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from srft_plugin.errors import UserError

_SEPARATOR = re.compile(r"\s*[,;]\s*|\s+")


def read_boxes(path: str | os.PathLike, corners: bool = False) -> np.ndarray:
    """Boxes of a ground-truth file, one row per frame: (N, 4) float64 xywh in pixels.

    A row holds x, y, w, h or the corners of a polygon (8 numbers, of which the surrounding box is
    taken), separated by commas, semicolons, tabs or spaces. A row that is not finite or has no
    positive area says that the target is absent and becomes four NaN. Eight numbers between commas
    and something else are an error: they may be four with decimal commas.

    Args:
        path: the file.
        corners: rows of four numbers are x, y of two opposite corners.

    Raises:
        UserError: the file is absent, empty, no text, or has a row of another kind.
    """
    rows = [_box(path, number, line, corners) for number, line in numbered_lines(path)]
    boxes = np.array(rows, np.float64)
    absent = ~(np.isfinite(boxes).all(1) & (boxes[:, 2:] > 0).all(1))
    boxes[absent] = np.nan
    return boxes


def read_flags(path: str | os.PathLike) -> np.ndarray:
    """Numbers of a label file, in rows or in one line: (N,) float64.

    Raises:
        UserError: the file is absent, empty, no text, or holds something that is no number.
    """
    return np.array(
        [value for number, line in numbered_lines(path) for value in _numbers(path, number, line)]
    )


def read_names(path: str | os.PathLike) -> list[str]:
    """Lines of a list file, without blanks around them and without empty ones.

    Raises:
        UserError: the file is absent, empty or no text.
    """
    return [line.strip() for _, line in numbered_lines(path, gaps=True)]


def numbered_lines(path: str | os.PathLike, gaps: bool = False) -> list[tuple[int, str]]:
    """(line number from 1, line) of a text file; blank lines may end it, or with ``gaps`` be
    anywhere.

    A blank line between two rows is an error otherwise: it would move all later rows by one frame.

    Raises:
        UserError: the file is absent, empty, no text, or has a blank line where none may be.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; try `srft data check`") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a text file (byte {error.start} is no UTF-8)") from error
    # not str.splitlines: it also breaks at form feeds and Unicode separators
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")
    if lines == [""]:
        raise UserError(f"{path}: the file is empty")
    kept = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not gaps and len(kept) < len(lines):
        number = next(number for number, line in enumerate(lines, 1) if not line.strip())
        raise UserError(
            f"{path}, line {number}: blank line between rows; expected one row per frame"
        )
    return kept


def _box(path: str | os.PathLike, number: int, line: str, corners: bool) -> list[float]:
    values = _numbers(path, number, line)
    if len(values) == 4 and not corners:
        return values
    if len(values) == 8 and len(set(map(str.strip, _SEPARATOR.findall(line.strip(" \t,;"))))) > 1:
        raise UserError(
            f"{path}, line {number}: {line.strip()[:60]!r} has two kinds of separators; expected "
            "one, and a point before the decimals"
        )
    if len(values) in (4, 8):
        x, y = np.array(values).reshape(-1, 2).T  # a nan corner makes the box nan
        return [x.min(), y.min(), np.ptp(x), np.ptp(y)]
    raise UserError(
        f"{path}, line {number}: found {len(values)} numbers, expected x, y, w, h or a polygon of 8"
    )


def _numbers(path: str | os.PathLike, number: int, line: str) -> list[float]:
    try:
        return [float(word) for word in _SEPARATOR.split(line.strip(" \t,;"))]
    except ValueError as error:
        raise UserError(f"{path}, line {number}: {line.strip()[:60]!r} is not numbers") from error
