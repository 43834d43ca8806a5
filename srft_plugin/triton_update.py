"""The fused step on a GPU: AdamW, ranks and Eq. 15 by three Triton kernels.

Each is launched once for all tensors, which it finds by their addresses: a network has hundreds of
them, and a launch for each would keep the host busy for longer than the GPU. ``TRITON_INTERPRET=1``
runs the same kernels on a CPU, slowly.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.graph import increment_version
from torch.nn import Parameter

from srft_plugin import transfer
from srft_plugin.kernels import State, step_tensors
from srft_plugin.ranking import Operation, Sensitivity, local, on_device

BINS = tl.constexpr(transfer.BINS)
DROPPED_BITS = tl.constexpr(transfer.DROPPED_BITS)
COUNTED, UPDATED, COMPARED = 1024, 1024, 64  # elements of a program, by kernel
ALIGNMENT = 16  # bytes, of every tensor that is updated
TABLES = 64  # of so many operations at a time, which bounds their memory
# Columns of the table of tensors: addresses of value, gradient and moments; number of elements;
# rows of the operation and of the settings.
COLUMNS = tl.constexpr(7)


@triton.jit
def _bins(gradient):
    """Histogram bin of each magnitude, as ``transfer.magnitude_bins``."""
    return (gradient.to(tl.int32, bitcast=True) >> DROPPED_BITS) & (BINS - 1)


@triton.jit
def _address(tensor, column):
    return tl.multiple_of(tl.load(tensor + column).to(tl.pointer_type(tl.float32)), 16)


@triton.jit
def _adamw(tensor, settings, place, inside, gradient, sensitivity):
    """``kernels.adamw_update`` of the elements at ``place``."""
    h = settings + 8 * tl.load(tensor + 6)
    value, first, second = _address(tensor, 0), _address(tensor, 2), _address(tensor, 3)
    p = tl.load(value + place, inside)
    m = tl.load(first + place, inside)
    v = tl.load(second + place, inside)
    new_m = m + tl.load(h) * (gradient - m)
    new_v = tl.load(h + 1) * v + tl.load(h + 2) * gradient * gradient
    root = tl.div_rn(tl.sqrt_rn(new_v), tl.load(h + 6)) + tl.load(h + 3)
    update = tl.load(h + 4) * p + tl.div_rn(tl.load(h + 5) * new_m, root)
    skip = tl.load(h + 7) > 0
    tl.store(value + place, tl.where(skip, p, p - (1 - sensitivity) * update), inside)
    tl.store(first + place, tl.where(skip, m, new_m), inside)
    tl.store(second + place, tl.where(skip, v, new_v), inside)


@triton.jit
def _adamw_by_table(tensor, settings, table, place, inside):
    gradient = tl.load(_address(tensor, 1) + place, inside, other=0.0)
    _adamw(tensor, settings, place, inside, gradient, tl.load(table + _bins(gradient)))


@triton.jit
def update_by_table(tensors, settings, tables, blocks, BLOCK: tl.constexpr):
    """Steps tensors whose sensitivity is a function of the gradient's bin.

    Args:
        tensors: (tensors, COLUMNS) int64.
        settings: h of ``kernels.adamw_update``, (rows, 8) float32.
        tables: s_n by row and bin, (rows, BINS) float32.
        blocks: the tensor, and which of its blocks, of every program: (programs, 2) int32.
    """
    block = blocks + 2 * tl.program_id(0)
    start = tl.load(block + 1).to(tl.int64) * BLOCK
    tensor = tensors + tl.load(block) * COLUMNS
    table = tables + tl.load(tensor + 5) * BINS
    length = tl.load(tensor + 4)
    place = start + tl.arange(0, BLOCK)
    if start + BLOCK <= length:  # without a mask, four elements are read at once
        inside = tl.full([BLOCK], True, tl.int1)
        _adamw_by_table(tensor, settings, table, place, inside)
    else:
        _adamw_by_table(tensor, settings, table, place, place < length)


@triton.jit
def update_by_rank(tensors, settings, operations, constants, scale, blocks, BLOCK: tl.constexpr):
    """Steps tensors by the exact ranks of their gradients: every pair of an operation is compared.

    Args:
        tensors, settings, blocks: as of ``update_by_table``.
        operations: by row, the first of its tensors, the one after its last, and the number of
            their elements: (rows, 3) int64.
        constants: the part of s_n that an operation shares, (rows,) float32.
        scale: weight of the ranks in s_n.
    """
    block = blocks + 2 * tl.program_id(0)
    tensor = tensors + tl.load(block) * COLUMNS
    place = tl.load(block + 1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < tl.load(tensor + 4)
    gradient = tl.load(_address(tensor, 1) + place, inside, other=0.0)
    row = tl.load(tensor + 5)
    size = tl.load(operations + 3 * row + 2)
    below = tl.zeros([BLOCK], tl.int32)
    equal = tl.zeros([BLOCK], tl.int32)
    for other in range(tl.load(operations + 3 * row), tl.load(operations + 3 * row + 1)):
        length = tl.load(tensors + other * COLUMNS + 4)
        address = _address(tensors + other * COLUMNS, 1)
        for start in range(0, length, BLOCK):
            lanes = start + tl.arange(0, BLOCK)
            found = tl.load(address + lanes, lanes < length, other=float("inf"))
            found, mine = tl.abs(found)[None, :], tl.abs(gradient)[:, None]
            below += tl.sum((found < mine).to(tl.int32), 1)
            equal += tl.sum((found == mine).to(tl.int32), 1)
    doubled = (2 * below + equal - 1).to(tl.float32)
    rank = tl.where(size > 1, tl.div_rn(doubled, (2 * size - 2).to(tl.float32)), 0.5)
    sensitivity = tl.load(constants + row) + scale * rank
    _adamw(tensor, settings, place, inside, gradient, sensitivity)


@triton.jit
def count(gradients, blocks, counts, BLOCK: tl.constexpr):
    """Adds histograms of strided gradients to ``counts``, (rows, BINS) int32.

    Args:
        gradients: address, number of elements to count, their stride, row: (tensors, 4) int64.
        blocks: as of ``update_by_table``.
    """
    block = blocks + 2 * tl.program_id(0)
    gradient = gradients + 4 * tl.load(block)
    place = tl.load(block + 1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < tl.load(gradient + 1)
    address = tl.load(gradient).to(tl.pointer_type(tl.float32))
    found = tl.load(address + place * tl.load(gradient + 2), inside, other=0.0)
    row = counts + tl.load(gradient + 3) * BINS
    tl.atomic_add(row + _bins(found), 1, inside, sem="relaxed")


def histograms(gradients: list[tuple[Tensor, int]], rows: int) -> Tensor:
    """``transfer.histograms`` of float32 gradients, which may be strided: (rows, BINS) int32."""
    device = gradients[0][0].device
    counts = torch.zeros(rows, transfer.BINS, dtype=torch.int32, device=device)
    entries = [(g.data_ptr(), len(g), g.stride(0), row) for g, row in gradients]
    blocks = _blocks(tuple(len(g) for g, _ in gradients), COUNTED, device)
    count[len(blocks),](on_device(entries, device), blocks, counts, BLOCK=COUNTED)
    return counts


def accepts(tensors: list[Tensor]) -> bool:
    """Whether the kernels can step an operation of these ``step_tensors``, all contiguous."""
    return all(t.dtype == torch.float32 and _start(t) % ALIGNMENT == 0 for t in tensors)


def _start(tensor: Tensor) -> int:
    """Address of the first element, also of an empty part, which has ``data_ptr`` 0: processes that
    share an operation have to answer alike, and some of them may have nothing of it."""
    if tensor.numel():
        return tensor.data_ptr()
    return tensor.untyped_storage().data_ptr() + tensor.storage_offset() * tensor.element_size()


def update(
    operations: list[Operation],
    sensitivity: Sensitivity,
    state: State,
    settings: Tensor,
    rows: dict[Parameter, int],
) -> None:
    """One step of AdamW on operations of one device, its update scaled by 1 - s_n.

    Args:
        operations: those that are not ranked by a table are small: they are compared element by
            element.
        state: of AdamW, by parameter.
        settings: h of ``kernels.adamw_update`` by row, (rows, 8).
        rows: of the settings, by parameter.
    """
    settings = settings.float()
    ranked: list[Operation] = []
    binned: list[Operation] = []
    for operation in operations:
        (binned if sensitivity.by_table(operation) else ranked).append(operation)
    with torch.cuda.device_of(settings):  # Triton launches on the current GPU
        if ranked:
            tensors, blocks = _located(ranked, state, rows, COMPARED)
            _by_rank(ranked, sensitivity, tensors, settings, blocks)
        for start in range(0, len(binned), TABLES):
            some = binned[start : start + TABLES]
            tensors, blocks = _located(some, state, rows, UPDATED)
            tables = sensitivity.tables(some, histograms)
            update_by_table[len(blocks),](tensors, settings, tables, blocks, BLOCK=UPDATED)
    for operation in operations:  # what is written by its address counts no change of its own
        increment_version([*operation.parameters, *map(local, operation.parameters)])


def _located(
    operations: list[Operation], state: State, rows: dict[Parameter, int], size: int
) -> tuple[Tensor, Tensor]:
    """The table of tensors, (tensors, COLUMNS) int64, and their blocks of ``size`` elements."""
    members = [(p, row) for row, operation in enumerate(operations) for p in operation.parameters]
    lengths = tuple(local(p).numel() for p, _ in members)
    entries = [
        (*(t.data_ptr() for t in step_tensors(p, state)), length, row, rows[p])
        for (p, row), length in zip(members, lengths, strict=True)
    ]
    device = operations[0].parameters[0].device
    return on_device(entries, device), _blocks(lengths, size, device)


def _by_rank(
    operations: list[Operation],
    sensitivity: Sensitivity,
    tensors: Tensor,
    settings: Tensor,
    blocks: Tensor,
) -> None:
    ends = list(accumulate((len(o.parameters) for o in operations), initial=0))
    sizes = (operation.elements() for operation in operations)
    rows = on_device(list(zip(ends, ends[1:], sizes, strict=False)), tensors.device)
    constants = [sensitivity.constant(operation) for operation in operations]
    update_by_rank[len(blocks),](
        tensors,
        settings,
        rows,
        on_device(constants, tensors.device),
        sensitivity.transfer,
        blocks,
        BLOCK=COMPARED,
    )


@lru_cache(maxsize=64)
def _blocks(lengths: tuple[int, ...], size: int, device: torch.device) -> Tensor:
    """Which tensor, and which block of ``size`` of its elements, each program has: (programs, 2)
    int32."""
    counts = torch.tensor([-(-length // size) for length in lengths])
    tensor = torch.arange(len(lengths)).repeat_interleave(counts)
    index = torch.arange(len(tensor)) - (counts.cumsum(0) - counts)[tensor]
    return torch.stack([tensor, index], 1).int().to(device)
