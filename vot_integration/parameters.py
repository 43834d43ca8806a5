"""From a tracker's settings to its network. torch is imported only when a network is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from srft_plugin.errors import UserError, unknown

if TYPE_CHECKING:
    from pytracking_ext.parameter.srft import TrackerParameters

MODALITY = {"depth": "depth", "ir": "thermal"}  # of the toolkit's channels


def auxiliary_channel(environment: Mapping[str, str]) -> str:
    """The toolkit's channel that ``SRFT_*`` variables name: depth where they name none."""
    return environment.get("SRFT_CHANNEL", "depth")


def modality_of(channel: str) -> str:
    """What a channel shows.

    Raises:
        UserError: it is none of the toolkit's.
    """
    if channel not in MODALITY:
        raise unknown("env_SRFT_CHANNEL in trackers.ini", channel, MODALITY)
    return MODALITY[channel]


def is_ours(tracker_param: str | None) -> bool:
    """Whether it names parameters of this package, not a ``module:factory`` of someone's own."""
    return tracker_param is not None and ":" not in tracker_param


def load_parameters(environment: Mapping[str, str]) -> TrackerParameters:
    """The tracker that ``SRFT_*`` variables name, with its network loaded.

    Raises:
        UserError: as ``pytracking_ext.parameter.srft.load``, or no such device.
    """
    from ltr_ext.admin.environment import check_device
    from pytracking_ext.parameter import srft

    device = environment.get("SRFT_DEVICE", "cpu")
    try:
        check_device(device)
    except UserError as error:
        raise UserError(f"env_SRFT_DEVICE in trackers.ini: {error}") from error
    return srft.load(
        environment["SRFT_TRACKER"],
        environment.get("SRFT_CHECKPOINT"),
        device,
        environment.get("SRFT_PRECISION"),
    )


def checked_weights(
    tracker_param: str, checkpoint: str | Path | None, precision: str | None
) -> str | Path | None:
    """The checkpoint to write down: the given one, or what the name of a training stands for now.

    A training's name means its newest network, which may be another one tomorrow.
    """
    if not is_ours(tracker_param):
        if precision is not None:
            raise UserError(f"{tracker_param}: a tracker of one's own chooses its precision itself")
        return checkpoint
    from pytracking_ext.engine.precision import dtype_of
    from pytracking_ext.parameter import srft

    if precision is not None:
        dtype_of(precision)  # or an error; what the device can do is for the tracker to see
    parameters = srft.load(tracker_param, checkpoint)
    return checkpoint if tracker_param in srft.module_names() else parameters.checkpoint
