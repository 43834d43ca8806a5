"""Depth images as OpenCV writes them, decoded in half of its time.

OpenCV's decoder inflates with zlib and works byte by byte. Here ISA-L inflates, and the rows, each
pixel of which is stored as the difference to the one on its left, are summed for all rows at once.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

try:
    from isal import isal_zlib  # extra [fast]
except ImportError:
    isal_zlib = None

SIGNATURE, END = b"\x89PNG\r\n\x1a\n", b"IEND"
_HEADER = b"\0\0\0\rIHDR"
_GREY16 = bytes((16, 0, 0, 0, 0))  # bits, colour type, compression, filters, interlacing
_LEFT = 1  # row filter: difference to the pixel on the left


def decode_depth(data: bytes) -> np.ndarray | None:
    """A 16-bit grey PNG, all rows filtered with their left neighbours: (H, W) uint16.

    None for any other picture, a damaged one, or without ``isal``: another decoder serves those.
    """
    if isal_zlib is None or data[8:16] != _HEADER or data[24:29] != _GREY16:
        return None
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    size = height * (2 * width + 1)
    stream = isal_zlib.decompressobj()
    try:
        filtered = stream.decompress(b"".join(_pixel_chunks(data)), size + 1)
    except isal_zlib.error:
        return None
    if not stream.eof or len(filtered) != size or not size:
        return None
    rows = np.frombuffer(filtered, np.uint8).reshape(height, -1)
    if (rows[:, 0] != _LEFT).any():
        return None
    pixels = cv2.transpose(rows[:, 1:].view(">u2").astype(np.uint16))
    for left, right in pairwise(pixels.view(np.uint8)):  # columns, both bytes of a pixel apart
        np.add(left, right, right)
    return cv2.transpose(pixels)


def _pixel_chunks(data: bytes) -> list[bytes]:
    position, found = 8, []
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] == b"IDAT":
            found.append(data[position + 8 : position + 8 + length])
        position += 12 + length
    return found
