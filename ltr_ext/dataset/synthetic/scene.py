"""A generated scene: a target, look-alikes and occluders in depth, rendered as RGB and depth.

Every quantity is a closed function of the frame number, so that any frame can be drawn without the
ones before it, and two runs draw the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import count

import cv2
import numpy as np

from .textures import TEXTURE_SIZE, noise_tile, texture_bank

MINIMUM_VISIBLE = 0.15  # below this visible share of its area the target counts as absent
_CORNERS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
# Where the interior of an object is probed for visibility, in object coordinates [-1, 1]^2.
_PROBES = np.stack(np.meshgrid(*[np.linspace(-0.95, 0.95, 12)] * 2), -1).reshape(-1, 2)


@dataclass(frozen=True)
class SceneOptions:
    """What a scene may contain. Sizes in pixels, times in frames."""

    width: int = 320
    height: int = 240
    length: int = 120
    target_size: tuple[float, float] = (22.0, 72.0)
    distractors: tuple[int, int] = (0, 4)
    look_alike: float = 0.3  # share of the distractors that wear the target's texture and shape
    occluders: tuple[int, int] = (0, 2)
    dark: float = 0.15  # share of scenes in which the light collapses for a while
    texture_seed: int = 1  # training and test scenes use different banks


class _Wave:
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


class _Crossing:
    """A path that swings through the place where the target is at time ``meeting``."""

    def __init__(self, rng: np.random.Generator, target: _Wave, meeting: float, width: int):
        angle = rng.uniform(0, 2 * np.pi)
        reach = rng.uniform(0.3, 0.7) * width
        self.swing = reach * np.array([np.cos(angle), 0.7 * np.sin(angle)])
        self.rate = rng.uniform(1.5, 4.5) / reach  # speed at the meeting: 1.5 to 4.5 pixels/frame
        self.origin, self.meeting = target(meeting), meeting

    def __call__(self, t) -> np.ndarray:
        phase = self.rate * (np.asarray(t, np.float64) - self.meeting)
        return self.origin + self.swing * np.sin(phase)[..., None]


def _silhouette(rng: np.random.Generator) -> np.ndarray:
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


def _skin(rng: np.random.Generator, bank: np.ndarray) -> np.ndarray:
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


def _recolour(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Turns, mirrors and recolours a texture: the bank looks larger than it is."""
    image = np.rot90(image, rng.integers(4))[:, :: rng.choice((-1, 1))]
    levels = np.arange(256)[:, None] * rng.uniform(0.6, 1.2, 3) + rng.uniform(-30, 30, 3)
    table = np.clip(levels, 0, 255).astype(np.uint8)[None]
    return cv2.LUT(np.ascontiguousarray(image[..., rng.permutation(3)]), table)


class SceneObject:
    """A flat textured thing with a silhouette, moving, turning, stretching and shearing."""

    def __init__(self, rng: np.random.Generator, skin, outline, centre, size, depth: float):
        self.skin = skin  # (S, S, 3) uint8
        self.outline = outline  # (72, 2) in [-1, 1]^2
        self.mask = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE), np.uint8)
        pixels = np.round((outline + 1) * (TEXTURE_SIZE - 1) / 2).astype(np.int32)
        cv2.fillPoly(self.mask, [pixels], 255)
        self.centre = centre  # t -> (x, y) pixels
        self.size = _Wave(rng, size, size * rng.uniform(0.05, 0.3), (0.01, 0.08))
        self._angle = _Wave(rng, rng.uniform(-0.4, 0.4), rng.uniform(0, 0.5), (0.01, 0.06))
        self._strain = _Wave(rng, np.eye(2), rng.uniform(0, 0.2), (0.02, 0.12))
        self.depth = _Wave(rng, depth, 0.1 * depth, (0.01, 0.04))  # t -> millimetres

    def linear(self, t) -> np.ndarray:
        """(..., 2, 2): object coordinates in [-1, 1]^2 to pixel offsets from the centre."""
        angle = self._angle(t)
        turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1)
        return turn.reshape(*angle.shape, 2, 2) @ (
            self._strain(t) * (self.size(t) / 2)[..., None, :]
        )

    def to_frame(self, points: np.ndarray, t) -> np.ndarray:
        """(P, 2) object coordinates to (..., P, 2) pixels."""
        return points @ np.swapaxes(self.linear(t), -1, -2) + self.centre(t)[..., None, :]

    def covers(self, pixels: np.ndarray, t) -> np.ndarray:
        """Whether (..., P, 2) pixels lie inside the silhouette: (..., P) bool."""
        inverse = np.linalg.inv(self.linear(t))
        local = (pixels - self.centre(t)[..., None, :]) @ np.swapaxes(inverse, -1, -2)
        column, row = np.moveaxis(np.round((local + 1) * (TEXTURE_SIZE - 1) / 2).astype(int), -1, 0)
        last = TEXTURE_SIZE - 1
        inside = (np.minimum(row, column) >= 0) & (np.maximum(row, column) <= last)
        return inside & (self.mask[np.clip(row, 0, last), np.clip(column, 0, last)] > 127)


def visible_scene(seed: tuple[int, ...], options: SceneOptions | None = None) -> Scene:
    """The first scene of the stream ``seed`` whose first frame shows the target."""
    for attempt in count():
        scene = Scene((*seed, attempt), options)
        if np.isfinite(scene.boxes[0]).all():
            return scene


class Scene:
    """A random video with ground truth; ``Scene(seed, options)`` is a pure function of both."""

    def __init__(self, seed: tuple[int, ...], options: SceneOptions | None = None):
        self.options = options = options or SceneOptions()
        self._seed = seed
        rng = np.random.default_rng(seed)
        bank = texture_bank(options.texture_seed)
        frame = np.array([options.width, options.height], np.float64)

        self._camera = _Wave(rng, [48, 48], 20, (0.01, 0.08))
        self._background = self._make_background(rng, bank)
        self._background_depth = rng.uniform(4500, 7500)
        self._gain = _Wave(rng, rng.uniform(0.7, 1.1), 0.15, (0.01, 0.1))
        self._noise = rng.uniform(1, 8)
        self._blur = rng.random() < 0.25
        self._dark = None
        if rng.random() < options.dark:
            start = rng.uniform(0.25, 0.6) * options.length
            self._dark = (start, start + rng.uniform(0.2, 0.4) * options.length)
        self._dark_gain = rng.uniform(0.02, 0.08)

        path = _Wave(
            rng, frame * rng.uniform(0.4, 0.6, 2), frame * rng.uniform(0.2, 0.42), (0.01, 0.05)
        )
        depth = rng.uniform(1500, 3000)
        size = rng.uniform(*options.target_size) * np.exp(rng.normal(0, 0.25, 2))
        skin = _recolour(rng, _skin(rng, bank))
        self.target = SceneObject(rng, skin, _silhouette(rng), path, size, depth)
        self.objects = [self.target]
        for kind, (low, high) in (
            ("distractor", options.distractors),
            ("occluder", options.occluders),
        ):
            for _ in range(rng.integers(low, high + 1)):
                self.objects.append(self._make_other(rng, bank, kind, size, depth))

    def _make_other(self, rng, bank, kind: str, size: np.ndarray, depth: float) -> SceneObject:
        look_alike = kind == "distractor" and rng.random() < self.options.look_alike
        skin = self.target.skin if look_alike else _recolour(rng, _skin(rng, bank))
        outline = self.target.outline if look_alike else _silhouette(rng)
        if kind == "distractor":  # nearer or farther than the target, never at its depth
            ratio = rng.uniform(0.45, 0.7) if rng.random() < 0.5 else rng.uniform(1.4, 1.9)
            size = size * np.exp(rng.normal(0, 0.08 if look_alike else 0.3))
        else:
            ratio = rng.uniform(0.3, 0.7)
            size = size * rng.uniform(0.7, 1.6, 2)
        clear = 0.6 * (size.max() + self.target.size(0).max())
        for _ in range(20):  # until the first frame shows the target
            meeting = rng.uniform(0.15, 0.95) * self.options.length
            path = _Crossing(rng, self.target.centre, meeting, self.options.width)
            if np.linalg.norm(path(0) - self.target.centre(0)) > clear:
                break
        return SceneObject(rng, skin, outline, path, size, depth * ratio)

    def _make_background(self, rng: np.random.Generator, bank: np.ndarray) -> np.ndarray:
        size = (self.options.width + 96, self.options.height + 96)
        image = cv2.resize(
            _recolour(rng, bank[rng.integers(len(bank))]), size, interpolation=cv2.INTER_CUBIC
        )
        for _ in range(rng.integers(0, 12)):  # clutter
            patch = _recolour(rng, bank[rng.integers(len(bank))])
            width, height = rng.integers(16, 140, 2)
            left = rng.integers(0, size[0] - width)
            top = rng.integers(0, size[1] - height)
            patch = cv2.resize(patch, (int(width), int(height)), interpolation=cv2.INTER_AREA)
            image[top : top + height, left : left + width] = patch
        return image

    def __len__(self) -> int:
        return self.options.length

    @cached_property
    def boxes(self) -> np.ndarray:
        """(length, 4) boxes of the target; see ``boxes_of``."""
        return self.boxes_of(self.target, np.arange(len(self)))

    def boxes_of(self, item: SceneObject, t: np.ndarray) -> np.ndarray:
        """Boxes of an object at the frames ``t``: (len(t), 4) float64 xywh.

        The whole object, also its hidden part, as far as it is inside the image; NaN where less
        than ``MINIMUM_VISIBLE`` of its area can be seen.
        """
        border = np.array([self.options.width, self.options.height])
        outline = np.clip(item.to_frame(item.outline, t), 0, border)
        low, high = outline.min(1), outline.max(1)
        probes = item.to_frame(_PROBES, t)
        inside = item.covers(probes, t)
        seen = inside & ((probes >= 0) & (probes < border)).all(-1)
        for other in self.objects:
            if other is not item:
                nearer = other.depth(t) < item.depth(t)
                seen &= ~(other.covers(probes, t) & nearer[:, None])
        boxes = np.concatenate([low, high - low], axis=1)
        boxes[seen.sum(1) < MINIMUM_VISIBLE * inside.sum(1)] = np.nan
        return boxes

    def light(self, t: int) -> float:
        """Factor on the RGB signal: near 1, a few hundredths while the light is gone."""
        gain = float(self._gain(t))
        if self._dark is None:
            return gain
        inside = np.clip(min(t - self._dark[0], self._dark[1] - t) / 4 + 1, 0, 1)
        return gain * (1 - inside * (1 - self._dark_gain))

    def rgb(self, t: int) -> np.ndarray:
        """(H, W, 3) uint8 image of the colour camera at frame ``t``."""
        height, width = self.options.height, self.options.width
        left, top = np.round(self._camera(t)).astype(int)
        image = self._background[top : top + height, left : left + width].copy()
        for item, window, transform, alpha in self._layers(t):
            shape = alpha.shape[::-1]
            skin = cv2.warpAffine(item.skin, transform, shape, borderMode=cv2.BORDER_REPLICATE)
            weight = np.repeat(alpha[..., None], 3, axis=2)
            image[window] = cv2.add(
                cv2.multiply(skin, weight, scale=1 / 255),
                cv2.multiply(image[window], 255 - weight, scale=1 / 255),
            )
        if self._blur:
            image = cv2.blur(image, (3, 3))
        noise = self._noise_window(t, 0)
        return cv2.addWeighted(image, self.light(t), noise, self._noise / 32, 0, dtype=cv2.CV_8U)

    def depth(self, t: int) -> np.ndarray:
        """(H, W) uint16 reading of the depth camera at frame ``t``, millimetres, 0 = none.

        Noise grows with the square of the distance; 8 mm steps; holes along the silhouettes.
        """
        height, width = self.options.height, self.options.width
        slope = np.linspace(1.1, 0.9, height, dtype=np.float32)[:, None]
        depth = np.repeat(np.float32(self._background_depth) * slope, width, axis=1)
        for item, window, _, alpha in self._layers(t):
            depth[window][alpha > 127] = item.depth(t)
        noise = self._noise_window(t, 1)[..., 0] / np.float32(32)
        measured = np.round((depth + noise * 2e-6 * depth**2) / 8) * 8
        around = np.ones((3, 3), np.uint8)
        edges = cv2.dilate(depth, around) - cv2.erode(depth, around) > 200
        measured[edges & (noise > 0)] = 0
        return np.clip(measured, 0, 65535).astype(np.uint16)

    def _layers(self, t: int):
        """Objects from far to near: (object, window in the frame, sprite transform, alpha)."""
        border = np.array([self.options.width, self.options.height])
        for item in sorted(self.objects, key=lambda o: -float(o.depth(t))):
            corners = item.to_frame(_CORNERS, t)
            low = np.maximum(np.floor(corners.min(0)), 0).astype(int)
            high = np.minimum(np.ceil(corners.max(0)) + 1, border).astype(int)
            if (high <= low).any():
                continue
            linear = item.linear(t) * 2 / (TEXTURE_SIZE - 1)
            offset = item.centre(t) - item.linear(t).sum(1) - low
            transform = np.concatenate([linear, offset[:, None]], axis=1)
            size = (int(high[0] - low[0]), int(high[1] - low[1]))
            alpha = cv2.warpAffine(item.mask, transform, size)
            yield item, np.s_[low[1] : high[1], low[0] : high[0]], transform, alpha

    def _noise_window(self, t: int, stream: int) -> np.ndarray:
        """(H, W, 3) int16, standard deviation 32, its own for every frame and sensor."""
        tile = noise_tile()
        size = (self.options.height, self.options.width)
        rng = np.random.default_rng((*self._seed, stream, t))
        y, x = rng.integers(0, np.array(tile.shape[:2]) - size)
        return tile[y : y + size[0], x : x + size[1]]
