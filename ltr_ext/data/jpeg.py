"""The parts of the JPEG format that reading quickly and safely needs."""

from __future__ import annotations

import os

import cv2
import numpy as np

from srft_plugin.errors import UserError, unknown

try:
    import simplejpeg  # extra [fast]; bundles libjpeg-turbo, the decoder that OpenCV uses
except ImportError:
    simplejpeg = None

SIGNATURE, END = b"\xff\xd8", b"\xff\xd9"
_SCAN, _BASELINE = 0xDA, (0xC0, 0xC1)
_MARGIN = 16  # rows below the last one wanted: colour is interpolated from its neighbours
_CHOICE = "SRFT_JPEG"  # environment variable, so that worker processes and a host know it, too
_DECODERS = ("simplejpeg", "jpeg4py", "opencv")


def decoder() -> str:
    """Which library decodes JPEG files: that of the environment variable ``SRFT_JPEG``.

    ``simplejpeg``, the default where it is installed, decodes as little as a crop needs; ``opencv``
    and ``jpeg4py``, the loader of pytracking, decode whole pictures.

    Raises:
        UserError: no such choice, or it is not installed.
    """
    name = os.environ.get(_CHOICE) or ("simplejpeg" if simplejpeg else "opencv")
    if name not in _DECODERS:
        raise unknown(f"JPEG decoder in {_CHOICE}", name, _DECODERS)
    if name == "simplejpeg" and simplejpeg is None:
        remedy = 'pip install -e ".[fast]"'
        raise UserError(f"{_CHOICE}={name}: it is not installed; {remedy}, or unset {_CHOICE}")
    return name


def require_decoder() -> None:
    """Raises UserError where ``SRFT_JPEG`` names no decoder, or one that does not work here."""
    if decoder() == "jpeg4py":
        decode_jpeg4py(cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))[1].tobytes())


def decode_jpeg4py(data: bytes) -> np.ndarray | None:
    """Decodes a picture with jpeg4py: (H, W, 3) uint8 in BGR order; None where it cannot.

    Raises:
        UserError: jpeg4py or the library that it needs is not installed.
    """
    try:
        import jpeg4py

        return jpeg4py.JPEG(np.frombuffer(data, np.uint8)).decode(pixfmt=jpeg4py.TJPF_BGR)
    except (ImportError, OSError) as error:
        raise UserError(
            f"{_CHOICE}=jpeg4py: {error}; pip install jpeg4py, and libturbojpeg from the system "
            f"(Debian: libturbojpeg0), or unset {_CHOICE}"
        ) from error
    except RuntimeError:
        return None  # another decoder says what is wrong


def is_complete(data: bytes) -> bool:
    """Whether the picture, not a thumbnail in its header, has an end."""
    *_, (_, scan) = _segments(data)
    return data.endswith(END, scan) or data.find(END, scan) >= 0  # the first is quicker


def decode_top(
    data: bytes, rows: int, colourless: bool = False
) -> tuple[np.ndarray, tuple[int, int]] | None:
    """Decodes a picture down to row ``rows``, and tells its whole height and width.

    A picture is coded from top to bottom, so one whose header gives a smaller height is decoded
    that far, to the same pixels. The image may have more rows than asked for.

    Args:
        data: the file.
        rows: how many are wanted.
        colourless: the picture is known to be grey, so that colour planes need not be decoded.

    Returns:
        The upper part (>= min(rows, height), width, 3) uint8 in BGR order, of a colourless picture
        and one stored in one plane (.., width), and (height, width); None for what this does not
        serve: progressive pictures, those of four planes, or a ``decoder`` for whole pictures.

    Raises:
        UserError: see ``decoder``.
    """
    frame = next((at for marker, at in _segments(data) if marker in _BASELINE), None)
    if decoder() != "simplejpeg" or frame is None or frame + 10 > len(data):
        return None
    height, width = (int.from_bytes(data[at : at + 2], "big") for at in (frame + 5, frame + 7))
    planes = data[frame + 9]
    if height == 0 or planes not in (1, 3):
        return None
    grey = colourless or planes == 1
    wanted = min(height, max(rows, 0) + _MARGIN).to_bytes(2, "big")  # a crop may lie above it
    try:
        image = simplejpeg.decode_jpeg(
            data[: frame + 5] + wanted + data[frame + 7 :],
            "GRAY" if grey else "BGR",
            strict=False,  # else the rows that are left over count as damage
        )
    except ValueError:
        return None  # another decoder says what is wrong
    return image[..., 0] if grey else image, (height, width)


def _segments(data: bytes) -> list[tuple[int, int]]:
    """(marker, offset) of the segments up to the picture, or as far as the headers are sound."""
    position, found = 2, []
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        found.append((marker, position))
        if marker == _SCAN:
            return found
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return [*found, (0, position)]
