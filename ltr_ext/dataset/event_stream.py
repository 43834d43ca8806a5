"""Event streams on disk (aedat4, HDF5, text), and the event images rendered from them.

aedat4 is read by ``aedat``, a small Rust decoder without further dependencies (``dv-processing``
does the same with a C++ library many times its size), HDF5 by ``h5py``. Both are optional:
``pip install -e ".[events]"``.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from tqdm import tqdm

from ltr_ext.admin.files import new_folder
from ltr_ext.data.events import DEFAULT_FORM, Events, render_events
from srft_plugin.errors import UserError

from .base import Entry, find_path
from .files import image_names, image_number

SUFFIXES = (".aedat4", ".h5", ".hdf5")
_COLUMNS = ("t", "x", "y", "p")


@dataclass(frozen=True)
class EventStream:
    """A recording.

    Attributes:
        events: all events, in order of time.
        shape: height and width of the sensor; None where the file does not tell.
        frame_times: (N,) int64, microseconds, of the colour images in the file; empty without any.
    """

    events: Events
    shape: tuple[int, int] | None
    frame_times: np.ndarray


def read_stream(path: str | os.PathLike) -> EventStream:
    """Reads a recording, the format told by its suffix: .aedat4, .h5, .hdf5, .txt, .csv.

    HDF5: columns t, x, y, p in the file or in its group ``events``, and ``t_offset`` where times
    count from there; t in seconds where some have fractions, else in microseconds. Text: rows
    ``t x y p``, t in seconds when some have fractions or the first a decimal point, else in
    microseconds; p is 1 for on and 0 or -1 for off. Lines that begin with # are comments.

    Raises:
        UserError: the file is absent, damaged, of another kind, or a library is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix == ".aedat4":
        stream = _read_aedat4(path)
    elif path.suffix in (".h5", ".hdf5"):
        stream = _read_hdf5(path)
    elif path.suffix in (".txt", ".csv"):
        stream = _read_text(path)
    else:
        raise UserError(f"{path}: not an event stream; known are .aedat4, .h5, .hdf5, .txt, .csv")
    if len(stream.events.t) == 0:
        raise UserError(f"{path}: no events in the file; copy it again")
    if (np.diff(stream.events.t) < 0).any():
        order = np.argsort(stream.events.t, kind="stable")
        events = Events(*(column[order] for column in stream.events))
        stream = EventStream(events, stream.shape, stream.frame_times)
    return stream


def _read_aedat4(path: Path) -> EventStream:
    aedat = _library("aedat", path)
    packets, times, shape = [], [], None
    try:
        decoder = aedat.Decoder(path)
        for stream in decoder.id_to_stream().values():
            if stream["type"] == "events":
                shape = (stream["height"], stream["width"])
        for packet in decoder:
            if "events" in packet:
                packets.append(packet["events"])
            elif "frame" in packet:
                times.append(packet["frame"]["t"])
    except RuntimeError as error:
        raise UserError(f"{path}: damaged aedat4 file ({error}); copy it again") from error
    if shape is None or not packets:
        raise UserError(f"{path}: no events in the file; copy it again")
    table = np.concatenate(packets)
    events = Events(table["t"].astype(np.int64), table["x"], table["y"], table["on"])
    return EventStream(events, shape, np.array(times, np.int64))


def _read_hdf5(path: Path) -> EventStream:
    h5py = _library("h5py", path)
    try:
        with h5py.File(path) as file:
            group = file.get("events", file)
            t, x, y, p = (group[name][:] for name in _COLUMNS)
            offset = file["t_offset"][()].item() if "t_offset" in file else 0
        if len({column.shape for column in (t, x, y, p)}) > 1 or t.ndim != 1:
            raise ValueError("the columns differ in length")
        if t.dtype.kind == "f":
            if not np.isfinite(t).all():
                raise ValueError("a time is not finite")
            scale = 1e6 if (t % 1).any() else 1
            t, offset = np.rint(t.astype(np.float64) * scale), offset * scale
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: expected an HDF5 file with columns t, x, y, p, also in a group `events` "
            f"({error})"
        ) from error
    t = t.astype(np.int64) + round(offset)
    return EventStream(Events(t, x, y, p > 0), None, np.zeros(0, int))


def _read_text(path: Path) -> EventStream:
    try:
        with open(path, encoding="utf-8") as file:
            rows = (line.partition("#")[0].strip() for line in file)
            first = next(filter(None, rows), "")
        if not first:
            raise ValueError("the file is empty")
        comma = "," if "," in first else None
        table = np.loadtxt(path, delimiter=comma, ndmin=2, encoding="utf-8")
        if table.shape[1] != 4:
            raise ValueError(f"{table.shape[1]} columns")
        if not np.isfinite(table).all():
            raise ValueError("a number is not finite")
    except ValueError as error:
        raise UserError(f"{path}: expected rows of t x y p ({error})") from error
    # C++ writes a first time of 0.0 as 0, and small ones as 1e-06
    seconds = "." in first.replace(",", " ").split()[0] or (table[:, 0] % 1).any()
    t = np.rint(table[:, 0] * (1e6 if seconds else 1)).astype(np.int64)
    x, y = table[:, 1].astype(np.int64), table[:, 2].astype(np.int64)
    return EventStream(Events(t, x, y, table[:, 3] > 0), None, np.zeros(0, int))


def _library(name: str, path: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        remedy = 'install the extra: pip install -e ".[events]"'
        raise UserError(f"{path}: reading it needs {name}; {remedy}") from error


def render_sequence(entry: Entry, form: str = DEFAULT_FORM) -> int:
    """Writes the event images that a sequence lacks; returns how many.

    Image i shows the events between colour image i - 1 and colour image i, the first those since
    the frame before it, if the recording has one, or since the beginning. The files are PNG, named
    like the colour images, in the first folder of the layout; they appear there only when all are
    written.

    Raises:
        UserError: no colour images, no stream, or one whose colour images are not those of the
            sequence, so that the times of the frames are not known.
    """
    layout = entry.layout
    folders = [entry.folder / pattern.format(name=entry.name) for pattern in layout.aux]
    if any(folder.is_dir() and image_names(folder) for folder in folders):
        return 0
    if folders[0].is_dir() and any(folders[0].iterdir()):
        raise UserError(f"{folders[0]}: holds files but no images; remove it to have it rendered")
    names = image_names(find_path(entry, layout.rgb, "folder of colour images"))
    files = [path for path in sorted(entry.folder.iterdir()) if path.suffix in SUFFIXES]
    if not files:
        raise UserError(f"{entry.folder}: neither event images nor a stream to render them from")
    stream = read_stream(files[0])
    times, start = _times_of(names, stream.frame_times, layout.counted)
    if len(times) != len(names) or stream.shape is None:
        raise UserError(
            f"{files[0]}: {len(times)} frame times for {len(names)} colour images; "
            "the events cannot be assigned to frames, leave the sequence out"
        )
    start = min(int(stream.events.t[0]), int(times[0])) if start is None else start
    with new_folder(folders[0]) as partial:  # POSIX lets it replace an empty one
        for name, end in zip(names, times.tolist(), strict=True):
            events = stream.events.between(start, end)
            image = render_events(events, stream.shape, form, (start, end))
            file = partial / Path(name).with_suffix(".png").name
            if not cv2.imwrite(str(file), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
                raise UserError(f"{file}: cannot be written; is the disk full?")
            start = end
    return len(names)


def _times_of(names: list[str], times: np.ndarray, counted: bool) -> tuple[np.ndarray, int | None]:
    """Times of the colour images among those of a recording's frames, and that of the one before.

    A recording may have more frames than were extracted: the public script leaves out the last one.
    Where the names count its frames (``Layout.counted``), they say which these are.
    """
    numbers = [image_number(name) for name in names]
    if not counted or len(times) <= len(names) or None in numbers or max(numbers) >= len(times):
        return times, None
    before = min(numbers) - 1
    return times[numbers], int(times[before]) if before >= 0 else None


def render_dataset(entries: list[Entry], form: str) -> tuple[int, list[str]]:
    """Renders all sequences that lack event images: number of images, and what went wrong."""
    written, problems = 0, []
    for entry in tqdm(entries, desc="rendering events", disable=None):
        try:
            written += render_sequence(entry, form)
        except (UserError, OSError) as error:  # a folder may be read-only
            problems.append(str(error))
    return written, problems
