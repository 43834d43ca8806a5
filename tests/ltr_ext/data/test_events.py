"""Event representations on streams small enough to work out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr_ext.data.events import EVENT_FORMS, Events, render_events
from srft_plugin.errors import UserError

# Sensor of 2 rows and 3 columns, interval 0 to 100 us.
#   pixel (row 0, column 0): on at 0, on at 50          pixel (0, 2): off at 100
#   pixel (1, 1): on at 25, then off at 75
HAND = Events(
    np.array([0, 25, 50, 75, 100]),
    np.array([0, 1, 0, 1, 2]),
    np.array([0, 1, 0, 1, 0]),
    np.array([True, True, True, False, False]),
)
A, B, C, NONE = (0, 0), (1, 1), (0, 2), (1, 0)


def show(form, events=HAND, span=(0, 100)):
    image = render_events(events, (2, 3), form, span)
    assert image.shape == (2, 3, 3) and image.dtype == np.uint8
    return image


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (
            "colour_polarity",
            {A: (220, 30, 30), B: (30, 30, 200), C: (30, 30, 200), NONE: (255,) * 3},
        ),
        ("event_frame", {A: (64, 64, 64), B: (64, 64, 64), C: (32, 32, 32), NONE: (0, 0, 0)}),
        ("event_count", {A: (64, 0, 0), B: (32, 0, 32), C: (0, 0, 32), NONE: (0, 0, 0)}),
        # 255 exp(-3 (1 - time)): times 0.5 -> 57, 0.25 -> 27, 0.75 -> 120, 1 -> 255
        ("time_surface", {A: (57, 0, 0), B: (27, 0, 120), C: (0, 0, 255), NONE: (0, 0, 0)}),
        # 255 time, rounded half to even: 127.5 -> 128, 63.75 -> 64, 191.25 -> 191
        ("tsltd", {A: (128, 0, 0), B: (64, 0, 191), C: (0, 0, 255), NONE: (0, 0, 0)}),
        # bins at 0, 50, 100 us, 16 levels per event around 128:
        # A: +1 at bin 0, +1 at bin 1; B: +1/2 +1/2, then -1/2 -1/2; C: -1 at bin 2
        (
            "event_volume",
            {A: (144, 144, 128), B: (136, 128, 120), C: (128, 128, 112), NONE: (128,) * 3},
        ),
    ],
)
def test_worked_by_hand(form, expected):
    image = show(form)
    for pixel, value in expected.items():
        assert tuple(int(channel) for channel in image[pixel]) == value, pixel


def reference_volume(events, shape, span):
    """Eq. 3 of Zhu et al., event by event."""
    volume = np.zeros((*shape, 3))
    for t, x, y, on in zip(*events, strict=True):
        time = 2 * (t - span[0]) / (span[1] - span[0])
        for b in range(3):
            volume[y, x, b] += (1 if on else -1) * max(0, 1 - abs(b - time))
    return volume


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60))
def test_volume_and_counts_agree_with_a_loop(seed, count):
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, 1000, count))
    events = Events(
        t, rng.integers(0, 5, count), rng.integers(0, 4, count), rng.random(count) < 0.5
    )
    volume = reference_volume(events, (4, 5), (0, 1000))
    found = render_events(events, (4, 5), "event_volume", (0, 1000))
    np.testing.assert_allclose(found, np.clip(128 + 16 * volume, 0, 255), atol=0.51)
    counts, last = np.zeros((4, 5, 2), int), {}
    for _, x, y, on in zip(*events, strict=True):
        counts[y, x, int(on)] += 1
        last[y, x] = on
    found = render_events(events, (4, 5), "event_count", (0, 1000))
    np.testing.assert_array_equal(found[..., 0], np.minimum(32 * counts[..., 1], 255))
    np.testing.assert_array_equal(found[..., 2], np.minimum(32 * counts[..., 0], 255))
    colours = render_events(events, (4, 5), "colour_polarity", (0, 1000))
    for pixel, on in last.items():
        assert tuple(colours[pixel]) == ((220, 30, 30) if on else (30, 30, 200))


@pytest.mark.parametrize("form", EVENT_FORMS)
def test_an_interval_without_events_is_the_background(form):
    image = show(form, Events(*(column[:0] for column in HAND)))
    background = {"colour_polarity": 255, "event_volume": 128}.get(form, 0)
    assert (image == background).all()


@pytest.mark.parametrize("form", EVENT_FORMS)
def test_one_event_needs_no_span(form):
    show(form, Events(*(column[:1] for column in HAND)), span=None)


def test_many_events_at_a_pixel_saturate():
    many = Events(np.arange(500), np.zeros(500, int), np.zeros(500, int), np.ones(500, bool))
    assert show("event_count", many, (0, 500))[0, 0].tolist() == [255, 0, 0]
    assert show("event_volume", many, (0, 500))[0, 0, 0] == 255


def test_pixels_of_coordinates_in_sixteen_bits_are_counted_in_more():
    """346 * 259 + 345 is beyond 16 bits; numpy before 2 would keep them."""
    corner = np.array([345], np.uint16), np.array([259], np.uint16)
    image = render_events(Events(np.zeros(1, int), *corner, np.ones(1, bool)), (260, 346))
    assert np.argwhere((image != 255).any(2)).tolist() == [[259, 345]]


def test_events_between_two_times():
    assert HAND.between(25, 75).t.tolist() == [25, 50]
    assert HAND.between(101, 200).t.tolist() == []


def test_wrong_input_is_an_error():
    with pytest.raises(UserError, match="unknown event representation 'voxel'"):
        show("voxel")
    with pytest.raises(UserError, match="sensor of 2x2"):
        render_events(HAND, (2, 2))
    with pytest.raises(UserError, match=r"\(-1, \d+\) to"):
        show("event_count", HAND._replace(x=HAND.x - HAND.x.min() - 1))
    with pytest.raises(UserError, match="outside of the interval"):
        show("tsltd", span=(10, 50))
