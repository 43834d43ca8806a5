"""Whole pictures or an error."""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr_ext.data.io import decode_top, read_aux, read_raw, read_rgb
from srft_plugin.errors import UserError


@pytest.fixture
def picture():
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    return np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 255 - ramp[None]), 2)


def write(path, picture):
    assert cv2.imwrite(str(path), picture[..., ::-1])
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_rgb_order(tmp_path, picture, suffix):
    path = write(tmp_path / f"a{suffix}", picture)
    np.testing.assert_array_equal(read_rgb(path), picture)
    np.testing.assert_array_equal(read_raw(path), picture)


def test_jpeg(tmp_path, picture):
    found = read_rgb(write(tmp_path / "a.jpg", picture))
    assert np.abs(found.astype(int) - picture).mean() < 3


def test_grey_images_are_given_three_channels(tmp_path, picture):
    cv2.imwrite(str(tmp_path / "a.png"), picture[..., 0])
    assert read_rgb(tmp_path / "a.png").shape == (64, 64, 3)
    assert read_raw(tmp_path / "a.png").shape == (64, 64)


def test_depth_keeps_its_sixteen_bits(tmp_path):
    depth = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    cv2.imwrite(str(tmp_path / "a.png"), depth)
    np.testing.assert_array_equal(read_raw(tmp_path / "a.png"), depth)
    assert read_aux(tmp_path / "a.png", "depth").shape == (64, 64, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
@pytest.mark.parametrize("keep", [0, 1, 30, 0.5, 0.95, -3])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, picture, suffix, keep):
    data = write(tmp_path / f"a{suffix}", picture).read_bytes()
    end = int(keep * len(data)) if isinstance(keep, float) else keep
    (tmp_path / f"cut{suffix}").write_bytes(data[:end])
    with pytest.raises(UserError, match=f"cut{suffix}"):
        read_rgb(tmp_path / f"cut{suffix}")


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_picture(tmp_path, picture):
    data = write(tmp_path / "a.jpg", picture).read_bytes()
    thumbnail = b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data
    path = tmp_path / "b.jpg"
    path.write_bytes(data[:2] + thumbnail + data[2:])
    np.testing.assert_array_equal(read_rgb(path), read_rgb(tmp_path / "a.jpg"))
    path.write_bytes((data[:2] + thumbnail + data[2:])[:-200])
    with pytest.raises(UserError, match="truncated"):
        read_rgb(path)


def test_what_is_no_image_is_an_error(tmp_path):
    (tmp_path / "a.jpg").write_text("<html>404</html>")
    with pytest.raises(UserError, match=r"a\.jpg: not an image"):
        read_rgb(tmp_path / "a.jpg")
    with pytest.raises(UserError, match="no such file"):
        read_rgb(tmp_path / "b.jpg")
    with pytest.raises(UserError, match="cannot be read"):
        read_rgb(tmp_path)


def test_a_header_that_claims_a_huge_picture_is_an_error_that_names_the_file(tmp_path, picture):
    data = bytearray(write(tmp_path / "a.bmp", picture).read_bytes())
    data[18:26] = struct.pack("<ii", 2**30, 2**30)  # width and height
    (tmp_path / "a.bmp").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.bmp: not an image"):
        read_rgb(tmp_path / "a.bmp")


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damage_anywhere_ends_in_an_image_or_in_the_one_error(tmp_path_factory, data):
    """Never another exception, whatever decoder is asked."""
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    suffix = data.draw(st.sampled_from([".jpg", ".png", ".bmp", ".tif"]))
    file = bytearray(cv2.imencode(suffix, picture)[1].tobytes())
    for _ in range(data.draw(st.integers(1, 4))):
        last = data.draw(st.sampled_from([64, len(file)])) - 1  # headers are short
        file[data.draw(st.integers(0, last))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    path.write_bytes(file)
    for read in (read_rgb, read_raw, lambda path: decode_top(path, 5)[0]):
        try:
            assert isinstance(read(path), np.ndarray)
        except UserError as error:
            assert str(path) in str(error)


def test_an_eight_bit_depth_image_is_an_error_that_names_it(tmp_path, picture):
    cv2.imwrite(str(tmp_path / "a.png"), picture[..., 0])
    with pytest.raises(UserError, match=r"a\.png.*uint16"):
        read_aux(tmp_path / "a.png", "depth")
