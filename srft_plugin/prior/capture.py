"""Per-sample gradients from one forward and one backward pass, in factored form.

Hooks see the input A (n, T, in) and the output gradient D (n, T, out) of each layer; the gradient
of sample i for a linear layer is D_i' A_i and need not be multiplied out. Autograd forms no weight
gradient. Plain parameters (position embeddings, tokens, layer scales) are split where they meet the
batch. What is used in any other way is differentiated sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from srft_plugin.errors import UserError
from srft_plugin.precision import widened
from srft_plugin.prior.entry import Graph, split_at_entries
from srft_plugin.prior.layers import Call, layer_rule

LossFn = Callable[[nn.Module, Any], Tensor]
Agree = Callable[[set[str]], set[str]]


@dataclass
class _Record:
    """The calls of one layer in one forward pass: inputs, and the nodes that made the outputs."""

    inputs: list[Tensor] = field(default_factory=list)
    nodes: list[Any] = field(default_factory=list)
    output_gradients: dict[int, Tensor] = field(default_factory=dict)

    def calls(self) -> list[Call]:
        return [(self.inputs[k], d) for k, d in sorted(self.output_gradients.items())]


class Capture:
    """Splits the gradients of chosen layers and plain parameters of a network by sample.

    Args:
        network: in eval mode.
        parameters: names of the parameters whose gradients are wanted.
        on_layer: called during backward with the name of a layer and its calls as soon as they
            are complete, so that they can be used up and freed.
        agree: the names that any process cannot split, from those of this one: with several
            processes, all of them have to go the same way.

    Attributes:
        layers: the layers that hooks can take apart.
        plain: names of the wanted parameters that no hooked layer owns.
        unsplit: names of those that turned out not to be separable; see ``looped_gradients``.
    """

    def __init__(
        self,
        network: nn.Module,
        parameters: set[str],
        on_layer: Callable[[str, list[Call]], None],
        agree: Agree = lambda names: names,
    ) -> None:
        self.network = network
        self.parameters = parameters
        self.on_layer = on_layer
        self.agree = agree
        self.unsplit: set[str] = set()
        self.layers = separable_layers(network, parameters)
        owned = {p for layer in self.layers for p in owned_parameters(network, layer)}
        self.plain = sorted(parameters - owned)
        self._probed: set[int] = set()  # sizes of batches
        self._foreign: slice | None = None  # while probing, where no gradient may be

    def run(self, loss_fn: LossFn, batch: Any) -> dict[str, Tensor]:
        """One forward and backward pass; gradients of plain parameters, (n, d) each, by name.

        The first batch of each size takes two more backward passes, see ``_probe``.
        """
        records: dict[str, _Record] = {}
        rows: dict[str, Tensor] = {}
        parameters = dict(self.network.named_parameters())
        plain = {name: parameters[name] for name in self.plain}

        def receive(name: str, gradients: Tensor) -> None:
            if self._foreign is not None:
                self._look([name], gradients)
            elif name not in self.unsplit:
                rows[name] = rows.get(name, 0) + widened(gradients)

        with only_requires_grad(self.network, self.parameters), self._hooks(records):
            losses = checked_losses(self.network, loss_fn, batch)
            graph = Graph(losses)
            self.unsplit |= split_at_entries(graph, len(losses), plain, receive)
            strays = self._strays(graph, records, losses.shape)
            self.unsplit |= strays
            # Not the weights of layers: autograd is to form none of their gradients. What strays
            # use beside their calls has to be passed all the same, to get to what is before it.
            leaves = [self._anchor, *plain.values(), *(parameters[name] for name in strays)]
            if losses.requires_grad and len(losses) not in self._probed:
                self._probe(losses, leaves)
            self.unsplit |= self.agree(self.unsplit)
            for name in self.layers:
                if self.unsplit.intersection(owned_parameters(self.network, name)):
                    records.pop(name)
            if losses.requires_grad:
                torch.autograd.grad(losses.sum(), leaves, allow_unused=True)
        for name in list(records):
            self._finish(name, records)
        return rows

    def _strays(self, graph: Graph, records: dict[str, _Record], samples: torch.Size) -> set[str]:
        """Parameters of layers that are used in other ways than by calls with the samples as
        the first axis: not at all, with another axis there, or beside the calls (tied weights)."""
        strays: set[str] = set()
        for name, record in records.items():
            # The last axis holds features: a vector has none for the samples.
            axes = {x.shape[:-1][:1] for x in record.inputs}
            calls = sum(node in graph.nodes for node in record.nodes)
            owned = set(owned_parameters(self.network, name)) & self.parameters
            uses = {graph.uses(self.network.get_parameter(p)) for p in owned}
            if not calls or axes != {samples} or uses != {calls}:
                strays |= owned
        return strays

    def _probe(self, losses: Tensor, leaves: list[Tensor]) -> None:
        """Find axes that are as long as the batch but are not the samples.

        The losses of one half of the samples depend on nothing in the other half: where their
        gradient reaches into the other half of an axis, that axis is another one.
        """
        self._probed.add(len(losses))
        half = (len(losses) + 1) // 2
        first, second = slice(half), slice(half, len(losses))
        if half == len(losses):  # a single sample has all gradients to itself
            return
        try:
            for own, self._foreign in ((first, second), (second, first)):
                part = losses[own].sum()
                torch.autograd.grad(part, leaves, allow_unused=True, retain_graph=True)
        finally:
            self._foreign = None

    def _look(self, names: list[str], gradient: Tensor) -> None:
        if gradient[self._foreign].any():
            self.unsplit.update(names)

    @contextmanager
    def _hooks(self, records: dict[str, _Record]) -> Iterator[None]:
        # A zero that requires grad, added to the first outputs: a gradient that autograd is asked
        # for, so that it visits the layers without forming those of their weights.
        self._anchor = torch.zeros((), requires_grad=True, device=_device(self.network))
        with ExitStack() as stack:
            for name, layer in self.layers.items():
                records[name] = _Record()
                hook = self._forward_hook(name, records)
                # Before other hooks, which may change the output.
                handle = layer.register_forward_hook(hook, prepend=True, with_kwargs=True)
                stack.callback(handle.remove)
            yield

    def _forward_hook(self, name: str, records: dict[str, _Record]) -> Callable[..., Tensor]:
        owned = owned_parameters(self.network, name)

        def hook(
            layer: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor
        ) -> Tensor:
            if not torch.is_grad_enabled():
                return output
            record, (x, *_) = records[name], (*args, *kwargs.values())
            index = len(record.inputs)
            record.inputs.append(x.detach())
            record.nodes.append(output.grad_fn)
            if not x.requires_grad:
                output = output + self._anchor

            def on_gradient(gradient: Tensor) -> None:
                if self._foreign is not None:
                    self._look(owned, gradient)
                elif name in records:
                    # Held by the hook, it would refer to the node that holds the hook, for ever.
                    record = records[name]
                    record.output_gradients[index] = gradient
                    if len(record.output_gradients) == len(record.inputs):
                        self._finish(name, records)

            output.register_hook(on_gradient)
            return output

        return hook

    def _finish(self, name: str, records: dict[str, _Record]) -> None:
        calls = records.pop(name).calls()
        if calls:
            self.on_layer(name, calls)


def separable_layers(network: nn.Module, parameters: set[str]) -> dict[str, nn.Module]:
    """Layers that own some of ``parameters`` and that hooks can take apart.

    Left out are layers inside ``nn.MultiheadAttention``, which uses their weights without calling
    them, and those that share a parameter with another module.
    """
    owners: dict[nn.Parameter, int] = {}
    for _, p in network.named_parameters(remove_duplicate=False):
        owners[p] = owners.get(p, 0) + 1
    layers = {}
    for name, module in network.named_modules():
        own = dict(module.named_parameters(recurse=False))
        wanted = {f"{name}.{key}".lstrip(".") for key in own} & parameters
        shared = any(owners[p] > 1 for p in own.values())
        if wanted and not shared and layer_rule(module) is not None:
            layers[name] = module
    return layers


def owned_parameters(network: nn.Module, layer: str) -> list[str]:
    """Full names of the parameters that the layer called ``layer`` holds."""
    own = network.get_submodule(layer).named_parameters(recurse=False)
    return [f"{layer}.{key}".lstrip(".") for key, _ in own]


def looped_gradients(
    network: nn.Module, loss_fn: LossFn, batch: Any, parameters: list[str]
) -> tuple[int, dict[str, Tensor]]:
    """Per-sample gradients by one backward pass per sample: slow, and right for any network.

    Returns:
        n, and (n, d) per parameter name; parameters that the losses do not depend on are left out.
    """
    named = dict(network.named_parameters())
    chosen = [named[name] for name in parameters]
    with only_requires_grad(network, parameters):
        losses = checked_losses(network, loss_fn, batch)
        if not losses.requires_grad:
            return len(losses), {}
        samples = [
            torch.autograd.grad(loss, chosen, retain_graph=True, allow_unused=True)
            for loss in losses
        ]
    return len(losses), {
        name: _stacked(column, p)
        for name, p, column in zip(parameters, chosen, zip(*samples, strict=True), strict=True)
        if any(g is not None for g in column)
    }


def _stacked(gradients: tuple[Tensor | None, ...], p: Tensor) -> Tensor:
    filled = [torch.zeros_like(p) if g is None else g for g in gradients]
    return widened(torch.stack(filled).reshape(len(filled), -1))


def checked_losses(network: nn.Module, loss_fn: LossFn, batch: Any) -> Tensor:
    """The per-sample losses of a batch.

    Raises:
        UserError: not a vector, or not finite.
    """
    losses = loss_fn(network, batch)
    if not isinstance(losses, Tensor) or losses.dim() != 1:
        found = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        raise UserError(
            f"loss_fn returned {found}; expected one loss per sample, a tensor of shape (n,)"
        )
    if not len(losses):
        raise UserError("a batch for the prior holds no samples; leave it out")
    bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
    if bad:
        raise UserError(
            f"the loss of sample {bad[0]} of a batch of {len(losses)} is {losses[bad[0]].item()}; "
            f"the prior needs finite losses: check that sample, and the checkpoint"
        )
    return losses


@contextmanager
def only_requires_grad(network: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Within the context exactly the parameters called ``names`` require a gradient."""
    before = {p: p.requires_grad for p in network.parameters()}
    wanted = set(names)
    try:
        for name, p in network.named_parameters():
            p.requires_grad_(name in wanted)
        yield
    finally:
        for p, flag in before.items():
            p.requires_grad_(flag)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
