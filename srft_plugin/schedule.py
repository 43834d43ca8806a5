"""The weights of the two sensitivities over training (Eq. 14)."""

from __future__ import annotations

from srft_plugin.errors import UserError

MAX_SENSITIVITY = 0.99  # upper end of s_n in the paper


def sensitivity_weights(step: int, total_steps: int, kappa: float) -> tuple[float, float]:
    """Weights of the prior and the transfer sensitivity at one step of Eq. 14.

    The prior starts at ``kappa`` and ends at ``1 - kappa``; the transfer sensitivity has the rest,
    so the weights always sum to one. A step after ``total_steps`` keeps the final weights.

    Args:
        step: t, from 0 (nothing trained yet) to ``total_steps``.
        total_steps: T, positive.
        kappa: harmony coefficient in [0, 1]; 0.6 in the paper, 0.5 makes both weights constant.

    Raises:
        UserError: ``kappa`` or ``total_steps`` out of range.
    """
    if not 0.0 <= kappa <= 1.0:
        raise UserError(f"kappa is {kappa}; expected a number in [0, 1] (the paper uses 0.6)")
    if total_steps < 1:
        raise UserError(f"total_steps is {total_steps}; expected the number of optimizer steps")
    prior = kappa + (1.0 - 2.0 * kappa) * min(step / total_steps, 1.0)
    return prior, 1.0 - prior
