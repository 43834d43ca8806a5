"""Looks through a data set on disk and names what is wrong with it, and what to do."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence as Many
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ltr_ext.data.io import ends_properly, read_aux
from srft_plugin.errors import UserError, some

from .base import (
    Entry,
    list_frames,
    mark_absent,
    presence_labels,
    read_extra,
    read_ground_truth,
)
from .files import FileFrames, has_gaps, misnamed, missing_numbers, pair_by_number
from .registry import find_kind, find_split, open_dataset

EXTRACT = "extract or download it again"
CORRECT = "correct the file or download it again"
DO_WITHOUT = "extract it again, or do without them by --fix-index"


@dataclass(frozen=True)
class Finding:
    """Something wrong: where, what, and what to do."""

    sequence: str
    problem: str
    remedy: str


@dataclass
class Report:
    """What was found in one part of a data set.

    Attributes:
        name, split: which one.
        official: number of sequences that the distribution has, None where there is no such thing.
        sequences: number of those that are there.
        entries: they themselves, where they are folders.
        frames: number of their colour images.
        bad_files: images that cannot be read.
        findings: what is wrong.
    """

    name: str
    split: str
    official: int | None
    sequences: int
    entries: Many[Entry] = ()
    frames: int = 0
    bad_files: set[Path] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Everything of it that JSON can hold, without the list of sequences."""
        kept = ("name", "split", "official", "sequences", "frames")
        findings = [asdict(finding) for finding in self.findings]
        return {name: getattr(self, name) for name in kept} | {"findings": findings}


def check_dataset(
    name: str, root: str | os.PathLike, splits: Many[str] | None = None, samples: int = 3
) -> list[Report]:
    """Checks the given parts of a data set, by default all that are there.

    Args:
        name: key of ``kinds.KINDS``.
        root: folder of the data set.
        splits: parts; one that is not there is an error.
        samples: frames per sequence that are decoded, evenly spread; -1 for all.

    Raises:
        UserError: unknown name, no such folder, none of the parts is there.
    """
    reports, missing = [], []
    for split in splits or find_kind(name).splits:
        part = find_split(name, split)
        try:
            entries = open_dataset(name, root, split, use_index=False).entries
        except UserError as error:
            if splits:
                raise
            missing.append(str(error))
            continue
        report = Report(name, split, part.count, len(entries), entries)
        for sequence, count in Counter(entry.name for entry in entries).items():
            if count > 1:
                problem = f"listed {count} times"
                report.findings.append(Finding(sequence, problem, "leave one line in the list"))
        for entry in tqdm(entries, desc=f"{name} {split}", disable=None):
            _check_sequence(entry, samples, report)
        reports.append(report)
    if not reports:
        raise UserError("\n".join(dict.fromkeys(missing)))
    return reports


def _check_sequence(entry: Entry, samples: int, report: Report) -> None:
    def found(problem: str, remedy: str) -> None:
        report.findings.append(Finding(entry.name, problem, remedy))

    try:
        frames = list_frames(entry)
    except UserError as error:
        found(*split_error(error, EXTRACT))
        frames = None
    boxes = None
    try:
        file, boxes = read_ground_truth(entry, len(frames or ()))
    except UserError as error:
        if entry.folder.is_dir():
            found(*split_error(error, CORRECT))
    size = None
    if frames:
        report.frames += len(frames)
        for problem, remedy in _pairing(entry, frames):
            found(problem, remedy)
        bad, size, problems = _image_problems(frames, samples)
        report.bad_files |= bad
        for problem, remedy in problems:
            found(problem, remedy)
    if boxes is not None:
        for problem, remedy in _box_problems(entry, file, boxes, frames, size):
            found(problem, remedy)
        for problem, remedy in _extra_problems(entry, len(boxes)):
            found(problem, remedy)


def split_error(error: UserError, remedy: str) -> tuple[str, str]:
    """What is wrong and what was expected; and what to do, ``remedy`` where it does not say."""
    problem, *rest = str(error).split("; ")
    if rest and rest[0].startswith("expected"):
        problem += f"; {rest.pop(0)}"
    return problem, rest[0] if rest else remedy


def _pairing(entry: Entry, frames: FileFrames) -> Iterator[tuple[str, str]]:
    """Frames whose names do not belong or that lack a partner."""
    folders = [(frames.rgb_folder, frames.rgb_names)]
    if frames.aux_folder:
        folders.append((frames.aux_folder, frames.aux_names))
    for folder, names in folders:
        odd = misnamed(names)
        if odd:
            yield f"{folder.name}/: oddly named {some(odd)}", "rename or remove them"
        gaps = missing_numbers(names)
        if gaps:
            yield f"{folder.name}/: no image numbered {some(gaps)}", EXTRACT
    if frames.aux_folder is None or len(frames.rgb_names) == len(frames.aux_names):
        return
    counts = f"{len(frames.rgb_names)} colour, {len(frames.aux_names)} {frames.modality} images"
    partners = pair_by_number(frames)
    if partners is None:
        yield f"unpaired: {counts}", EXTRACT
        return
    paired = {name for pair in partners for name in pair}
    alone = [
        f"{folder.name}/{name}" for folder, names in folders for name in names if name not in paired
    ]
    yield f"unpaired: {counts}; without partner {some(alone)}", DO_WITHOUT


def _image_problems(
    frames: FileFrames, samples: int
) -> tuple[set[Path], tuple[int, int] | None, list[tuple[str, str]]]:
    """What is wrong with the images of a sequence.

    Returns:
        Unreadable files, (height, width) of the first colour image that was decoded, and problems.
    """
    rgb = [frames.rgb_folder / name for name in frames.rgb_names]
    aux = [frames.aux_folder / name for name in frames.aux_names] if frames.aux_folder else []
    bad = {path for path in rgb + aux if not ends_properly(path)}
    problems = []
    if bad:
        names = [f"{path.parent.name}/{path.name}" for path in sorted(bad)]
        problems.append((f"truncated or unreadable {some(names)}", EXTRACT))
    sizes = Counter()
    both = min(len(rgb), len(aux)) if aux else len(rgb)
    count = both if samples < 0 else min(samples, both)
    for index in np.unique(np.linspace(0, both - 1, count).astype(int)) if both else ():
        pair = [paths[index] for paths in (rgb, aux) if paths]
        if bad.intersection(pair):
            continue
        shapes = {}
        for path, modality in zip(pair, (None, frames.modality), strict=False):
            try:
                shapes[modality] = read_aux(path, modality).shape[:2]
            except UserError as error:
                bad.add(path)
                problems.append(split_error(error, EXTRACT))
        if None in shapes:
            sizes[shapes[None]] += 1
        if len(set(shapes.values())) > 1:
            (height, width), (h, w) = shapes.values()
            text = f"frame {index}: colour {width}x{height}, {frames.modality} {w}x{h} pixels"
            problems.append((text, "register the images to one size"))
    if len(sizes) > 1:
        found = ", ".join(f"{width}x{height}" for height, width in sizes)
        remedy = f"{EXTRACT}, unless the video itself changes (a few of GOT-10k do)"
        problems.append((f"frames of several sizes: {found}", remedy))
    return bad, next(iter(sizes), None), problems


def _box_problems(
    entry: Entry,
    file: Path,
    boxes: np.ndarray,
    frames: FileFrames | None,
    size: tuple[int, int] | None,
) -> Iterator[tuple[str, str]]:
    layout = entry.layout
    if frames and len(boxes) != len(frames) and not (layout.init_only and len(boxes) == 1):
        longer = len(boxes) > len(frames)
        if longer or not layout.cut_tail:
            yield (
                f"{file.name}: {len(boxes)} rows for {len(frames)} frames",
                "the last rows are not used; extract it again if images are missing"
                if longer and layout.cut_rows and not has_gaps(frames.rgb_names)
                else "extract it again, or cut it with --fix-index",
            )
    if size is not None:
        lines = read_ground_truth(entry)[1]  # no rows but those of the file
        for problem, remedy in _place_problems(lines, np.array(size[::-1])):
            yield f"{file.name}: {problem}", remedy
    try:
        labels = presence_labels(entry, len(boxes))
        marked = boxes.copy()
        mark_absent(entry, marked)
    except UserError as error:
        yield split_error(error, CORRECT)
        return
    drawn = np.isfinite(boxes).all(1)
    for path, flags, seen in labels:
        if len(flags) > 1 and (flags[drawn] != seen).mean() > 0.5:
            yield (
                f"{path.name}: most frames with a box are labelled absent",
                f"{seen} must say visible; invert the labels",
            )
    if np.isnan(marked).all():
        yield f"{file.name}: no frame shows the target", "remove the sequence from the list"


def _place_problems(boxes: np.ndarray, size: np.ndarray) -> Iterator[tuple[str, str]]:
    """Boxes (N, 4) that cannot be where they say in an image of ``size`` (width, height)."""
    corners = boxes[:, :2] + boxes[:, 2:]
    outside = (corners <= 0).any(1) | (boxes[:, :2] >= size).any(1)
    huge = (boxes[:, 2:] > 2 * size).any(1)
    for text, wrong in (("outside", outside), ("more than twice as large as", huge)):
        if wrong.any():
            rows = some([int(row) + 1 for row in np.flatnonzero(wrong)])
            yield f"box {text} the image in line {rows}", "correct the file"
    tiny = (boxes[:, 2:] < 1).all(1)
    beyond = (corners > 1.1 * size).any(1)
    for text, wrong in (("are smaller than a pixel", tiny), ("reach beyond the image", beyond)):
        if wrong.sum() > 0.5 * np.isfinite(boxes).all(1).sum():
            yield f"most boxes {text}", "rows must be x, y, w, h in pixels"


def _extra_problems(entry: Entry, rows: int) -> Iterator[tuple[str, str]]:
    """What is wrong with the files beside the ground truth, which has so many rows."""
    try:
        extra = read_extra(entry)
    except UserError as error:
        yield split_error(error, CORRECT)
        return
    for key, file in entry.layout.extra_boxes:
        if key in extra and len(extra[key]) != rows:
            yield f"{file}: {len(extra[key])} rows, the first ground truth has {rows}", CORRECT


def format_report(reports: Many[Report]) -> str:
    """The reports as a table, one line per finding, with the counts on top of each part."""
    lines = []
    for report in reports:
        count = report.sequences
        if report.official is None:
            official = ""
        elif report.official == count:
            official = " (all of the official distribution)"
        else:
            official = f" (the official distribution has {report.official})"
        lines.append(
            f"{report.name} {report.split}: {count} sequences{official}, {report.frames} frames, "
            f"{len(report.findings)} problems"
        )
        rows = [(item.sequence, item.problem, item.remedy) for item in report.findings]
        if rows:
            rows.insert(0, ("sequence", "problem", "what to do"))
            first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
            lines += [f"  {a:{first}}  {b:{second}}  {c}" for a, b, c in rows]
    return "\n".join(lines)
