"""What moves in a generated scene: closed functions of time, outlines, surfaces."""

from __future__ import annotations

import cv2
import numpy as np

from .textures import TEXTURE_SIZE

WAY_OUT = 10  # most frames that a target takes to leave the image
GAP = 1.0  # millimetres between a body and a limb in front of it
_PLANE = np.stack(np.meshgrid(*[np.linspace(-1, 1, TEXTURE_SIZE)] * 2), -1)


class Wave:
    """A quantity that swings about its mean by the sum of two sines per component."""

    def __init__(self, rng: np.random.Generator, mean, amplitude, rate: tuple[float, float]):
        self.mean = np.asarray(mean, np.float64)
        shape = (2, *self.mean.shape)
        first = rng.uniform(0, 1, self.mean.shape)
        self.amplitude = np.asarray(amplitude) * np.stack([first, 1 - first])
        self.rate = rng.uniform(*rate, shape)
        self.phase = rng.uniform(0, 2 * np.pi, shape)

    def __call__(self, t) -> np.ndarray:
        """Value at frame(s) ``t``: shape of ``t`` followed by the shape of the mean."""
        t = np.asarray(t, np.float64)[(..., *[None] * self.rate.ndim)]
        swing = self.amplitude * np.sin(self.rate * t + self.phase)
        return self.mean + swing.sum(axis=-self.rate.ndim)


class Crossing:
    """A path that swings through the place where the target is at time ``meeting``."""

    def __init__(self, rng: np.random.Generator, target: Wave, meeting: float, width: int):
        angle = rng.uniform(0, 2 * np.pi)
        reach = rng.uniform(0.3, 0.7) * width
        self.swing = reach * np.array([np.cos(angle), 0.7 * np.sin(angle)])
        self.rate = rng.uniform(1.5, 4.5) / reach  # speed at the meeting: 1.5 to 4.5 pixels/frame
        self.origin, self.meeting = target(meeting), meeting

    def __call__(self, t) -> np.ndarray:
        phase = self.rate * (np.asarray(t, np.float64) - self.meeting)
        return self.origin + self.swing * np.sin(phase)[..., None]


class Leaving:
    """A path that is out of the image between two frames, and comes back.

    Args:
        path: where it would be otherwise, and is at frame 0.
        start, end: frames between which it is away; above 0.
        way: (2,) pixels from there to where it is out of sight.
    """

    def __init__(self, path: Wave, start: float, end: float, way: np.ndarray):
        self.path, self.start, self.end, self.way = path, start, end, way
        self.way_out = min(WAY_OUT, start)

    def __call__(self, t) -> np.ndarray:
        t = np.asarray(t, np.float64)
        out = np.clip(np.minimum(t - self.start, self.end - t) / self.way_out + 1, 0, 1)
        return self.path(t) + (out * out * (3 - 2 * out))[..., None] * self.way


def silhouette(rng: np.random.Generator) -> np.ndarray:
    """(72, 2) outline in [-1, 1]^2: a radius that varies with the angle, from box to star."""
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    exponent = rng.uniform(1.6, 8)
    radius = (np.abs(np.cos(angles)) ** exponent + np.abs(np.sin(angles)) ** exponent) ** (
        -1 / exponent
    )
    for harmonic in rng.integers(2, 8, 2):
        radius = radius * (
            1 + rng.uniform(0, 0.2) * np.sin(harmonic * angles + rng.uniform(0, 2 * np.pi))
        )
    points = np.stack([radius * np.cos(angles), radius * np.sin(angles)], -1)
    return points / np.abs(points).max(0)


def draw_skin(rng: np.random.Generator, bank: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8 surface: one texture, or bands and patches of several."""
    skin = bank[rng.integers(len(bank))].copy()
    for _ in range(rng.integers(0, 4)):
        other = bank[rng.integers(len(bank))]
        top, left = rng.integers(0, TEXTURE_SIZE - 16, 2)
        bottom, right = top + rng.integers(16, TEXTURE_SIZE), left + rng.integers(16, TEXTURE_SIZE)
        if rng.random() < 0.5:
            left, right = 0, TEXTURE_SIZE
        skin[top:bottom, left:right] = other[top:bottom, left:right]
    return skin


def recolour(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Turns, mirrors and recolours a texture: the bank looks larger than it is."""
    image = np.rot90(image, rng.integers(4))[:, :: rng.choice((-1, 1))]
    levels = np.arange(256)[:, None] * rng.uniform(0.6, 1.2, 3) + rng.uniform(-30, 30, 3)
    table = np.clip(levels, 0, 255).astype(np.uint8)[None]
    return cv2.LUT(np.ascontiguousarray(image[..., rng.permutation(3)]), table)


class SceneObject:
    """A flat textured thing with a silhouette, moving, turning, stretching and shearing.

    Attributes:
        slant: t -> (2,), its turn out of the image plane: a point p of [-1, 1]^2 lies 1 + slant p
            times as far away as the centre and is drawn as much smaller. None: it does not turn.
        parts: itself and its limbs.
    """

    slant: Wave | None = None

    def __init__(self, rng: np.random.Generator, skin, outline, centre, size, depth: float):
        self.parts = [self]
        self.skin = skin  # (S, S, 3) uint8
        self.outline = outline  # (72, 2) in [-1, 1]^2
        self.mask = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.uint8)
        pixels = np.round((outline + 1) * (TEXTURE_SIZE - 1) / 2).astype(np.int32)
        cv2.fillPoly(self.mask, [pixels], 255)
        self.centre = centre  # t -> (x, y) pixels
        self.size = Wave(rng, size, size * rng.uniform(0.05, 0.3), (0.01, 0.08))
        self.angle = Wave(rng, rng.uniform(-0.4, 0.4), rng.uniform(0, 0.5), (0.01, 0.06))
        self._strain = Wave(rng, np.eye(2), rng.uniform(0, 0.2), (0.02, 0.12))
        self.depth = Wave(rng, depth, 0.1 * depth, (0.01, 0.04))  # t -> millimetres

    def linear(self, t) -> np.ndarray:
        """(..., 2, 2): object coordinates in [-1, 1]^2 to pixel offsets from the centre."""
        angle = self.angle(t)
        turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1)
        return turn.reshape(*angle.shape, 2, 2) @ (
            self._strain(t) * (self.size(t) / 2)[..., None, :]
        )

    def distance(self, points: np.ndarray, t) -> np.ndarray:
        """That of (..., 2) object coordinates over the centre's: (..., 1)."""
        return 1 + (points * self.slant(t)[..., None, :]).sum(-1, keepdims=True)

    def to_frame(self, points: np.ndarray, t) -> np.ndarray:
        """(P, 2) object coordinates to (..., P, 2) pixels."""
        if self.slant is not None:
            points = points / self.distance(points, t)
        return points @ np.swapaxes(self.linear(t), -1, -2) + self.centre(t)[..., None, :]

    def covers(self, pixels: np.ndarray, t) -> np.ndarray:
        """Whether (..., P, 2) pixels lie inside the silhouette: (..., P) bool."""
        inverse = np.linalg.inv(self.linear(t))
        local = (pixels - self.centre(t)[..., None, :]) @ np.swapaxes(inverse, -1, -2)
        if self.slant is not None:  # the inverse of `to_frame`; 0 is its horizon
            local = local / np.maximum(2 - self.distance(local, t), 1e-3)
        column, row = np.moveaxis(np.round((local + 1) * (TEXTURE_SIZE - 1) / 2).astype(int), -1, 0)
        last = TEXTURE_SIZE - 1
        inside = (np.minimum(row, column) >= 0) & (np.maximum(row, column) <= last)
        return inside & (self.mask[np.clip(row, 0, last), np.clip(column, 0, last)] > 127)

    def transform(self, t, corner: np.ndarray) -> np.ndarray:
        """From pixels of the skin to those of the frame right of and below ``corner``.

        (2, 3), or (3, 3) where the object turns out of the plane.
        """
        if self.slant is None:
            linear = self.linear(t) * 2 / (TEXTURE_SIZE - 1)
            offset = self.centre(t) - self.linear(t).sum(1) - corner
            return np.concatenate([linear, offset[:, None]], axis=1)
        half = (TEXTURE_SIZE - 1) / 2
        plane = np.array([[1 / half, 0, -1], [0, 1 / half, -1], [0, 0, 1]])
        turn, place = np.eye(3), np.eye(3)
        turn[2, :2] = self.slant(t)
        place[:2] = np.column_stack([self.linear(t), self.centre(t) - corner])
        return place @ turn @ plane

    def surface(self, t) -> np.ndarray:
        """(S, S) float32 distance of every pixel of the skin, millimetres."""
        return np.float32(self.depth(t) * self.distance(_PLANE, t)[..., 0])


class Limb(SceneObject):
    """A part hinged to the rim of a body: moves and turns with it, and swings about the hinge."""

    def __init__(self, rng: np.random.Generator, body: SceneObject):
        direction = rng.uniform(0, 2 * np.pi)
        self.body, self.hinge = body, 0.7 * np.array([[np.cos(direction), np.sin(direction)]])
        size = body.size.mean.mean() * np.array([rng.uniform(0.5, 0.9), rng.uniform(0.2, 0.35)])
        super().__init__(rng, body.skin, silhouette(rng), self._hinged, size, 0.0)
        self._swing = Wave(rng, direction, rng.uniform(0.2, 0.9), (0.03, 0.12))
        self.angle, self.depth = self._turned, self._in_front

    def _turned(self, t) -> np.ndarray:
        return self.body.angle(t) + self._swing(t)

    def _hinged(self, t) -> np.ndarray:
        return self.body.to_frame(self.hinge, t)[..., 0, :] + self.linear(t) @ (0.8, 0)

    def _in_front(self, t) -> np.ndarray:
        return self.body.depth(t) - GAP


def warp(
    image: np.ndarray,
    transform: np.ndarray,
    size: tuple[int, int],
    border: int = cv2.BORDER_REPLICATE,
) -> np.ndarray:
    """``image`` through a ``SceneObject.transform``, in a picture of ``size`` (width, height)."""
    through = cv2.warpAffine if len(transform) == 2 else cv2.warpPerspective
    return through(image, transform, size, borderMode=border)
