"""The library that decodes JPEG files is the user's choice, and the pixels are the same."""

import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from ltr_ext.data import jpeg
from ltr_ext.data.crop import Window, cut
from ltr_ext.data.io import read_raw, read_rgb
from ltr_ext.dataset.files import FileFrames
from srft_plugin.cli import main
from srft_plugin.errors import UserError


@pytest.fixture
def path(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.jpg"), cv2.GaussianBlur(picture, (5, 5), 0))
    return tmp_path / "a.jpg"


def fake_jpeg4py(decode):
    class Picture:
        def __init__(self, source):
            self.source = source

        def decode(self, pixfmt):
            assert pixfmt == 1
            return decode(self.source)

    return SimpleNamespace(JPEG=Picture, TJPF_BGR=1)


def test_the_default_is_the_quick_one_where_it_is_installed(monkeypatch):
    monkeypatch.delenv("SRFT_JPEG", raising=False)
    monkeypatch.setattr(jpeg, "simplejpeg", object())
    assert jpeg.decoder() == "simplejpeg"
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    assert jpeg.decoder() == "opencv"


@pytest.mark.parametrize(
    ("name", "message"), [("jpeg5", "unknown JPEG decoder"), ("jpeg4py", "pip install jpeg4py")]
)
def test_without_its_decoder_a_data_set_is_not_checked(name, message, monkeypatch, capsys):
    monkeypatch.setenv("SRFT_JPEG", name)
    monkeypatch.setitem(sys.modules, "jpeg4py", None)
    assert main(["data", "check", "depthtrack", "anywhere", "--fix-index"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["opencv", "simplejpeg"])
def test_all_choices_give_the_same_pixels(path, monkeypatch, name):
    if name == "simplejpeg" and jpeg.simplejpeg is None:
        pytest.skip("needs the extra [fast]")
    monkeypatch.setenv("SRFT_JPEG", name)
    expected = cv2.imread(str(path))[..., ::-1]
    np.testing.assert_array_equal(read_rgb(path), expected)
    window = Window(10, 5, 30)
    region = FileFrames(path.parent, [path.name]).regions(0, [(window, 30)], False)[0]
    np.testing.assert_array_equal(region, cut(expected, window, 30))


def test_jpeg4py_decodes_when_it_is_chosen(path, monkeypatch):
    """Pictures and regions both come from it; what it cannot decode is left to OpenCV."""
    monkeypatch.setenv("SRFT_JPEG", "jpeg4py")
    blue = np.full((60, 80, 3), (255, 0, 0), np.uint8)
    monkeypatch.setitem(sys.modules, "jpeg4py", fake_jpeg4py(lambda source: blue))
    for image in (read_rgb(path), read_raw(path)):
        np.testing.assert_array_equal(image, blue[..., ::-1])
    region = FileFrames(path.parent, [path.name]).regions(0, [(Window(0, 0, 9), 9)], False)[0]
    assert region[0, 0].tolist() == [0, 0, 255]

    def fail(source):
        raise RuntimeError("tjDecompress2() failed")

    monkeypatch.setitem(sys.modules, "jpeg4py", fake_jpeg4py(fail))
    np.testing.assert_array_equal(read_rgb(path), cv2.imread(str(path))[..., ::-1])


def test_the_real_jpeg4py_gives_the_same_pixels(path, monkeypatch):
    pytest.importorskip("jpeg4py")
    monkeypatch.setenv("SRFT_JPEG", "jpeg4py")
    try:
        image = read_rgb(path)
    except UserError as error:
        pytest.skip(str(error))
    np.testing.assert_array_equal(image, cv2.imread(str(path))[..., ::-1])


def test_a_choice_that_is_not_there_is_an_error(path, monkeypatch):
    monkeypatch.setenv("SRFT_JPEG", "jpeg4pi")
    with pytest.raises(UserError, match="JPEG decoder in SRFT_JPEG 'jpeg4pi'.*'jpeg4py'"):
        read_rgb(path)
    monkeypatch.setenv("SRFT_JPEG", "jpeg4py")
    monkeypatch.setitem(sys.modules, "jpeg4py", None)  # importing it fails
    with pytest.raises(UserError, match=r"SRFT_JPEG=jpeg4py: .*pip install jpeg4py"):
        read_rgb(path)

    def no_library(source):
        raise OSError("Could not load libjpeg-turbo library")

    monkeypatch.setitem(sys.modules, "jpeg4py", fake_jpeg4py(no_library))
    with pytest.raises(UserError, match="Could not load libjpeg-turbo.*libturbojpeg0"):
        read_rgb(path)
    monkeypatch.setenv("SRFT_JPEG", "simplejpeg")
    monkeypatch.setattr(jpeg, "simplejpeg", None)
    with pytest.raises(UserError, match=r"SRFT_JPEG=simplejpeg: it is not installed.*\[fast\]"):
        read_rgb(path)
