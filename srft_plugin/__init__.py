"""Sensitivity-aware regularized tuning for any torch network and optimizer.

    prior = estimate_prior(network, loss_fn, batches)           # at the pre-trained weights
    optimizer = SRFT(AdamW(network.parameters()), prior.bind(network), total_steps)

The rest is the usual training loop.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from srft_plugin.errors import UserError

if TYPE_CHECKING:
    from srft_plugin.groups import operation_groups
    from srft_plugin.optimizer import SRFT
    from srft_plugin.prior import Prior, bind_operations, estimate_prior

__all__ = ["SRFT", "Prior", "UserError", "bind_operations", "estimate_prior", "operation_groups"]

# Found on first use: torch takes seconds to import, and most commands only want `UserError`.
_HOME = {"operation_groups": "groups", "SRFT": "optimizer"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, 'prior')}"), name)
