"""Procedural textures: the material of the generated videos.

A bank is drawn once per process from one seed; scenes cut, recolour and flip its entries, so that a
scene costs a fraction of a millisecond and still no two look alike.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

TEXTURE_SIZE = 96
TEXTURES = 768  # in a bank
_GRID = np.stack(
    np.meshgrid(np.linspace(-1, 1, TEXTURE_SIZE), np.linspace(-1, 1, TEXTURE_SIZE)), axis=-1
).astype(np.float32)


def _noise(rng: np.random.Generator) -> np.ndarray:
    """Noise with a 1/f^a amplitude spectrum, a in [0.5, 2]: octaves of smoothed white noise."""
    decay = 2.0 ** -rng.uniform(0.0, 1.5)
    field = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.float32)
    for octave in range(6):
        cells = rng.standard_normal((3 * 2**octave,) * 2).astype(np.float32)
        field += decay**octave * cv2.resize(
            cells, (TEXTURE_SIZE, TEXTURE_SIZE), interpolation=cv2.INTER_CUBIC
        )
    return field


def _stripes(rng: np.random.Generator) -> np.ndarray:
    """A bent grating."""
    angle = rng.uniform(0, np.pi)
    direction = np.array([np.cos(angle), np.sin(angle)], np.float32)
    bend = rng.uniform(0, 1.5) * np.sin(rng.uniform(1, 4) * _GRID[..., 0] + rng.uniform(0, 6))
    return np.sin(rng.uniform(4, 30) * (_GRID @ direction) + bend)


def _checks(rng: np.random.Generator) -> np.ndarray:
    """A rotated chequerboard."""
    angle, frequency = rng.uniform(0, np.pi), rng.uniform(4, 16, 2)
    turn = np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=np.float32
    )
    u, v = np.moveaxis(_GRID @ turn, -1, 0)
    return np.sign(np.sin(frequency[0] * u) * np.sin(frequency[1] * v))


def _cells(rng: np.random.Generator) -> np.ndarray:
    """Voronoi cells, one grey level each."""
    points = rng.uniform(-1, 1, (rng.integers(5, 30), 2)).astype(np.float32)
    nearest = ((_GRID[:, :, None] - points) ** 2).sum(-1).argmin(-1)
    return rng.uniform(-1, 1, len(points))[nearest]


def _patches(rng: np.random.Generator) -> np.ndarray:
    """Overlapping polygons and discs."""
    canvas = np.full((TEXTURE_SIZE, TEXTURE_SIZE), rng.uniform(-1, 1), np.float32)
    for _ in range(rng.integers(4, 14)):
        level = float(rng.uniform(-1, 1))
        centre = rng.integers(0, TEXTURE_SIZE, 2)
        if rng.random() < 0.5:
            cv2.circle(canvas, centre.tolist(), int(rng.integers(4, 28)), level, -1)
        else:
            corners = centre + rng.integers(-32, 33, (rng.integers(3, 6), 2))
            cv2.fillPoly(canvas, [corners.astype(np.int32)], level)
    return canvas


_PATTERNS = (_noise, _stripes, _checks, _cells, _patches)


def _palette(rng: np.random.Generator) -> np.ndarray:
    """(K, 3) float colours in [0, 255], from nearly grey to saturated."""
    colours = rng.uniform(0, 255, (rng.integers(2, 5), 3))
    grey = colours.mean(1, keepdims=True)
    return grey + rng.uniform(0.1, 1.0) * (colours - grey)


def make_texture(rng: np.random.Generator) -> np.ndarray:
    """One colour texture: (TEXTURE_SIZE, TEXTURE_SIZE, 3) uint8."""
    field = _PATTERNS[rng.integers(len(_PATTERNS))](rng)
    if rng.random() < 0.5:
        field = field + rng.uniform(0.2, 1.0) * _PATTERNS[rng.integers(len(_PATTERNS))](rng)
    low, high = field.min(), field.max()
    field = (field - low) / max(high - low, 1e-6)
    colours = _palette(rng)
    knots = np.linspace(0, 1, len(colours))
    texture = np.stack([np.interp(field, knots, channel) for channel in colours.T], axis=-1)
    return np.clip(texture, 0, 255).astype(np.uint8)


@lru_cache(maxsize=2)
def texture_bank(seed: int) -> np.ndarray:
    """(TEXTURES, TEXTURE_SIZE, TEXTURE_SIZE, 3) uint8, a pure function of the seed."""
    rng = np.random.default_rng(seed)
    return np.stack([make_texture(rng) for _ in range(TEXTURES)])


@lru_cache(maxsize=1)
def noise_tile() -> np.ndarray:
    """(1024, 1024, 3) int16, normal, standard deviation 32: sensor noise to cut windows from."""
    rng = np.random.default_rng(0)
    return (32 * rng.standard_normal((1024, 1024, 3), dtype=np.float32)).astype(np.int16)
