"""Crops against the public code's pixels, and boxes on their way in and out."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr_ext.data import crop
from ltr_ext.data.crop import box_to_crop, box_to_frame, crop_window, cut, sample_target
from srft_plugin.errors import UserError

CASES = [(4, 256), (2, 128), (5, 96)]
position = st.floats(-300, 300, allow_nan=False)
side = st.floats(0.3, 200, allow_nan=False)
boxes = st.tuples(position, position, side, side).map(np.array)


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / "golden" / "pipeline.npz")


@pytest.mark.parametrize(("factor", "size"), CASES)
@pytest.mark.parametrize("index", range(6))
def test_crop_has_the_golden_pixels(golden, factor, size, index):
    image, box = golden["image_hwc6_uint8"], golden["boxes_xywh"][index]
    crop, resize_factor = sample_target(image, box, factor, size)
    key = f"crop_f{factor}_o{size}_{index}"
    assert resize_factor == golden[f"{key}_rf"]
    np.testing.assert_array_equal(crop[::4, ::4], golden[f"{key}_every4"])
    np.testing.assert_array_equal(crop.sum((0, 1)), golden[f"{key}_sum"])


@settings(deadline=None)
@given(
    left=st.integers(-60, 60),
    top=st.integers(-60, 60),
    side=st.integers(1, 70),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_cut_copies_each_pixel_or_leaves_it_black(left, top, side, shape):
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, (*shape, 3), dtype=np.uint8)
    found = cut(image, (left, top, side), side)
    rows = shape[0] if top + side < shape[0] else shape[0] - 1  # the border rule
    columns = shape[1] if left + side < shape[1] else shape[1] - 1
    canvas = np.zeros((300, 300, 3), np.uint8)
    canvas[100 : 100 + rows, 100 : 100 + columns] = image[:rows, :columns]
    expected = canvas[100 + top : 100 + top + side, 100 + left : 100 + left + side]
    np.testing.assert_array_equal(found, expected)


def test_cut_does_not_share_memory_with_the_image():
    image = np.zeros((20, 20, 3), np.uint8)
    cut(image, (2, 2, 8), 8)[:] = 9
    assert image.sum() == 0


def test_a_window_beside_the_image_is_black():
    image = np.full((20, 30, 6), 7, np.uint8)
    for corner in ((-100, 0), (100, 0), (0, -100), (0, 100)):
        assert not cut(image, (*corner, 40), 16).any()


def test_context_is_an_equal_margin_on_all_sides():
    """By hand: c = 3 * 25 = 75, sqrt(115 * 85) = 98.9; c = 25, sqrt(65 * 35) = 47.7."""
    box = (100, 50, 40, 10)
    assert crop_window(box, 4.0, context=True) == (round(120 - 49.5), round(55 - 49.5), 99)
    assert crop_window(box, 2.0, context=True).side == 48
    assert crop_window(box, 4.0).side == 80
    square = (3, 5, 20, 20)
    assert crop_window(square, 4.0, context=True) == crop_window(square, 4.0)
    image = np.random.default_rng(0).integers(0, 256, (120, 240, 3), np.uint8)
    crop, resize_factor = sample_target(image, box, 4.0, 64, context=True)
    assert resize_factor == 64 / 99
    np.testing.assert_array_equal(crop, cut(image, crop_window(box, 4.0, True), 64))


@settings(deadline=None)
@given(box=boxes, reference=boxes, factor=st.sampled_from([2.0, 4.0, 5.0]))
def test_box_to_frame_is_the_inverse_of_box_to_crop(box, reference, factor):
    resize_factor = 256 / crop_window(reference, factor).side
    there = box_to_crop(box, reference, resize_factor, 256)
    np.testing.assert_allclose(box_to_frame(there, reference, resize_factor, 256), box, atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(
    centre=st.tuples(st.integers(30, 90), st.integers(30, 90)),
    size=st.tuples(st.integers(8, 30), st.integers(8, 30)),
    offset=st.tuples(st.integers(-10, 10), st.integers(-10, 10)),
)
def test_the_box_in_the_crop_is_where_the_target_is_seen(centre, size, offset):
    image = np.zeros((120, 120, 1), np.uint8)
    x, y, w, h = centre[0] - size[0] // 2, centre[1] - size[1] // 2, *size
    image[y : y + h, x : x + w] = 255
    around = (x + offset[0], y + offset[1], w, h)
    crop, resize_factor = sample_target(image, around, 4.0, 256)
    crop = crop.reshape(256, 256)
    cx, cy, bw, bh = box_to_crop((x, y, w, h), around, resize_factor, 256)
    seen_x, seen_y = crop.max(0) / 255.0, crop.max(1) / 255.0  # widths of the blurred bar
    assert seen_x.sum() == pytest.approx(bw, abs=resize_factor)
    assert seen_y.sum() == pytest.approx(bh, abs=resize_factor)
    assert (seen_x * (np.arange(256) + 0.5)).sum() / seen_x.sum() == pytest.approx(cx, abs=0.2)
    assert (seen_y * (np.arange(256) + 0.5)).sum() / seen_y.sum() == pytest.approx(cy, abs=0.2)


@pytest.mark.parametrize(
    "box",
    [(0, 0, 0, 5), (0, 0, 5, -1), (np.nan, 0, 5, 5), (0, 0, np.inf, 5), (0, 0, 1e300, 1e300)],
)
@pytest.mark.parametrize("context", [False, True])
def test_a_box_without_area_is_an_error(box, context):
    with pytest.raises(UserError, match="w, h > 0"):
        crop_window(box, 4.0, context)


@pytest.mark.parametrize("channels", [(), (3,), (6,)])
def test_a_huge_crop_is_that_of_the_square_without_laying_it_out(channels, monkeypatch):
    image = np.random.default_rng(0).integers(1, 256, (300, 400, *channels), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 20)
    for window in ((-700, -900, 1600), (-100, -1300, 1500), (150, 140, 1400)):
        whole = cut(image, window, 128).astype(int)
        monkeypatch.setattr(crop, "LARGEST", 1000)
        found = cut(image, window, 128)
        monkeypatch.undo()
        assert found.shape == whole.shape
        inside = cv2.erode((whole > 0).astype(np.uint8), np.ones((3, 3))) > 0
        assert inside.any() and np.abs(found - whole)[inside].max() <= 6
        assert (found > 0).mean() == pytest.approx((whole > 0).mean(), abs=0.03)
    for window in ((-(10**8), -(10**8), 10**9), (10**9, 0, 10**9)):
        assert cut(image, window, 64).shape == (64, 64, *channels)
