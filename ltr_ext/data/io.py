"""Reading images. A file that is damaged is an error, never half a picture."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from srft_plugin.errors import UserError

from . import jpeg, png
from .representation import represent

_AS_STORED = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH


def read_rgb(path: str | os.PathLike) -> np.ndarray:
    """Colour image: (H, W, 3) uint8, RGB order. Grey images are given three channels.

    Raises:
        UserError: the file is absent, truncated or no image.
    """
    return cv2.cvtColor(_decode(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def read_raw(path: str | os.PathLike) -> np.ndarray:
    """Image as stored: (H, W) or (H, W, 3) of its own type, colours in RGB order.

    Raises:
        UserError: the file is absent, truncated or no image.
    """
    image = _decode(path, _AS_STORED)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image.ndim == 3 else image


def decode_top(
    path: str | os.PathLike, rows: int, colourless: bool = False
) -> tuple[np.ndarray, tuple[int, int]]:
    """Image as stored, and its height and width; rows from ``rows`` on may be missing.

    Args:
        path: the file.
        rows: how many are wanted.
        colourless: all pixels are known to be grey, so one plane may be returned for three.

    Returns:
        (>= min(rows, height), width) or (.., width, 3) of its own type, colours in BGR order, and
        (height, width) of the whole image.

    Raises:
        UserError: the file is absent, truncated or no image.
    """
    data = read_bytes(path)
    if data.startswith(jpeg.SIGNATURE):
        top = jpeg.decode_top(data, rows, colourless)
        if top is not None:
            return top
    image = _decode_bytes(data, path, _AS_STORED)
    return image, image.shape[:2]


def read_aux(path: str | os.PathLike, modality: str | None) -> np.ndarray:
    """Auxiliary image in the default form of its modality, see ``represent``: (H, W, 3) uint8.

    Raises:
        UserError: the file is absent, truncated, or an image that the modality cannot have.
    """
    raw = read_raw(path)
    try:
        return represent(raw, modality)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def read_bytes(path: str | os.PathLike) -> bytes:
    """Contents of an image file that ends where its format says.

    Decoders fill the missing part of a truncated picture with grey and go on, so the end is
    looked for here.

    Raises:
        UserError: the file is absent, empty or truncated.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; try `srft data check`") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if _truncated(data):
        raise UserError(
            f"{path}: the image is truncated ({len(data)} bytes); copy or extract it again"
        )
    return data


def ends_properly(path: str | os.PathLike) -> bool:
    """Whether a file can be read and ends where its format says; quick, nothing is decoded."""
    try:
        with open(path, "rb") as file:
            head = file.read(8)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 64, 0))
            tail = file.read()
    except OSError:  # a link to nowhere, a folder, no permission
        return False
    if head.startswith(jpeg.SIGNATURE) and tail.endswith(jpeg.END) and size > 64:
        return True
    if head.startswith(png.SIGNATURE) and size > 64:
        return png.END in tail
    return not _truncated(Path(path).read_bytes())


def _decode(path: str | os.PathLike, flags: int) -> np.ndarray:
    return _decode_bytes(read_bytes(path), path, flags)


def _decode_bytes(data: bytes, path: str | os.PathLike, flags: int) -> np.ndarray:
    if flags == _AS_STORED and data.startswith(png.SIGNATURE):
        depth = png.decode_depth(data)
        if depth is not None:
            return depth
    if data.startswith(jpeg.SIGNATURE) and jpeg.decoder() == "jpeg4py":
        image = jpeg.decode_jpeg4py(data)
        if image is not None:
            return image
    # orientation tags are ignored: annotations and auxiliary images refer to the pixels as stored
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # a header that claims a huge picture
        image = None
    if image is None:
        raise UserError(f"{path}: not an image that OpenCV can read; copy or extract it again")
    return image


def _truncated(data: bytes) -> bool:
    if not data:
        return True
    if data.startswith(jpeg.SIGNATURE):
        return not jpeg.is_complete(data)
    if data.startswith(png.SIGNATURE):
        return png.END not in data[-64:]
    if data.startswith(b"BM"):
        return len(data) < int.from_bytes(data[2:6], "little")
    return False
