"""Teachers that are running averages of the network being trained (TRACER, and the usual EMA)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from srft_plugin.errors import UserError, unknown
from srft_plugin.tuning.base import refuse_shards


class Teacher:
    """A running average of the trainable parameters, and the network's answers with it.

    The average is the one extra copy of the parameters: the forward pass runs on the network's own
    modules with the averages in place of what trains, and copies of the buffers, so that batch
    statistics of the teacher do not reach the student. Buffers are not averaged. The teacher is in
    the network's mode, with its own draws of dropout and drop path. Averages of half precision are
    held in float32: a late step moves them by less than half precision can tell.

    Args:
        network: at the weights to start from; not the wrapper that shares it among processes.
        total_steps: T, optimizer steps of the whole training.

    Raises:
        UserError: nothing trains, or the parameters are sharded.
    """

    def __init__(self, network: nn.Module, total_steps: int) -> None:
        refuse_shards(network)
        if total_steps < 1:
            raise UserError(f"total_steps is {total_steps}; expected at least 1")
        self.network = network
        self.total_steps = total_steps
        self.steps = 0
        self.average = {
            name: p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
            for name, p in self._trained().items()
        }
        if not self.average:
            raise UserError("the teacher averages what trains, and nothing of the network does")

    @torch.no_grad()
    def __call__(self, inputs: tuple[Any, ...]) -> Any:
        """The network's output with the averaged weights; no gradient reaches them."""
        self._follow_device()
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        weights = {name: self.average[name].to(p.dtype) for name, p in self._trained().items()}
        return functional_call(self.network, (weights, buffers), inputs)

    @torch.no_grad()
    def after_step(self) -> None:
        """Counts an optimizer step and takes its weights into the average."""
        self._follow_device()
        self.steps += 1
        average = list(self.average.values())
        current = [p.to(a.dtype) for a, p in zip(average, self._trained().values(), strict=True)]
        self.update(average, current)

    def update(self, average: list[Tensor], current: list[Tensor]) -> None:
        """Takes the weights after step ``self.steps`` into the average, in place."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where ``state`` was taken.

        Raises:
            UserError: it is the state of a teacher of other parameters.
        """
        shapes, found = (
            {name: tuple(t.shape) for name, t in average.items()}
            for average in (self.average, state["average"])
        )
        if different := sorted(set(shapes.items()) ^ set(found.items())):
            raise UserError(
                f"the teacher's state is of other parameters ({different[0][0]} and "
                f"{len(different) - 1} more); build the same network and trainable set as then"
            )
        self.steps = state["steps"]
        for name, value in self.average.items():
            value.copy_(state["average"][name])

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    def _follow_device(self) -> None:
        device = next(self.network.parameters()).device
        if next(iter(self.average.values())).device != device:
            self.average = {name: value.to(device) for name, value in self.average.items()}


class WeightedAverage(Teacher):
    """TRACER's teacher: the weighted mean of all weights from step 0 (the start) to now.

    Step t weighs w_t = Beta(beta, beta) density at (t + 1/2) / (T + 1); w_0 belongs to the weights
    to start from. With beta = 1/2, TRACER's, the ends of the training weigh most; 1 is the plain
    mean. Steps beyond T weigh as much as step T.

    Attributes:
        total: W_t, the sum of the weights so far.
    """

    def __init__(self, network: nn.Module, total_steps: int, beta: float = 0.5) -> None:
        if not beta > 0:
            raise UserError(f"beta is {beta}; expected more than 0 (TRACER has 0.5)")
        super().__init__(network, total_steps)
        self.beta = beta
        self.total = self.weight(0)

    def weight(self, step: int) -> float:
        """w_t."""
        x = (min(step, self.total_steps) + 0.5) / (self.total_steps + 1)
        norm = math.lgamma(2 * self.beta) - 2 * math.lgamma(self.beta)
        return math.exp(norm + (self.beta - 1) * (math.log(x) + math.log1p(-x)))

    def update(self, average: list[Tensor], current: list[Tensor]) -> None:
        weight = self.weight(self.steps)
        self.total += weight
        torch._foreach_lerp_(average, current, weight / self.total)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.total = state["total"]


class ExponentialAverage(Teacher):
    """The exponential moving average that TRACER is compared with.

    Every ``every`` steps, average <- m average + (1 - m) weights; m rises linearly from 0.05 to
    0.9 over the first fifth of the training.
    """

    def __init__(self, network: nn.Module, total_steps: int, every: int = 500) -> None:
        if every < 1:
            raise UserError(f"every is {every}; expected at least 1 step between updates")
        super().__init__(network, total_steps)
        self.every = every

    def update(self, average: list[Tensor], current: list[Tensor]) -> None:
        if self.steps % self.every == 0:
            risen = min(self.steps / (0.2 * self.total_steps), 1.0)
            momentum = 0.05 + (0.9 - 0.05) * risen
            torch._foreach_lerp_(average, current, 1 - momentum)


def make_teacher(
    average: str, network: nn.Module, total_steps: int, beta: float, every: int
) -> Teacher:
    """The teacher called ``average``: ``wma``, which takes ``beta``, or ``ema``, with ``every``."""
    if average == "wma":
        return WeightedAverage(network, total_steps, beta)
    if average == "ema":
        return ExponentialAverage(network, total_steps, every)
    raise unknown("average", average, ("wma", "ema"))
