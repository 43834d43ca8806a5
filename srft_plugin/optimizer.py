"""SRFT: any torch optimizer with its updates scaled by one minus the sensitivity (Eq. 14, 15)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, optim
from torch.distributed.tensor import DTensor, Shard
from torch.nn import Parameter

from srft_plugin.errors import UserError
from srft_plugin.prior import BoundPrior
from srft_plugin.schedule import sensitivity_weights
from srft_plugin.transfer import (
    histogram,
    magnitude_bins,
    percentile_rank,
    sample,
    tables_from_counts,
)

MODES = ("both", "prior", "transfer")
RANKINGS = ("sampled", "histogram", "exact")

# Every parameter of these is updated from its own gradient and state, so stepping some of them
# after the others changes nothing. That lets the copy of the old values stay small.
SEPARABLE = {
    optim.Adadelta, optim.Adagrad, optim.Adam, optim.Adamax, optim.AdamW, optim.ASGD, optim.NAdam,
    optim.RAdam, optim.RMSprop, optim.Rprop, optim.SGD,
}  # fmt: skip
BUCKET_ELEMENTS = 1 << 22
# Operations of up to so many elements are sorted: no slower, and a shared bin would weigh more.
EXACT_ELEMENTS = 1 << 12
# Elements handled at a time on a CPU: their bins, sensitivities and values stay in its cache.
CHUNK_ELEMENTS = 1 << 17


@dataclass(frozen=True)
class _Operation:
    parameters: list[Parameter]
    prior_rank: float  # s^p in [0, 1]


class SRFT(optim.Optimizer):
    """Wraps ``optimizer`` so that a step moves parameter n by (1 - s_n) times its update.

    s_n combines the rank of the prior sensitivity of the operation and the rank of the squared
    gradient of the parameter inside its operation (Eq. 14), times ``max_sensitivity``. The update
    is scaled, not the gradient, whose scale Adam would divide out again; it is the whole update,
    decoupled weight decay included, so that a weight with s_n near one keeps its value.

    ``param_groups`` and ``state`` are those of the wrapped optimizer: schedulers, ``GradScaler``
    and checkpoints work as with it. ``state_dict`` adds the key ``"srft"``: step counter,
    hyper-parameters and prior ranks, all of which ``load_state_dict`` restores.

    Args:
        optimizer: the optimizer to wrap; any but those that evaluate their closure several times.
        prior: ``Prior.bind(network)``, ``bind_operations(network)`` for operations without a
            prior, or None, which makes every parameter tensor an operation without a prior.
        total_steps: T of Eq. 14. Later steps keep the final weights, with one warning.
        kappa: weight of the prior at the start and of the transfer sensitivity at the end; 0.6 in
            the paper (Table VI).
        max_sensitivity: upper end of s_n, 0.99 in the paper.
        mode: ``"both"``, or ``"prior"`` or ``"transfer"`` alone with weight one (Table IV).
        ranking: how gradients are ranked: ``"sampled"`` (histogram of some 33,000 elements of an
            operation, within 2 % in rank), ``"histogram"`` (of all, within 0.5 %) or ``"exact"``
            (sort; a hundred times slower). Small operations are always sorted.

    Raises:
        UserError: a value out of range, a mode that needs a prior without one, or parameters that
            the bound prior does not know.
    """

    def __init__(
        self,
        optimizer: optim.Optimizer,
        prior: BoundPrior | None,
        total_steps: int,
        kappa: float = 0.6,
        max_sensitivity: float = 0.99,
        mode: str = "both",
        ranking: str = "sampled",
    ) -> None:
        sensitivity_weights(0, total_steps, kappa)  # checks both
        if not 0.0 <= max_sensitivity <= 1.0:
            raise UserError(f"max_sensitivity is {max_sensitivity}; expected a number in [0, 1]")
        _check_choice("mode", mode, MODES)
        _check_choice("ranking", ranking, RANKINGS)
        if mode != "transfer" and (prior is None or not prior.has_prior):
            raise UserError(
                f"mode {mode!r} needs a prior and none was given; pass estimate_prior(...)"
                f".bind(network), or mode='transfer' to do without"
            )
        if isinstance(optimizer, optim.LBFGS):
            raise UserError("SRFT cannot wrap LBFGS, which moves the parameters inside its closure")
        # Optimizer.__init__ would build param_groups and state of its own; __setstate__ is the
        # part of it that sets up the hooks.
        self.inner = optimizer
        self.__setstate__({"defaults": dict(optimizer.defaults)})
        self.total_steps = total_steps
        self.kappa = kappa
        self.max_sensitivity = max_sensitivity
        self.mode = mode
        self.ranking = ranking
        self._steps = 0
        self._scratch: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self._prior = prior
        self._operations = self._group_parameters()

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The wrapped optimizer's groups, also after it has loaded a state and rebound them."""
        return self.inner.param_groups

    @property
    def state(self) -> dict[Parameter, Any]:
        """The wrapped optimizer's state."""
        return self.inner.state

    @property
    def steps(self) -> int:
        """Steps taken so far: t of Eq. 14 for the last one."""
        return self._steps

    def __repr__(self) -> str:
        return (
            f"SRFT(mode={self.mode!r}, kappa={self.kappa}, total_steps={self.total_steps}, "
            f"max_sensitivity={self.max_sensitivity}, ranking={self.ranking!r}, {self.inner!r})"
        )

    def __getstate__(self) -> dict[str, Any]:
        # A scheduler hides ``step`` behind a wrapper that would go on stepping the original.
        return {name: value for name, value in self.__dict__.items() if name != "step"}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its parameters must be known to the bound prior, where there is one."""
        self.inner.add_param_group(param_group)
        self._operations = self._group_parameters()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, as the wrapped optimizer does."""
        self.inner.zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of the wrapped optimizer, its update scaled by 1 - s_n (Eq. 15).

        Parameters without a gradient stay as they are and take no part in the ranks.

        Args:
            closure: evaluated once, with gradients enabled; its value is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._steps == self.total_steps:
            warnings.warn(
                f"SRFT takes more than total_steps={self.total_steps} steps; the sensitivity "
                f"weights stay at their final values",
                stacklevel=2,
            )
        self._steps += 1
        prior_weight, transfer_weight = self._weights()
        for bucket in self._buckets():
            before = self._copies([p for operation in bucket for p in operation.parameters])
            self._inner_step(before)
            self._scale_updates(bucket, before, prior_weight, transfer_weight)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's state and, under ``"srft"``, everything that SRFT adds."""
        ranks = {p: operation.prior_rank for operation in self._operations
                 for p in operation.parameters}  # fmt: skip
        own = {key: getattr(self, key) for key in _SAVED} | {
            "steps": self._steps,
            "prior_ranks": [ranks[p] for p in self._parameters()],
        }
        return self.inner.state_dict() | {"srft": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue exactly where ``state_dict`` was taken: its values replace the present ones.

        Raises:
            UserError: not the state of an SRFT optimizer, or of one with other parameters.
        """
        state_dict = dict(state_dict)
        own = state_dict.pop("srft", None)
        parameters = list(self._parameters())
        if own is None:
            raise UserError(
                "this optimizer state has no 'srft' entry: it was saved by a plain optimizer; load "
                "it into that optimizer before wrapping it in SRFT"
            )
        if len(own["prior_ranks"]) != len(parameters):
            raise UserError(
                f"this optimizer state is of {len(own['prior_ranks'])} parameters, the optimizer "
                f"has {len(parameters)}; build the same network and parameter groups as then"
            )
        self.inner.load_state_dict(state_dict)
        for key in _SAVED:
            setattr(self, key, own[key])
        self._steps = own["steps"]
        ranks = dict(zip(parameters, own["prior_ranks"], strict=True))
        self._operations = [_Operation(operation.parameters, ranks[operation.parameters[0]])
                            for operation in self._operations]  # fmt: skip

    def _parameters(self) -> Iterator[Parameter]:
        return (p for group in self.param_groups for p in group["params"])

    def _group_parameters(self) -> list[_Operation]:
        parameters = list(self._parameters())
        if self._prior is None:
            return [_Operation([p], 0.0) for p in parameters]
        return [_Operation(members, rank) for members, rank in self._prior.partition(parameters)]

    def _weights(self) -> tuple[float, float]:
        """Weights of the two sensitivities at this step; a single one has weight one."""
        if self.mode == "both":
            return sensitivity_weights(self._steps, self.total_steps, self.kappa)
        return float(self.mode == "prior"), float(self.mode == "transfer")

    def _buckets(self) -> Iterator[list[_Operation]]:
        """Operations with gradients, together as many as may be copied at once."""
        separable = type(self.inner) in SEPARABLE
        bucket: list[_Operation] = []
        size = 0
        for operation in self._operations:
            members = [p for p in operation.parameters if p.grad is not None]
            if not members:
                continue
            if any(p.grad.is_sparse for p in members):
                raise UserError("SRFT cannot rank sparse gradients; use dense embeddings")
            elements = sum(p.numel() for p in members)
            if bucket and separable and size + elements > BUCKET_ELEMENTS:
                yield bucket
                bucket, size = [], 0
            bucket.append(_Operation(members, operation.prior_rank))
            size += elements
        if bucket:
            yield bucket

    def _inner_step(self, chosen: dict[Parameter, Tensor]) -> None:
        """Step the wrapped optimizer on the chosen parameters only."""
        if type(self.inner) not in SEPARABLE:  # then all of them are chosen
            self.inner.step()
            return
        groups = self.inner.param_groups
        self.inner.param_groups = [
            {**group, "params": [p for p in group["params"] if p in chosen]} for group in groups
        ]
        try:
            self.inner.step()
        finally:
            self.inner.param_groups = groups

    def _scale_updates(
        self,
        bucket: list[_Operation],
        before: dict[Parameter, Tensor],
        prior_weight: float,
        transfer_weight: float,
    ) -> None:
        """Move each parameter back by s_n times its update."""
        scale = self.max_sensitivity * transfer_weight
        tabled: list[tuple[_Operation, float]] = []
        for operation in bucket:
            constant = self.max_sensitivity * prior_weight * operation.prior_rank
            if transfer_weight == 0:
                for p in operation.parameters:
                    _local(p).lerp_(before[p], constant)
            elif self.ranking == "exact" or _is_small(operation):
                ranks = _exact_ranks(operation)
                for p, rank in zip(operation.parameters, ranks, strict=True):
                    p.lerp_(before[p], (constant + scale * rank).to(p.dtype))
            else:
                tabled.append((operation, constant))
        if tabled:
            counts = torch.stack([_counts(o, self.ranking == "sampled") for o, _ in tabled])
            tables = tables_from_counts(counts) * scale
            for (operation, constant), table in zip(tabled, tables, strict=True):
                table += constant
                for p in operation.parameters:
                    _lerp_by_table(_local(p), before[p], _local(p.grad), table)

    def _copies(self, parameters: list[Parameter]) -> dict[Parameter, Tensor]:
        """Copies of the values that this process holds, in memory that is used again and again."""
        wanted: dict[tuple[torch.device, torch.dtype], int] = {}
        for p in parameters:
            key = (p.device, p.dtype)
            wanted[key] = wanted.get(key, 0) + _local(p).numel()
        for key, elements in wanted.items():
            if key not in self._scratch or len(self._scratch[key]) < elements:
                self._scratch[key] = torch.empty(elements, device=key[0], dtype=key[1])
        copies = {}
        for p in parameters:
            key, value = (p.device, p.dtype), _local(p)
            wanted[key] -= value.numel()
            place = self._scratch[key].narrow(0, wanted[key], value.numel())
            copies[p] = place.view(value.shape).copy_(value)
        return copies


_SAVED = ("total_steps", "kappa", "max_sensitivity", "mode", "ranking")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{name} is {value!r}; expected one of {', '.join(choices)}")


def _local(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that lives in this process, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _is_small(operation: _Operation) -> bool:
    elements = sum(p.numel() for p in operation.parameters)
    sharded = any(isinstance(p.grad, DTensor) for p in operation.parameters)
    return elements <= EXACT_ELEMENTS and not sharded


def _exact_ranks(operation: _Operation) -> list[Tensor]:
    """Ranks of the elements of all gradients of an operation, one tensor per parameter."""
    gradients = [p.grad for p in operation.parameters]
    if any(isinstance(g, DTensor) for g in gradients):
        raise UserError("ranking='exact' cannot rank sharded parameters; use 'histogram'")
    ranks = percentile_rank(torch.cat([g.flatten().abs() for g in gradients]))
    parts = ranks.split([g.numel() for g in gradients])
    return [part.view_as(g) for part, g in zip(parts, gradients, strict=True)]


def _counts(operation: _Operation, sampled: bool) -> Tensor:
    """Histogram over all gradients of an operation, over all processes that hold shards of it."""
    total = torch.zeros((), dtype=torch.int64)
    elements = sum(p.numel() for p in operation.parameters)
    for p in operation.parameters:
        gradient = _local(p.grad)
        counts = histogram(sample(gradient, elements) if sampled else gradient)
        if isinstance(p.grad, DTensor):
            for axis, placement in enumerate(p.grad.placements):
                if isinstance(placement, Shard):
                    dist.all_reduce(counts, group=p.grad.device_mesh.get_group(axis))
        total = total.to(counts.device) + counts
    return total


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
