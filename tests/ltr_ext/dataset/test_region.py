"""The quick way to a region gives the pixels of the straightforward one."""

import cv2
import numpy as np
import pytest

from ltr_ext.data import jpeg
from ltr_ext.data.crop import Window, cut
from ltr_ext.data.io import decode_top
from ltr_ext.dataset import files
from ltr_ext.dataset.files import FileFrames
from srft_plugin.errors import UserError

WINDOWS = [
    Window(20, 10, 40),  # inside
    Window(-15, 20, 60),  # beyond the left border
    Window(60, 40, 80),  # beyond the right and lower border
    Window(-30, -30, 200),  # larger than the image
    Window(150, 0, 40),  # beside it
    Window(20, -100, 40),  # above it
]


@pytest.fixture(params=["with simplejpeg", "without"], autouse=True)
def decoder(request, monkeypatch):
    """Both ways to decode JPEG: the optional library and OpenCV alone."""
    if request.param == "without":
        monkeypatch.setattr(jpeg, "simplejpeg", None)
    elif jpeg.simplejpeg is None:
        pytest.skip("needs the extra [fast]")


@pytest.fixture(params=["depth", "thermal", "thermal_grey", "thermal_colour", "event", None])
def frames(tmp_path, request):
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8), (5, 5), 0)
    cv2.imwrite(str(tmp_path / "rgb.jpg"), noise)
    if request.param is None:
        return FileFrames(tmp_path, ["rgb.jpg"])
    kind = request.param
    aux = {
        "depth": rng.integers(0, 12_000, (90, 120), dtype=np.uint16),
        "thermal": noise[..., 0],
        "thermal_grey": cv2.merge([noise[..., 0]] * 3),
        "thermal_colour": noise[::-1],
        "event": noise[:, ::-1],
    }[kind]
    name = "aux.png" if kind == "depth" else "aux.jpg"
    cv2.imwrite(str(tmp_path / name), aux)
    return FileFrames(tmp_path, ["rgb.jpg"], tmp_path, [name], kind.split("_")[0])


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("aux", [False, True])
def test_a_region_has_the_pixels_of_the_crop_of_the_whole(frames, window, aux):
    expected = cut(frames.rgb(0), window, 32)
    if aux and frames.modality:
        expected = np.concatenate([expected, cut(frames.aux(0), window, 32)], axis=2)
    np.testing.assert_array_equal(frames.regions(0, [(window, 32)], aux)[0], expected)


def test_windows_of_one_frame_are_those_that_are_cut_alone(frames):
    cuts = [(WINDOWS[0], 32), (WINDOWS[2], 16), (WINDOWS[1], 60)]
    together = frames.regions(0, cuts, True)
    for one, image in zip(cuts, together, strict=True):
        np.testing.assert_array_equal(image, frames.regions(0, [one], True)[0])


def test_two_sizes_in_one_frame_are_an_error(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 30, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((10, 15), np.uint16))
    frames = FileFrames(tmp_path, ["a.png"], tmp_path, ["b.png"], "depth")
    with pytest.raises(UserError, match=r"b\.png: 15x10 pixels, but the colour image has 30x20"):
        frames.regions(0, [(WINDOWS[0], 32)], True)


def test_an_image_of_another_kind_is_an_error_that_names_it(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 30), np.uint8))
    frames = FileFrames(tmp_path, ["a.png"], tmp_path, ["a.png"], "depth")
    with pytest.raises(UserError, match=r"a\.png: a depth image.*uint16"):
        frames.regions(0, [(Window(2, 2, 8), 32)], True)


def test_sixteen_bits_per_colour_are_an_error_that_names_the_file(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 30, 3), np.uint16))
    frames = FileFrames(tmp_path, ["a.png"])
    with pytest.raises(UserError, match=r"a\.png: a colour image .* uint16: expected"):
        frames.regions(0, [(Window(2, 2, 8), 32)], False)


@pytest.mark.parametrize("height", [1, 7, 16, 64, 89, 90, 91, 200])
@pytest.mark.parametrize("sampling", [0x221111, 0x211111, 0x111111])
def test_every_row_is_that_of_the_whole_picture(tmp_path, height, sampling):
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    cv2.imwrite(str(tmp_path / "a.jpg"), picture, options)
    top, shape = decode_top(tmp_path / "a.jpg", height)
    assert shape == (90, 120) and len(top) >= min(height, 90)
    np.testing.assert_array_equal(top[:height], cv2.imread(str(tmp_path / "a.jpg"))[:height])


@pytest.mark.parametrize("height", [1, 16, 91])
def test_grey_pictures_lose_nothing_without_their_colour_planes(tmp_path, height):
    picture = np.random.default_rng(0).integers(0, 256, (90, 120), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "one.jpg"), picture)
    cv2.imwrite(str(tmp_path / "three.jpg"), cv2.merge([picture] * 3))
    for name, colourless in (("one.jpg", False), ("one.jpg", True), ("three.jpg", True)):
        top, shape = decode_top(tmp_path / name, height, colourless)
        whole = cv2.imread(str(tmp_path / name))
        assert shape == (90, 120)
        for plane in cv2.split(top):
            np.testing.assert_array_equal(plane[:height], whole[:height, :, 0])


def test_a_thermal_camera_with_colours_keeps_them_and_a_grey_one_is_read_in_one_plane(
    tmp_path, monkeypatch
):
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    seen = []
    decode = files.decode_top
    monkeypatch.setattr(files, "decode_top", lambda *args: seen.append(args[2:]) or decode(*args))
    for folder, image in (("grey", cv2.merge([picture[..., 0]] * 3)), ("colour", picture)):
        (tmp_path / folder).mkdir()
        for name in ("a.jpg", "b.jpg"):
            cv2.imwrite(str(tmp_path / folder / name), image)
        names = ["a.jpg", "b.jpg"]
        frames = FileFrames(tmp_path / folder, names, tmp_path / folder, names, "thermal")
        region = frames.regions(1, [(WINDOWS[0], 40)], True)[0]
        np.testing.assert_array_equal(region[..., 3:], cut(frames.aux(1), WINDOWS[0], 40))
    assert seen == [(), (True,), (), (False,)]


def test_a_damaged_first_frame_does_not_stop_the_others(tmp_path):
    cv2.imwrite(str(tmp_path / "b.jpg"), np.full((90, 120, 3), 70, np.uint8))
    (tmp_path / "a.jpg").write_bytes(b"")
    frames = FileFrames(tmp_path, ["a.jpg", "b.jpg"], tmp_path, ["a.jpg", "b.jpg"], "thermal")
    assert frames.regions(1, [(WINDOWS[0], 40)], True)[0].shape == (40, 40, 6)


def test_progressive_pictures_are_decoded_whole(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.jpg"), picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    top, shape = decode_top(tmp_path / "a.jpg", 20)
    assert shape == top.shape[:2] == (90, 120)


def test_a_truncated_picture_is_an_error_also_where_its_end_is_not_needed(tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((400, 400, 3), np.uint8))
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[:-20])
    frames = FileFrames(tmp_path, ["a.jpg"])
    with pytest.raises(UserError, match=r"a\.jpg.*truncated"):
        frames.regions(0, [(Window(0, 0, 8), 32)], False)
