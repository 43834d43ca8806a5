"""SRFT: any torch optimizer with its updates scaled by one minus the sensitivity (Eq. 14, 15)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import optim
from torch.nn import Parameter

from srft_plugin.errors import UserError, some, unknown
from srft_plugin.kernels import FusedAdamW
from srft_plugin.prior import BoundPrior
from srft_plugin.ranking import RANKINGS, Operation, Sensitivity
from srft_plugin.schedule import MAX_SENSITIVITY, sensitivity_weights
from srft_plugin.update import CopyingUpdate

MODES = ("both", "prior", "transfer")


class SRFT(optim.Optimizer):
    """Wraps ``optimizer`` so that a step moves parameter n by (1 - s_n) times its update.

    s_n combines the rank of the prior sensitivity of the operation and the rank of the squared
    gradient of the parameter inside its operation (Eq. 14), times ``max_sensitivity``. The update
    is scaled, not the gradient, whose scale Adam would divide out again; it is the whole update,
    decoupled weight decay included, so that a weight with s_n near one keeps its value.

    ``param_groups`` and ``state`` are those of the wrapped optimizer: schedulers, ``GradScaler``
    and checkpoints work as with it. ``state_dict`` adds the key ``"srft"``: step counter,
    hyper-parameters and prior ranks, all of which ``load_state_dict`` restores;
    ``get_optimizer_state_dict`` of torch.distributed.checkpoint leaves it out.

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
        fused: step a plain AdamW by kernels of one pass over memory: on a CPU its large operations,
            by torch.compile, whose C++ compiler the first steps wait for; on a GPU by Triton.

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
        max_sensitivity: float = MAX_SENSITIVITY,
        mode: str = "both",
        ranking: str = "sampled",
        fused: bool = False,
    ) -> None:
        sensitivity_weights(0, total_steps, kappa)  # checks both
        if not 0.0 <= max_sensitivity <= 1.0:
            raise UserError(f"max_sensitivity is {max_sensitivity}; expected a number in [0, 1]")
        for name, value, known in (("mode", mode, MODES), ("ranking", ranking, RANKINGS)):
            if value not in known:
                raise unknown(name, value, known)
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
        self._update = CopyingUpdate(optimizer)
        self._fused = FusedAdamW(optimizer) if fused else None
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

    def take_back(self, steps: int) -> None:
        """Do not count the last ``steps``: the wrapped optimizer skipped them.

        A fused optimizer leaves everything as it is where its ``found_inf`` says so, on the device;
        whoever sets that tells SRFT here, once the device's count has been read.
        """
        self._steps -= steps

    def mean_sensitivity(self) -> float:
        """Mean of s_n over all parameters with a gradient, at the last step.

        The mean of the ranks of an operation is 1/2 whatever the gradients, so this takes none of
        them to compute; with ``"sampled"`` ranks it holds up to their error. 0.0 where no
        parameter has a gradient.
        """
        prior_weight, transfer_weight = self._weights()
        total, elements = 0.0, 0
        for operation in self._operations:
            size = sum(p.numel() for p in operation.parameters if p.grad is not None)
            total += size * (prior_weight * operation.prior_rank + transfer_weight / 2)
            elements += size
        return self.max_sensitivity * total / max(elements, 1)

    def __repr__(self) -> str:
        return (
            f"SRFT(mode={self.mode!r}, kappa={self.kappa}, total_steps={self.total_steps}, "
            f"max_sensitivity={self.max_sensitivity}, ranking={self.ranking!r}, {self.inner!r})"
        )

    def __getstate__(self) -> dict[str, Any]:
        # A scheduler hides ``step`` behind a wrapper that would go on stepping the original.
        return {name: value for name, value in self.__dict__.items() if name != "step"}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its parameters must be known to the bound prior, where there is one.

        Raises:
            UserError: they are not; the optimizer is as it was.
        """
        self.inner.add_param_group(param_group)
        try:
            operations = self._group_parameters()
        except UserError:
            self.param_groups.pop()
            raise
        # Ranks of a loaded state may be others than those of the bound prior.
        self._operations = _ranked(operations, self._prior_ranks())

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, as the wrapped optimizer does."""
        self.inner.zero_grad(set_to_none)

    @torch._disable_dynamo  # as torch.optim does: a compiled step would lose its counter
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step of the wrapped optimizer, its update scaled by 1 - s_n (Eq. 15).

        Parameters without a gradient stay as they are and take no part in the ranks.

        Args:
            closure: evaluated once, with gradients enabled; its value is returned.

        Raises:
            UserError: gradients that cannot be ranked (sparse, complex, still to be summed over
                processes), or of parameters that were frozen when the prior was bound.
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
        operations = list(self._with_gradients())
        self._steps += 1
        prior, transfer = (self.max_sensitivity * weight for weight in self._weights())
        sensitivity = Sensitivity(prior, transfer, self.ranking)
        if self._fused is not None:
            operations = self._fused.step(operations, sensitivity)
        self._update.step(operations, sensitivity)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's state and, under ``"srft"``, everything that SRFT adds."""
        ranks = self._prior_ranks()
        own = {key: getattr(self, key) for key in _SAVED} | {
            "steps": self._steps,
            "prior_ranks": [ranks.get(p, 0.0) for p in self._parameters()],
            "operations": self._operation_numbers(),
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
                "this optimizer state has no 'srft' entry: it was saved by a plain optimizer (load "
                "it into that one before wrapping it in SRFT), or by get_optimizer_state_dict of "
                "torch.distributed, which drops that entry (save what state_dict() gives)"
            )
        if len(own["prior_ranks"]) != len(parameters):
            raise UserError(
                f"this optimizer state is of {len(own['prior_ranks'])} parameters, the optimizer "
                f"has {len(parameters)}; build the same network and parameter groups as then"
            )
        if own["operations"] != self._operation_numbers():
            raise UserError(
                "this optimizer state is of a run that ranked other parameters together; give the "
                "same prior, or none, and freeze the same parameters as then"
            )
        self.inner.load_state_dict(state_dict)
        for key in _SAVED:
            setattr(self, key, own[key])
        self._steps = own["steps"]
        ranks = dict(zip(parameters, own["prior_ranks"], strict=True))
        self._operations = _ranked(self._operations, ranks)

    def _parameters(self) -> Iterator[Parameter]:
        return (p for group in self.param_groups for p in group["params"])

    def _group_parameters(self) -> list[Operation]:
        parameters = list(self._parameters())
        if self._prior is None:
            return [Operation([p], 0.0) for p in parameters]
        known = {p for members in self._prior.operations.values() for p in members}
        trained = [p for p in parameters if p.requires_grad or p in known]
        return [Operation(members, rank) for members, rank in self._prior.partition(trained)]

    def _prior_ranks(self) -> dict[Parameter, float]:
        return {p: operation.prior_rank for operation in self._operations
                for p in operation.parameters}  # fmt: skip

    def _operation_numbers(self) -> list[int]:
        """The number of the operation of each parameter, -1 for those of none."""
        numbers = {p: number for number, operation in enumerate(self._operations)
                   for p in operation.parameters}  # fmt: skip
        return [numbers.get(p, -1) for p in self._parameters()]

    def _weights(self) -> tuple[float, float]:
        """Weights of the two sensitivities at this step; a single one has weight one."""
        if self.mode == "both":
            return sensitivity_weights(self._steps, self.total_steps, self.kappa)
        return float(self.mode == "prior"), float(self.mode == "transfer")

    def _with_gradients(self) -> Iterator[Operation]:
        """The operations that take part in a step."""
        reached = {p for p in self._parameters() if p.grad is not None}
        for p in reached:
            if p.grad.is_sparse or p.is_complex():
                kind = "sparse" if p.grad.is_sparse else "complex"
                raise UserError(f"SRFT cannot rank {kind} gradients; use dense, real parameters")
        for operation in self._operations:
            members = [p for p in operation.parameters if p in reached]
            reached.difference_update(members)
            if members:
                yield Operation(members, operation.prior_rank)
        if reached:
            raise UserError(
                f"{len(reached)} parameters have a gradient and were frozen when SRFT was made "
                f"(shapes {some([tuple(p.shape) for p in reached])}); bind the prior after "
                f"unfreezing, and wrap the optimizer anew"
            )


_SAVED = ("total_steps", "kappa", "max_sensitivity", "mode", "ranking")


def _ranked(operations: list[Operation], ranks: dict[Parameter, float]) -> list[Operation]:
    """The operations with the prior ranks in ``ranks``; those that it does not know keep theirs."""
    return [
        Operation(o.parameters, next((ranks[p] for p in o.parameters if p in ranks), o.prior_rank))
        for o in operations
    ]
