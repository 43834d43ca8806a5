"""The box stays on the target whatever happens to the image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr_ext.data.augment import Augmentation, View

SIDE = 40


def make_view(left=6, top=10, width=12, height=8) -> View:
    """A bright red rectangle on black, marked in both halves of a six-channel image."""
    image = np.zeros((SIDE, SIDE, 6), np.uint8)
    image[top : top + height, left : left + width] = (150, 10, 20, 90, 30, 160)
    box = np.array([left + width / 2, top + height / 2, width, height]) / SIDE
    return View(image, box)


def seen_box(image: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(image.any((1, 2))), np.flatnonzero(image.any((0, 2)))
    low = np.array([columns[0], rows[0]])
    size = np.array([columns[-1], rows[-1]]) + 1 - low
    return np.concatenate([low + size / 2, size]) / SIDE


class Fixed:
    """Draws that are given in advance."""

    def __init__(self, *values):
        self.values = iter(values)

    def random(self, count):
        return np.array([next(self.values) for _ in range(count)])


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    left=st.integers(0, 20),
    top=st.integers(0, 20),
    width=st.integers(1, 20),
    height=st.integers(1, 20),
)
def test_the_box_is_where_the_target_is_seen(seed, left, top, width, height):
    views = [make_view(left, top, width, height) for _ in range(2)]
    Augmentation(grey=0.5)(views, np.random.default_rng(seed))
    for view in views:
        np.testing.assert_allclose(view.box, seen_box(view.image), atol=1e-12)
        np.testing.assert_allclose(view.box, seen_box(view.image[..., 3:]), atol=1e-12)


@pytest.mark.parametrize(
    ("joint", "first", "second"),
    [(0.9, 0.9, 0.9), (0.9, 0.1, 0.9), (0.1, 0.9, 0.9), (0.1, 0.1, 0.9), (0.1, 0.1, 0.1)],
)
def test_joint_and_independent_flips_add_up(joint, first, second):
    views = [make_view(), make_view()]
    draws = Fixed(0.9, joint, first, 0.5, second, 0.5)
    Augmentation(grey=0, brightness=0)(views, draws)
    for view, own in zip(views, (first, second), strict=True):
        turned = (joint < 0.5) ^ (own < 0.5)
        original = make_view()
        expected = original.image[:, ::-1] if turned else original.image
        np.testing.assert_array_equal(view.image, expected)


def test_grey_takes_the_colour_of_rgb_only_and_of_both_views():
    views = [make_view(), make_view()]
    Augmentation(grey=1, joint_flip=0, flip=0, brightness=0)(views, np.random.default_rng(0))
    for view in views:
        assert np.ptp(view.image[..., :3], axis=2).max() == 0
        # Rec. 601 luminance of (150, 10, 20)
        assert abs(int(view.image[12, 8, 0]) - (0.299 * 150 + 0.587 * 10 + 0.114 * 20)) <= 1
        np.testing.assert_array_equal(view.image[..., 3:], make_view().image[..., 3:])


@pytest.mark.parametrize(("draw", "gain"), [(0.0, 0.8), (0.5, 1.0), (1.0, 1.2)])
def test_brightness_is_a_gain_on_all_channels(draw, gain):
    view = make_view()
    view.image[0, 0] = 250
    expected = np.clip(np.rint(view.image * gain), 0, 255)
    Augmentation(0, 0, 0, 0.2)([view], Fixed(0.9, 0.9, 0.9, draw))
    assert np.abs(view.image - expected).max() <= 1
    assert view.image[0, 0, 0] == min(255, round(250 * gain))


def test_switched_off_nothing_changes_but_the_draws_are_the_same():
    view, rng, other = make_view(), np.random.default_rng(3), np.random.default_rng(3)
    Augmentation(0, 0, 0, 0)([view, make_view()], rng)
    np.testing.assert_array_equal(view.image, make_view().image)
    np.testing.assert_array_equal(view.box, make_view().box)
    Augmentation()([make_view(), make_view()], other)
    assert rng.random() == other.random()


def test_rates_are_those_of_the_settings():
    rng = np.random.default_rng(0)
    turned = grey = 0
    for _ in range(600):
        view = make_view()
        Augmentation(grey=0.3, joint_flip=0.0, flip=0.25, brightness=0)([view], rng)
        turned += view.box[0] > 0.5
        grey += view.image[12].std(axis=1).max() > 0 and np.ptp(view.image[..., :3], 2).max() == 0
    assert abs(turned / 600 - 0.25) < 0.07
    assert abs(grey / 600 - 0.3) < 0.07
