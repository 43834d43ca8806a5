"""How a sequence lies on disk, and a data set made of such folders."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from srft_plugin.errors import UserError

from .annotation import numbered_lines, read_boxes, read_flags
from .files import FileFrames, has_gaps, image_names, image_number
from .sequence import Sequence

RENDER = "render it with `srft data events`"


@dataclass(frozen=True)
class Layout:
    """Where a data set keeps the parts of a sequence.

    Names of folders and files are alternatives, of which the first that exists is used; ``{name}``
    stands for the name of the sequence.

    Attributes:
        rgb: folders of the colour images.
        annotation: ground-truth files.
        aux: folders of the auxiliary images; empty for RGB data.
        modality: of the auxiliary images; None for RGB data.
        presence: label files, each with the value that says that the target can be seen.
        extra_boxes: further ground truths: name in ``Sequence.extra`` and file.
        corners: boxes are given by two opposite corners instead of a corner and the size.
        first_pixel: coordinate of the upper left pixel in the files, 0 or 1.
        minimum_side: boxes that are not wider and higher than this do not count as visible.
        frames: numbers of the first and last image that belong to the sequence; None for all.
        cut_tail: leave images behind the last row of the ground truth out.
        cut_rows: leave rows behind the last image out, unless an image is missing before it.
        counted: the numbers in the names of the colour images count the frames of the recording
            that events are rendered from, the first of which is 0.
        init_only: the ground truth may hold the first box alone (test sets with a server).
    """

    rgb: tuple[str, ...]
    annotation: tuple[str, ...]
    aux: tuple[str, ...] = ()
    modality: str | None = None
    presence: tuple[tuple[str, int], ...] = ()
    extra_boxes: tuple[tuple[str, str], ...] = ()
    corners: bool = False
    first_pixel: int = 0
    minimum_side: float = 0.0
    frames: tuple[int, int] | None = None
    cut_tail: bool = False
    cut_rows: bool = False
    counted: bool = False
    init_only: bool = False


@dataclass(frozen=True)
class Entry:
    """One sequence of a data set: its name, its folder and what is in it."""

    name: str
    folder: Path
    layout: Layout


def read_sequence(entry: Entry) -> Sequence:
    """Reads the annotation of one sequence and pairs its frames; no image is opened.

    Raises:
        UserError: a part is missing; frames, auxiliary images and boxes do not match in number; the
            target is visible nowhere.
    """
    frames = list_frames(entry)
    folder, layout = entry.folder, entry.layout
    if layout.aux and len(frames.aux_names) != len(frames.rgb_names):
        raise UserError(
            f"{folder}: {len(frames.rgb_names)} colour images in {frames.rgb_folder.name}/ but "
            f"{len(frames.aux_names)} {layout.modality} images in {frames.aux_folder.name}/; "
            "extract the sequence again, or do without the missing ones by "
            "`srft data check NAME ROOT --fix-index`"
        )
    file, boxes = read_ground_truth(entry, len(frames))
    if layout.cut_tail and len(boxes) < len(frames):
        frames = FileFrames(frames.rgb_folder, frames.rgb_names[: len(boxes)])
    if layout.cut_rows and not has_gaps(frames.rgb_names):
        boxes = boxes[: len(frames)]
    if len(boxes) != len(frames):
        raise UserError(
            f"{file}: {len(boxes)} rows for {len(frames)} frames; expected one row per frame. "
            "Extract the sequence again, or cut it with `srft data check NAME ROOT --fix-index`"
        )
    mark_absent(entry, boxes)
    if np.isnan(boxes).all():
        raise UserError(f"{file}: no frame shows the target; the sequence cannot be used")
    return Sequence(entry.name, frames, boxes, layout.modality, read_extra(entry))


def list_frames(entry: Entry) -> FileFrames:
    """The images of a sequence in natural order, whether or not they pair.

    Raises:
        UserError: a folder is missing or the one of the colour images is empty.
    """
    folder, layout = entry.folder, entry.layout
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; extract it again, or take it off the list")
    rgb = (*_channel_folders(entry, "color"), *layout.rgb)
    rgb_folder = find_path(entry, rgb, "folder of colour images")
    rgb = image_names(rgb_folder)
    if layout.frames:
        first, last = layout.frames
        rgb = [name for name in rgb if image_number(name) in range(first, last + 1)]
    if not rgb:
        raise UserError(f"{rgb_folder}: no images; extract the sequence again")
    if not layout.aux:
        return FileFrames(rgb_folder, rgb)
    hint = f"; {RENDER}" if layout.modality == "event" else ""
    aux = (*_channel_folders(entry, "depth", "ir"), *layout.aux)
    aux_folder = find_path(entry, aux, f"folder of {layout.modality} images", hint)
    return FileFrames(rgb_folder, rgb, aux_folder, image_names(aux_folder), layout.modality)


def read_ground_truth(entry: Entry, frames: int = 0) -> tuple[Path, np.ndarray]:
    """The annotation file of a sequence and the (N, 4) boxes in it, 0-based.

    Of ``frames`` images, those that have no row because it is only the first box that is known
    (``Layout.init_only``), or because the boxes begin with the first image that shows the target,
    get one of NaN.

    Raises:
        UserError: there is none, or it cannot be understood.
    """
    file = find_path(entry, entry.layout.annotation, "ground-truth file")
    boxes = _boxes_of(entry, file)
    behind = frames - 1 if entry.layout.init_only and len(boxes) == 1 else 0
    before = 0
    if not behind and frames > len(boxes):
        labels = _read_labels(entry)
        before = max((_surplus(flags, seen, len(boxes)) for _, flags, seen in labels), default=0)
    before, behind = (np.full((max(count, 0), 4), np.nan) for count in (before, behind))
    return file, np.concatenate([before, boxes, behind])


def _read_labels(entry: Entry) -> list[tuple[Path, np.ndarray, int]]:
    files = ((entry.folder / name, seen) for name, seen in entry.layout.presence)
    return [(file, read_flags(file), seen) for file, seen in files if file.is_file()]


def _surplus(flags: np.ndarray, seen: int, rows: int) -> int:
    """So many more labels than ``rows`` there are, if the first ones all say absent; else 0."""
    count = max(len(flags) - rows, 0)
    return count if (flags[:count] != seen).all() else 0


def _boxes_of(entry: Entry, file: Path) -> np.ndarray:
    boxes = read_boxes(file, entry.layout.corners)
    boxes[:, :2] -= entry.layout.first_pixel
    return boxes


def read_extra(entry: Entry) -> dict[str, Any]:
    """What else lies beside a sequence: further ground truths by name, and what follows.

    ``properties`` are the lines ``key=value`` of a VOT ``sequence`` file (fps, channels, ...).
    ``attributes`` are the names of the label files ``<attribute>.tag`` (VOT, DepthTrack: a line per
    frame) that say 1 in some frame. The keys are missing where there are no such files.

    Raises:
        UserError: a file cannot be understood.
    """
    files = [(key, entry.folder / name) for key, name in entry.layout.extra_boxes]
    extra: dict[str, Any] = {key: _boxes_of(entry, file) for key, file in files if file.is_file()}
    if properties := read_properties(entry.folder):
        extra["properties"] = properties
    tags = sorted(entry.folder.glob("*.tag"))
    if tags:
        extra["attributes"] = tuple(file.stem for file in tags if b"1" in file.read_bytes().split())
    return extra


def read_properties(folder: Path) -> dict[str, str]:
    """The lines ``key=value`` of the file ``sequence`` in a VOT workspace; empty without one.

    Raises:
        UserError: the file is no text, or a line has no ``=``.
    """
    file = folder / "sequence"
    if not file.is_file():
        return {}
    pairs = [(number, line.partition("=")) for number, line in numbered_lines(file, gaps=True)]
    for number, (_, equals, _) in pairs:
        if not equals:
            raise UserError(f"{file}, line {number}: expected key=value")
    return {key.strip(): value.strip() for _, (key, _, value) in pairs}


def _channel_folders(entry: Entry, *channels: str) -> list[str]:
    """Folders that a VOT ``sequence`` file names: ``channels.color=color/%08d.jpg``."""
    properties = read_properties(entry.folder)
    files = [properties.get(f"channels.{channel}") for channel in channels]
    return [file.rpartition("/")[0] or "." for file in files if file]


def mark_absent(entry: Entry, boxes: np.ndarray) -> None:
    """Sets rows to NaN, in place, where the box is too small or a label file says absent.

    Raises:
        UserError: a label file does not have one label per row.
    """
    boxes[~(boxes[:, 2:] > entry.layout.minimum_side).all(1)] = np.nan
    for file, flags, seen in presence_labels(entry, len(boxes)):
        if len(flags) != len(boxes):
            raise UserError(f"{file}: {len(flags)} labels for {len(boxes)} boxes; expected as many")
        boxes[flags != seen] = np.nan


def presence_labels(entry: Entry, rows: int) -> list[tuple[Path, np.ndarray, int]]:
    """The label files that a sequence has: (file, labels, value that says "can be seen").

    Where a file has more labels than the ground truth has ``rows``, and the surplus at its start
    says absent, the boxes begin with the first visible frame; the surplus is left out.
    """
    return [
        (file, flags[_surplus(flags, seen, rows) :], seen)
        for file, flags, seen in _read_labels(entry)
    ]


def find_path(entry: Entry, patterns: Many[str], what: str, hint: str = "") -> Path:
    """The first of the files or folders ``patterns`` that a sequence has, see ``Layout``.

    Raises:
        UserError: it has none; ``what`` says what is missing, ``hint`` what to do.
    """
    names = [pattern.format(name=entry.name) for pattern in patterns]
    for name in names:
        if (entry.folder / name).exists():
            return entry.folder / name
    raise UserError(f"{entry.folder}: no {what}; expected {' or '.join(names)}{hint}")


class FolderDataset:
    """A data set of sequence folders that are read when they are first asked for."""

    def __init__(self, name: str, entries: Many[Entry]):
        self.name, self.entries = name, entries
        self._read = lru_cache(maxsize=None)(read_sequence)

    @property
    def names(self) -> list[str]:
        """Names of the sequences, in order."""
        return [entry.name for entry in self.entries]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sequence:
        """Sequence ``index``.

        Raises:
            UserError: its files are not as the layout says.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)} in {self.name}")
        return self._read(self.entries[index])

    def select(self, wanted: Callable[[Entry], bool]) -> FolderDataset:
        """The sequences for which ``wanted`` holds."""
        kind, (name, entries, *rest) = self.__reduce__()
        return kind(name, [entry for entry in entries if wanted(entry)], *rest)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.entries)
