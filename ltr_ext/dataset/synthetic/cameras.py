"""What a thermal and an event camera see of a generated scene.

Each draws its own random numbers, so that the colour images and the depth of a scene are the same
whether or not another camera looks at it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ltr_ext.data.events import Events

from .objects import warp
from .textures import TEXTURE_SIZE

if TYPE_CHECKING:
    from .scene import Scene

CROSSOVER = 0.15  # share of the targets that are as warm as what surrounds them
FRAME_TIME = 40_000  # microseconds between two frames
STRAY_LIGHT = 10  # grey levels; keeps the logarithm of black finite
DARK_CURRENT = 0.3  # grey levels: the light at which the pixels stop to respond
MOST_EVENTS = 8  # of a pixel in one frame interval: it needs a pause after each


class ThermalCamera:
    """A microbolometer: temperatures, which have nothing to do with colours, blurred and noisy.

    A wide smooth background, objects some kelvin warmer or colder than it with a faint pattern of
    their own, an optical blur of about a pixel, noise per pixel and frame and fixed per column.
    """

    def __init__(self, rng: np.random.Generator, scene: Scene):
        height, width = scene.options.height, scene.options.width
        self.background = rng.uniform(0.5, 2.0) * _smooth(rng, 6, (width + 96, height + 96))
        self.heat = {}  # of each object and limb: (S, S) kelvin, 0 is the mean of the background
        for item in scene.objects:
            warmth = rng.choice((-1, 1)) * rng.uniform(1.5, 7.0)
            crossover = rng.random() < CROSSOVER
            if crossover and item is scene.target:
                warmth *= 0.05
            pattern = rng.uniform(0.2, 0.8) * _smooth(rng, 4, (TEXTURE_SIZE, TEXTURE_SIZE))
            self.heat |= dict.fromkeys(item.parts, pattern + np.float32(warmth))
        self.columns = 0.1 * rng.standard_normal(width, dtype=np.float32)  # kelvin
        self.noise = rng.uniform(0.05, 0.25)  # kelvin
        self.blur = rng.uniform(0.8, 1.6)  # pixels
        self.gain = rng.uniform(5.0, 10.0)  # grey levels per kelvin

    def image(self, scene: Scene, t: int) -> np.ndarray:
        """(H, W) uint8 image at frame ``t``; 128 is the mean temperature of the background."""
        kelvin = scene.background_window(self.background, t).copy()
        for item, window, transform, alpha in scene.layers(t):
            shape, heat = alpha.shape[::-1], self.heat[item]
            warmth = warp(heat, transform, shape)
            kelvin[window] += (warmth - kelvin[window]) * (alpha * np.float32(1 / 255))
        kelvin = cv2.GaussianBlur(kelvin, (0, 0), self.blur) + self.columns
        kelvin += scene.noise_window(t, 2)[..., 0] * np.float32(self.noise / 32)
        return np.clip(np.rint(128 + self.gain * kelvin), 0, 255).astype(np.uint8)


class EventCamera:
    """Pixels that report each time the logarithm of their light has changed by a threshold.

    The threshold differs from pixel to pixel, and some events come from nowhere (background
    activity). Light is taken to change linearly in log between two frames, and every interval
    starts at a random distance from the next event, so that any interval can be drawn without the
    ones before it: a pixel reports |change| / threshold events on average.
    """

    def __init__(self, rng: np.random.Generator, scene: Scene):
        shape = (scene.options.height, scene.options.width)
        spread = 0.1 * rng.standard_normal(shape, dtype=np.float32)
        self.threshold = np.float32(rng.uniform(0.15, 0.3)) * np.maximum(1 + spread, 0.5)
        self.activity = rng.uniform(0.0005, 0.004)  # false events per pixel and frame

    def events(self, scene: Scene, t: int) -> Events:
        """The events between frames ``t - 1`` and ``t``; frame t is at t * ``FRAME_TIME``."""
        rng = scene.generator(3, t)
        height, width = self.threshold.shape
        change = (_log_light(scene, t) - _log_light(scene, t - 1)) / self.threshold
        phase = rng.random((height, width), dtype=np.float32)
        counts = np.minimum((np.abs(change) + phase).astype(np.int64), MOST_EVENTS).ravel()
        fired = np.flatnonzero(counts)
        counts = counts[fired]
        pixel = np.repeat(fired, counts)
        number = np.arange(len(pixel)) - np.repeat(np.cumsum(counts) - counts, counts)
        moment = (number + rng.random(len(pixel))) / np.repeat(counts, counts)
        false = rng.poisson(self.activity * height * width)
        pixel = np.concatenate([pixel, rng.integers(0, height * width, false)])
        moment = np.concatenate([moment, rng.random(false)])
        on = np.concatenate([change.ravel()[pixel[: len(number)]] > 0, rng.random(false) < 0.5])
        order = np.argsort(moment)
        time = (t - 1) * FRAME_TIME + (moment[order] * FRAME_TIME).astype(np.int64)
        return Events(time, pixel[order] % width, pixel[order] // width, on[order])


@lru_cache(maxsize=4)
def _log_light(scene: Scene, t: int) -> np.ndarray:
    """(H, W) float32 logarithm of the light that falls on the sensor; also defined for t = -1."""
    grey = cv2.cvtColor(scene.radiance(t), cv2.COLOR_RGB2GRAY)
    levels = np.log(scene.light(t) * (np.arange(256) + STRAY_LIGHT) + DARK_CURRENT)
    return cv2.LUT(grey, levels.astype(np.float32))


def _smooth(rng: np.random.Generator, cells: int, size: tuple[int, int]) -> np.ndarray:
    """Smooth noise of about unit deviation: float32 of ``size`` (width, height)."""
    noise = rng.standard_normal((cells, cells), dtype=np.float32)
    return cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
