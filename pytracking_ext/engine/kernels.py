"""Triton kernels of a frame on a GPU, each in place of a dozen small ones.

At a batch of one a frame's products take as long as the launches, reads and writes of everything
around them. Each operator here has its definition in torch beside its caller, which other devices
run and tests compare with. ``TRITON_INTERPRET=1`` runs the kernels on a CPU, slowly.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ltr_ext.models.head import MARGIN as SCORE_MARGIN

COLUMNS = 64  # of an image region that a program cuts
MARGIN = tl.constexpr(SCORE_MARGIN)


@triton.jit
def _add_norm(
    tokens, update, bias, normed, rows, dim, width, eps,
    UPDATES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program for each token; ``rows`` of them share a bias."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < dim
    place = row * dim + column
    values = tl.load(tokens + place, inside, other=0.0)
    if UPDATES:
        added = tl.load(update + place, inside, other=0.0).to(tl.float32)
        values += added + tl.load(bias + (row // rows) * dim + column, inside, other=0.0)
        tl.store(tokens + place, values, inside)
    centred = tl.where(inside, values - tl.sum(values, 0) / dim, 0.0)
    scaled = centred * tl.rsqrt(tl.sum(centred * centred, 0) / dim + eps)
    tl.store(normed + row * width + column, tl.where(column == dim, 1.0, scaled), column < width)


@torch.library.custom_op("srft::add_norm", mutates_args=("tokens",))
def add_norm(
    tokens: Tensor,
    update: Tensor | None,
    bias: Tensor | None,
    eps: float,
    width: int,
    dtype: torch.dtype,
) -> Tensor:
    """``blocks.add_norm`` that writes the sum to ``tokens``."""
    normed = tokens.new_empty(*tokens.shape[:-1], width, dtype=dtype)
    dim, count = tokens.shape[-1], tokens.shape[:-1].numel()
    rows = count if bias is None else count // len(bias)
    with torch.cuda.device_of(tokens):  # Triton launches on the current GPU
        _add_norm[(count,)](
            tokens, update, bias, normed, rows, dim, width, eps,
            UPDATES=update is not None, BLOCK=triton.next_power_of_2(width),
        )  # fmt: skip
    return normed


@add_norm.register_fake
def _(tokens, update, bias, eps, width, dtype):
    return tokens.new_empty(*tokens.shape[:-1], width, dtype=dtype)


@triton.jit
def _read_maps(raw, maps, boxes, cells, grid, sample, channel, cell_stride, BLOCK: tl.constexpr):
    """A program for each sample; strides are those of ``raw``."""
    index = tl.program_id(0).to(tl.int64)
    cell = tl.arange(0, BLOCK)
    inside = cell < cells
    raw += index * sample
    maps += index * 5 * cells
    score = _bounded(tl.load(raw + cell * cell_stride, inside, other=0.0))
    tl.store(maps + cell, score, inside)
    peak = tl.argmax(tl.where(inside & (score == score), score, -1.0), 0)
    row, column = peak // grid, peak % grid
    for number in tl.static_range(1, 5):  # width, height, offset in x, in y
        values = tl.load(raw + number * channel + cell * cell_stride, inside, other=0.0)
        values = _bounded(values) if number < 3 else values
        tl.store(maps + number * cells + cell, values, inside)
        found = tl.sum(tl.where(cell == peak, values, 0.0), 0)
        if number < 3:
            tl.store(boxes + 4 * index + number + 1, found)
        else:
            place = (column if number == 3 else row) + found
            tl.store(boxes + 4 * index + number - 3, tl.div_rn(place, grid.to(tl.float32)))


@triton.jit
def _bounded(values):
    return tl.minimum(
        tl.maximum(tl.sigmoid(values), MARGIN, propagate_nan=tl.PropagateNan.ALL),
        1 - MARGIN,
        propagate_nan=tl.PropagateNan.ALL,
    )


@torch.library.custom_op("srft::read_maps", mutates_args=())
def read_maps(raw: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 5, G, G) score, size and offset before the sigmoids to the same after them, and boxes.

    Boxes (B, 4) are those of ``ltr_ext.models.head.boxes_at_peak``.
    """
    maps = torch.empty(raw.shape, device=raw.device)
    boxes = raw.new_empty(len(raw), 4)
    grid = raw.shape[-1]
    with torch.cuda.device_of(raw):
        _read_maps[(len(raw),)](
            raw, maps, boxes, grid * grid, grid, raw.stride(0), raw.stride(1), raw.stride(3),
            BLOCK=triton.next_power_of_2(grid * grid),
        )  # fmt: skip
    return maps, boxes


@read_maps.register_fake
def _(raw):
    return torch.empty(raw.shape, device=raw.device), raw.new_empty(len(raw), 4)


@triton.jit
def _round(values):
    """To whole numbers, halves to even ones."""
    up = tl.floor(values + 0.5)
    odd = up - 2 * tl.floor(up / 2) != 0
    return tl.where((up - values == 0.5) & odd, up - 1, up)


@triton.jit
def _tap(lower, share, start, side, length, UPPER: tl.constexpr):
    """Index and weight of one of the two pixels of a line that an output pixel mixes."""
    index = start + (tl.minimum(lower + 1, side - 1) if UPPER else lower)
    end = tl.where(start + side < length, start + side, length - 1.0)
    weight = tl.where((index >= 0) & (index < end), share if UPPER else 1 - share, 0.0)
    return tl.minimum(tl.maximum(index, 0.0), length - 1.0).to(tl.int32), weight.to(tl.float32)


@triton.jit
def _cut(
    frame, box, factor, mean, deviation, region, window, height, width, channels, size,
    CONTEXT: tl.constexpr, COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """A program for some columns of a row; all arithmetic of places is in float64."""
    w, h = tl.load(box + 2), tl.load(box + 3)
    times = tl.load(factor)
    if CONTEXT:
        margin = (times - 1) * ((w + h) / 2)
        side = tl.ceil(tl.sqrt((w + margin) * (h + margin)))
    else:
        side = tl.ceil(tl.sqrt(w * h) * times)
    left = _round(tl.load(box) + 0.5 * w - 0.5 * side)
    top = _round(tl.load(box + 1) + 0.5 * h - 0.5 * side)
    line, block = tl.program_id(0), tl.program_id(1)
    if (line == 0) & (block == 0):
        tl.store(window, left)
        tl.store(window + 1, top)
        tl.store(window + 2, side)
    scale = side / size
    row = tl.maximum((line + 0.5) * scale - 0.5, 0.0)
    low_row = tl.minimum(tl.floor(row), side - 1)
    column = block * COLUMNS + tl.arange(0, COLUMNS)
    place = tl.maximum((column + 0.5) * scale - 0.5, 0.0)
    low = tl.minimum(tl.floor(place), side - 1)
    channel = tl.arange(0, CHANNELS)[None, :]
    inside = (column < size)[:, None] & (channel < channels)
    pixels = tl.zeros([COLUMNS, CHANNELS], tl.float32)
    for below in tl.static_range(2):
        y, row_weight = _tap(low_row, row - low_row, top, side, height, below == 1)
        for right in tl.static_range(2):
            x, weight = _tap(low, place - low, left, side, width, right == 1)
            source = frame + (y.to(tl.int64) * width + x)[:, None] * channels + channel
            found = tl.load(source, inside, other=0).to(tl.float32)
            pixels += found * row_weight * weight[:, None]
    pixels = _round(pixels) - tl.load(mean + channel, channel < channels, other=0.0)
    pixels = tl.div_rn(pixels, tl.load(deviation + channel, channel < channels, other=1.0))
    target = region + (channel * size + line) * size + column[:, None]
    tl.store(target, pixels, inside)


@torch.library.custom_op("srft::cut", mutates_args=())
def cut(
    frame: Tensor, box: Tensor, factor: Tensor, size: int, context: bool, mean: Tensor,
    deviation: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """``crop.sample_target`` and ``normalise``; ``factor`` is a float64 number on the device."""
    height, width, channels = frame.shape
    region = frame.new_empty(1, channels, size, size, dtype=torch.float32)
    window = torch.empty_like(box[:3])
    with torch.cuda.device_of(frame):
        _cut[(size, triton.cdiv(size, COLUMNS))](
            frame, box, factor, mean, deviation, region, window, height, width, channels, size,
            CONTEXT=context, COLUMNS=COLUMNS, CHANNELS=triton.next_power_of_2(channels),
        )  # fmt: skip
    return region, window


@cut.register_fake
def _(frame, box, factor, size, context, mean, deviation):
    region = frame.new_empty(1, frame.shape[2], size, size, dtype=torch.float32)
    return region, torch.empty_like(box[:3])


@triton.jit
def _clipped(start, extent, limit, margin):
    """An axis of ``frame.clip_box``."""
    low = tl.minimum(tl.maximum(start, 0.0), limit - margin)
    high = tl.minimum(tl.maximum(start + extent, margin), limit)
    return low, tl.maximum(high - low, margin)


@triton.jit
def _move(
    score, extent, offset, penalty, window, box, moved, grid, height, width, margin, share,
    MIXED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One program: a target has one box. Its confidence is NaN where any score is."""
    cells = grid * grid
    cell = tl.arange(0, BLOCK)
    inside = cell < cells
    found = tl.load(score + cell, inside, other=0.0)
    away = tl.load(penalty + cell, inside, other=0.0)
    response = found + share * (away - found) if MIXED else found * away
    sound = response == response
    best = tl.argmax(tl.where(inside & sound, response, -float("inf")), 0)
    reported = found if MIXED else response
    confidence = tl.sum(tl.where(cell == best, reported, 0.0), 0)
    confidence = tl.where(tl.sum(tl.where(sound, 0, 1), 0) > 0, float("nan"), confidence)
    wide = grid.to(tl.float32)
    cx = tl.div_rn(best % grid + tl.load(offset + best), wide)
    cy = tl.div_rn(best // grid + tl.load(offset + cells + best), wide)
    w, h = tl.load(extent + best), tl.load(extent + cells + best)
    side = tl.load(window + 2)
    cx, cy = cx.to(tl.float64) * side, cy.to(tl.float64) * side
    w, h = w.to(tl.float64) * side, h.to(tl.float64) * side
    x = tl.load(window) + (cx - w / 2)
    y = tl.load(window + 1) + (cy - h / 2)
    total = x + y + w + h + confidence
    finite = total - total == 0
    x, w = _clipped(x, w, width.to(tl.float64), margin)
    y, h = _clipped(y, h, height.to(tl.float64), margin)
    tl.store(moved, tl.where(finite, x, tl.load(box)))
    tl.store(moved + 1, tl.where(finite, y, tl.load(box + 1)))
    tl.store(moved + 2, tl.where(finite, w, tl.load(box + 2)))
    tl.store(moved + 3, tl.where(finite, h, tl.load(box + 3)))
    tl.store(moved + 4, confidence.to(tl.float64))


@torch.library.custom_op("srft::move", mutates_args=())
def move(
    score: Tensor, extent: Tensor, offset: Tensor, penalty: Tensor, window: Tensor, box: Tensor,
    height: int, width: int, margin: float, weight: float | None,
) -> Tensor:  # fmt: skip
    """``frame.move`` of contiguous maps."""
    moved = box.new_empty(5)
    grid = score.shape[-1]
    with torch.cuda.device_of(box):
        _move[(1,)](
            score, extent, offset, penalty, window, box, moved, grid, height, width, margin,
            weight or 0.0, MIXED=weight is not None, BLOCK=triton.next_power_of_2(grid * grid),
        )  # fmt: skip
    return moved


@move.register_fake
def _(score, extent, offset, penalty, window, box, height, width, margin, weight):
    return box.new_empty(5)
