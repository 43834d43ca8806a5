"""Data sets by name: ``open_dataset("depthtrack", root, "train")``."""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from srft_plugin.errors import UserError, unknown

from .annotation import read_names
from .base import Entry, FolderDataset, Layout
from .coco import CocoObjects
from .files import natural_order
from .index import index_path, read_index
from .kinds import KINDS, Kind, Split

HELD_OUT = 20  # one training sequence in so many is held out for validation
PARTS = ("train_part", "val_part")


def open_dataset(
    name: str, root: str | os.PathLike, split: str = "train", use_index: bool = True
) -> FolderDataset | CocoObjects:
    """A data set on disk; sequences are read when they are asked for.

    An index that ``srft data check --fix-index`` wrote is used if it lists the same sequences.

    Args:
        name: ``depthtrack``, ``lasher``, ...: the keys of ``kinds.KINDS``, or ``coco``.
        root: its folder.
        split: ``train``, ``val`` or ``test``, as far as the distribution has them; ``train_part``
            and ``val_part`` divide the training set of every data set: a sequence (of COCO, a
            picture) is held out when the CRC-32 of its name is divisible by 20, so nobody has to
            ship a list.
        use_index: False looks at the folders in any case.

    Raises:
        UserError: unknown name or split, no such folder, no sequences in it.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(f"{name}: {root} is no folder; give the folder that holds its sequences")
    if name == CocoObjects.name:
        if split not in PARTS:
            return CocoObjects(root, split)
        return CocoObjects(root, "train", lambda file: is_held_out(file) == (split == "val_part"))
    part = find_split(name, "train" if split in PARTS else split)
    layout = part.layout or KINDS[name].layout
    entries = [
        variant
        for item, folder in _sequence_folders(name, root, part, layout)
        for variant in _variants(name, Entry(item, folder, layout), root)
    ]
    index = index_path(root, name, "train" if split in PARTS else split)
    dataset = read_index(index, root, name, entries) if use_index and index.is_file() else None
    dataset = dataset or FolderDataset(name, entries)
    if split in PARTS:
        held_out = split == "val_part"
        dataset = dataset.select(lambda entry: is_held_out(entry.name) == held_out)
    if not len(dataset):
        raise UserError(f"{root}: no sequences; expected the part {split!r} of {name}")
    return dataset


def is_held_out(sequence: str) -> bool:
    """Whether a training sequence belongs to ``val_part``: about one in twenty, by its name."""
    return zlib.crc32(sequence.encode()) % HELD_OUT == 0


def find_kind(name: str) -> Kind:
    """The entry of ``KINDS``.

    Raises:
        UserError: there is none; the nearest name is suggested.
    """
    if name in KINDS:
        return KINDS[name]
    raise unknown("data set", name, sorted((*KINDS, CocoObjects.name)))


def find_split(name: str, split: str) -> Split:
    """The part ``split`` of data set ``name``.

    Raises:
        UserError: the data set has no such part.
    """
    splits = find_kind(name).splits
    if split not in splits:
        raise unknown(f"part of {name}", split, splits)
    return splits[split]


def _sequence_folders(name: str, root: Path, part: Split, layout: Layout) -> list[tuple[str, Path]]:
    """(name, folder) of every sequence of a part, in the order of its list or of the names."""
    matches: list[Path] = []
    for pattern in part.folders:
        found = [root]
        if pattern != ".":
            found = sorted(root.glob(pattern), key=lambda path: natural_order(path.as_posix()))
        matches = [folder for folder in found if folder.is_dir()]
        if matches:
            break
    if not matches:
        raise UserError(f"{root}: found no folder {' or '.join(part.folders)}; is this {name}?")
    listed = _read_list(part.lists, (*matches, root))
    if listed is not None:
        return [(item, _place(item, matches)) for item in listed]
    parts = {folder for split in KINDS[name].splits.values() for folder in split.folders}
    found = [
        (path.name, path)
        for folder in matches
        for path in _subfolders(folder, by_class=layout.rgb != (".",))
        if path.name not in parts  # where the root stands for a part that is not there
    ]
    left_out = _read_list(part.others, (*matches, root))
    if left_out is None and part.needs_list and matches == [root] and len(found) > part.count:
        wanted = " or ".join(part.lists + part.others)
        raise UserError(f"{root}: its parts lie side by side; expected {wanted} to tell them apart")
    others = set(left_out or ())
    return [(item, path) for item, path in found if item not in others]


def _read_list(files: tuple[str, ...], folders: tuple[Path, ...]) -> list[str] | None:
    for file in files:
        for folder in folders:
            if (folder / file).is_file():
                return read_names(folder / file)
    return None


def _place(item: str, folders: list[Path]) -> Path:
    """Folder of a listed sequence, which may lie in one named after its class: cat/cat-3."""
    for folder in folders:
        for path in (folder / item, folder / item.rpartition("-")[0] / item):
            if path.is_dir():
                return path
    return folders[0] / item  # reading it says that it is missing


def _subfolders(folder: Path, by_class: bool) -> list[Path]:
    """Folders in a folder, without hidden ones.

    Args:
        folder: the folder.
        by_class: where a folder is of a class (cat/cat-3), take those inside. Where images lie in
            it, asking would list all of them.
    """
    children = sorted(
        (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")),
        key=_path_order,
    )
    if not by_class:
        return children
    inside = [list(path.glob(f"{path.name}-*")) or [path] for path in children]
    return sorted((path for paths in inside for path in paths), key=_path_order)


def _path_order(path: Path) -> list[str | int]:
    return natural_order(path.name)


def _variants(name: str, entry: Entry, root: Path) -> list[Entry]:
    """The sequences that one folder holds: one, except where a data set cuts or doubles them."""
    if name == "depthtrack" and entry.name == "toy07_indoor_320":  # 1406 rows for 1367 images
        return [replace(entry, layout=replace(entry.layout, cut_rows=True))]
    if name == "otb":
        return _otb_variants(entry)
    if name == "uav123":
        return _uav123_variants(entry, root)
    return [entry]


def _otb_variants(entry: Entry) -> list[Entry]:
    """Jogging and Skating2 have two targets each; the boxes of David begin at image 300."""
    layout = entry.layout
    if entry.name == "David":
        return [replace(entry, layout=replace(layout, frames=(300, 770)))]
    files = sorted(entry.folder.glob("groundtruth_rect.[0-9].txt"))
    targets = [
        Entry(f"{entry.name}-{n}", entry.folder, replace(layout, annotation=(file.name,)))
        for n, file in enumerate(files, 1)
        if file.stat().st_size  # the first one of Human4 is empty
    ]
    return targets or [entry]


_UAV123_ROW = re.compile(
    r"'name','([^']+)','path','[^']*?UAV123[\\/]([^'\\/]+)[\\/]?',"
    r"'startFrame',(\d+),'endFrame',(\d+)"
)


def _uav123_variants(entry: Entry, root: Path) -> list[Entry]:
    """Long videos are cut into sequences (bird1_1, ...); the toolkit's configSeqs.m says how."""
    variants = [
        Entry(item, entry.folder, replace(entry.layout, frames=(first, last)))
        for item, video, first, last in _uav123_cuts(root)
        if video == entry.name and (root / "anno" / "UAV123" / f"{item}.txt").is_file()
    ]
    return variants or [entry]


@lru_cache(maxsize=4)
def _uav123_cuts(root: Path) -> list[tuple[str, str, int, int]]:
    """(sequence, video, first image, last image) as configSeqs.m lists them, if it is there.

    The file may list UAV20L first, which shares some sequences, and the same videos at 10 frames
    per second, which are others.
    """
    for file in (root / "configSeqs.m", root / "util" / "configSeqs.m"):
        if file.is_file():
            rows = _UAV123_ROW.findall(file.read_text(encoding="utf-8", errors="replace"))
            cuts = [(item, video, int(first), int(last)) for item, video, first, last in rows]
            return list({cut[0]: cut for cut in cuts}.values())
    return []
