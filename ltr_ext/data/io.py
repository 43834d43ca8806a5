"""Reading images. A file that is damaged is an error, never half a picture."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from srft_plugin.errors import UserError

from .representation import represent

_JPEG, _JPEG_END, _PNG = b"\xff\xd8", b"\xff\xd9", b"\x89PNG\r\n\x1a\n"


def read_rgb(path: str | os.PathLike) -> np.ndarray:
    """Colour image: (H, W, 3) uint8, RGB order. Grey images are given three channels.

    Raises:
        UserError: the file is absent, truncated or no image.
    """
    return cv2.cvtColor(decode_colour(path), cv2.COLOR_BGR2RGB)


def read_raw(path: str | os.PathLike) -> np.ndarray:
    """Image as stored: (H, W) or (H, W, 3) of its own type, colours in RGB order.

    Raises:
        UserError: the file is absent, truncated or no image.
    """
    image = decode_any(path)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image.ndim == 3 else image


def decode_colour(path: str | os.PathLike) -> np.ndarray:
    """``read_rgb`` with the channels in BGR order, as the decoder gives them."""
    return _decode(path, cv2.IMREAD_COLOR)


def decode_any(path: str | os.PathLike) -> np.ndarray:
    """``read_raw`` with the channels in BGR order, as the decoder gives them."""
    return _decode(path, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH)


def read_aux(path: str | os.PathLike, modality: str) -> np.ndarray:
    """Auxiliary image in the default form of its modality: (H, W, 3) uint8.

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
    """Whether an image file is there and ends where its format says; quick, nothing is decoded."""
    with open(path, "rb") as file:
        head = file.read(8)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 64, 0))
        tail = file.read()
    if head.startswith(_JPEG) and tail.endswith(_JPEG_END) and size > 64:
        return True
    if head.startswith(_PNG) and size > 64:
        return b"IEND" in tail
    return not _truncated(Path(path).read_bytes())


def _decode(path: str | os.PathLike, flags: int) -> np.ndarray:
    buffer = np.frombuffer(read_bytes(path), np.uint8)
    image = cv2.imdecode(buffer, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise UserError(f"{path}: not an image that OpenCV can read; copy or extract it again")
    return image


def _truncated(data: bytes) -> bool:
    if not data:
        return True
    if data.startswith(_JPEG):
        return data.find(_JPEG_END, _scan_start(data)) < 0
    if data.startswith(_PNG):
        return b"IEND" not in data[-64:]
    if data.startswith(b"BM"):
        return len(data) < int.from_bytes(data[2:6], "little")
    return False


def _scan_start(data: bytes) -> int:
    """Where the picture of a JPEG file begins: behind headers, which may hold a whole thumbnail."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0xDA:
            break
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return position
