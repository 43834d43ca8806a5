"""What an evaluation is made of. Imports neither the toolkit nor torch: who runs a task does."""

from __future__ import annotations

from dataclasses import dataclass

STAGING = ".staging-"  # folders beside the experiments, one per process


@dataclass(frozen=True)
class Task:
    """One sequence for one tracker; ``force`` discards its results first."""

    tracker: str
    sequence: str
    force: bool = False


@dataclass(frozen=True)
class Outcome:
    """What happened to one sequence with one tracker.

    Attributes:
        frames: frames tracked now (none if the results were there).
        seconds: wall time.
        rgb_only: frames whose auxiliary image was missing or unreadable.
        error: the tracker's message; None if all went well.
    """

    tracker: str
    sequence: str
    frames: int
    seconds: float
    rgb_only: int = 0
    error: str | None = None
