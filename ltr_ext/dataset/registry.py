"""Data sets by name: ``open_dataset("depthtrack", root, "train")``."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from srft_plugin.errors import UserError

from .annotation import read_names
from .base import FolderDataset, Layout
from .files import natural_order


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Attributes:
        folders: where its sequences may lie, relative to the root, the first that exists counts;
            ``.`` is the root itself.
        lists: files with the names of its sequences, relative to the root or to the folder. Without
            any, all sub-folders count.
        count: official number of sequences, None where there is no such thing.
    """

    folders: tuple[str, ...]
    lists: tuple[str, ...] = ()
    count: int | None = None


@dataclass(frozen=True)
class Kind:
    """A data set as distributed: what a sequence looks like and which parts there are."""

    layout: Layout
    splits: dict[str, Split]


RGBD = Layout(rgb=("color",), aux=("depth",), annotation=("groundtruth.txt",), modality="depth")

KINDS: dict[str, Kind] = {
    "depthtrack": Kind(
        RGBD,
        {
            "train": Split(("train", "."), ("list.txt",), 152),
            "test": Split(("test", "."), ("list.txt",), 50),
        },
    ),
    "cdtb": Kind(RGBD, {"test": Split(("sequences", "."), ("list.txt",), 80)}),
    "vot_rgbd2022": Kind(RGBD, {"test": Split(("sequences", "."), ("list.txt",), 127)}),
}


def open_dataset(name: str, root: str | os.PathLike, split: str = "train") -> FolderDataset:
    """A data set on disk; sequences are read when they are asked for.

    Args:
        name: ``depthtrack``, ``cdtb``, ...: the keys of ``KINDS``.
        root: its folder.
        split: ``train``, ``val`` or ``test``, as far as the data set has them.

    Raises:
        UserError: unknown name or split, no such folder, no sequences in it.
    """
    kind, part = find_kind(name), find_split(name, split)
    root = Path(root).expanduser()
    if not root.is_dir():
        raise UserError(f"{name}: {root} is no folder; give the folder that holds its sequences")
    folder = next((root / sub for sub in part.folders if (root / sub).is_dir()), None)
    if folder is None:
        raise UserError(f"{root}: found none of {', '.join(part.folders)}; is this {name}?")
    names = _listed(root, folder, part) or _subfolders(folder)
    if not names:
        raise UserError(f"{folder}: no sequences; expected the {split} part of {name}")
    return FolderDataset(name, [folder / item for item in names], kind.layout, names)


def find_kind(name: str) -> Kind:
    """The entry of ``KINDS``.

    Raises:
        UserError: there is none; the nearest name is suggested.
    """
    if name in KINDS:
        return KINDS[name]
    near = difflib.get_close_matches(name, KINDS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UserError(f"unknown data set {name!r}{hint} Known: {', '.join(sorted(KINDS))}")


def find_split(name: str, split: str) -> Split:
    """The part ``split`` of data set ``name``.

    Raises:
        UserError: the data set has no such part.
    """
    splits = find_kind(name).splits
    if split not in splits:
        raise UserError(f"{name} has no part {split!r}; it has {', '.join(splits)}")
    return splits[split]


def _listed(root: Path, folder: Path, part: Split) -> list[str]:
    for file in part.lists:
        for path in (folder / file, root / file):
            if path.is_file():
                return read_names(path)
    return []


def _subfolders(folder: Path) -> list[str]:
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted((name for name in names if not name.startswith(".")), key=natural_order)
