"""A whole frame on the device: crop, network, window, box, next crop; nothing waits for the host.

The same steps as ``pytracking_ext.tracker.srft`` takes with OpenCV on the host, for one target with
a fixed template. On a CPU the host's way is faster; this one is for GPUs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from pytracking_ext.engine.crop import cut
from pytracking_ext.engine.engine import Engine
from pytracking_ext.engine.graph import Graphed
from pytracking_ext.engine.precision import has_kernels
from pytracking_ext.tracker.srft.localise import hann_window, localise
from pytracking_ext.tracker.srft.tracker import checked_box
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
        self.engine, self.spec, self.device = engine, engine.spec, engine.device
        self.window_weight, self.margin = window_weight, margin
        self.window = hann_window(self.spec.grid).to(self.device)
        self._template_factor = self._numbers(self.spec.template_factor)
        self._search_factor = self._numbers(self.spec.search_factor)
        size, number = self.spec.template_size, self.spec.templates
        self._template = torch.zeros(1, self.spec.in_channels, size, size, device=self.device)
        self._template_box = torch.zeros(1, 4, device=self.device)
        self._fixed = {
            "template": self._template if number == 1 else (self._template,) * number,
            "template_box": self._template_box if number == 1 else (self._template_box,) * number,
        }
        self._shape: torch.Size | None = None
        self._transfers: torch.cuda.Stream | None = None

    @torch.inference_mode()
    def start(self, frame: Tensor, box: Sequence[float]) -> None:
        """Takes the target ``box`` (xywh) of a frame, (H, W, C) uint8, RGB and auxiliary.

        Raises:
            UserError: the frame is no (H, W, C) uint8 tensor, or the box is no part of it.
        """
        frame = self._checked(frame)
        if frame.shape != self._shape:
            self._graphed = Graphed(self._step)  # reads the tensors of the template, and no others
        self._shape, self._warned = frame.shape, False
        self.box = self._numbers(checked_box(box, frame.shape))
        size = self.spec.template_size
        template, window = cut(frame, self.box, self._template_factor, size, self.spec.context)
        side, corner = window[2], window[:2]
        centre = (self.box[:2] + self.box[2:] / 2 - corner) / side
        with self.engine.turn:
            self._template.copy_(template)
            self._template_box.copy_(torch.cat((centre, self.box[2:] / side)))
            self.engine.forget()

    @torch.inference_mode()
    def step(self, frame: Tensor) -> Tensor:
        """The target in the next frame: (5,) float64 on the device, xywh in pixels and confidence.

        A frame of another size than the first runs without a recording; a warning says so once.
        Page-locked frames travel while the GPU works on the ones before: leave such a frame as it
        is until the answer has been read.

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
        with self.engine.turn:
            # The engine sees a template for the first time, and again after another, unrecorded.
            recorded = own_size and self.engine.recalls(self._fixed["template"])
            answer = (self._graphed if recorded else self._step)(frame, self.box).clone()
        self.box = answer[:4].clone()
        return answer

    def _step(self, frame: Tensor, box: Tensor) -> Tensor:
        size, context = self.spec.search_size, self.spec.context
        search, window = cut(frame, box, self._search_factor, size, context)
        inputs = self._fixed | {"search": search}
        names = [name for name in self.engine.input_names if name in inputs]
        outputs = self.engine(*(inputs[name] for name in names), recorded=False)
        return move(outputs, self.window, window, box, frame.shape, self.margin, self.window_weight)

    def _numbers(self, values: float | Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).to(self.device)

    def _checked(self, frame: Tensor) -> Tensor:
        channels = self.spec.in_channels
        if frame.ndim != 3 or frame.shape[2] != channels or frame.dtype != torch.uint8:
            raise UserError(
                f"{self.spec.name}: the frame is {frame.dtype} {tuple(frame.shape)}; expected "
                f"(H, W, {channels}) bytes"
            )
        if frame.device.type == self.device.type:
            return frame.to(self.device)
        self._transfers = self._transfers or torch.cuda.Stream(self.device)
        with torch.cuda.stream(self._transfers):
            sent = frame.to(self.device, non_blocking=True)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self._transfers)
        sent.record_stream(current)
        return sent


def move(
    outputs: dict[str, Tensor],
    penalty: Tensor,
    window: Tensor,
    box: Tensor,
    shape: Sequence[int],
    margin: float,
    window_weight: float | None,
) -> Tensor:
    """What the maps of one search region say of the target: (5,) float64, xywh and confidence.

    A network that answers with NaN leaves the box where it was; the confidence tells.

    Args:
        outputs: the maps, as ``localise`` takes them.
        penalty: (H, W), the Hann window.
        window: (3,), where the search region was: ``crop_window``.
        box: (4,), where the target was.
        shape: of the frame.
        margin, window_weight: as of ``TrackerParameters``.
    """
    height, width = shape[:2]
    if has_kernels(box.device):
        from pytracking_ext.engine import kernels

        names = ("score_map", "size_map", "offset_map")
        maps = (outputs[name].contiguous() for name in names)
        return kernels.move(*maps, penalty, window, box, height, width, margin, window_weight)
    found, confidence = localise(outputs, penalty, window_weight)
    centre, extent = (found[0].double() * window[2]).split(2)
    start = window[:2] + (centre - extent / 2)
    moved = clip_box(start, extent, shape, margin)
    whole = torch.cat((found[0], confidence)).isfinite().all()
    return torch.cat((torch.where(whole, moved, box), confidence.double()))


def clip_box(start: Tensor, extent: Tensor, shape: Sequence[int], margin: float) -> Tensor:
    """``pytracking_ext.tracker.srft.tracker.clip_box`` of a corner and an extent, both (2,)."""
    sides = []
    for axis, limit in ((0, shape[1]), (1, shape[0])):
        low = start[axis].clamp(min=0.0).clamp(max=limit - margin)
        high = (start[axis] + extent[axis]).clamp(min=margin).clamp(max=limit)
        sides.append((low, (high - low).clamp(min=margin)))
    (x, w), (y, h) = sides
    return torch.stack((x, y, w, h))
