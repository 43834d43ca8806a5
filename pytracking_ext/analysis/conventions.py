"""How each benchmark counts: every choice in which official toolkits differ, by name."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from srft_plugin.errors import UserError, unknown

LONG_TERM_METRICS = ("Pr", "Re", "F")


@dataclass(frozen=True)
class Convention:
    """The choices that change a score.

    A frame can be *counted* or not; a counted frame has an overlap and a distance, is a *miss*
    (fails at every threshold) or a *hit* (its overlap fails, its distance passes at every
    threshold: what the scripts derived from the OTB toolkit do by setting both to -1).

    Attributes:
        metrics: what the benchmark's tables report, under their names; see ``scoring.METRICS``.
        strict_overlap: success demands more than the threshold, else at least the threshold.
        strict_distance: precision demands less than the threshold, else at most the threshold.
        first_frame: the initialisation frame is counted with the true box as the prediction
            (``"truth"``), as reported (``"prediction"``), or not counted (``"skip"``).
        absent: frames without a target are not counted (``"skip"``), or are a ``"miss"`` or a
            ``"hit"``.
        rim: frames whose true box starts at x <= 0 or y <= 0 in the benchmark's files are ordinary
            (``"count"``), or are a ``"miss"`` or a ``"hit"``.
        first_pixel: coordinate of the upper left pixel in those files; boxes here count from 0.
        invalid: a predicted box that is NaN or has no area is replaced by the one before it
            (``"previous"``) or is a miss (``"miss"``).
        truths: where there are two ground truths, the first one (``"first"``), or per frame the
            better of both (``"better"``).
        pixels: distance at which precision is read.
        normalised: normalised distance at which normalised precision is read; None takes the area
            under its curve over [0, 0.5].
        area: of the success curve: mean over the thresholds (``"mean"``) or trapezoids
            (``"trapezoid"``).
        average: the score is the mean over sequences, or over all frames together (``"frames"``).
        in_image: the predicted box is clipped to the image first.
        lengths: a result with another number of rows than the ground truth is refused
            (``"refuse"``), cut to it but refused when shorter (``"cut"``), or also filled up with
            misses (``"pad"``).
    """

    metrics: tuple[str, ...] = ("IoU", "SR", "PR", "NPR")
    strict_overlap: bool = True
    strict_distance: bool = False
    first_frame: Literal["truth", "prediction", "skip"] = "skip"
    absent: Literal["skip", "miss", "hit"] = "skip"
    rim: Literal["count", "miss", "hit"] = "count"
    first_pixel: float = 0
    invalid: Literal["previous", "miss"] = "miss"
    truths: Literal["first", "better"] = "first"
    pixels: float = 20
    normalised: float | None = 0.2
    area: Literal["mean", "trapezoid"] = "mean"
    average: Literal["sequences", "frames"] = "sequences"
    in_image: bool = False
    lengths: Literal["refuse", "cut", "pad"] = "refuse"

    @property
    def long_term(self) -> bool:
        """Whether the long-term protocol is part of it, which needs confidences."""
        return not set(LONG_TERM_METRICS).isdisjoint(self.metrics)


GENERIC = Convention()
LONG_TERM = replace(GENERIC, metrics=(*LONG_TERM_METRICS, "IoU", "SR", "PR"))

# The MATLAB scripts of LaSOT, and with them those of LasHeR, VisEvent and CoeSot: the first frame
# takes the true box, an invalid box the one before it; frames with a label "absent" are dropped,
# but the sums are still divided by the number of all frames.
_LASOT = Convention(
    metrics=("SR", "PR", "NPR"),
    first_frame="truth",
    absent="miss",
    rim="hit",
    invalid="previous",
    lengths="cut",
)
_PYTRACKING = replace(_LASOT, rim="miss", lengths="pad")

CONVENTIONS = {
    "depthtrack": LONG_TERM,
    "cdtb": LONG_TERM,
    # No absent labels are read: frames without a target are rows of zeros, hence a hit.
    "lasher": replace(_LASOT, absent="hit"),
    "rgbt234": Convention(
        metrics=("MSR", "MPR"), first_frame="prediction", absent="miss", truths="better"
    ),
    "gtot": Convention(
        metrics=("MSR", "MPR"),
        first_frame="prediction",
        absent="miss",
        truths="better",
        strict_distance=True,
        pixels=5,
        area="trapezoid",
        average="frames",
    ),
    "visevent": replace(_LASOT, metrics=("SR", "PR")),
    "coesot": replace(_LASOT, metrics=("SR", "PR")),
    "fe108": replace(_PYTRACKING, metrics=("SR", "PR"), rim="count"),  # as its authors' copy does
    "lasot": replace(_LASOT, metrics=("AUC", "P", "P_norm")),
    "tnl2k": replace(_LASOT, metrics=("AUC", "P", "P_norm")),
    "trackingnet": replace(_PYTRACKING, metrics=("AUC", "P", "P_norm"), normalised=None),
    "otb": replace(_PYTRACKING, metrics=("AUC", "P"), rim="hit", first_pixel=1),
    "uav123": replace(_PYTRACKING, metrics=("AUC", "P"), absent="hit", rim="hit", first_pixel=1),
    "got10k": Convention(
        metrics=("AO", "SR_0.5", "SR_0.75"), average="frames", in_image=True, lengths="cut"
    ),
}


def convention(benchmark: str, **changes: Any) -> Convention:
    """The default of a benchmark, the generic one for other data sets, with ``changes``.

    Raises:
        UserError: a change to something that is no choice.
    """
    for name in changes:
        _hint(name)
    return replace(CONVENTIONS.get(benchmark, GENERIC), **changes)


def parse_choice(name: str, text: str) -> Any:
    """The value that ``text`` gives the choice ``name``: ``"skip"``, ``"true"``, ``"20"``, ...

    Raises:
        UserError: no such choice, or not one of its values.
    """
    hint = _hint(name)
    if get_origin(hint) is Literal:
        known = {str(value): value for value in get_args(hint)}
    elif hint is bool:
        known = {"true": True, "false": False}
    elif name == "metrics":
        return tuple(text.split(","))
    elif text == "none" and type(None) in get_args(hint):
        return None
    else:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (value < 0 and name in ("pixels", "normalised")):
            raise UserError(f"{name}={text}: expected a number from 0 on")
        return value
    if text not in known:
        raise UserError(f"{name}={text}: expected one of {', '.join(known)}")
    return known[text]


def _hint(name: str) -> Any:
    """Type of a choice."""
    hints = get_type_hints(Convention)
    if name not in hints:
        raise unknown("convention", name, hints)
    return hints[name]
