"""Where a plain parameter meets the batch: per-sample gradients from the autograd graph.

Position embeddings, tokens and layer scales belong to no layer. They may be sliced, concatenated
or reshaped first; then one elementwise operation broadcasts the result over the n samples. The
output gradient of that operation still has all samples apart. It is taken from there, and pulled
back through the operations before it, which are independent of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

BROADCASTING = ("AddBackward0", "MulBackward0", "ExpandBackward0")


@dataclass(frozen=True)
class Entry:
    """An operation that broadcasts a tensor over the samples.

    Attributes:
        node: its node of the autograd graph.
        position: which of its inputs the tensor is.
        source: the edge of the graph that the tensor is.
        shape: of the tensor.
    """

    node: Any
    position: int
    source: GradientEdge
    shape: tuple[int, ...]

    def split(self, gradient: Tensor) -> Tensor:
        """Per-sample gradients of the tensor, (n, *shape), from that of the operation's output."""
        kind, node = self.node.name(), self.node
        if kind == "MulBackward0":
            gradient = gradient * (node._saved_self if self.position else node._saved_other)
        elif kind == "AddBackward0" and self.position:
            gradient = gradient * node._saved_alpha
        shape = _aligned(self.shape, gradient.dim())
        dims = [k for k in range(1, len(shape)) if shape[k] == 1 and gradient.shape[k] > 1]
        rows = gradient.sum(dims) if dims else gradient
        return rows.reshape(len(gradient), *self.shape)

    def pull_back(self, rows: Tensor, parameter: Tensor) -> Tensor:
        """Per-sample gradients (n, d) of ``parameter`` from those of the tensor made of it."""
        if getattr(self.source.node, "variable", None) is parameter:
            return rows.reshape(len(rows), -1)
        pulled = [
            torch.autograd.grad(self.source, parameter, row.to(parameter), retain_graph=True)[0]
            for row in rows
        ]
        return torch.stack(pulled).reshape(len(rows), -1)


class Graph:
    """The operations that tensors are made by.

    Attributes:
        nodes: of the autograd graph.
        leaves: variable to its node.
        consumers: output of a node to the nodes that take it, and which of their inputs it is.
    """

    def __init__(self, result: Tensor) -> None:
        self.nodes: set[Any] = set()
        self.consumers: dict[tuple[Any, int], list[tuple[Any, int]]] = {}
        stack = [result.grad_fn]
        while stack:
            node = stack.pop()
            if node is None or node in self.nodes:
                continue
            self.nodes.add(node)
            for position, (source, output) in enumerate(node.next_functions):
                if source is not None:
                    self.consumers.setdefault((source, output), []).append((node, position))
                    stack.append(source)
        self.leaves = {node.variable: node for node in self.nodes if hasattr(node, "variable")}

    def uses(self, variable: Tensor) -> int:
        """How many operations take the variable, or a copy of it in another precision."""
        count, stack = 0, [self.leaves.get(variable)]
        while stack:
            for node, _ in self.consumers.get((stack.pop(), 0), []):
                if node.name() == "ToCopyBackward0":
                    stack.append(node)
                else:
                    count += 1
        return count


def split_at_entries(
    graph: Graph, n: int, parameters: dict[str, Tensor], receive: Callable[[str, Tensor], None]
) -> set[str]:
    """Prepare a graph so that a backward pass splits gradients by sample.

    Args:
        graph: of the losses of the whole batch.
        n: number of samples.
        parameters: the plain parameters.
        receive: called in the backward pass with a name and per-sample gradients (n, d), once for
            each use of the parameter.

    Returns:
        The names of parameters that meet the samples in another way; they are not split.
    """
    unsplit = set()
    for name, parameter in parameters.items():
        if parameter not in graph.leaves:
            continue  # the losses do not depend on it
        entries = _entries(graph, parameter, n)
        if entries is None:
            unsplit.add(name)
            continue
        for entry in entries:

            def hook(gradients, name=name, parameter=parameter, entry=entry):
                receive(name, entry.pull_back(entry.split(gradients[0]), parameter))

            entry.node.register_prehook(hook)
    return unsplit


def _entries(graph: Graph, parameter: Tensor, n: int) -> list[Entry] | None:
    """All operations by which what is made of ``parameter`` meets the n samples, None if some is
    of another kind than broadcasting."""
    entries, seen = [], set()
    stack = [(graph.leaves[parameter], 0, tuple(parameter.shape))]
    while stack:
        source, output, shape = stack.pop()
        for node, position in graph.consumers.get((source, output), []):
            if (node, position) in seen:
                continue
            seen.add((node, position))
            shapes = [tuple(meta.shape) for meta in node._input_metadata]
            if all(result[:1] != (n,) for result in shapes):
                stack += [(node, index, result) for index, result in enumerate(shapes)]
            elif node.name() in BROADCASTING and _aligned(shape, len(shapes[0]))[0] == 1:
                entries.append(Entry(node, position, GradientEdge(source, output), shape))
            else:
                return None
    return entries


def _aligned(shape: tuple[int, ...], dims: int) -> tuple[int, ...]:
    return (1,) * (dims - len(shape)) + shape
