"""Eq. 15 for any torch optimizer: step, then move each parameter back by s_n times its update."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, optim
from torch.nn import Parameter

from srft_plugin.ranking import Operation, Sensitivity, local
from srft_plugin.transfer import magnitude_bins

# Every parameter of these is updated from its own gradient and state, so stepping some of them
# after the others changes nothing. That lets the copy of the old values stay small.
SEPARABLE = {
    optim.Adadelta, optim.Adagrad, optim.Adam, optim.Adamax, optim.AdamW, optim.ASGD, optim.NAdam,
    optim.RAdam, optim.RMSprop, optim.Rprop, optim.SGD,
}  # fmt: skip
BUCKET_ELEMENTS = 1 << 22
# Elements handled at a time on a CPU: their bins, sensitivities and values stay in its cache.
CHUNK_ELEMENTS = 1 << 17


class CopyingUpdate:
    """Steps ``optimizer`` some operations at a time, from copies of their old values."""

    def __init__(self, optimizer: optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._scratch: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def step(self, operations: list[Operation], sensitivity: Sensitivity) -> None:
        """One step of the optimizer on ``operations``, its update scaled by 1 - s_n."""
        for bucket in self._buckets(operations):
            before = self._copies([p for operation in bucket for p in operation.parameters])
            self._inner_step(before)
            _scale_updates(bucket, before, sensitivity)

    def _buckets(self, operations: list[Operation]) -> Iterator[list[Operation]]:
        """Together as many operations as may be copied at once."""
        separable = type(self.optimizer) in SEPARABLE
        bucket: list[Operation] = []
        size = 0
        for operation in operations:
            elements = operation.elements()
            if bucket and separable and size + elements > BUCKET_ELEMENTS:
                yield bucket
                bucket, size = [], 0
            bucket.append(operation)
            size += elements
        if bucket:
            yield bucket

    def _inner_step(self, chosen: dict[Parameter, Tensor]) -> None:
        """Step the wrapped optimizer on the chosen parameters only."""
        if type(self.optimizer) not in SEPARABLE:  # then all of them are chosen
            self.optimizer.step()
            return
        groups = self.optimizer.param_groups
        self.optimizer.param_groups = [
            {**group, "params": [p for p in group["params"] if p in chosen]} for group in groups
        ]
        try:
            self.optimizer.step()
        finally:
            self.optimizer.param_groups = groups

    def _copies(self, parameters: list[Parameter]) -> dict[Parameter, Tensor]:
        """Copies of the values that this process holds, in memory that is used again and again."""
        wanted: dict[tuple[torch.device, torch.dtype], int] = {}
        for p in parameters:
            key = (p.device, p.dtype)
            wanted[key] = wanted.get(key, 0) + local(p).numel()
        for key, elements in wanted.items():
            if key not in self._scratch or len(self._scratch[key]) < elements:
                self._scratch[key] = torch.empty(elements, device=key[0], dtype=key[1])
        copies = {}
        for p in parameters:
            key, value = (p.device, p.dtype), local(p)
            wanted[key] -= value.numel()
            place = self._scratch[key].narrow(0, wanted[key], value.numel())
            copies[p] = place.view(value.shape).copy_(value)
        return copies


def _scale_updates(
    operations: list[Operation], before: dict[Parameter, Tensor], sensitivity: Sensitivity
) -> None:
    """Move each parameter back by s_n times its update."""
    if sensitivity.transfer == 0:
        for operation in operations:
            for p in operation.parameters:
                local(p).lerp_(before[p], sensitivity.constant(operation))
        return
    for some in sensitivity.batches(operations):
        if not sensitivity.by_table(some[0]):
            for operation, joint in zip(some, sensitivity.exact(some), strict=True):
                for p, s in zip(operation.parameters, joint, strict=True):
                    p.lerp_(before[p], s.to(p.dtype))
            continue
        for operation, table in zip(some, sensitivity.tables(some), strict=True):
            for p in operation.parameters:
                _lerp_by_table(local(p), before[p], local(p.grad), table)


def _lerp_by_table(new: Tensor, old: Tensor, gradient: Tensor, table: Tensor) -> None:
    """``new.lerp_(old, s)`` with s looked up by the magnitude of the gradient."""
    if not (new.is_contiguous() and gradient.is_contiguous()):
        sensitivity = table[magnitude_bins(gradient)]
        new.lerp_(old, sensitivity.to(new.dtype))
        return
    size = CHUNK_ELEMENTS if new.device.type == "cpu" else new.numel()
    size = max(min(size, new.numel()), 1)
    bins = torch.empty(size, dtype=torch.int32, device=new.device)
    sensitivity = torch.empty(size, dtype=table.dtype, device=new.device)
    chunks = (t.view(-1).split(size) for t in (new, old, gradient))
    for new_part, old_part, gradient_part in zip(*chunks, strict=True):
        n = len(new_part)
        magnitude_bins(gradient_part, out=bins[:n])
        torch.index_select(table, 0, bins[:n], out=sensitivity[:n])
        new_part.lerp_(old_part, sensitivity[:n].to(new.dtype))
