"""The tracker that pytracking finds as ``srft``."""

from pytracking_ext.tracker.srft.tracker import SRFTTracker, track_together

__all__ = ["SRFTTracker", "get_tracker_class", "track_together"]


def get_tracker_class() -> type[SRFTTracker]:
    """What pytracking's ``Tracker`` asks this package for."""
    return SRFTTracker
