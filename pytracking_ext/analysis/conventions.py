"""How each benchmark counts: the choices in which official toolkits differ, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Convention:
    """Every choice that changes a score.

    Attributes:
        metrics: what the benchmark's tables report, in their order and under their names: IoU
            (mean overlap), SR (area under the success curve), PR (precision), NPR (normalised
            precision), and Pr, Re, F of the long-term protocol.
        strict: a frame succeeds when its overlap is above the threshold (else: at least).
        first_frame: the initialisation frame, where the box is given, is counted.
        absent: frames without an annotated target are left out (``"skip"``) or count as failures
            (``"fail"``).
        invalid: a predicted box that is NaN or has no area takes the place of the one before it
            (``"previous"``) or fails (``"fail"``).
        pixels: the centre distance at which precision is read.
        normalised_pixels: the normalised distance at which normalised precision is read.
        average: the score is the mean over sequences, or over all frames together.
        in_image: boxes are clipped to the image before the overlap is taken.
        lengths: a result with another number of rows than the ground truth is refused
            (``"refuse"``), or both are cut to the shorter one (``"cut"``).
    """

    metrics: tuple[str, ...] = ("IoU", "SR", "PR", "NPR")
    strict: bool = True
    first_frame: bool = True
    absent: Literal["skip", "fail"] = "skip"
    invalid: Literal["previous", "fail"] = "fail"
    pixels: int = 20
    normalised_pixels: float = 0.2
    average: Literal["sequences", "frames"] = "sequences"
    in_image: bool = False
    lengths: Literal["refuse", "cut"] = "refuse"


GENERIC = Convention()
LONG_TERM = Convention(metrics=("Pr", "Re", "F", "IoU", "SR", "PR"))

CONVENTIONS = {
    "depthtrack": LONG_TERM,
    "cdtb": LONG_TERM,
}


def convention(benchmark: str) -> Convention:
    """The default of a benchmark; the generic one for data sets that are none."""
    return CONVENTIONS.get(benchmark, GENERIC)
