"""AdamW and Eq. 15 in one pass over memory: on a CPU by a kernel that torch.compile writes, on a
GPU by those of ``triton_update``.

Beside the histogram of the gradients it is all that a step reads and writes: nothing is copied.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer

from srft_plugin.errors import UserError
from srft_plugin.ranking import Operation, Sensitivity, local, on_device
from srft_plugin.transfer import magnitude_bins

State = dict[Parameter, dict[str, Tensor]]  # of AdamW
# What torch.compile calls unless the environment names another in CXX.
COMPILER = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")


class FusedAdamW:
    """Steps ``optimizer`` without calling it, on its own state.

    Raises:
        UserError: anything but a plain AdamW, parameters on a CPU and no C++ compiler, or on a GPU
            and no Triton.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        groups = optimizer.param_groups
        self.optimizer = optimizer
        self._check_plain()
        on_cpu = any(p.is_cpu for group in groups for p in group["params"])
        if on_cpu and (lacking := compiler_lacks()):
            raise UserError(f"fused=True needs {lacking}, or leave fused out")
        on_gpu = any(is_on_gpu(p) for group in groups for p in group["params"])
        if on_gpu and (lacking := triton_lacks()):
            raise UserError(f"fused=True needs {lacking}, or leave fused out")

    def step(self, operations: list[Operation], sensitivity: Sensitivity) -> list[Operation]:
        """One step of AdamW on the operations that the kernel can step, its update scaled by
        1 - s_n.

        Returns:
            The others: without a state yet, not contiguous, or of a number format or ranking that
            the kernel of their device lacks.

        Raises:
            UserError: a state or a group that came later makes it another AdamW.
        """
        self._check_plain()
        accepted = [self._accepts(operation, sensitivity) for operation in operations]
        others = [o for o, yes in zip(operations, accepted, strict=True) if not yes]
        operations = [o for o, yes in zip(operations, accepted, strict=True) if yes]
        devices: dict[torch.device, list[Operation]] = {}
        for operation in operations:
            devices.setdefault(operation.parameters[0].device, []).append(operation)
        for members in devices.values():
            on_gpu = is_on_gpu(members[0].parameters[0])
            update = _triton_update().update if on_gpu else update_on_cpu
            update(members, sensitivity, self.optimizer.state, *self._settings(members))
        return others

    def _check_plain(self) -> None:
        options = {key for key in ("amsgrad", "maximize", "differentiable")
                   if any(group.get(key) for group in self.optimizer.param_groups)}  # fmt: skip
        if type(self.optimizer) is not AdamW or options:
            found = f" with {', '.join(sorted(options))}" if options else ""
            raise UserError(
                f"fused=True is for plain AdamW, not {type(self.optimizer).__name__}{found}; "
                f"leave fused out"
            )

    def _accepts(self, operation: Operation, sensitivity: Sensitivity) -> bool:
        state = self.optimizer.state
        if not all(state.get(p) for p in operation.parameters):
            return False
        tensors = [t for p in operation.parameters for t in step_tensors(p, state)]
        if not all(t.is_contiguous() for t in tensors):
            return False
        by_table = sensitivity.by_table(operation)
        if is_on_gpu(operation.parameters[0]):
            return (by_table or operation.is_small) and _triton_update().accepts(tensors)
        dtypes = {p.dtype for p in operation.parameters}
        return by_table and dtypes <= {torch.float32, torch.float64}

    def _settings(self, operations: list[Operation]) -> tuple[Tensor, dict[Parameter, int]]:
        """Count the step; then h of ``adamw_update``, (parameters, 8) float64, and the row of
        each parameter."""
        chosen = {p for operation in operations for p in operation.parameters}
        settings: list[Tensor] = []
        rows: dict[Parameter, int] = {}
        for group in self.optimizer.param_groups:
            members = [p for p in group["params"] if p in chosen]
            if members:
                settings.append(self._group_settings(group, members))
                rows |= {p: row for row, p in enumerate(members, len(rows))}
        return torch.cat(settings), rows

    def _group_settings(self, group: dict[str, Any], members: list[Parameter]) -> Tensor:
        steps = [self.optimizer.state[p]["step"] for p in members]
        # As in torch's fused kernel: a step with this flag, on the device, leaves all as it is.
        skip = getattr(self.optimizer, "found_inf", None)
        skip = steps[0].new_zeros(()) if skip is None else skip.reshape(()).to(steps[0].device)
        torch._foreach_add_(steps, 1 - skip)
        counted = on_device(torch.stack(steps), members[0].device).double()
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
        return torch.stack([torch.ones_like(counted).mul_(c) for c in columns], 1)


def step_tensors(p: Parameter, state: State) -> tuple[Tensor, ...]:
    """What this process holds of the value, the gradient and the two moments of a parameter."""
    own = state[p]
    return tuple(local(t) for t in (p.detach(), p.grad, own["exp_avg"], own["exp_avg_sq"]))


def update_on_cpu(
    operations: list[Operation],
    sensitivity: Sensitivity,
    state: State,
    settings: Tensor,
    rows: dict[Parameter, int],
) -> None:
    """One step of AdamW on operations that are ranked by tables, its update scaled by 1 - s_n.

    Args:
        state: of AdamW, by parameter.
        settings: h of ``adamw_update`` by row, (rows, 8) float64.
        rows: by parameter.
    """
    update = compiled(adamw_update)
    exact = {torch.float32: settings.float(), torch.float64: settings}
    for some in sensitivity.batches(operations):
        for operation, table in zip(some, sensitivity.tables(some), strict=True):
            for p in operation.parameters:
                h = exact[p.dtype][rows[p]]
                update(*(t.view(-1) for t in step_tensors(p, state)), table, h)


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


def compiler_lacks() -> str | None:
    """What is missing here for torch.compile on a CPU, and what to do; None if nothing is."""
    compiler = os.environ.get("CXX", COMPILER)
    if shutil.which(compiler):
        return None
    return (
        f"a C++ compiler on a CPU and there is no {compiler}; install it, name another in the "
        "variable CXX"
    )


@cache
def triton_lacks() -> str | None:
    """What is missing here for Triton's kernels on a GPU, and what to do; None if nothing is."""
    if not find_spec("triton"):
        return (
            "Triton on a GPU, which torch brings on Linux; pip install triton (triton-windows on "
            "Windows)"
        )
    seen = torch.cuda.is_available()
    if seen and (torch.version.hip or torch.cuda.get_device_capability() < (7, 0)):
        return "an NVIDIA GPU of compute capability 7.0 (Volta) or newer"
    if sys.platform == "win32":  # it brings its own compiler there
        return None
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "a C compiler for Triton; install gcc, name one in the variable CC"
    scheme = sysconfig.get_default_scheme()  # Debian's own names a folder without headers
    header = Path(sysconfig.get_path("include", scheme.replace("_local", "_prefix"))) / "Python.h"
    if not header.exists():
        return f"{header} for Triton; install Python's headers (python3-dev)"
    return None


def is_on_gpu(p: Parameter) -> bool:
    """Whether Triton steps the parameter."""
    return p.is_cuda


def _triton_update() -> ModuleType:
    from srft_plugin import triton_update  # Triton comes with torch where that knows GPUs

    return triton_update


@cache
def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """``function`` compiled once for tensors of all lengths."""
    return torch.compile(function, dynamic=True, fullgraph=True)
