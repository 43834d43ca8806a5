"""Frames that come one after the other: videos, folders of images, cameras."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from ltr_ext.data.io import read_raw, read_rgb
from ltr_ext.dataset.files import FileFrames, image_names, pair_by_number
from pytracking_ext.evaluation.running import AHEAD
from srft_plugin.errors import UserError

log = logging.getLogger(__name__)

WHOLE = 0.95  # share of the frames in its header that a whole video has: headers may be guesses


class Stream:
    """An iterator over images, with what is known about them. It ends at one that is unreadable.

    A thread reads ahead of who asks.

    Attributes:
        name: for messages.
        fps: frames per second; 25 where the source does not say.
        length: number of frames, None where it is not known (cameras).
        error: why it ended before its end.
    """

    def __init__(
        self,
        name: str,
        images: Iterator[np.ndarray | None],
        fps: float = 25.0,
        length: int | None = None,
    ) -> None:
        self.name, self.fps, self.length = name, fps, length
        self.error: UserError | None = None
        self._images = images

    def __iter__(self) -> Iterator[np.ndarray | None]:
        number, end = 0, object()
        with ThreadPoolExecutor(1) as reader:
            # a camera's images would be old when they are asked for
            ahead = AHEAD if self.length else 1
            waiting = deque(reader.submit(next, self._images, end) for _ in range(ahead))
            try:
                while (image := waiting.popleft().result()) is not end:
                    waiting.append(reader.submit(next, self._images, end))
                    number += 1
                    yield image
            except UserError as error:
                self.error = error
                return
        if self.length and number < WHOLE * self.length:
            log.warning(
                "%s ends after %d of the %d frames in its header; it may be damaged",
                *(self.name, number, self.length),
            )


def open_stream(source: str, raw: bool = False) -> Stream:
    """A video file, a folder of images, or a camera.

    Args:
        source: a path, or the number of a camera.
        raw: auxiliary images: those of a folder as they are stored (16-bit depth), not as RGB, and
            None, with a warning, in place of an unreadable one.

    Raises:
        UserError: nothing there that can be read.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path, _read_if_whole if raw else read_rgb)
    if not source.isdecimal() and not path.is_file():
        raise UserError(
            f"{source}: no such video, folder of images, or camera (a camera is a number)"
        )
    capture = cv2.VideoCapture(int(source) if source.isdecimal() else str(path))
    if not capture.isOpened():
        raise UserError(f"{source}: OpenCV cannot open this video or camera")
    frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    fps = capture.get(cv2.CAP_PROP_FPS)
    return Stream(source, _video(capture), fps if fps > 0 else 25.0, frames if frames > 0 else None)


def open_streams(rgb: str, aux: str | None) -> tuple[Stream, Stream | None]:
    """The images, and the auxiliary ones frame by frame.

    Of two folders that hold different numbers of images the numbers in the names say which belong
    together; an image without partner has None.

    Raises:
        UserError: nothing there that can be read, or names that do not tell.
    """
    images = open_stream(rgb)
    if aux is None:
        return images, None
    others, folders = open_stream(aux, raw=True), (Path(rgb).expanduser(), Path(aux).expanduser())
    if not all(folder.is_dir() for folder in folders) or images.length == others.length:
        return images, others
    names, aux_names = map(image_names, folders)
    pairs = pair_by_number(FileFrames(folders[0], names, folders[1], aux_names))
    if pairs is None:
        raise UserError(
            f"{rgb} has {len(names)} images, {aux} {len(aux_names)}, and the numbers in their "
            "names do not say which belong together; remove those without a partner"
        )
    partner = dict(pairs)
    found = (
        _read_if_whole(folders[1] / partner[name]) if name in partner else None for name in names
    )
    return images, Stream(aux, found, length=len(names))


def _read_if_whole(path: Path) -> np.ndarray | None:
    try:
        return read_raw(path)
    except UserError as error:
        log.warning("%s; this frame is tracked by its RGB image alone", error)
        return None


def _folder(path: Path, read: Callable[[Path], np.ndarray | None]) -> Stream:
    names = image_names(path)
    if not names:
        raise UserError(f"{path}: no images in this folder")
    return Stream(str(path), (read(path / name) for name in names), length=len(names))


def _video(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    try:
        while True:
            there, image = capture.read()
            if not there:
                return
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    finally:
        capture.release()
