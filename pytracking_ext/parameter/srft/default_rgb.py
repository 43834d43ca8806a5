"""The small RGB tracker whose weights come with the package."""

from pathlib import Path

from ltr_ext.admin.environment import default_device
from ltr_ext.models.checkpoint import BUNDLED
from pytracking_ext.parameter.srft import TrackerParameters, from_checkpoint


def parameters(
    device: str | None = None, checkpoint: str | Path | None = None
) -> TrackerParameters:
    """Tracks by RGB alone, on any data set; on a GPU where there is one."""
    return from_checkpoint(checkpoint or BUNDLED, device or default_device())
