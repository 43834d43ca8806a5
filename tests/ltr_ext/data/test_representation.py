"""Depth, thermal and event images as three channels."""

import numpy as np
import pytest

from ltr_ext.data.representation import depth_range, represent, represent_depth
from srft_plugin.errors import UserError


@pytest.fixture(scope="module")
def golden(shared):
    return np.load(shared / "golden" / "pipeline.npz")


@pytest.mark.parametrize(("form", "key"), [("jet_bgr", "colormap"), ("normalised", "3x")])
def test_depth_has_the_golden_pixels(golden, form, key):
    depth = golden["depth_uint16"]
    whole = int(depth.min()), int(depth.max())
    np.testing.assert_array_equal(represent_depth(depth, form), golden[f"frame_{key}_clip1"])
    np.testing.assert_array_equal(
        represent_depth(depth, form, span=whole), golden[f"frame_{key}_clip0"]
    )


def test_represent_is_the_clipped_colour_map(golden):
    found = represent(golden["depth_uint16"], "depth")
    np.testing.assert_array_equal(found, golden["frame_rgbcolormap_clip1"][..., 3:])


def test_jet_rgb_is_jet_bgr_the_other_way_round():
    depth = np.arange(0, 6000, 10, np.uint16).reshape(20, 30)
    np.testing.assert_array_equal(
        represent_depth(depth, "jet_rgb"), represent_depth(depth, "jet_bgr")[..., ::-1]
    )
    near, far = represent_depth(depth, "jet_rgb")[0, 0], represent_depth(depth, "jet_rgb")[-1, -1]
    assert near[2] > near[0] and far[0] > far[2]  # blue is near, red is far


def test_raw_depth_is_comparable_between_frames():
    near = np.full((4, 4), 2000, np.uint16)
    assert (represent_depth(near, "raw") == 51).all()
    far = np.full((4, 4), 20_000, np.uint16)
    assert (represent_depth(far, "raw") == 255).all()


def test_a_part_of_a_frame_with_its_span_is_that_part_of_the_whole():
    depth = np.random.default_rng(0).integers(0, 9000, (40, 50), dtype=np.uint16)
    whole = represent_depth(depth)
    part = represent_depth(depth[10:20, 5:30], span=depth_range(depth))
    np.testing.assert_array_equal(part, whole[10:20, 5:30])


@pytest.mark.parametrize("count", [1, 2, 7, 500])
@pytest.mark.parametrize("highest", [3, 5000, 65535])
def test_depth_range_is_that_of_the_definition(count, highest):
    depth = np.random.default_rng(count).integers(0, highest + 1, (1, count), dtype=np.uint16)
    clipped = np.minimum(depth, int(min(3 * np.median(depth), 10_000)))
    assert depth_range(depth) == (depth.min(), clipped.max())


@pytest.mark.parametrize("value", [0, 1234, 65535])
def test_a_constant_depth_image_has_one_colour(value):
    found = represent(np.full((8, 9), value, np.uint16), "depth")
    assert found.shape == (8, 9, 3) and len(np.unique(found.reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("modality", ["thermal", "event", None])
def test_one_channel_becomes_three(modality):
    plane = np.random.default_rng(0).integers(0, 256, (5, 6), dtype=np.uint8)
    for raw in (plane, plane[..., None]):
        found = represent(raw, modality)
        for channel in range(3):
            np.testing.assert_array_equal(found[..., channel], plane)


@pytest.mark.parametrize("modality", ["depth", "thermal", "event"])
def test_three_bytes_per_pixel_stay_as_they_are(modality):
    image = np.zeros((5, 6, 3), np.uint8)
    assert represent(image, modality) is image


@pytest.mark.parametrize(
    ("raw", "modality", "message"),
    [
        (np.zeros((4, 4), np.uint8), "depth", "expected .H, W. uint16"),
        (np.zeros((4, 4), np.uint16), "thermal", "expected .H, W. uint8"),
        (np.zeros((4, 4, 4), np.uint8), "event", "expected"),
        (np.zeros((4, 4, 3), np.uint16), None, "a colour image .* expected .H, W. uint8"),
        (np.zeros((4, 4), np.uint16), "radar", "unknown modality 'radar'"),
    ],
)
def test_what_a_modality_cannot_be_is_an_error(raw, modality, message):
    with pytest.raises(UserError, match=message):
        represent(raw, modality)


def test_unknown_form_is_an_error():
    with pytest.raises(UserError, match="unknown depth representation 'hha'"):
        represent_depth(np.zeros((4, 4), np.uint16), "hha")
