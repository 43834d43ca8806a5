"""A user's RGB-D sequence as the toolkit reads it, made of links beside the user's data.

The toolkit's reader fails, or silently scores 0, on small deviations: no ``sequence`` file, a wrong
``length``, tabs or blank lines in the ground truth, absent frames written as zeros. The links hold
the images; the few text files are written anew where they need repair.
"""

from __future__ import annotations

import math
from pathlib import Path

from ltr_ext.dataset.annotation import read_flags, read_names
from ltr_ext.dataset.base import read_properties
from srft_plugin.errors import UserError, some

SUFFIXES = (".jpg", ".png")  # all that the toolkit accepts
AUXILIARY = ("depth", "ir")  # the toolkit's names of the second channel, in order of preference


def find_sequences(root: Path) -> list[Path]:
    """Sequence folders of a data set: those of ``list.txt``, else every folder with ``color/``.

    Raises:
        UserError: ``root`` is no folder, has no sequences, or lists a sequence that is missing.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; give the folder that holds the sequence folders")
    listed = root / "list.txt"
    if listed.is_file():
        folders = [root / name for name in read_names(listed)]  # absolute ones stay absolute
    else:
        folders = sorted(path for path in root.iterdir() if (path / "color").is_dir())
    missing = [path.name for path in folders if not path.is_dir()]
    if missing:
        raise UserError(
            f"{listed} names {some(missing)}, but {root} has no such folder; complete the "
            "data set or remove the names"
        )
    if not folders:
        raise UserError(
            f"no sequence in {root}: expected NAME/color/00000001.jpg, NAME/depth/00000001.png and "
            "NAME/groundtruth.txt"
        )
    return folders


def link_sequence(source: Path, target: Path, anchors: bool) -> tuple[str, list[str]]:
    """Writes the folder ``target`` that shows the sequence ``source`` to the toolkit.

    Args:
        source: the user's folder: ``color/``, ``depth/`` or ``ir/``, ``groundtruth.txt``.
        target: a folder of the workspace; created.
        anchors: whether ``anchor.value`` is needed (multistart).

    Returns:
        The auxiliary channel, ``"depth"`` or ``"ir"``, and warnings, one line each.

    Raises:
        UserError: the sequence cannot be scored as it is on disk.
    """
    warnings = []
    auxiliary = next((name for name in AUXILIARY if (source / name).is_dir()), None)
    if auxiliary is None:
        raise UserError(f"{source} has neither a depth nor an ir folder; expected depth/%08d.png")
    patterns, counts = {}, {}
    for channel in ("color", auxiliary):
        patterns[channel], counts[channel] = _channel(source / channel)
    length = counts["color"]
    if counts[auxiliary] != length:
        warnings.append(
            f"{source.name}: {counts[auxiliary]} {auxiliary} frames, {length} colour frames; "
            "frames without a partner are tracked by RGB alone"
        )

    lines = ground_truth_lines(source / "groundtruth.txt")
    count = unmarked_absences(source / "groundtruth.txt")
    if count:
        warnings.append(
            f"{source.name}: {count} absent frames are written as boxes without area, which the "
            "toolkit would count as visible; the workspace says nan"
        )
    if len(lines) > length:
        raise UserError(
            f"{source}: groundtruth.txt has {len(lines)} boxes, color/ has {length} frames; the "
            "download is incomplete"
        )
    if len(lines) < length:
        warnings.append(
            f"{source.name}: {len(lines)} boxes for {length} frames; the toolkit counts the last "
            f"{length - len(lines)} frames as absent"
        )
    if anchors:
        check_anchors(source, lines, length)
    elif lines[0].startswith("nan"):
        raise UserError(
            f"{source}: the target is absent in the first frame, where the tracker must start"
        )

    target.mkdir(parents=True)
    for channel in patterns:
        (target / channel).symlink_to((source / channel).resolve(), target_is_directory=True)
    for path in sorted([*source.glob("*.value"), *source.glob("*.tag"), *source.glob("*.label")]):
        (target / path.name).symlink_to(path.resolve())
    _write(target / "groundtruth.txt", "".join(line + "\n" for line in lines))
    description = [
        f"name={source.name}",
        f"channels.color={patterns['color']}",
        f"channels.{auxiliary}={patterns[auxiliary]}",
        f"length={length}",
        f"fps={read_properties(source).get('fps', 30)}",  # the toolkit's default
    ]
    _write(target / "sequence", "".join(line + "\n" for line in description))
    return auxiliary, warnings


def ground_truth_lines(path: Path) -> list[str]:
    """Lines of a ground truth in the toolkit's form; an absent target is ``nan,nan,nan,nan``.

    Numbers keep their digits, separators become commas, blank lines at the end go. Absent means a
    value that is not finite, a box without area (DepthTrack's ``0,0,0,0`` and ``x,y,-1,-1``), or a
    line that holds one number alone.

    Raises:
        UserError: the file is missing or a line is neither a box nor a polygon.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; expected one x,y,width,height line per frame")
    lines = []
    text = path.read_text(encoding="utf-8-sig", errors="replace")  # what is no text is no number
    for number, line in enumerate(text.rstrip().splitlines(), 1):
        fields = line.replace(",", " ").replace(";", " ").split()
        try:
            values = [float(field) for field in fields]
        except ValueError:
            values = []
        if len(values) not in (1, 4, 8):
            raise UserError(
                f"{path}, line {number}: found {line!r}, expected x,y,width,height or "
                "nan,nan,nan,nan"
            )
        absent = (
            len(values) == 1
            or not all(map(math.isfinite, values))
            or (len(values) == 4 and (values[2] <= 0 or values[3] <= 0))
        )
        lines.append("nan,nan,nan,nan" if absent else ",".join(fields))
    if not lines or all(line.startswith("nan") for line in lines):
        raise UserError(f"{path} shows the target in no frame; nothing can be scored")
    return lines


def unmarked_absences(path: Path) -> int:
    """Absent frames of a ground truth that the toolkit would take for visible ones.

    It knows an absence by a ``nan`` or a line with one number; a box without area is none.
    """
    written = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    return sum(
        repaired.startswith("nan") and "nan" not in line.lower() and len(line.split(",")) == 4
        for line, repaired in zip(written, ground_truth_lines(path), strict=True)
    )


def _channel(folder: Path) -> tuple[str, int]:
    """File pattern relative to the sequence, and number of frames, of a folder of images."""
    if not folder.is_dir():
        raise UserError(f"{folder} is missing; expected {folder.name}/00000001{SUFFIXES[0]} ...")
    files = [path for path in folder.iterdir() if path.suffix in SUFFIXES]
    suffix = next((s for s in SUFFIXES if (folder / f"{1:08d}{s}").is_file()), None)
    if suffix is None:
        found = f"first file is {min(files).name}" if files else "no image found"
        raise UserError(
            f"{folder}: {found}; the toolkit reads {1:08d}.jpg or .png, numbered from 1"
        )
    names = {path.name for path in files}
    last = max(int(p.stem) for p in files if p.suffix == suffix and p.stem.isdecimal())
    if folder.name == "color":
        gaps = [number for number in range(1, last + 1) if f"{number:08d}{suffix}" not in names]
        if gaps:
            raise UserError(f"{folder} lacks {gaps[0]:08d}{suffix} ({len(gaps)} frames missing)")
        return f"color/%08d{suffix}", last
    return f"{folder.name}/%08d{suffix}", sum(name.endswith(suffix) for name in names)


def check_anchors(source: Path, lines: list[str], length: int) -> int:
    """Number of values in the ``anchor.value`` of a sequence.

    Args:
        source: folder of the sequence.
        lines: of its ground truth, see ``ground_truth_lines``.
        length: number of frames.

    Raises:
        UserError: there is none, or the tracker cannot start where it says.
    """
    path = source / "anchor.value"
    if not path.is_file():
        raise UserError(
            f"{path} is missing; VOT-RGBD2022 starts the tracker at the anchors listed there (one "
            "number per frame). It comes with the annotations that the toolkit downloads; for a "
            "data set without it, use --benchmark depthtrack"
        )
    anchors = read_flags(path)
    if len(anchors) > length:
        raise UserError(f"{path} has {len(anchors)} values, the sequence has {length} frames")
    if not anchors.any():
        raise UserError(f"{path} names no anchor: all {len(anchors)} values are 0")
    hidden = [
        index
        for index, value in enumerate(anchors)
        if value and (index >= len(lines) or lines[index].startswith("nan"))
    ]
    if hidden:
        raise UserError(f"{path}: frame {hidden[0] + 1} is an anchor, but its box is absent")
    return len(anchors)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
