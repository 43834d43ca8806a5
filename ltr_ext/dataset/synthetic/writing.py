"""Generated scenes on disk, in the layouts of the data sets that people have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ltr_ext.admin.files import new_folder, write_text
from ltr_ext.data.events import DEFAULT_FORM
from ltr_ext.dataset.annotation import read_names
from ltr_ext.dataset.files import natural_order
from ltr_ext.dataset.kinds import KINDS
from srft_plugin.errors import UserError, some, unknown

from .scene import Scene


@dataclass(frozen=True)
class _Files:
    """How a data set names its images and says that the target is absent."""

    rgb: str
    aux: str | None  # of one camera alone
    first: int  # number of the first frame
    absent: float = 0.0  # its box


FILES = {
    "depthtrack": _Files("%08d.jpg", "%08d.png", 1, np.nan),
    "lasher": _Files("%06d.jpg", "%06d.jpg", 1),
    "rgbt234": _Files("%05dv.jpg", "%05di.jpg", 1),
    "visevent": _Files("frame%04d.bmp", "frame%04d.bmp", 0),
    "coesot": _Files("frame%04d.png", "frame%04d.png", 0),
    "fe108": _Files("%04d.jpg", "%04d.jpg", 1),
    "got10k": _Files("%08d.jpg", None, 1),
}


def write_sequences(
    folder: Path,
    scenes: dict[str, Scene],
    description: str = "sequences",
    kind: str = "depthtrack",
    listing: str = "list.txt",
    event_form: str = DEFAULT_FORM,
) -> Path:
    """Writes scenes as sequences of a data set; finished sequences are kept.

    The camera beside the colour camera is that of the data set. Labels of attributes go to
    ``<attribute>.tag``, one 0 or 1 per frame. A sequence appears under its name only when
    complete, so an interrupted call can be repeated.

    Args:
        folder: of the sequences: that of a part of the data set.
        scenes: by the name of the sequence.
        description: what the progress bar says.
        kind: key of ``FILES``: ``depthtrack`` (uint16 depth in millimetres), ``lasher``,
            ``visevent`` (event images), ``got10k`` (the colour camera alone), ...
        listing: file with the names, relative to ``folder``.
        event_form: key of ``EVENT_FORMS``, for event images.

    Raises:
        UserError: unknown kind, a folder that holds another video or sequences of another origin,
            or a file that cannot be written.
    """
    if kind not in FILES:
        raise unknown("kind of sequences", kind, FILES)
    names = _all_names(folder, folder / listing, list(scenes))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, scene in tqdm(scenes.items(), desc=f"writing {description}", disable=None):
            target, tables = folder / name, dict(_tables(scene, kind))
            if target.exists():
                _check_same(target, tables)
                continue
            with new_folder(target) as partial:
                _write_images(partial, name, scene, kind, event_form)
                for file, text in tables.items():
                    (partial / file).write_text(text, "utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error}); choose another folder") from error
    write_text(folder / listing, "".join(f"{name}\n" for name in names))
    return folder


def _all_names(folder: Path, listing: Path, names: list[str]) -> list[str]:
    """``names``, and the further ones of earlier calls.

    Raises:
        UserError: the folder has sequences that were not generated.
    """
    own = re.compile(re.escape(names[0].rstrip("0123456789")) + r"\d+")
    if listing.is_file():
        there = read_names(listing)
    else:
        there = [path.name for path in folder.glob("[!.]*/")] if folder.is_dir() else []
    foreign = [name for name in there if name not in names and not own.fullmatch(name)]
    if foreign:
        raise UserError(
            f"{folder} has sequences that were not generated ({some(foreign)}), and its list would "
            "lose them; choose another folder"
        )
    return sorted({*names, *there}, key=natural_order)


def _write_images(folder: Path, name: str, scene: Scene, kind: str, event_form: str) -> None:
    layout, files = KINDS[kind].layout, FILES[kind]
    rgb, *aux = [folder / n[0].format(name=name) for n in (layout.rgb, layout.aux) if n]
    for images in (rgb, *aux):
        images.mkdir(parents=True, exist_ok=True)
    for t in range(len(scene)):
        number = t + files.first
        _write(rgb / (files.rgb % number), scene.rgb(t))
        for images in aux:
            _write(images / (files.aux % number), scene.aux(t, layout.modality, event_form))


def _write(file: Path, image: np.ndarray) -> None:
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 92] if file.suffix == ".jpg" else []
    if not cv2.imwrite(str(file), image, quality):
        raise UserError(f"{file}: cannot be written; is the disk full?")


def _check_same(folder: Path, tables: dict[str, str]) -> None:
    """A finished sequence is kept only if it is the one asked for: its boxes and labels tell.

    Raises:
        UserError: it is another one.
    """
    for name, text in tables.items():
        file, expected = folder / name, text.splitlines()
        found = file.read_text("utf-8").splitlines() if file.is_file() else []
        if found != expected:
            rows = "labels" if file.suffix == ".tag" else "boxes"
            raise UserError(
                f"{file}: {len(found)} {rows} of another video; expected the {len(expected)} "
                f"{rows} of the one to be written (another length, seed or content was asked for "
                "before): delete the folder of the part, or choose another one"
            )


def _tables(scene: Scene, kind: str) -> Iterator[tuple[str, str]]:
    """(file, text) of everything that is said about a sequence, its boxes first."""
    layout = KINDS[kind].layout
    boxes, absent = scene.boxes.copy(), np.isnan(scene.boxes).any(1)
    boxes[absent] = FILES[kind].absent
    for file in (layout.annotation[0], *(file for _, file in layout.extra_boxes)):
        yield file, _lines(boxes, "%.2f")
    for file, seen in layout.presence:
        yield file, _lines(np.where(absent, 1 - seen, seen), "%d")
    for name, frames in scene.tags.items():
        yield f"{name}.tag", _lines(frames.astype(int), "%d")


def _lines(rows: np.ndarray, form: str) -> str:
    text = StringIO()
    np.savetxt(text, rows, fmt=form, delimiter=",")
    return text.getvalue()
