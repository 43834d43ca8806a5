"""The small RGB tracker whose weights come with the package."""

from pathlib import Path

import ltr_ext.models
from ltr_ext.admin.environment import default_device
from pytracking_ext.parameter.srft import TrackerParameters, from_checkpoint

WEIGHTS = Path(ltr_ext.models.__file__).parent / "weights" / "ostrack_tiny.safetensors"


def parameters(
    device: str | None = None, checkpoint: str | Path | None = None
) -> TrackerParameters:
    """Tracks by RGB alone, on any data set; on a GPU where there is one."""
    return from_checkpoint(checkpoint or WEIGHTS, device or default_device())
