"""COCO objects as sequences of one picture, for source data that is not video."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from srft_plugin.errors import UserError

from .files import FileFrames
from .sequence import Sequence

PARTS = ("train", "val")
MINIMUM_SIDE = 50  # pixels; smaller objects show too little to be a template


class CocoObjects:
    """One sequence of one frame per annotated object of a COCO part.

    Reads ``annotations/instances_<part>2017.json`` (or 2014) and the pictures in the folder of that
    part, as they are distributed; objects of a crowd and those narrower or lower than 50 pixels are
    left out. Only the columns that are needed stay in memory.

    Args:
        root: folder of the data set.
        split: ``train`` or ``val``.
        wanted: says of the file name of a picture whether its objects belong to the set.

    Raises:
        UserError: no annotation file or no pictures, or a file that is not COCO's.
    """

    name = "coco"

    def __init__(
        self, root: Path, split: str, wanted: Callable[[str], bool] = lambda file: True
    ) -> None:
        file, self._folder = find_part(root, split)
        table = read_table(file)
        try:
            names = {image["id"]: image["file_name"] for image in table["images"]}
            objects = [
                (names[item["image_id"]], item["id"], item["bbox"])
                for item in table["annotations"]
                if not item.get("iscrowd", 0)
                and min(item["bbox"][2:]) >= MINIMUM_SIDE
                and wanted(names[item["image_id"]])
            ]
            self._boxes = np.array([item[2] for item in objects], np.float64).reshape(-1, 4)
        except (ValueError, KeyError, TypeError) as error:
            raise not_coco(file, error) from error
        if not objects:
            raise UserError(f"{file}: no object of at least {MINIMUM_SIDE} pixels")
        self._files = [item[0] for item in objects]
        self._identities = np.array([item[1] for item in objects])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sequence:
        """The object ``index``."""
        if not 0 <= index < len(self):
            raise IndexError(f"object {index} of {len(self)} in {self.name}")
        frames = FileFrames(self._folder, (self._files[index],))
        return Sequence(str(self._identities[index]), frames, self._boxes[index : index + 1].copy())


def read_table(file: Path) -> dict[str, Any]:
    """The contents of an annotation file.

    Raises:
        UserError: it cannot be read or is no JSON object.
    """
    try:
        table = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise not_coco(file, error) from error
    if not isinstance(table, dict):
        raise not_coco(file, type(table).__name__)
    return table


def not_coco(file: Path, found: object) -> UserError:
    """The error for a file that is no annotation of COCO."""
    return UserError(f"{file}: not a COCO annotation file ({found!r}); download it again")


def find_part(root: Path, split: str) -> tuple[Path, Path]:
    """Annotation file and folder of the pictures of ``train`` or ``val``.

    Raises:
        UserError: one is not there.
    """
    for year in (2017, 2014):
        file = root / "annotations" / f"instances_{split}{year}.json"
        for folder in (root / f"{split}{year}", root / "images" / f"{split}{year}"):
            if file.is_file() and folder.is_dir():
                return file, folder
    raise UserError(
        f"{root}: expected annotations/instances_{split}2017.json and the pictures in "
        f"{split}2017/ (or 2014)"
    )
