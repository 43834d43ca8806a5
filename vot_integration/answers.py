"""What may be told to the toolkit. Imports nothing, so that a server can always say what failed."""

from __future__ import annotations

import math
from collections.abc import Sequence

Box = tuple[float, float, float, float]  # x, y, width, height in pixels


def reportable(box: Sequence[float], confidence: float, last: Box) -> tuple[Box, float]:
    """What a tracker's answer becomes, so that it is always safe to report.

    The toolkit drops a sequence for a NaN or a special region, and scores an empty box on an absent
    frame differently from version to version: then it is the last box, with confidence 0.
    """
    box, confidence = tuple(map(float, box)), float(confidence)
    if not all(map(math.isfinite, box)) or box[2] <= 0 or box[3] <= 0:
        return last, 0.0
    return box, confidence if math.isfinite(confidence) else 0.0
