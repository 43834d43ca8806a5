"""Leading eigenvalues of the empirical Fisher information, exact, from a Gram matrix.

With the per-sample gradients of an operation as the rows of G (n x d), its empirical Fisher is
G'G / n; the nonzero eigenvalues of that d x d matrix are those of the n x n matrix GG' / n. The
Gram matrix is summed up in float64, layer by layer, during one backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from srft_plugin.errors import UserError
from srft_plugin.precision import widened
from srft_plugin.prior.capture import (
    Agree,
    Capture,
    LossFn,
    looped_gradients,
    owned_parameters,
    separable_layers,
)
from srft_plugin.prior.layers import Call, Factors, Outer, Rows, layer_factors

# Elements of an intermediate product at a time: on a CPU, few enough for its cache.
CPU_CHUNK = 1 << 17
GPU_CHUNK = 1 << 25
# Layer inputs and output gradients of all batches that may be held at a time, in bytes.
MEMORY = 4 << 30


def fisher_spectra(
    network: nn.Module,
    loss_fn: LossFn,
    batches: list[Any],
    groups: dict[str, list[str]],
    top_k: int,
    memory: int = MEMORY,
    distributed: bool = False,
) -> tuple[dict[str, Tensor], int]:
    """Leading eigenvalues of the empirical Fisher of each group, over all batches together.

    A single batch takes one forward and backward pass. With several, the products between samples
    of different batches need the layer inputs and output gradients of all of them: where these
    exceed ``memory`` bytes, the passes are repeated, each for some of the layers.

    Args:
        network: in eval mode.
        loss_fn: (network, batch) to (n,) losses.
        batches: all samples of this process.
        groups: operation to the names of its parameters.
        top_k: eigenvalues to return.
        memory: see above.
        distributed: the samples are spread over the processes of the default process group, as
            many batches of the same sizes on each; all get the spectra of all samples.

    Returns:
        Group to its eigenvalues, float64, descending, min(top_k, parameters) of them, none where
        the losses do not depend on the group; and the number of samples.

    Raises:
        UserError: gradients that are not finite, or no process group to be distributed over.
    """
    if distributed and not dist.is_initialized():
        raise UserError("distributed=True needs torch.distributed.init_process_group first")
    wanted = {name for members in groups.values() for name in members}
    grams = fisher_grams(network, loss_fn, batches, wanted, memory, distributed)
    sizes = {name: p.numel() for name, p in network.named_parameters()}
    spectra = {}
    samples = 0
    for group, members in groups.items():
        known = [grams[name] for name in members if name in grams]
        if not known:
            spectra[group] = torch.empty(0, dtype=torch.float64)
            continue
        total = sum(known)
        samples = len(total)
        if not total.isfinite().all():
            raise UserError(
                f"the losses are finite but their gradients in {group} are not; check the loss "
                f"for square roots and divisions at zero"
            )
        values = torch.linalg.eigvalsh(total / samples).flip(0).clamp(min=0)
        spectra[group] = values[: min(top_k, sum(sizes[name] for name in members))].cpu()
    return spectra, samples


def fisher_grams(
    network: nn.Module,
    loss_fn: LossFn,
    batches: list[Any],
    parameters: set[str],
    memory: int = MEMORY,
    distributed: bool = False,
) -> dict[str, Tensor]:
    """Gram matrix (n, n), float64, of the per-sample gradients of each parameter, by name.

    Parameters that the losses do not depend on are left out. Those of one group add up.
    """
    grams: dict[str, Tensor] = {}
    unsplit: set[str] = set()
    rows: dict[str, list[Tensor]] = {}

    def agree(names: set[str]) -> set[str]:
        return set.union(*_of_all_processes(names)) if distributed else names

    def add(name: str, blocks: list[Factors]) -> None:
        if name in parameters:
            grams[name] = gram(_everywhere(blocks) if distributed else blocks)

    for chosen in _passes(network, loss_fn, batches, parameters, memory, distributed):
        held: dict[str, list[list[Call]]] = {}

        def on_layer(name: str, calls: list[Call], held=held) -> None:
            held.setdefault(name, []).append(calls)
            if len(held[name]) == len(batches):
                layer = network.get_submodule(name)
                blocks = [layer_factors(layer, calls) for calls in held.pop(name)]
                for key in blocks[0]:
                    add(f"{name}.{key}".lstrip("."), [block[key] for block in blocks])

        capture = Capture(network, chosen, on_layer, agree)
        for batch in batches:
            for name, row in capture.run(loss_fn, batch).items():
                rows.setdefault(name, []).append(row)
        unsplit |= capture.unsplit
        # A layer that some batches do not reach has no gradient there.
        unsplit |= {p for name in held for p in owned_parameters(network, name)}
    reached = agree(set(rows))
    unsplit |= agree({name for name in reached if len(rows.get(name, ())) < len(batches)})
    rows |= _looped(network, loss_fn, batches, sorted(unsplit & parameters), agree)
    for name in sorted(rows):
        add(name, [Rows(part) for part in rows[name]])
    return grams


def _looped(
    network: nn.Module, loss_fn: LossFn, batches: list[Any], parameters: list[str], agree: Agree
) -> dict[str, list[Tensor]]:
    """Gradients of all samples by name and batch; zero in batches that do not reach them. Names
    that no batch of any process reaches are left out."""
    if not parameters:
        return {}
    results = [looped_gradients(network, loss_fn, batch, parameters) for batch in batches]
    reached = agree({name for _, result in results for name in result})
    named = dict(network.named_parameters())
    return {
        name: [
            result.get(name, widened(named[name].new_zeros(n, named[name].numel())))
            for n, result in results
        ]
        for name in reached
    }


def _of_all_processes(value: Any) -> list[Any]:
    """What each process has in place of ``value``."""
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _everywhere(blocks: list[Factors]) -> list[Factors]:
    """The blocks of all processes."""

    def gather(tensor: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return parts

    gathered: list[Factors] = []
    for block in blocks:
        if isinstance(block, Rows):
            gathered += [Rows(part) for part in gather(block.gradients.detach())]
        else:
            pairs = zip(gather(block.inputs), gather(block.output_gradients), strict=True)
            gathered += [Outer(*pair) for pair in pairs]
    return gathered


def _passes(
    network: nn.Module,
    loss_fn: LossFn,
    batches: list[Any],
    parameters: set[str],
    memory: int,
    distributed: bool,
) -> Iterator[set[str]]:
    """Split ``parameters`` so that what each pass must hold of its layers fits into memory."""
    layers = separable_layers(network, parameters)
    if len(batches) == 1:
        yield parameters
        return
    sizes = _held_bytes(network, loss_fn, batches[0], layers)
    if distributed:
        all_sizes = _of_all_processes(sizes)
        sizes = {name: max(each[name] for each in all_sizes) for name in sizes}
    chosen, size = parameters - {p for name in layers for p in owned_parameters(network, name)}, 0
    for name in layers:
        if size and size + sizes[name] * len(batches) > memory:
            yield chosen
            chosen, size = set(), 0
        size += sizes[name] * len(batches)
        chosen |= set(owned_parameters(network, name)) & parameters
    yield chosen


@torch.no_grad()
def _held_bytes(
    network: nn.Module, loss_fn: LossFn, batch: Any, layers: dict[str, nn.Module]
) -> dict[str, int]:
    """Bytes of the inputs and outputs of each layer for one batch."""
    sizes = dict.fromkeys(layers, 0)

    def hook(name: str) -> Any:
        def count(layer: nn.Module, args: Any, kwargs: dict[str, Any], output: Tensor) -> None:
            x, *_ = (*args, *kwargs.values())
            sizes[name] += x.nbytes + output.nbytes

        return count

    handles = [layer.register_forward_hook(hook(name), with_kwargs=True)
               for name, layer in layers.items()]  # fmt: skip
    try:
        loss_fn(network, batch)
    finally:
        for handle in handles:
            handle.remove()
    return sizes


def gram(blocks: list[Factors]) -> Tensor:
    """Inner products of all per-sample gradients of one parameter: (n, n) float64."""
    if isinstance(blocks[0], Rows):
        return _gram_of_rows(torch.cat([block.gradients for block in blocks]))
    n = sum(len(block.inputs) for block in blocks)
    _, tokens, inputs = blocks[0].inputs.shape
    outputs = blocks[0].output_gradients.shape[-1]
    # Multiplications: products of all pairs of tokens, or all gradients and their products.
    by_pairs = n * tokens**2 * (inputs + outputs) / 2
    by_gradients = tokens * inputs * outputs + n * inputs * outputs / 2
    return (_gram_of_pairs if by_pairs < by_gradients else _gram_of_gradients)(blocks)


def _chunk(device: torch.device, row: int) -> int:
    """How many rows of ``row`` elements to work on at a time."""
    return max((CPU_CHUNK if device.type == "cpu" else GPU_CHUNK) // row, 1)


def _gram_of_rows(rows: Tensor) -> Tensor:
    """Products in the precision of the gradients, of a few columns; their sum in float64."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for part in rows.split(_chunk(rows.device, len(rows)), 1):
        total += part @ part.mT
    return total


def _gram_of_gradients(blocks: list[Outer]) -> Tensor:
    """Multiply out the gradients D_i' A_i, some output channels at a time."""
    n = sum(len(block.inputs) for block in blocks)
    inputs, outputs = blocks[0].inputs.shape[-1], blocks[0].output_gradients.shape[-1]
    total = torch.zeros(n, n, dtype=torch.float64, device=blocks[0].inputs.device)
    step = _chunk(total.device, n * inputs)
    for start in range(0, outputs, step):
        rows = torch.cat([
            torch.bmm(b.output_gradients[..., start : start + step].mT, b.inputs).flatten(1)
            for b in blocks
        ])  # fmt: skip
        total += _gram_of_rows(rows)
    return total


def _gram_of_pairs(blocks: list[Outer]) -> Tensor:
    """Entry (i, k) = sum over token pairs of (A_i A_k') * (D_i D_k')."""
    rows = []
    for first in blocks:
        for a, d in zip(first.inputs, first.output_gradients, strict=True):
            rows.append(torch.cat([
                ((a @ b.inputs.mT) * (d @ b.output_gradients.mT)).sum((1, 2)).double()
                for b in blocks
            ]))  # fmt: skip
    return torch.stack(rows)
