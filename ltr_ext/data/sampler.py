"""Training pairs: which frames, where the search region lies, how it is augmented."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence as Many
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ltr_ext.dataset.files import FileFrames
from ltr_ext.dataset.sequence import Sequence
from srft_plugin.errors import UserError

from .augment import DEFAULT_AUGMENTATION, Augmentation, View
from .crop import Window, box_to_crop, crop_window, cut
from .representation import MODALITY_INDEX

log = logging.getLogger(__name__)

GAP_STEP = 5  # frames by which the gap grows while nothing behind the template is visible


class SequenceSet(Protocol):
    """A data set: sequences by index."""

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sequence: ...


class CropSpec(Protocol):
    """What the sampler needs to know of a network; every ``NetworkSpec`` has it."""

    template_size: int
    search_size: int
    template_factor: float
    search_factor: float
    context: bool
    in_channels: int
    reads_aux: bool
    templates: int


class PairDataset(Dataset):
    """Template and search region from one video, the template first: a map-style data set.

    Sample i is a pure function of (seed, i), and an epoch goes on with the index after the last
    one's, so resuming in its middle and sharing it among processes are only a matter of which
    indices are asked for.

    An item holds ``template`` (C, Hz, Wz) and ``search`` (C, Hs, Ws) uint8, ``template_box`` and
    ``search_box`` (4,) float32 cxcywh in units of their crop; a target that is partly outside the
    crop has a box that reaches out of [0, 1]. ``modality`` () int64 says what the auxiliary image
    is: 1 depth, 2 thermal, 3 event, 0 for RGB data and for cameras of the user's own. For networks
    that take several templates, ``template`` and ``template_box`` have a first dimension for them.

    Args:
        datasets: where sequences come from. In a network with six channels the RGB image takes the
            place of the auxiliary one that an RGB data set does not have.
        ratios: how often each is drawn, in any unit; None mixes in equal parts.
        spec: sizes, factors and number of channels of the network.
        samples_per_epoch: length of the data set.
        seed: two seeds share no random draw.
        max_gap: largest distance in frames from template to search region. It grows in steps of 5
            while no frame within it shows the target.
        centre_jitter, scale_jitter: the search region lies around the box with
            size * exp(N(0, 1) * scale_jitter), centre + sqrt(w * h) * centre_jitter * U(-0.5, 0.5).
            The template is not displaced.
        augmentation: changes of the crops.
        skip_unreadable: how many samples each worker may replace by another because a file could
            not be read; each is logged. 0 makes the first one an error.

    Raises:
        UserError: no data set, an empty one, or ratios that do not fit.
    """

    def __init__(
        self,
        datasets: Many[SequenceSet],
        ratios: Many[float] | None,
        spec: CropSpec,
        samples_per_epoch: int,
        seed: int = 0,
        max_gap: int = 200,
        centre_jitter: float = 3.0,
        scale_jitter: float = 0.25,
        augmentation: Augmentation = DEFAULT_AUGMENTATION,
        skip_unreadable: int = 0,
    ):
        ratios = [1.0] * len(datasets) if ratios is None else list(ratios)
        if not datasets or len(ratios) != len(datasets):
            raise UserError(
                f"{len(datasets)} data sets, {len(ratios)} ratios: expected one for each"
            )
        if not (all(map(math.isfinite, ratios)) and min(ratios) >= 0 and sum(ratios) > 0):
            raise UserError(
                f"ratios {ratios}: expected numbers, none below 0 and at least one above"
            )
        for dataset in datasets:
            if not len(dataset):
                raise UserError(f"data set {dataset.name} has no sequences; check its folder")
        self.datasets = datasets
        self.probabilities = np.asarray(ratios, np.float64) / sum(ratios)
        self.spec, self.samples_per_epoch, self.seed = spec, samples_per_epoch, seed
        self.max_gap = max_gap
        self.centre_jitter, self.scale_jitter = centre_jitter, scale_jitter
        self.augmentation = augmentation
        self.skip_unreadable, self.skipped = skip_unreadable, 0

    def __len__(self) -> int:
        return self.samples_per_epoch

    @property
    def modality(self) -> str | None:
        """The modality of all data sets; None where they differ.

        Raises:
            UserError: more sequences of one cannot be read than may be skipped.
        """
        found = set(map(self._modality_of, self.datasets))
        return found.pop() if len(found) == 1 else None

    def _modality_of(self, dataset: SequenceSet) -> str | None:
        for index in range(len(dataset)):
            try:
                return dataset[index].modality
            except UserError:
                if index == min(self.skip_unreadable, len(dataset) - 1):
                    raise

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        attempt = 0
        while True:
            rng = np.random.default_rng((self.seed, index, attempt))
            try:
                return self._sample(rng)
            except UserError as error:
                if self.skipped >= self.skip_unreadable:
                    raise
                self.skipped += 1
                attempt += 1
                log.warning("skipped %d of %d: %s", self.skipped, self.skip_unreadable, error)

    def _sample(self, rng: np.random.Generator) -> dict[str, Tensor]:
        dataset = self.datasets[rng.choice(len(self.datasets), p=self.probabilities)]
        sequence = dataset[int(rng.integers(len(dataset)))]
        shown = self._shown(sequence)
        first, second = choose_frames(shown, self.max_gap, rng, sequence.name)
        spec, boxes = self.spec, sequence.boxes
        around = self._displace(boxes[second], rng)
        earlier = frames_before(shown, first, self.max_gap, spec.templates - 1, rng)
        views = self._views(
            sequence,
            *(
                (frame, boxes[frame], spec.template_factor, spec.template_size)
                for frame in (first, *earlier)
            ),
            (second, around, spec.search_factor, spec.search_size),
        )
        self.augmentation(views, rng)
        images = [self._planes(view) for view in views]
        found = [torch.from_numpy(view.box.astype(np.float32)) for view in views]
        several = spec.templates > 1
        return {
            "modality": torch.tensor(MODALITY_INDEX.get(sequence.modality, 0)),
            "template": torch.stack(images[:-1]) if several else images[0],
            "template_box": torch.stack(found[:-1]) if several else found[0],
            "search": images[-1],
            "search_box": found[-1],
        }

    def _shown(self, sequence: Sequence) -> np.ndarray:
        """(N,) bool: frames that show the target and have the images that the network reads."""
        partners = getattr(sequence.frames, "aux_names", ())
        if not self.spec.reads_aux or "" not in partners:  # an index of a test part has such frames
            return sequence.visible
        return sequence.visible & [name != "" for name in partners]

    def _planes(self, view: View) -> Tensor:
        """(C, H, W) uint8, as many channels as the network reads."""
        planes = view.image.transpose(2, 0, 1)
        if len(planes) < self.spec.in_channels:  # RGB data: the image stands for the other, too
            planes = np.concatenate([planes, planes])
        return torch.from_numpy(np.ascontiguousarray(planes[-self.spec.in_channels :]))

    def _displace(self, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        size = box[2:] * np.exp(rng.standard_normal(2) * self.scale_jitter)
        reach = np.sqrt(size.prod()) * self.centre_jitter
        centre = box[:2] + box[2:] / 2 + reach * (rng.random(2) - 0.5)
        return np.concatenate([centre - size / 2, size])

    def _views(self, sequence: Sequence, *places: tuple[int, np.ndarray, float, int]) -> list[View]:
        """Views of (frame, box that it lies around, factor, size); no frame is read twice."""
        cuts = [
            (crop_window(around, factor, self.spec.context), size)
            for _, around, factor, size in places
        ]
        views = {}
        for frame in dict.fromkeys(place[0] for place in places):
            chosen = [i for i, place in enumerate(places) if place[0] == frame]
            images = self._regions(sequence, frame, [cuts[i] for i in chosen])
            for i, image in zip(chosen, images, strict=True):
                (_, around, _, size), (window, _) = places[i], cuts[i]
                box = box_to_crop(sequence.boxes[frame], around, size / window.side, size) / size
                views[i] = View(image, box)
        return [views[i] for i in range(len(places))]

    def _regions(
        self, sequence: Sequence, frame: int, cuts: list[tuple[Window, int]]
    ) -> list[np.ndarray]:
        """Windows of a frame: (size, size, 3), or with an auxiliary image (size, size, 6)."""
        frames, aux = sequence.frames, self.spec.reads_aux
        if isinstance(frames, FileFrames):  # knows a way around the whole image
            return frames.regions(frame, cuts, aux)
        image = frames.rgb(frame)
        images = [cut(image, window, size) for window, size in cuts]
        if not aux or sequence.modality is None:
            return images
        aux_image = frames.aux(frame)
        if aux_image.shape[:2] != image.shape[:2]:
            (height, width), (aux_height, aux_width) = image.shape[:2], aux_image.shape[:2]
            raise UserError(
                f"{sequence.name}, frame {frame}: the auxiliary image has {aux_width}x{aux_height} "
                f"pixels, but the colour image {width}x{height}; register the images to one size"
            )
        second = [cut(aux_image, window, size) for window, size in cuts]
        return [cv2.merge(pair) for pair in zip(images, second, strict=True)]


def choose_frames(
    visible: np.ndarray, max_gap: int, rng: np.random.Generator, name: str = "the sequence"
) -> tuple[int, int]:
    """Indices of template and search frame, both visible, the template first.

    A sequence with one visible frame (a picture) gives it twice.

    Raises:
        UserError: no frame is visible.
    """
    shown = np.flatnonzero(visible)
    if not len(shown):
        raise UserError(f"{name}: the target is in no frame; check its ground truth")
    if len(shown) == 1:
        return int(shown[0]), int(shown[0])
    position = int(rng.integers(len(shown) - 1))
    template = int(shown[position])
    missing = int(shown[position + 1]) - template - max_gap
    reach = max_gap + (-(-missing // GAP_STEP) * GAP_STEP if missing > 0 else 0)
    end = int(np.searchsorted(shown, template + reach, side="right"))
    return template, int(shown[rng.integers(position + 1, end)])


def frames_before(
    visible: np.ndarray, frame: int, max_gap: int, number: int, rng: np.random.Generator
) -> list[int]:
    """``number`` visible frames at most ``max_gap`` before ``frame``; itself if there is none."""
    start = max(frame - max_gap, 0)
    shown = start + np.flatnonzero(visible[start:frame])
    return [int(rng.choice(shown)) if len(shown) else frame for _ in range(number)]
