"""The quick decoder of depth images gives OpenCV's pixels, or nothing."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr_ext.data import png
from ltr_ext.data.io import read_raw

pytest.importorskip("isal")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def encode(rows: bytes, width: int, height: int, parts: int = 1, kind=(16, 0, 0, 0, 0)) -> bytes:
    """A PNG of filtered rows, its pixels in so many chunks."""
    pixels = zlib.compress(rows)
    cuts = np.linspace(0, len(pixels), parts + 1).astype(int)
    body = b"".join(chunk(b"IDAT", pixels[a:b]) for a, b in zip(cuts[:-1], cuts[1:], strict=True))
    header = chunk(b"IHDR", struct.pack(">II", width, height) + bytes(kind))
    return png.SIGNATURE + header + body + chunk(b"IEND", b"")


def opencv(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


@settings(deadline=None, max_examples=60)
@given(width=st.integers(1, 40), height=st.integers(1, 40), parts=st.integers(1, 4), data=st.data())
def test_rows_of_differences_decode_as_opencv_decodes_them(width, height, parts, data):
    seed = data.draw(st.integers(0, 1000))
    rows = np.random.default_rng(seed).integers(0, 256, (height, 2 * width + 1), np.uint8)
    rows[:, 0] = 1
    file = encode(rows.tobytes(), width, height, parts)
    image = png.decode_depth(file)
    assert image.dtype == np.uint16 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, opencv(file))


def test_by_hand():
    """Row 1, 2: pixels 0x0102, then + 0x01 and + 0xFF by byte without a carry."""
    rows = bytes([1, 1, 2, 1, 0xFF, 0, 0]) + bytes([1, 0, 0, 0, 1, 0xFF, 0xFF])
    np.testing.assert_array_equal(
        png.decode_depth(encode(rows, 3, 2)), [[0x0102, 0x0201, 0x0201], [0, 1, 0xFF00]]
    )


def test_what_opencv_writes_takes_the_quick_way(tmp_path, monkeypatch):
    depth = np.random.default_rng(0).integers(0, 9000, (48, 64)).astype(np.uint16)
    assert cv2.imwrite(str(tmp_path / "d.png"), depth)
    monkeypatch.setattr(cv2, "imdecode", None)  # would fail when called
    np.testing.assert_array_equal(read_raw(tmp_path / "d.png"), depth)


@pytest.mark.parametrize("filtered", [0, 2, 3, 4])
def test_other_filters_are_left_to_opencv(tmp_path, filtered):
    rows = np.random.default_rng(0).integers(0, 256, (6, 2 * 5 + 1), np.uint8)
    rows[:, 0] = 1
    rows[3, 0] = filtered
    file = encode(rows.tobytes(), 5, 6)
    assert png.decode_depth(file) is None
    (tmp_path / "d.png").write_bytes(file)
    np.testing.assert_array_equal(read_raw(tmp_path / "d.png"), opencv(file))


@pytest.mark.parametrize("image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.uint16)])
def test_other_pictures_are_left_to_opencv(image):
    file = cv2.imencode(".png", image)[1].tobytes()
    assert png.decode_depth(file) is None


def test_without_isal_nothing_is_decoded(monkeypatch):
    file = cv2.imencode(".png", np.zeros((9, 9), np.uint16))[1].tobytes()
    assert png.decode_depth(file) is not None
    monkeypatch.setattr(png, "isal_zlib", None)
    assert png.decode_depth(file) is None


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_damage_never_gives_other_pixels(data):
    """A changed byte of the pixels fails the check sum, one of the header the sizes."""
    depth = np.random.default_rng(0).integers(0, 9000, (12, 16)).astype(np.uint16)
    file = bytearray(cv2.imencode(".png", depth)[1].tobytes())
    position = data.draw(st.integers(8, len(file) - 13))
    file[position] ^= data.draw(st.integers(1, 255))
    image = png.decode_depth(bytes(file))
    assert image is None or np.array_equal(image, depth)


def test_a_header_that_claims_a_huge_picture_costs_nothing():
    file = encode(bytes(7), 2**31 - 1, 2**31 - 1)
    assert png.decode_depth(file) is None
