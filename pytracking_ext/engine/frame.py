"""A whole frame on the device: crop, network, window, box, next crop; nothing waits for the host.

The same steps as ``pytracking_ext.tracker.srft`` takes with OpenCV on the host, for one target with
a fixed template. On a CPU the host's way is faster; this one is for GPUs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from ltr_ext.data.normalise import normalise
from pytracking_ext.engine.engine import Engine
from pytracking_ext.engine.graph import Graphed
from pytracking_ext.tracker.srft.localise import hann_window, localise
from srft_plugin.errors import UserError

log = logging.getLogger(__name__)


class FramePath:
    """Tracks one target, frames and box staying on the device.

    Args:
        engine: the network.
        window_weight, margin: as of ``TrackerParameters``.

    Attributes:
        box: (4,) float64 on the device, xywh in pixels of the frame.
    """

    def __init__(
        self, engine: Engine, window_weight: float | None = None, margin: float = 10.0
    ) -> None:
        self.engine, self.window_weight, self.margin = engine, window_weight, margin
        self.spec, self.device = engine.spec, engine.device
        self.window = hann_window(self.spec.grid).to(self.device)
        engine.use_graph(False)  # one recording holds the whole frame

    @torch.inference_mode()
    def start(self, frame: Tensor, box: Sequence[float]) -> None:
        """Takes the target ``box`` (xywh) of a frame, (H, W, C) uint8, RGB and auxiliary.

        Raises:
            UserError: the frame is no (H, W, C) uint8 tensor.
        """
        frame = self._checked(frame)
        self._shape, self._warned = frame.shape, False
        self.box = torch.tensor(box, dtype=torch.float64).to(self.device)
        size = self.spec.template_size
        pixels, window = sample_target(frame, self.box, self.spec.template_factor, size)
        side, corner = window[2], window[:2]
        centre = (self.box[:2] + self.box[2:] / 2 - corner) / side
        template = normalise(pixels)
        inside = torch.cat((centre, self.box[2:] / side))[None].float()
        number = self.spec.templates
        self._fixed = {
            "template": template if number == 1 else (template,) * number,
            "template_box": inside if number == 1 else (inside,) * number,
        }
        self._graphed = Graphed(self._step)  # a recording reads these very tensors

    @torch.inference_mode()
    def step(self, frame: Tensor) -> Tensor:
        """The target in the next frame: (5,) float64 on the device, xywh in pixels and confidence.

        A frame of another size than the first runs without a recording; a warning says so once.

        Raises:
            UserError: the frame is no (H, W, C) uint8 tensor.
        """
        frame = self._checked(frame)
        own_size = frame.shape == self._shape
        if not own_size and not self._warned:
            self._warned = True
            (height, width), (first_height, first_width) = frame.shape[:2], self._shape[:2]
            log.warning(
                "a frame of %dx%d pixels, the first one was %dx%d; those of another size run "
                "without CUDA graph", width, height, first_width, first_height,
            )  # fmt: skip
        # The engine sees a template for the first time, and again after another, unrecorded.
        recorded = own_size and self.engine.recalls(self._fixed["template"])
        answer = (self._graphed if recorded else self._step)(frame, self.box)
        self.box = answer[:4].clone()
        return torch.cat((self.box, answer[4:]))

    def _step(self, frame: Tensor, box: Tensor) -> Tensor:
        pixels, window = sample_target(frame, box, self.spec.search_factor, self.spec.search_size)
        inputs = self._fixed | {"search": normalise(pixels)}
        names = [name for name in self.engine.input_names if name in inputs]
        outputs = self.engine(*(inputs[name] for name in names))
        found, confidence = localise(outputs, self.window, self.window_weight)
        centre, extent = (found[0].double() * window[2]).split(2)
        start = window[:2] + centre - extent / 2
        moved = clip_box(start, extent, frame.shape, self.margin)
        # A network that answers with NaN leaves the box where it was; the confidence tells.
        return torch.cat((torch.where(moved.isfinite().all(), moved, box), confidence.double()))

    def _checked(self, frame: Tensor) -> Tensor:
        channels = self.spec.in_channels
        if frame.ndim != 3 or frame.shape[2] != channels or frame.dtype != torch.uint8:
            raise UserError(
                f"{self.spec.name}: the frame is {frame.dtype} {tuple(frame.shape)}; expected "
                f"(H, W, {channels}) bytes"
            )
        return frame.to(self.device, non_blocking=True)


def crop_window(box: Tensor, factor: float) -> Tensor:
    """(3,) left, top and side of the square around ``box``; see ``ltr_ext.data.crop``."""
    side = (box[2:].prod().sqrt() * factor).ceil()
    corner = (box[:2] + 0.5 * box[2:] - side * 0.5).round()
    return torch.cat((corner, side[None]))


def sample_target(frame: Tensor, box: Tensor, factor: float, size: int) -> tuple[Tensor, Tensor]:
    """``ltr_ext.data.crop.sample_target`` in torch, within a grey level of it.

    Args:
        frame: (H, W, C) uint8.
        box: (4,) float64, xywh in pixels of the frame.
        factor: side of the region in units of sqrt(w * h).
        size: side S of the result in pixels.

    Returns:
        (1, C, S, S) whole grey levels as float32, and ``crop_window``.
    """
    window = crop_window(box, factor)
    steps = torch.arange(size, device=frame.device, dtype=torch.float64) + 0.5
    rows, columns = (
        _taps(steps, start, window[2], length)
        for start, length in zip((window[1], window[0]), frame.shape[:2], strict=True)
    )
    pixels = frame.new_zeros(1, dtype=torch.float32)
    for row, row_weight in rows:
        line = frame[row].float() * row_weight[:, None, None]
        for column, column_weight in columns:
            pixels = pixels + line[:, column] * column_weight[:, None]
    return pixels.round().permute(2, 0, 1)[None], window


def _taps(steps: Tensor, start: Tensor, side: Tensor, length: int) -> list[tuple[Tensor, Tensor]]:
    """The two pixels of a line that each output pixel mixes, as (indices, weights).

    Outside of the image the weight is 0 (black). OpenCV repeats the rim of the window, not of the
    image. A window that crosses the far border loses the last pixel (``ltr_ext.data.crop.cut``).
    """
    place = (steps * (side / len(steps)) - 0.5).clamp(min=0.0)
    lower = place.floor().minimum(side - 1)
    share = place - lower
    end = torch.where(start + side < length, start + side, torch.full_like(side, length - 1))
    taps = []
    for tap, weight in ((lower, 1 - share), ((lower + 1).minimum(side - 1), share)):
        index = tap + start
        weight = torch.where((index >= 0) & (index < end), weight, torch.zeros_like(weight))
        taps.append((index.clamp(0, length - 1).long(), weight.float()))
    return taps


def clip_box(start: Tensor, extent: Tensor, shape: Sequence[int], margin: float) -> Tensor:
    """``pytracking_ext.tracker.srft.tracker.clip_box`` of a corner and an extent, both (2,)."""
    sides = []
    for axis, limit in ((0, shape[1]), (1, shape[0])):
        low = start[axis].clamp(min=0.0).clamp(max=limit - margin)
        high = (start[axis] + extent[axis]).clamp(min=margin).clamp(max=limit)
        sides.append((low, (high - low).clamp(min=margin)))
    (x, w), (y, h) = sides
    return torch.stack((x, y, w, h))
