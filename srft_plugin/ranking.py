"""The sensitivity s_n of every parameter at one step (Eq. 13, 14), in one process or sharded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter

from srft_plugin.errors import UserError
from srft_plugin.transfer import (
    BINS,
    histograms,
    percentile_rank,
    sample,
    tables_from_counts,
)

RANKINGS = ("sampled", "histogram", "exact")
# Histograms of flat gradients, each added to its row, of so many rows: (rows, BINS).
Count = Callable[[list[tuple[Tensor, int]], int], Tensor]
# Operations of up to so many elements are sorted: no slower, and a shared bin would weigh more.
EXACT_ELEMENTS = 1 << 12
# Operations ranked at a time: enough to spread the cost of a call, few enough for a CPU's cache.
TOGETHER = 16


@dataclass(frozen=True)
class Operation:
    """Parameters that are ranked together.

    Attributes:
        parameters: at a step, those with a gradient.
        prior_rank: s^p in [0, 1].
    """

    parameters: list[Parameter]
    prior_rank: float

    def elements(self) -> int:
        """Number of parameters, those of other processes included."""
        return sum(p.numel() for p in self.parameters)

    @property
    def is_small(self) -> bool:
        """Whether it is ranked exactly, where one process holds all of it."""
        return self.elements() <= EXACT_ELEMENTS


@dataclass(frozen=True)
class Sensitivity:
    """s_n = prior * s^p + transfer * s^t, the upper end of s_n being part of both weights."""

    prior: float
    transfer: float
    ranking: str

    def constant(self, operation: Operation) -> float:
        """The part of s_n that all parameters of the operation share."""
        return self.prior * operation.prior_rank

    def by_table(self, operation: Operation) -> bool:
        """Whether s_n is a function of the histogram bin of the gradient."""
        sharded = any(isinstance(p.grad, DTensor) for p in operation.parameters)
        by_rank = self.ranking == "exact" or (operation.is_small and not sharded)
        return self.transfer == 0 or not by_rank

    def batches(self, operations: list[Operation]) -> Iterator[list[Operation]]:
        """Operations that ``tables`` or ``exact`` take together."""
        kinds: dict[tuple[torch.device, bool, int], list[Operation]] = {}
        for operation in operations:
            by_table = self.by_table(operation)
            size = 0 if by_table else operation.elements()
            kind = (operation.parameters[0].device, by_table, size)
            kinds.setdefault(kind, []).append(operation)
        for (_, _, size), members in kinds.items():
            together = TOGETHER if size <= EXACT_ELEMENTS else 1
            for start in range(0, len(members), together):
                yield members[start : start + together]

    def exact(self, operations: list[Operation]) -> list[list[Tensor]]:
        """s_n of each parameter tensor of each operation, by sorting; all of one size."""
        gradients = [[p.grad for p in operation.parameters] for operation in operations]
        if any(isinstance(g, DTensor) for members in gradients for g in members):
            raise UserError("ranking='exact' cannot rank sharded parameters; use 'histogram'")
        rows = [torch.cat([g.flatten() for g in members]) for members in gradients]
        joint = percentile_rank(torch.stack(rows).abs_()).mul_(self.transfer)
        for row, operation in zip(joint, operations, strict=True):
            row += self.constant(operation)
        return [
            [part.view_as(g) for part, g in zip(row.split([g.numel() for g in members]), members,
                                                strict=True)]
            for row, members in zip(joint, gradients, strict=True)
        ]  # fmt: skip

    def tables(self, operations: list[Operation], count: Count = histograms) -> Tensor:
        """s_n by operation and histogram bin: (operations, BINS) float32.

        Args:
            count: makes the histograms.
        """
        if self.transfer == 0:
            device = operations[0].parameters[0].device
            tables = torch.zeros(len(operations), BINS, device=device)
        else:
            counts = _counts(operations, self.ranking == "sampled", count)
            tables = tables_from_counts(counts).mul_(self.transfer)
        constants = [self.constant(operation) for operation in operations]
        return tables.add_(on_device(constants, tables.device)[:, None])


def local(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that lives in this process, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def on_device(values: list | Tensor, device: torch.device) -> Tensor:
    """``values`` as a tensor there; the host does not wait for a GPU to take them."""
    tensor = torch.as_tensor(values)
    if tensor.is_cpu and device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _counts(operations: list[Operation], sampled: bool, count: Count) -> Tensor:
    """Histograms over all gradients of each operation: (operations, BINS)."""
    # One sum over processes for all operations whose gradients the same processes share.
    parts: dict[tuple[dist.ProcessGroup, ...], list[tuple[Tensor, int]]] = {}
    for row, operation in enumerate(operations):
        for p in operation.parameters:
            gradient = local(p.grad)
            part = sample(gradient, operation.elements()) if sampled else gradient.flatten()
            parts.setdefault(_sharing(p.grad), []).append((part, row))
    total = 0
    for groups, gradients in parts.items():
        counts = count(gradients, len(operations))
        for group in groups:
            dist.all_reduce(counts, group=group)
        total = total + counts
    return total


def _sharing(gradient: Tensor) -> tuple[dist.ProcessGroup, ...]:
    """The groups of processes over which a gradient is sharded, one for each axis of the mesh."""
    if not isinstance(gradient, DTensor):
        return ()
    if any(placement.is_partial() for placement in gradient.placements):
        raise UserError(
            "SRFT cannot rank gradients that are still to be summed over processes (DTensor with "
            "Partial placement); redistribute them before the step"
        )
    return tuple(
        gradient.device_mesh.get_group(axis)
        for axis, placement in enumerate(gradient.placements)
        if not placement.is_replicate()  # a shard of any kind
    )
