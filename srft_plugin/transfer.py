"""Transfer sensitivity: the percentile rank of squared gradients inside one operation (III-B.2).

The rank of an element is the share of the other elements that are smaller, ties counting half:
``(below + (equal - 1) / 2) / (n - 1)``. Distinct values get ``linspace(0, 1, n)`` in their order, a
constant tensor (all zeros, for one) gets 1/2 everywhere, and the mean is always 1/2, so zeros
change the shape of the regularization but not its strength. A single element has rank 1/2.

Squaring is monotone in the magnitude, so gradients are ranked by ``|g|``: the order is that of
``g**2`` (Eq. 13) without its underflow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

# |g| as a float32 bit pattern is an integer that grows with |g|: 8 exponent and 23 mantissa bits.
# Without the lowest 17 there are 64 bins per octave, 16,384 in all.
DROPPED_BITS = 17
BINS = 1 << (31 - DROPPED_BITS)
SAMPLES = 1 << 15
COPIED = 1 << 20  # elements that are copied together at most


def percentile_rank_reference(values: Tensor) -> Tensor:
    """The definition, element by element: O(n**2), for tests."""
    flat = values.flatten()
    if flat.numel() < 2:
        return torch.full_like(values, 0.5, dtype=torch.float64)
    below = (flat[None, :] < flat[:, None]).sum(1)
    equal = (flat[None, :] == flat[:, None]).sum(1)
    ranks = (below + (equal - 1) / 2).double() / (flat.numel() - 1)
    return ranks.view_as(values)


def percentile_rank(values: Tensor) -> Tensor:
    """Exact percentile rank along the last dimension by sorting: float32, in [0, 1]."""
    n = values.shape[-1]
    if n < 2:
        return torch.full_like(values, 0.5, dtype=torch.float32)
    ascending, order = values.sort(-1)
    place = torch.arange(n, device=values.device)
    # First and last place of each run of equal values; their mean is (below + (equal - 1) / 2).
    starts = F.pad(ascending[..., 1:] != ascending[..., :-1], (1, 0), value=True)
    ends = F.pad(starts[..., 1:], (0, 1), value=True)
    first = torch.where(starts, place, 0).cummax(-1).values
    last = torch.where(ends, place, n - 1).flip(-1).cummin(-1).values.flip(-1)
    ranks = (first + last).float() / (2 * (n - 1))
    return torch.empty_like(ranks).scatter_(-1, order, ranks)


def ranks_from_counts(counts: Tensor) -> Tensor:
    """Rank of each value from how often it occurs, values ascending: (..., bins) -> (..., bins)."""
    total = counts.sum(-1, keepdim=True)
    # (below + (count - 1) / 2) / (total - 1), in integers up to the division
    doubled = 2 * counts.cumsum(-1) - counts - 1
    ranks = doubled.float() / (2 * (total - 1)).clamp(min=1)
    return ranks.clamp_(0, 1).masked_fill_(total <= 1, 0.5)


def tables_from_counts(counts: Tensor) -> Tensor:
    """``ranks_from_counts`` of histograms (..., BINS): on a CPU, only the bins in use are computed;
    elsewhere the host would have to wait to know them."""
    if not counts.is_cpu:
        return ranks_from_counts(counts)
    used = counts.reshape(-1, BINS).sum(0).nonzero().flatten()
    if len(used) == 0:
        return torch.full(counts.shape, 0.5, device=counts.device)
    first, last = int(used[0]), int(used[-1]) + 1
    tables = torch.ones(counts.shape, device=counts.device)
    tables[..., :first] = 0
    tables[..., first:last] = ranks_from_counts(counts[..., first:last])
    return tables


def magnitude_bins(gradient: Tensor, out: Tensor | None = None) -> Tensor:
    """Histogram bin of each magnitude: int32 in [0, BINS), growing with ``|g|``, no logarithm."""
    bits = gradient.contiguous().float().view(torch.int32)
    return torch.bitwise_right_shift(bits, DROPPED_BITS, out=out).bitwise_and_(BINS - 1)


def histogram(gradient: Tensor) -> Tensor:
    """Counts of ``magnitude_bins``: (BINS,) int64. Counts of the parts of a tensor add up."""
    return _counted(magnitude_bins(gradient).flatten(), BINS)


def histograms(gradients: list[tuple[Tensor, int]], rows: int) -> Tensor:
    """Sums of the histograms of flat gradients, each added to its row: (rows, BINS) int64.

    Args:
        gradients: each with its row, in ascending order.
        rows: how many there are.
    """
    counts = torch.zeros(rows, BINS, dtype=torch.int64, device=gradients[0][0].device)
    for some in _together(gradients):
        first, last = some[0][1], some[-1][1]
        bins = magnitude_bins(torch.cat([g for g, _ in some]) if len(some) > 1 else some[0][0])
        for part, (_, row) in zip(bins.split([len(g) for g, _ in some]), some, strict=True):
            part += (row - first) * BINS
        counts[first : last + 1] += _counted(bins, (last - first + 1) * BINS).view(-1, BINS)
    return counts


def _together(gradients: list[tuple[Tensor, int]]) -> Iterator[list[tuple[Tensor, int]]]:
    """As many at a time as spread the cost of a call and need no copy of a large gradient."""
    some: list[tuple[Tensor, int]] = []
    elements = 0
    for gradient, row in gradients:
        if some and elements + len(gradient) > COPIED:
            yield some
            some, elements = [], 0
        some.append((gradient, row))
        elements += len(gradient)
    if some:
        yield some


def _counted(values: Tensor, n: int) -> Tensor:
    if values.is_cpu:
        return torch.bincount(values, minlength=n)
    # Elsewhere bincount makes the host wait for the largest value.
    counts = torch.zeros(n, dtype=torch.int64, device=values.device)
    return counts.index_add_(0, values, counts.new_ones(1).expand(len(values)))


def sample(gradient: Tensor, elements: int | None = None) -> Tensor:
    """Evenly spread elements of a flat gradient, some ``SAMPLES`` of every ``elements``.

    With m independent samples the rank of any element is off by more than e with a probability
    below 2 exp(-2 m e^2) (Dvoretzky, Kiefer, Wolfowitz): 8e-12 for 32,768 samples and 2 %. The
    stride is coprime to the length of a row (of a filter, in a convolution), so that all columns
    take their turn: where that makes it longer, samples are fewer (6,110 of 80 x 840 elements).
    """
    stride = max((elements or gradient.numel()) // SAMPLES, 1)
    row = math.prod(gradient.shape[1:] or gradient.shape)
    while gradient.numel() > 1 and math.gcd(stride, row) > 1:
        stride += 1
    return gradient.flatten()[::stride]


def histogram_rank(gradient: Tensor) -> Tensor:
    """Percentile rank by histogram, without a sort: the exact rank of the binned magnitudes.

    Within 0.5 % of ``percentile_rank(|g|)`` for gradients that spread over an octave or more, as
    those of networks do. Elements closer than 1/64 of an octave share one rank.
    """
    return tables_from_counts(histogram(gradient))[magnitude_bins(gradient)]


def sparsity(gradient: Tensor) -> Tensor:
    """Sparsity measure of Eq. 9, ||g||_1 / (sqrt(n) ||g||_2): 1 for equal magnitudes,
    1/sqrt(n) for a single non-zero element, NaN for an all-zero gradient."""
    flat = gradient.flatten().double()
    return flat.abs().sum() / (flat.numel() ** 0.5 * flat.norm())
