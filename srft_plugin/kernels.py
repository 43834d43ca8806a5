"""AdamW and Eq. 15 in one pass over memory, by a kernel that torch.compile writes.

The kernel is C++ on a CPU and Triton on CUDA. Beside the histogram of the gradients it is all
that a step reads and writes: nothing is copied.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer

from srft_plugin.errors import UserError
from srft_plugin.ranking import Operation, Sensitivity, local
from srft_plugin.transfer import magnitude_bins

# What torch.compile calls unless the environment names another in CXX.
COMPILER = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")


class FusedAdamW:
    """Steps ``optimizer`` without calling it, on its own state.

    Raises:
        UserError: anything but a plain AdamW, or parameters on a CPU and no C++ compiler.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        groups = optimizer.param_groups
        options = {key for key in ("amsgrad", "maximize", "differentiable")
                   if any(group.get(key) for group in groups)}  # fmt: skip
        if type(optimizer) is not AdamW or options:
            found = f" with {', '.join(sorted(options))}" if options else ""
            raise UserError(
                f"fused=True is for plain AdamW, not {type(optimizer).__name__}{found}; "
                f"leave fused out"
            )
        compiler = os.environ.get("CXX", COMPILER)
        on_cpu = any(p.is_cpu for group in groups for p in group["params"])
        if on_cpu and not shutil.which(compiler):
            raise UserError(
                f"fused=True needs a C++ compiler on a CPU and there is no {compiler}; install it, "
                f"name another in the variable CXX, or leave fused out"
            )
        self.optimizer = optimizer

    def step(self, operations: list[Operation], sensitivity: Sensitivity) -> list[Operation]:
        """One step of AdamW on the operations that the kernel can step, its update scaled by
        1 - s_n.

        Returns:
            The others: without a state yet, not contiguous, of half precision, or not ranked by
            a table.
        """
        accepted = [self._accepts(operation, sensitivity) for operation in operations]
        others = [o for o, yes in zip(operations, accepted, strict=True) if not yes]
        operations = [o for o, yes in zip(operations, accepted, strict=True) if yes]
        chosen = {p for operation in operations for p in operation.parameters}
        settings: dict[Parameter, Tensor] = {}
        for group in self.optimizer.param_groups:
            members = [p for p in group["params"] if p in chosen]
            if members:
                settings |= dict(zip(members, self._settings(group, members), strict=True))
        update = compiled(adamw_update)
        for some in sensitivity.batches(operations):
            for operation, table in zip(some, sensitivity.tables(some), strict=True):
                for p in operation.parameters:
                    state = self.optimizer.state[p]
                    tensors = (p, p.grad, state["exp_avg"], state["exp_avg_sq"])
                    flat = (local(t.detach()).view(-1) for t in tensors)
                    update(*flat, table, settings[p])
        return others

    def _accepts(self, operation: Operation, sensitivity: Sensitivity) -> bool:
        states = [self.optimizer.state.get(p) for p in operation.parameters]
        return (
            sensitivity.by_table(operation)
            and all(states)
            and all(p.dtype in (torch.float32, torch.float64) for p in operation.parameters)
            and all(
                local(t).is_contiguous()
                for p, state in zip(operation.parameters, states, strict=True)
                for t in (p, p.grad, state["exp_avg"], state["exp_avg_sq"])
            )
        )

    def _settings(self, group: dict[str, Any], members: list[Parameter]) -> list[Tensor]:
        """Count the step; then h of ``adamw_update`` for each parameter."""
        steps = [self.optimizer.state[p]["step"] for p in members]
        # As in torch's fused kernel: a step with this flag, on the device, leaves all as it is.
        skip = getattr(self.optimizer, "found_inf", None)
        skip = steps[0].new_zeros(()) if skip is None else skip.reshape(()).to(steps[0].device)
        torch._foreach_add_(steps, 1 - skip)
        counted = torch.stack(steps).to(members[0].device, torch.float64)
        (beta1, beta2), rate = group["betas"], group["lr"]
        columns = [
            1 - beta1,
            beta2,
            1 - beta2,
            group["eps"],
            rate * group["weight_decay"],
            rate / (1 - beta1**counted),
            (1 - beta2**counted).sqrt(),
            skip,
        ]
        rows = torch.stack([torch.ones_like(counted).mul_(c) for c in columns], 1)
        return list(rows if members[0].dtype == torch.float64 else rows.float())


def adamw_update(p: Tensor, g: Tensor, m: Tensor, v: Tensor, table: Tensor, h: Tensor) -> None:
    """One step of decoupled AdamW (Loshchilov and Hutter, 2019), its update times 1 - s_n.

    Args:
        p, g, m, v: value, gradient, first and second moment, (n,) each; p, m and v are written.
        table: s_n by histogram bin of the gradient, (BINS,).
        h: 1 - beta1, beta2, 1 - beta2, eps, rate * decay, rate / bias1, sqrt(bias2), and whether to
            skip the step: (8,).
    """
    share1, beta2, share2, eps, decay, rate, root, skip = h.unbind()
    first = m + share1 * (g - m)
    second = beta2 * v + share2 * g * g
    update = decay * p + rate * first / (second.sqrt() / root + eps)
    # Every bin is an entry of the table: no index has to be checked.
    sensitivity = torch.ops.aten._unsafe_index(table, [magnitude_bins(g)])
    scaled = p - (1 - sensitivity.to(update.dtype)) * update
    for old, new in ((p, scaled), (m, first), (v, second)):
        old.copy_(torch.where(skip > 0, old, new))


@cache
def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """``function`` compiled once for tensors of all lengths."""
    return torch.compile(function, dynamic=True, fullgraph=True)
