"""What is wrong with a COCO part on disk: pictures and boxes against the annotation file."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Sequence as Many
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ltr_ext.data.io import ends_properly, read_raw
from srft_plugin.errors import UserError, some

from .check import EXTRACT, Finding, Report, split_error
from .coco import PARTS, CocoObjects, find_part, not_coco, read_table

PICTURES = {"train2017": 118_287, "val2017": 5_000, "train2014": 82_783, "val2014": 40_504}


def check_coco(
    root: str | os.PathLike, splits: Many[str] | None = None, samples: int = 3
) -> list[Report]:
    """Checks the given parts, by default those that are there. A "sequence" is a picture.

    Args:
        root: folder of the data set.
        splits: ``train``, ``val``; one that is not there is an error.
        samples: pictures of each part that are decoded, evenly spread; -1 for all.

    Raises:
        UserError: none of the parts is there.
    """
    reports, missing = [], []
    for split in splits or PARTS:
        try:
            file, folder = find_part(Path(root).expanduser(), split)
        except UserError as error:
            if splits:
                raise
            missing.append(str(error))
            continue
        report = Report(CocoObjects.name, split, PICTURES[folder.name], 0)
        _check_part(file, folder, samples, report)
        reports.append(report)
    if not reports:
        raise UserError("\n".join(missing))
    return reports


def _check_part(file: Path, folder: Path, samples: int, report: Report) -> None:
    try:
        table = read_table(file)
        images = {image["id"]: image for image in table["images"]}
        names = {image["file_name"] for image in images.values()}
        boxes = list(_box_problems(table["annotations"], images))
    except (UserError, KeyError, TypeError, ValueError) as error:
        problem = error if isinstance(error, UserError) else not_coco(file, error)
        report.findings.append(Finding(file.name, *split_error(problem, "download it again")))
        return
    there = sorted(names.intersection(path.name for path in folder.iterdir()))
    report.sequences = report.frames = len(there)
    if absent := sorted(names.difference(there)):
        text = f"{len(absent)} pictures are missing: {some(absent)}"
        report.findings.append(Finding(folder.name, text, EXTRACT))
    by_problem = defaultdict(list)
    for identity, problem in boxes:
        by_problem[problem].append(identity)
    for problem, found in by_problem.items():
        text = f"{problem}: annotations {some(found)}"
        report.findings.append(Finding(file.name, text, "download it again"))
    bad = [
        name
        for name in tqdm(there, desc=f"{report.name} {report.split}", disable=None)
        if not ends_properly(folder / name)
    ]
    for name in bad:
        report.findings.append(Finding(name, "truncated or unreadable", EXTRACT))
    whole = sorted(set(there).difference(bad))
    sizes = {image["file_name"]: (image["height"], image["width"]) for image in images.values()}
    count = len(whole) if samples < 0 else min(samples, len(whole))
    for index in np.unique(np.linspace(0, len(whole) - 1, count).astype(int)) if whole else ():
        for found in _picture_problems(folder / whole[index], sizes[whole[index]]):
            report.findings.append(Finding(whole[index], *found))


def _box_problems(
    annotations: Many[dict[str, Any]], images: dict[Any, dict[str, Any]]
) -> Iterator[tuple[Any, str]]:
    """(annotation, problem) of boxes that cannot be used."""
    for item in annotations:
        image = images.get(item["image_id"])
        x, y, w, h = item["bbox"]
        if image is None:
            yield item["id"], "no such picture"
        elif not np.isfinite((x, y, w, h)).all() or w < 0 or h < 0:
            yield item["id"], "not a box"
        elif x + w < 0 or y + h < 0 or x >= image["width"] or y >= image["height"]:
            yield item["id"], "box outside the picture"


def _picture_problems(path: Path, size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    try:
        height, width = read_raw(path).shape[:2]
    except UserError as error:
        yield split_error(error, EXTRACT)
        return
    if (height, width) != size:
        yield f"{width}x{height} pixels, the annotation says {size[1]}x{size[0]}", EXTRACT
