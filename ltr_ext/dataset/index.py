"""An index of a data set: what its folders hold, in one file that is read at once.

``<root>/.srft/<name>_<split>.npz`` holds, for every usable sequence, its folders, frame names and
boxes (absent rows NaN). Folders are relative to the root, so the data set may be moved.
"""

from __future__ import annotations

import json
import logging
import os
import zipfile
from collections.abc import Sequence as Many
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltr_ext.admin.files import atomic_write
from srft_plugin.errors import UserError, some

from .base import Entry, FolderDataset, list_frames, mark_absent, read_extra, read_ground_truth
from .files import FileFrames, has_gaps, image_number, pair_by_number
from .sequence import Sequence

if TYPE_CHECKING:
    from .check import Report

log = logging.getLogger(__name__)

FORMAT = 3  # 2: test parts without the frames that lack an auxiliary image
EXTRA = "extra_"
NAMES = "surrogateescape"  # file names that are not UTF-8


def index_path(root: str | os.PathLike, name: str, split: str) -> Path:
    """Where the index of a part of a data set lies."""
    return Path(root).expanduser() / ".srft" / f"{name}_{split}.npz"


class IndexedDataset(FolderDataset):
    """A data set whose folders are not looked at: frames and boxes come from the index."""

    def __init__(self, name: str, entries: Many[Entry], sequences: dict[str, Sequence]):
        super().__init__(name, [entry for entry in entries if entry.name in sequences])
        self._sequences = sequences
        self._read = lambda entry: sequences[entry.name]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.entries, self._sequences)


def write_index(root: str | os.PathLike, report: Report) -> tuple[Path, int]:
    """Writes the index of a checked part; returns the file and the number of sequences in it.

    Left out are frames whose colour image is missing, unreadable or without a row in the ground
    truth, and sequences that show the target in no remaining frame. Frames whose auxiliary image is
    missing or unreadable stay in the test part, where each frame counts and a tracker goes on by
    RGB, and are left out of the others.

    Raises:
        UserError: the folder cannot be written to.
    """
    root = Path(root).expanduser()
    alone = report.split == "test"
    usable = (usable_sequence(entry, report.bad_files, alone) for entry in report.entries)
    kept = [sequence for sequence in usable if sequence is not None]
    path = index_path(root, report.name, report.split)
    save_index(path, root, [entry.name for entry in report.entries], kept)
    return path, len(kept)


def save_index(path: Path, root: Path, listed: Many[str], kept: Many[Sequence]) -> None:
    """Writes an index file.

    Args:
        path: the file.
        root: folder of the data set.
        listed: names of all its sequences; the index counts as long as they do not change.
        kept: those that can be used, their frames in folders below ``root``.

    Raises:
        UserError: the folder cannot be written to.
    """
    frames = [sequence.frames for sequence in kept]
    table = {
        "format": np.array(FORMAT),
        "listed": _pack(listed),
        "names": _pack([sequence.name for sequence in kept]),
        "lengths": np.array([len(sequence) for sequence in kept], np.int64),
        "boxes": _stack([sequence.boxes for sequence in kept]),
        "rgb_folders": _pack([os.path.relpath(item.rgb_folder, root) for item in frames]),
        "aux_folders": _pack([_relative(item.aux_folder, root) for item in frames]),
        "rgb_names": _pack(["/".join(item.rgb_names) for item in frames]),
        "aux_names": _pack(["/".join(item.aux_names) for item in frames]),
        "notes": _pack([json.dumps(_split(sequence.extra)[1]) for sequence in kept]),
    }
    for key in {key for sequence in kept for key in _split(sequence.extra)[0]}:
        missing = [np.full_like(sequence.boxes, np.nan) for sequence in kept]
        rows = [s.extra.get(key, none) for s, none in zip(kept, missing, strict=True)]
        table[EXTRA + key] = _stack(rows)

    def save(partial: Path) -> None:
        with open(partial, "wb") as file:  # given a name, savez would add its suffix
            np.savez(file, **table)

    atomic_write(path, save)


def usable_sequence(entry: Entry, bad_files: set[Path], alone: bool) -> Sequence | None:
    """The readable, annotated frames of a sequence; None if they never show the target.

    Args:
        entry: the sequence.
        bad_files: images that cannot be read.
        alone: keep frames whose auxiliary image is missing or cannot be read.
    """
    try:
        frames = list_frames(entry)
        file, boxes = read_ground_truth(entry, len(frames))
        mark_absent(entry, boxes)
        extra = read_extra(entry)
    except UserError as error:
        log.warning("left out of the index: %s", error)
        return None
    pairs = list(zip(frames.rgb_names, frames.aux_names or frames.rgb_names, strict=False))
    if frames.aux_folder and len(frames.rgb_names) != len(frames.aux_names):
        pairs = pair_by_number(frames) or []
    elif frames.aux_folder and len(frames) < len(boxes):  # each may lack another one
        pairs = pair_by_number(frames) or pairs
    rows = rows_of(frames, pairs, len(boxes))
    if rows is None:
        log.warning(
            "left out of the index: %s has %d rows for %d images, whose numbers do not say which "
            "belong together; extract the sequence again", file, len(boxes), len(frames),
        )  # fmt: skip
        return None
    if alone and (pairs or not frames.aux_names):
        partner = dict(pairs)
        pairs = [(rgb, partner.get(rgb, "")) for rgb in frames.rgb_names]
    kept = [
        (rgb, aux)
        for rgb, aux in pairs
        if rgb in rows
        and frames.rgb_folder / rgb not in bad_files
        and (alone or frames.aux_folder is None or frames.aux_folder / aux not in bad_files)
    ]
    chosen = [rows[rgb] for rgb, _ in kept]
    if np.isnan(boxes[chosen]).all():
        log.warning("left out of the index: %s shows the target in no usable frame", entry.name)
        return None
    names = list(zip(*kept, strict=True))
    frames = replace(
        frames, rgb_names=names[0], aux_names=names[1] if frames.aux_folder else frames.aux_names
    )
    further, notes = _split(extra)
    further = {key: rows[chosen] for key, rows in further.items() if len(rows) == len(boxes)}
    return Sequence(entry.name, frames, boxes[chosen], frames.modality, further | notes)


def _split(extra: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Further ground truths, and what is said about a sequence as a whole."""
    boxes = {key: value for key, value in extra.items() if isinstance(value, np.ndarray)}
    return boxes, {key: value for key, value in extra.items() if key not in boxes}


def rows_of(frames: FileFrames, pairs: Many[tuple[str, str]], rows: int) -> dict[str, int] | None:
    """Row of the ground truth for each colour image that has one; None where nothing tells.

    Where images are missing but the numbers of the others, or of the auxiliary images in
    ``pairs``, span as many as there are rows, the numbers tell. Rows and images are matched from
    the first on where there is no row too many, or where the images are numbered from 0 or 1 on
    without a gap, so that the last ones are missing.
    """
    names = frames.rgb_names
    numbers = [image_number(name) for name in names]
    if len(names) >= rows:
        return {name: row for row, name in enumerate(names[:rows])}
    if None in numbers:
        return None
    if numbers[-1] - numbers[0] + 1 == rows:
        return {name: number - numbers[0] for name, number in zip(names, numbers, strict=True)}
    others = [image_number(name) for name in frames.aux_names]
    if others and None not in others and others[-1] - others[0] + 1 == rows:
        return {rgb: image_number(aux) - others[0] for rgb, aux in pairs}
    if numbers[0] in (0, 1) and not has_gaps(names):
        return {name: row for row, name in enumerate(names)}
    return None


def read_index(path: Path, root: Path, name: str, entries: Many[Entry]) -> FolderDataset | None:
    """The data set of an index file, None where it does not list the sequences of ``entries``.

    Raises:
        UserError: the file is damaged or of another format.
    """
    try:
        with np.load(path, allow_pickle=False) as table:
            columns = {key: table[key] for key in table.files}
        if int(columns["format"]) != FORMAT:
            raise ValueError(f"format {columns['format']}")
        if _unpack(columns["listed"]) != [entry.name for entry in entries]:
            log.warning(
                "%s: the index is out of date and not used; "
                "write it again with `srft data check %s %s --fix-index`",
                *(path, name, root),
            )
            return None
        sequences = dict(_sequences(columns, root, {entry.name: entry for entry in entries}))
        left_out = [entry.name for entry in entries if entry.name not in sequences]
        if left_out:
            log.warning(
                "%s leaves out %d of %d sequences (%s); if these have been mended since, write it "
                "again with `srft data check %s %s --fix-index`",
                *(path, len(left_out), len(entries), some(left_out), name, root),
            )
    except (KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path}: not a usable index ({error}); delete it, or write it again with "
            f"`srft data check {name} {root} --fix-index`"
        ) from error
    return IndexedDataset(name, entries, sequences)


def _sequences(columns: dict[str, np.ndarray], root: Path, entries: dict[str, Entry]):
    ends = np.cumsum(columns["lengths"])
    texts = [
        _unpack(columns[key])
        for key in ("names", "rgb_folders", "aux_folders", "rgb_names", "aux_names", "notes")
    ]
    for name, rgb_folder, aux_folder, rgb, aux, notes, start, end in zip(
        *texts, ends - columns["lengths"], ends, strict=True
    ):
        modality = entries[name].layout.modality
        frames = FileFrames(
            root / rgb_folder,
            rgb.split("/"),
            root / aux_folder if aux_folder else None,
            aux.split("/") if aux_folder else (),
            modality,
        )
        extra = {
            key.removeprefix(EXTRA): column[start:end]
            for key, column in columns.items()
            if key.startswith(EXTRA) and not np.isnan(column[start:end]).all()
        }
        for key, value in json.loads(notes).items():
            extra[key] = tuple(value) if isinstance(value, list) else value
        yield name, Sequence(name, frames, columns["boxes"][start:end], modality, extra)


def _relative(folder: Path | None, root: Path) -> str:
    return os.path.relpath(folder, root) if folder else ""


def _stack(rows: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(rows) if rows else np.zeros((0, 4))


def _pack(texts: Many[str]) -> np.ndarray:
    """Strings as bytes, so that no pickle is needed."""
    return np.frombuffer("".join(f"{text}\0" for text in texts).encode(errors=NAMES), np.uint8)


def _unpack(packed: np.ndarray) -> list[str]:
    return packed.tobytes().decode(errors=NAMES).split("\0")[:-1]
