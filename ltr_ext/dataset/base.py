"""How a sequence lies on disk, and a data set made of such folders."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from srft_plugin.errors import UserError

from .annotation import read_boxes, read_flags
from .files import FileFrames, image_names
from .sequence import Sequence


@dataclass(frozen=True)
class Layout:
    """Where a data set keeps the parts of a sequence.

    Every entry names alternatives, of which the first that exists is used; ``{name}`` stands for
    the name of the sequence.

    Attributes:
        rgb: folders of the colour images.
        annotation: ground-truth files.
        aux: folders of the auxiliary images; empty for RGB data.
        modality: of the auxiliary images; None for RGB data.
        presence: label file and its meaning: the value that says that the target can be seen.
        first_pixel: coordinate of the upper left pixel in the file, 0 or 1.
        minimum_side: boxes that are not wider and higher than this do not count as visible.
        extra_boxes: further ground truths, name in ``Sequence.extra`` to file.
    """

    rgb: tuple[str, ...]
    annotation: tuple[str, ...]
    aux: tuple[str, ...] = ()
    modality: str | None = None
    presence: tuple[tuple[str, int], ...] = ()
    first_pixel: int = 0
    minimum_side: float = 0.0
    extra_boxes: dict[str, str] = field(default_factory=dict)


def read_sequence(folder: Path, layout: Layout, name: str | None = None) -> Sequence:
    """Reads the annotation of one sequence and pairs its frames; no image is opened.

    Raises:
        UserError: a part is missing; frames, auxiliary images and boxes do not match in number; the
            target is visible nowhere.
    """
    name = name or folder.name
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected the sequence {name}")
    rgb_folder = _find(folder, layout.rgb, name, "folder of colour images")
    rgb = image_names(rgb_folder)
    if not rgb:
        raise UserError(f"{rgb_folder}: no images; extract the sequence again")
    frames = FileFrames(rgb_folder, rgb)
    if layout.aux:
        aux_folder = _find(folder, layout.aux, name, f"folder of {layout.modality} images")
        aux = image_names(aux_folder)
        if len(aux) != len(rgb):
            raise UserError(
                f"{folder}: {len(rgb)} colour images in {rgb_folder.name}/ but {len(aux)} "
                f"{layout.modality} images in {aux_folder.name}/; extract the sequence again, or "
                "leave such frames out with `srft data check NAME ROOT --fix-index`"
            )
        frames = FileFrames(rgb_folder, rgb, aux_folder, aux, layout.modality)
    boxes = _read_boxes(folder, layout, name, len(rgb))
    extra: dict[str, Any] = {
        key: _shift(read_boxes(folder / file), layout)
        for key, file in layout.extra_boxes.items()
        if (folder / file).is_file()
    }
    return Sequence(name, frames, boxes, layout.modality, extra)


def _read_boxes(folder: Path, layout: Layout, name: str, frames: int) -> np.ndarray:
    file = _find(folder, layout.annotation, name, "ground-truth file")
    boxes = _shift(read_boxes(file), layout)
    if len(boxes) != frames:
        raise UserError(
            f"{file}: {len(boxes)} rows for {frames} frames; expected one row per frame. Extract "
            "the sequence again, or cut it with `srft data check NAME ROOT --fix-index`"
        )
    boxes[~(boxes[:, 2:] > layout.minimum_side).all(1)] = np.nan
    for pattern, seen in layout.presence:
        labels = folder / pattern.format(name=name)
        if labels.is_file():
            flags = read_flags(labels)
            if len(flags) != frames:
                raise UserError(f"{labels}: {len(flags)} labels for {frames} frames")
            boxes[flags != seen] = np.nan
            break
    if np.isnan(boxes).all():
        raise UserError(f"{file}: no frame shows the target; the sequence cannot be used")
    return boxes


def _shift(boxes: np.ndarray, layout: Layout) -> np.ndarray:
    boxes[:, :2] -= layout.first_pixel
    return boxes


def _find(folder: Path, patterns: tuple[str, ...], name: str, what: str) -> Path:
    candidates = [folder / pattern.format(name=name) for pattern in patterns]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    expected = " or ".join(pattern.format(name=name) for pattern in patterns)
    raise UserError(f"{folder}: no {what}; expected {expected}")


class FolderDataset:
    """A data set of sequence folders that are read when they are first asked for.

    Args:
        name: of the data set.
        folders: one per sequence.
        layout: what is in them.
        names: of the sequences; the folders' own by default.
    """

    def __init__(
        self, name: str, folders: list[Path], layout: Layout, names: list[str] | None = None
    ):
        self.name, self.folders, self.layout = name, folders, layout
        self.names = names or [folder.name for folder in folders]
        self._read = lru_cache(maxsize=None)(self._read_sequence)

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> Sequence:
        """Sequence ``index``.

        Raises:
            UserError: its files are not as the layout says.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)} in {self.name}")
        return self._read(index)

    def _read_sequence(self, index: int) -> Sequence:
        return read_sequence(self.folders[index], self.layout, self.names[index])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_read"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["name"], state["folders"], state["layout"], state["names"])
