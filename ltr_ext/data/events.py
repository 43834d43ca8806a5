"""Event streams as images: the representations that Table X compares.

All take the events of one frame interval and give (H, W, 3) uint8, so that a network which was
trained on RGB images can read them. Cost is linear in the events; there is no loop over them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from srft_plugin.errors import UserError, unknown

ON, OFF, BACKGROUND = (220, 30, 30), (30, 30, 200), (255, 255, 255)  # RGB
COUNT_STEP = 32  # grey levels per event: eight events at a pixel saturate
DEFAULT_FORM = "colour_polarity"
DECAY = 3  # time constants of the time surface in one interval


class Events(NamedTuple):
    """Events in order of time.

    Attributes:
        t: (N,) int64, microseconds.
        x, y: (N,) column and row of the pixel, whole numbers of any type.
        on: (N,) bool, True where it became brighter.
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    on: np.ndarray

    def between(self, start: int, end: int) -> Events:
        """The events with start <= t < end."""
        first, last = np.searchsorted(self.t, (start, end))
        return Events(*(column[first:last] for column in self))


class _Interval(NamedTuple):
    """Events as the representations take them."""

    pixel: np.ndarray  # (N,) intp, row * width + column
    on: np.ndarray  # (N,) bool
    time: np.ndarray  # (N,) float32 in [0, 1]: 0 at the start of the interval, 1 at its end
    pixels: int

    def latest(self) -> np.ndarray:
        """(2, pixels) float32 time of the last event, off and on; NaN where there was none."""
        last = np.full(2 * self.pixels, np.nan, np.float32)
        last[self.pixel + self.on * np.intp(self.pixels)] = self.time  # the last of equals stays
        return last.reshape(2, self.pixels)


def _event_frame(events: _Interval) -> np.ndarray:
    """Number of events, polarity ignored [64], in all channels."""
    count = np.bincount(events.pixel, minlength=events.pixels)
    return np.repeat(_saturate(COUNT_STEP * count)[:, None], 3, axis=1)


def _event_count(events: _Interval) -> np.ndarray:
    """Numbers of on and off events [65] in the first and last channel."""
    slot = events.pixel + events.on * np.intp(events.pixels)
    off, on = np.bincount(slot, minlength=2 * events.pixels).reshape(2, events.pixels)
    return _stack(_saturate(COUNT_STEP * on), _saturate(COUNT_STEP * off))


def _time_surface(events: _Interval) -> np.ndarray:
    """exp(-(end - t) / tau) of the last on and off event [66], tau a third of the interval."""
    off, on = np.nan_to_num(np.exp(DECAY * (events.latest() - 1)))
    return _stack(_saturate(255 * on), _saturate(255 * off))


def _tsltd(events: _Interval) -> np.ndarray:
    """Time surface with linear time decay [67]: (t - start) / interval of the last event."""
    off, on = np.nan_to_num(events.latest())
    return _stack(_saturate(255 * on), _saturate(255 * off))


def _event_volume(events: _Interval) -> np.ndarray:
    """Signed events, each shared by the two nearest of three points in time [68].

    V(x, y, b) = sum p max(0, 1 - |b - 2 (t - start) / interval|), b = 0, 1, 2; grey 128 is none.
    """
    second = events.time >= 0.5  # half of the interval
    upper = 2 * events.time - second  # share of the later point in time of that half
    slot = events.pixel + second * np.intp(events.pixels)
    sign = events.on * np.float32(2) - np.float32(1)
    total = np.bincount(slot, sign, 2 * events.pixels).reshape(2, -1)
    late = np.bincount(slot, sign * upper, 2 * events.pixels).reshape(2, -1)
    early = total - late
    volume = np.stack([early[0], late[0] + early[1], late[1]], axis=1)
    return _saturate(128 + COUNT_STEP / 2 * volume)


def _colour_polarity(events: _Interval) -> np.ndarray:
    """The polarity of the last event: red for on, blue for off, on white (section IV-A.4)."""
    state = np.zeros(events.pixels, np.uint8)
    state[events.pixel] = events.on.view(np.uint8) + np.uint8(1)
    return np.array((BACKGROUND, OFF, ON), np.uint8)[state]


EVENT_FORMS: dict[str, Callable[[_Interval], np.ndarray]] = {
    "colour_polarity": _colour_polarity,
    "event_frame": _event_frame,
    "event_count": _event_count,
    "time_surface": _time_surface,
    "tsltd": _tsltd,
    "event_volume": _event_volume,
}


def render_events(
    events: Events,
    shape: tuple[int, int],
    form: str = DEFAULT_FORM,
    span: tuple[int, int] | None = None,
) -> np.ndarray:
    """The events of one frame interval as an image.

    Args:
        events: those of the interval, in order of time.
        shape: height and width of the sensor.
        form: key of ``EVENT_FORMS``.
        span: start and end of the interval in microseconds; by default that of the events.

    Returns:
        (H, W, 3) uint8.

    Raises:
        UserError: unknown form, or events beside the sensor or the interval.
    """
    if form not in EVENT_FORMS:
        raise unknown("event representation", form, EVENT_FORMS)
    height, width = shape
    if len(events.t):
        (left, right), (top, bottom) = ((int(v.min()), int(v.max())) for v in (events.x, events.y))
        if left < 0 or top < 0 or right >= width or bottom >= height:
            raise UserError(
                f"events at pixels ({left}, {top}) to ({right}, {bottom}) of a sensor of {width}x"
                f"{height} pixels; give the size of the sensor that the stream was recorded with"
            )
        start, end = span or (int(events.t[0]), int(events.t[-1]))
        if events.t[0] < start or events.t[-1] > end:
            raise UserError(
                f"events from {events.t[0]} to {events.t[-1]} us outside of the interval "
                f"{start} to {end} us"
            )
        time = (events.t - start).astype(np.float32) / np.float32(max(end - start, 1))
    else:
        time = np.zeros(0, np.float32)
    # recordings have coordinates of 16 bits, some of them floats
    pixel = events.y.astype(np.intp) * width + events.x.astype(np.intp)
    interval = _Interval(pixel, np.asarray(events.on, bool), time, height * width)
    return np.ascontiguousarray(EVENT_FORMS[form](interval)).reshape(height, width, 3)


def _saturate(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _stack(on: np.ndarray, off: np.ndarray) -> np.ndarray:
    return np.stack([on, np.zeros_like(on), off], axis=1)
