"""Sensitivity-aware regularized tuning for any torch network and optimizer.

    prior = estimate_prior(network, loss_fn, batches)           # at the pre-trained weights
    optimizer = SRFT(AdamW(network.parameters()), prior.bind(network), total_steps)

The rest is the usual training loop.
"""

from srft_plugin.errors import UserError
from srft_plugin.groups import operation_groups
from srft_plugin.optimizer import SRFT
from srft_plugin.prior import Prior, bind_operations, estimate_prior

__all__ = ["SRFT", "Prior", "UserError", "bind_operations", "estimate_prior", "operation_groups"]
