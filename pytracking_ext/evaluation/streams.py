"""Frames that come one after the other: videos, folders of images, cameras."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from ltr_ext.data.io import read_raw, read_rgb
from ltr_ext.dataset.files import image_names
from srft_plugin.errors import UserError


class Stream:
    """An iterator over images, with what is known about them.

    Attributes:
        name: for messages.
        fps: frames per second; 25 where the source does not say.
        length: number of frames, None where it is not known (cameras).
    """

    def __init__(
        self, name: str, images: Iterator[np.ndarray], fps: float = 25.0, length: int | None = None
    ) -> None:
        self.name, self.fps, self.length = name, fps, length
        self._images = images

    def __iter__(self) -> Iterator[np.ndarray]:
        return self._images


def open_stream(source: str, raw: bool = False) -> Stream:
    """A video file, a folder of images, or a camera.

    Args:
        source: a path, or the number of a camera.
        raw: images of a folder as they are stored (16-bit depth), not as RGB.

    Raises:
        UserError: nothing there that can be read.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path, read_raw if raw else read_rgb)
    if not source.isdigit() and not path.is_file():
        raise UserError(
            f"{source}: no such video, folder of images, or camera (a camera is a number)"
        )
    capture = cv2.VideoCapture(int(source) if source.isdigit() else str(path))
    if not capture.isOpened():
        raise UserError(f"{source}: OpenCV cannot open this video or camera")
    frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    fps = capture.get(cv2.CAP_PROP_FPS)
    return Stream(source, _video(capture), fps if fps > 0 else 25.0, frames if frames > 0 else None)


def _folder(path: Path, read: Callable[[Path], np.ndarray]) -> Stream:
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
