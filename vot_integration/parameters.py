"""From a tracker's settings to its network. torch is imported only when a network is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from srft_plugin.errors import UserError, unknown

if TYPE_CHECKING:
    from pytracking_ext.parameter.srft import TrackerParameters


def load_parameters(environment: Mapping[str, str]) -> TrackerParameters:
    """The tracker that ``SRFT_*`` variables name, with its network loaded.

    Raises:
        UserError: as ``pytracking_ext.parameter.srft.load``.
    """
    from pytracking_ext.parameter import srft

    return srft.load(
        environment["SRFT_TRACKER"],
        environment.get("SRFT_CHECKPOINT"),
        environment.get("SRFT_DEVICE", "cpu"),
        environment.get("SRFT_PRECISION"),
    )


def checked_weights(
    tracker_param: str, checkpoint: str | Path | None, precision: str | None
) -> str | Path | None:
    """The checkpoint to write down: the given one, or what the name of a training stands for now.

    A training's name means its newest network, which may be another one tomorrow.
    """
    if ":" in tracker_param:
        if precision is not None:
            raise UserError(f"{tracker_param}: a tracker of one's own chooses its precision itself")
        return checkpoint
    from pytracking_ext.engine.precision import PRECISIONS
    from pytracking_ext.parameter import srft

    if precision is not None and precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    parameters = srft.load(tracker_param, checkpoint)
    return checkpoint if tracker_param in srft.module_names() else parameters.checkpoint
