"""Whole pictures or an error."""

import cv2
import numpy as np
import pytest

from ltr_ext.data.io import read_aux, read_raw, read_rgb
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


def test_an_eight_bit_depth_image_is_an_error_that_names_it(tmp_path, picture):
    cv2.imwrite(str(tmp_path / "a.png"), picture[..., 0])
    with pytest.raises(UserError, match=r"a\.png.*uint16"):
        read_aux(tmp_path / "a.png", "depth")
