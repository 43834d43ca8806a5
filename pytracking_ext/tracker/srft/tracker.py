"""Single-target tracking by a network that matches a template against a search region."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ltr_ext.data import crop
from ltr_ext.data.io import read_raw
from ltr_ext.data.normalise import normalise
from ltr_ext.data.representation import MODALITIES, MODALITY_INDEX, represent
from pytracking_ext.parameter.srft import TrackerParameters
from pytracking_ext.tracker.srft.localise import hann_window, localise
from srft_plugin.errors import UserError, unknown
from srft_plugin.ranking import on_device

log = logging.getLogger(__name__)


class _Region(NamedTuple):
    """A square of a frame as the network sees it.

    ``pixels`` (S, S, C) uint8, or where the device cut it (1, C, S, S) normalised;
    ``resize_factor`` pixels of it per pixel of the frame; ``aux_missing``: the RGB image stands in
    for the auxiliary one.
    """

    pixels: np.ndarray | Tensor
    resize_factor: float
    aux_missing: bool


class _Template(NamedTuple):
    """``images`` (B, C, S, S) normalised and ``box`` (B, 4), cxcywh in [0, 1] of them."""

    images: Tensor
    box: Tensor
    aux_missing: bool


class SRFTTracker:
    """Tracks one target through one video; the contract is pytracking's.

    Attributes:
        params: what ``pytracking_ext.parameter.srft`` gave.
        box: current target, xywh in pixels of the frame.
        aux_missing: frames so far whose auxiliary image was missing and was replaced by the RGB
            image (always 0 for networks with three input channels).
    """

    # pytracking's run_video gives several targets, one tracker each.
    multiobj_mode = "parallel"

    def __init__(self, params: TrackerParameters) -> None:
        self.params = params
        self.network = params.network
        self.spec = params.network.spec
        self.visdom = None  # pytracking sets it
        self.box: tuple[float, float, float, float] | None = None
        self.aux_missing = 0
        self._templates: list[_Template] = []
        self._stacked: tuple[list[_Template], list[_Template]] = ([], [])
        self._frame = 0
        self._camera: str | None = None
        self._modality: Tensor | None = None
        self._window: Tensor | None = None
        # The engine of a GPU has the whole frame there and cuts it itself, the network as it is
        # gets what OpenCV cuts, a grey level apart.
        self._cuts_on_device = params.precision is not None and _has_kernels(params.device)

    def __deepcopy__(self, memo: dict) -> SRFTTracker:
        """A new tracker that shares the weights: how pytracking makes one per target."""
        return type(self)(self.params)

    def initialize(self, image: np.ndarray, info: Mapping[str, Any]) -> dict[str, Any]:
        """Takes the target of the first frame and forgets any earlier one.

        Args:
            image: (H, W, 3) uint8 RGB.
            info: ``init_bbox``, xywh in pixels; the auxiliary image as ``aux``, an array (depth
                uint16 (H, W), thermal uint8, or (H, W, 3) uint8 as the network sees it), or as
                ``aux_path``, a file. ``modality`` (``depth``, ``thermal``, ``event``) is what
                that image shows; by default what the network was trained on.

        Raises:
            UserError: the box is not finite, has no area, or lies outside the image; the auxiliary
                image is none of that modality.
        """
        self._templates = []  # until all of the new one is in order
        self.box = checked_box(info["init_bbox"], image.shape)
        self._frame = 0
        self._camera = modality = info.get("modality") or self.network.metadata.get("modality")
        if modality not in MODALITY_INDEX:
            raise unknown("modality", modality, MODALITIES)
        template = self._make_template(image, info)
        self.aux_missing = int(template.aux_missing)
        if modality is None and "modality" in self.network.input_names and not template.aux_missing:
            raise UserError(
                f"{self.params.checkpoint} is for several modalities, and nobody says which this "
                "is; give info['modality'], or name it with `srft convert IN OUT --modality NAME`"
            )
        self._modality = torch.tensor([MODALITY_INDEX[modality]]).to(self.params.device)
        self._templates = [template] * self.spec.templates
        return {"target_bbox": list(self.box), "object_presence_score": 1.0}

    def track(self, image: np.ndarray, info: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Finds the target in the next frame.

        Args:
            image: (H, W, 3) uint8 RGB.
            info: the auxiliary image, as for :meth:`initialize`.

        Returns:
            ``target_bbox`` [x, y, w, h] in pixels and ``object_presence_score`` in [0, 1].
        """
        return track_together([self], [image], [info or {}])[0]

    def visdom_draw_tracking(
        self, image: np.ndarray, box: Iterable[Sequence[float]], segmentation: None = None
    ) -> None:
        """Shows a frame and boxes on the visdom server that pytracking's ``--debug`` found."""
        self.visdom.register((image, *map(list, box)), "Tracking", 1, "Tracking")

    def _cut(self, image: np.ndarray, info: Mapping[str, Any], factor: float, size: int) -> _Region:
        """The square around the box; changes nothing.

        Raises:
            UserError: the image is no (H, W, 3) array of bytes.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise UserError(
                f"the frame is {image.dtype} {image.shape}; expected (H, W, 3) uint8, RGB"
            )
        raw = self._auxiliary(info, image.shape) if self.spec.reads_aux else None
        aux_missing = self.spec.reads_aux and raw is None
        if self._cuts_on_device:
            pixels = self._cut_on_device(image, raw, factor, size)
            side = crop.crop_window(self.box, factor, self.spec.context).side
            return _Region(pixels, size / side, aux_missing)
        place = self.box, factor, size, self.spec.context
        rgb, resize_factor = crop.sample_target(image, *place)
        rgb = self._as_rgb(rgb)
        if not self.spec.reads_aux:
            return _Region(rgb, resize_factor, False)
        aux = rgb if raw is None else crop.sample_target(raw, *place)[0]
        pixels = np.concatenate((rgb, aux), 2)[..., -self.spec.in_channels :]
        return _Region(pixels, resize_factor, aux_missing)

    def _cut_on_device(
        self, image: np.ndarray, aux: np.ndarray | None, factor: float, size: int
    ) -> Tensor:
        """The same of whole frames that travel to the device, normalised there."""
        from pytracking_ext.engine.crop import cut

        images = [self._as_rgb(image)]
        if self.spec.reads_aux:
            images = [*images, images[0] if aux is None else aux][-(self.spec.in_channels // 3) :]
        device = torch.device(self.params.device)
        place = on_device(torch.tensor((*self.box, factor), dtype=torch.float64), device)
        frames = [
            on_device(torch.from_numpy(np.ascontiguousarray(image)), device) for image in images
        ]
        context = self.spec.context
        return torch.cat([cut(frame, place[:4], place[4], size, context)[0] for frame in frames], 1)

    def _as_rgb(self, image: np.ndarray) -> np.ndarray:
        """Only pytracking's run_video and run_webcam set ``param_name``, and hand over BGR."""
        return image[..., ::-1] if self.params.get("param_name") else image

    def _auxiliary(self, info: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray | None:
        """The auxiliary image as the network sees it, or None where the frame has none.

        Where nobody says what they are, 16-bit images are depth; 8-bit ones, thermal or event, keep
        their values.

        Raises:
            UserError: it is no image of that camera, or of another size than the frame.
        """
        raw, path = info.get("aux"), info.get("aux_path")
        if raw is None and path is not None:
            try:
                raw = read_raw(path)
            except UserError as error:
                log.warning("%s; this frame is tracked by its RGB image alone", error)
        if raw is None:
            return None
        aux = represent(raw, self._camera or ("depth" if raw.dtype == np.uint16 else "thermal"))
        if aux.shape[:2] != shape[:2]:
            raise UserError(
                f"the auxiliary image is {aux.shape[1]}x{aux.shape[0]} but the RGB image is "
                f"{shape[1]}x{shape[0]} pixels; register them to the same size first"
            )
        return aux

    def _to_device(self, regions: list[_Region]) -> Tensor:
        """(B, C, S, S) normalised float batch; floats are made on the device, whoever cuts."""
        if self._cuts_on_device:
            return torch.cat([region.pixels for region in regions])
        batch = torch.from_numpy(np.stack([region.pixels for region in regions]))
        return normalise(batch.to(self.params.device, non_blocking=True).permute(0, 3, 1, 2))

    def _stack(self, templates: list[list[_Template]]) -> list[_Template]:
        """Batches of each slot of the trackers' templates.

        While these stay the same, so do the tensors: by them the engine knows a template.
        """
        flat = [template for own in templates for template in own]
        known, slots = self._stacked
        if len(known) != len(flat) or any(a is not b for a, b in zip(known, flat, strict=True)):
            slots = [
                _Template(
                    torch.cat([template.images for template in slot]),
                    torch.cat([template.box for template in slot]),
                    any(template.aux_missing for template in slot),
                )
                for slot in zip(*templates, strict=True)
            ]
            self._stacked = flat, slots
        return slots

    def _localisation_window(self, height: int, width: int) -> Tensor:
        if self._window is None or self._window.shape != (height, width):
            self._window = hann_window(height, width).to(self.params.device)
        return self._window

    def _make_template(self, image: np.ndarray, info: Mapping[str, Any]) -> _Template:
        """The target as it looks now."""
        size = self.spec.template_size
        region = self._cut(image, info, self.spec.template_factor, size)
        box = crop.box_to_crop(self.box, self.box, region.resize_factor, size) / size
        return _Template(
            self._to_device([region]),
            torch.from_numpy(box[None]).float().to(self.params.device),
            region.aux_missing,
        )

    def _advance(
        self,
        found: np.ndarray,
        confidence: float,
        region: _Region,
        image: np.ndarray,
        info: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Moves the box to what the network found, clipped to the frame; answers for the frame."""
        side = self.spec.search_size
        box = crop.box_to_frame(found * side, self.box, region.resize_factor, side)
        self.box = clip_box(box, *image.shape[:2], self.params.margin)
        self.aux_missing += region.aux_missing
        self._frame += 1
        due = self.params.update_interval and self._frame % self.params.update_interval == 0
        if due and len(self._templates) > 1 and confidence > self.params.update_confidence:
            # The first template stays; the oldest of the others makes room.
            self._templates = [
                self._templates[0], *self._templates[2:], self._make_template(image, info)
            ]  # fmt: skip
        return {"target_bbox": list(self.box), "object_presence_score": confidence}


@torch.inference_mode()
def track_together(
    trackers: list[SRFTTracker],
    images: list[np.ndarray],
    infos: list[Mapping[str, Any]],
    apply: Callable[..., Iterable[_Region]] = map,
) -> list[dict[str, Any]]:
    """One step of several trackers of the same network in one batch.

    This is the only place where a frame meets the network: one tracker is a batch of one.

    Args:
        trackers: initialised, all with the same network.
        images: the next frame of each, (H, W, 3) uint8 RGB; sizes may differ.
        infos: per tracker, as for :meth:`SRFTTracker.track`.
        apply: cuts the search regions: ``map``, or that of an executor to do so in parallel.

    Returns:
        The answer of each tracker, as :meth:`SRFTTracker.track` gives it.

    Raises:
        UserError: a tracker that is not initialised, an auxiliary image of another size, or a
            network that answers with NaN; no tracker has moved then.
    """
    if not all(tracker._templates for tracker in trackers):
        raise UserError("a tracker has no target: initialise it with a frame and a box first")
    first = trackers[0]
    spec = first.spec

    def cut_search(tracker: SRFTTracker, image: np.ndarray, info: Mapping[str, Any]) -> _Region:
        return tracker._cut(image, info, spec.search_factor, spec.search_size)

    if first._cuts_on_device:  # on the stream of this thread, and soon done
        apply = map
    regions = list(apply(cut_search, trackers, images, infos))
    search = first._to_device(regions)
    outputs = _run(trackers, search)
    window = first._localisation_window(*outputs["score_map"].shape[-2:])
    boxes, confidences = localise(outputs, window, first.params.window_weight)
    # The one point where the host waits for the device.
    found = torch.cat((boxes, confidences[:, None]), 1).double().cpu().numpy()
    if not np.isfinite(found).all():
        raise UserError(
            f"{first.params.checkpoint}: the network answers with NaN; its training has diverged"
        )
    frames = zip(trackers, found, regions, images, infos, strict=True)
    return [
        tracker._advance(row[:4], float(row[4]), region, image, info)
        for tracker, row, region, image, info in frames
    ]


def _run(trackers: list[SRFTTracker], search: Tensor) -> dict[str, Tensor]:
    """The network on a batch, told of templates, boxes and modality what it asks for."""
    network = trackers[0].network
    slots = trackers[0]._stack([tracker._templates for tracker in trackers])
    single = len(slots) == 1
    inputs = {
        "template": slots[0].images if single else tuple(slot.images for slot in slots),
        "template_box": slots[0].box if single else tuple(slot.box for slot in slots),
        "search": search,
        "modality": torch.cat([tracker._modality for tracker in trackers]),
    }
    return network(*(inputs[name] for name in network.input_names))


def _has_kernels(device: str) -> bool:
    # The engine is imported for those who ask for it.
    from pytracking_ext.engine.precision import has_kernels

    return has_kernels(torch.device(device))


def clip_box(
    box: np.ndarray, height: int, width: int, margin: float
) -> tuple[float, float, float, float]:
    """The part of an xywh box inside the frame, at least ``margin`` pixels wide and high.

    The rule of OSTrack: a box that has left the frame is held at its border, so that the next
    search region still overlaps the image.
    """
    x, y, w, h = (float(value) for value in box)
    left, right = min(max(0.0, x), width - margin), min(max(margin, x + w), width)
    top, bottom = min(max(0.0, y), height - margin), min(max(margin, y + h), height)
    return left, top, max(margin, right - left), max(margin, bottom - top)


def checked_box(box: Sequence[float], shape: Sequence[int]) -> tuple[float, float, float, float]:
    """The initial ``box``, xywh in pixels of a frame of ``shape`` (H, W, ...).

    Raises:
        UserError: it is not finite, has no area, lies outside the frame, or is more than twice as
            large.
    """
    try:
        x, y, w, h = (float(value) for value in box)
    except (TypeError, ValueError) as error:
        raise UserError(f"initial box {box}: expected x, y, width, height in pixels") from error
    height, width = shape[:2]
    sized = 0 < w <= 2 * width and 0 < h <= 2 * height and w * h > 0  # which may underflow
    if not (sized and -w < x < width and -h < y < height):
        raise UserError(
            f"initial box {[x, y, w, h]} is not a target in a {width}x{height} image; expected "
            "x, y, width, height in pixels with a positive area inside the image, and no more than "
            "twice its size"
        )
    return x, y, w, h
