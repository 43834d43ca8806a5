"""Number formats."""

from __future__ import annotations

import torch
from torch import Tensor


def widened(values: Tensor) -> Tensor:
    """``values`` in at least float32."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()
