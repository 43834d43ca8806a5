"""Prior sensitivity: how much a pre-trained network's loss depends on each operation (III-B.1)."""

from srft_plugin.prior.estimate import estimate_prior
from srft_plugin.prior.store import BoundPrior, Prior, bind_operations

__all__ = ["BoundPrior", "Prior", "bind_operations", "estimate_prior"]
