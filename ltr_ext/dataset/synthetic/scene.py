"""A generated scene: a target, look-alikes and occluders in depth, as four cameras see it.

Every quantity is a closed function of the frame number, so that any frame can be drawn without the
ones before it, and two runs draw the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from ltr_ext.data.events import DEFAULT_FORM, Events, render_events
from srft_plugin.errors import UserError

from .cameras import FRAME_TIME, EventCamera, ThermalCamera
from .objects import (
    Crossing,
    Leaving,
    Limb,
    SceneObject,
    Wave,
    draw_skin,
    recolour,
    silhouette,
    warp,
)
from .textures import noise_tile, texture_bank

MINIMUM_VISIBLE = 0.15  # below this visible share of its area the target counts as absent
MOST_ATTEMPTS = 500  # scenes that are tried for one that shows its target at the start
_CORNERS = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
# Where the interior of an object is probed for visibility, in object coordinates [-1, 1]^2.
_PROBES = np.stack(np.meshgrid(*[np.linspace(-0.95, 0.95, 12)] * 2), -1).reshape(-1, 2)

LIMITS = {  # least and largest value of an option, or of both its ends
    **dict.fromkeys(("look_alike", "dark", "fast", "failure", "leave"), (0, 1)),
    **dict.fromkeys(("distractors", "occluders", "limbs"), (0, 20)),
    **dict.fromkeys(("width", "height"), (64, 1000)),
    "target_size": (4, 500),
    "tilt": (0, 0.3),
}


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
    fast: float = 0.0  # share of scenes whose target moves four times as fast
    failure: float = 0.0  # share of scenes in which one of the two cameras is blind for a while
    leave: float = 0.0  # share of scenes whose target is out of sight for a while
    limbs: tuple[int, int] = (0, 0)  # of each object: parts that swing on hinges
    tilt: float = 0.0  # perspective: how much farther away one side of an object may be (share)
    texture_seed: int = 1  # training and test scenes use different banks

    def __post_init__(self):
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            ends = value if isinstance(value, tuple) else (value, value)
            if not (len(ends) == 2 and low <= ends[0] <= ends[1] <= high):
                wanted = "two, the smaller first," if isinstance(value, tuple) else "a number"
                raise UserError(f"{name} is {value}; expected {wanted} from {low} to {high}")


def visible_scene(seed: tuple[int, ...], options: SceneOptions | None = None) -> Scene:
    """The first scene of the stream ``seed`` whose first frame shows the target.

    Raises:
        UserError: there is none among many.
    """
    for attempt in range(MOST_ATTEMPTS):
        scene = Scene((*seed, attempt), options)
        if np.isfinite(scene.boxes[0]).all():
            return scene
    raise UserError(
        f"none of {MOST_ATTEMPTS} scenes shows enough of its target at the start: target_size is "
        f"{scene.options.target_size} in {scene.options.width}x{scene.options.height} pixels; "
        "lower it, or occluders"
    )


class Scene:
    """A random video with ground truth; ``Scene(seed, options)`` is a pure function of both."""

    def __init__(self, seed: tuple[int, ...], options: SceneOptions | None = None):
        self.options = options = options or SceneOptions()
        self._seed = seed
        rng, rare = np.random.default_rng(seed), self.generator(6)
        bank = texture_bank(options.texture_seed)
        frame = np.array([options.width, options.height], np.float64)

        self._camera = Wave(rng, [48, 48], 20, (0.01, 0.08))
        self._background = self._make_background(rng, bank)
        self._background_depth = rng.uniform(4500, 7500)
        self._gain = Wave(rng, rng.uniform(0.7, 1.1), 0.15, (0.01, 0.1))
        self._noise = rng.uniform(1, 8)
        self._blur = rng.random() < 0.25
        self._dark = None
        if rng.random() < options.dark:
            start = rng.uniform(0.25, 0.6) * options.length
            self._dark = (start, start + rng.uniform(0.2, 0.4) * options.length)
        self._dark_gain = rng.uniform(0.02, 0.08)

        path = Wave(
            rng, frame * rng.uniform(0.4, 0.6, 2), frame * rng.uniform(0.2, 0.42), (0.01, 0.05)
        )
        if rare.random() < options.fast:
            path.rate *= 4
        self._failure = None
        if rare.random() < options.failure:
            start = rare.uniform(0.25, 0.6) * options.length
            camera = ("rgb", "aux")[rare.integers(2)]
            self._failure = (camera, start, start + rare.uniform(0.15, 0.35) * options.length)
        self._path = path
        if rare.random() < options.leave:
            start = rare.uniform(0.25, 0.5) * options.length
            end = start + rare.uniform(0.2, 0.4) * options.length
            away = rare.choice((-1, 1)) * frame * rare.permutation((0, 1))
            path = Leaving(path, start, end, away)
        depth = rng.uniform(1500, 3000)
        size = rng.uniform(*options.target_size) * np.exp(rng.normal(0, 0.25, 2))
        skin = recolour(rng, draw_skin(rng, bank))
        self.target = SceneObject(rng, skin, silhouette(rng), path, size, depth)
        self._complete(self.target, 0)
        self.objects = [self.target]  # and what surrounds it, each with its limbs
        for kind, (low, high) in (
            ("distractor", options.distractors),
            ("occluder", options.occluders),
        ):
            for _ in range(rng.integers(low, high + 1)):
                self.objects.append(self._make_other(rng, bank, kind, size, depth))

    def _make_other(self, rng, bank, kind: str, size: np.ndarray, depth: float) -> SceneObject:
        look_alike = kind == "distractor" and rng.random() < self.options.look_alike
        skin = self.target.skin if look_alike else recolour(rng, draw_skin(rng, bank))
        outline = self.target.outline if look_alike else silhouette(rng)
        if kind == "distractor":  # nearer or farther than the target, never at its depth
            ratio = rng.uniform(0.45, 0.7) if rng.random() < 0.5 else rng.uniform(1.4, 1.9)
            size = size * np.exp(rng.normal(0, 0.08 if look_alike else 0.3))
        else:
            ratio = rng.uniform(0.3, 0.7)
            size = size * rng.uniform(0.7, 1.6, 2)
        clear = 0.6 * (size.max() + self.target.size(0).max())
        for _ in range(20):  # until the first frame shows the target
            meeting = rng.uniform(0.15, 0.95) * self.options.length
            path = Crossing(rng, self._path, meeting, self.options.width)
            if np.linalg.norm(path(0) - self._path(0)) > clear:
                break
        item = SceneObject(rng, skin, outline, path, size, depth * ratio)
        self._complete(item, 0 if look_alike else len(self.objects))
        return item

    def _complete(self, item: SceneObject, kind: int) -> None:
        """Gives an object its perspective and its limbs, the same to all of a kind."""
        rng = self.generator(7, kind)
        if self.options.tilt:
            item.slant = Wave(rng, np.zeros(2), rng.uniform(0, self.options.tilt), (0.01, 0.06))
        low, high = self.options.limbs
        item.parts += [Limb(rng, item) for _ in range(rng.integers(low, high + 1))]

    def _make_background(self, rng: np.random.Generator, bank: np.ndarray) -> np.ndarray:
        size = (self.options.width + 96, self.options.height + 96)
        image = cv2.resize(
            recolour(rng, bank[rng.integers(len(bank))]), size, interpolation=cv2.INTER_CUBIC
        )
        for _ in range(rng.integers(0, 12)):  # clutter
            patch = recolour(rng, bank[rng.integers(len(bank))])
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
        outlines = [part.to_frame(part.outline, t) for part in item.parts]
        outline = np.clip(np.concatenate(outlines, 1), 0, border)
        low, high = outline.min(1), outline.max(1)
        whole, _, seen = self._areas(item, t)
        boxes = np.concatenate([low, high - low], axis=1)
        boxes[seen < MINIMUM_VISIBLE * whole] = np.nan
        return boxes

    def _areas(self, item: SceneObject, t: np.ndarray) -> tuple[np.ndarray, ...]:
        """(len(t),) probed areas of an object: all, inside the image, and not hidden there."""
        border = np.array([self.options.width, self.options.height])
        probes = [part.to_frame(_PROBES, t) for part in item.parts]
        whole = np.concatenate(
            [part.covers(own, t) for part, own in zip(item.parts, probes, strict=True)], 1
        )
        probes = np.concatenate(probes, 1)
        inside = whole & ((probes >= 0) & (probes < border)).all(-1)
        seen = inside.copy()
        for other in self.objects:
            if other is not item:
                nearer = other.depth(t) < item.depth(t)
                for part in other.parts:
                    seen &= ~(part.covers(probes, t) & nearer[:, None])
        return whole.sum(1), inside.sum(1), seen.sum(1)

    @cached_property
    def tags(self) -> dict[str, np.ndarray]:
        """(length,) bool for each attribute that a benchmark would label, frame by frame.

        ``low_light``: the light has collapsed; ``distractor``: a look-alike is in the scene;
        ``occlusion``: more than 30 % of the target in the image is hidden; ``fast_motion``: it has
        moved by more than 30 % of its size sqrt(w h) since the frame before; ``rgb_failure``,
        ``aux_failure``: that camera is blind.
        """
        t = np.arange(len(self))
        _, inside, seen = self._areas(self.target, t)
        step = np.diff(self.target.centre(t), axis=0, prepend=self.target.centre(t[:1]))
        size = np.sqrt(np.abs(np.linalg.det(self.target.linear(t)))) * 2
        alike = any(item.skin is self.target.skin for item in self.objects[1:])
        return {
            "low_light": np.array([self.light(frame) < 0.3 for frame in t]),
            "distractor": np.full(len(t), alike),
            "occlusion": seen < 0.7 * inside,
            "fast_motion": np.linalg.norm(step, axis=1) > 0.3 * size,
            "rgb_failure": np.array([self.blind("rgb", frame) for frame in t]),
            "aux_failure": np.array([self.blind("aux", frame) for frame in t]),
        }

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the ``tags`` that hold in some frame."""
        return tuple(name for name, frames in self.tags.items() if frames.any())

    def blind(self, camera: str, t: int) -> bool:
        """Whether the ``rgb`` or the ``aux`` camera delivers nothing at frame ``t``."""
        if self._failure is None:
            return False
        which, start, end = self._failure
        return camera == which and start <= t < end

    def light(self, t: int) -> float:
        """Factor on the RGB signal: near 1, a few hundredths while the light is gone."""
        gain = float(self._gain(t))
        if self._dark is None:
            return gain
        inside = np.clip(min(t - self._dark[0], self._dark[1] - t) / 4 + 1, 0, 1)
        return gain * (1 - inside * (1 - self._dark_gain))

    def radiance(self, t: int) -> np.ndarray:
        """(H, W, 3) uint8 light of the scene at frame ``t`` before any camera changes it."""
        image = self.background_window(self._background, t).copy()
        for item, window, transform, alpha in self.layers(t):
            shape = alpha.shape[::-1]
            skin = warp(item.skin, transform, shape)
            weight = np.repeat(alpha[..., None], 3, axis=2)
            image[window] = cv2.add(
                cv2.multiply(skin, weight, scale=1 / 255),
                cv2.multiply(image[window], 255 - weight, scale=1 / 255),
            )
        return image

    def rgb(self, t: int) -> np.ndarray:
        """(H, W, 3) uint8 image of the colour camera at frame ``t``; black while it is blind."""
        image = self.radiance(t)
        if self.blind("rgb", t):
            return np.zeros_like(image)
        if self._blur:
            image = cv2.blur(image, (3, 3))
        noise = self.noise_window(t, 0)
        return cv2.addWeighted(image, self.light(t), noise, self._noise / 32, 0, dtype=cv2.CV_8U)

    def depth(self, t: int) -> np.ndarray:
        """(H, W) uint16 reading of the depth camera at frame ``t``, millimetres, 0 = none.

        Noise grows with the square of the distance; 8 mm steps; holes along the silhouettes.
        """
        height, width = self.options.height, self.options.width
        if self.blind("aux", t):
            return np.zeros((height, width), np.uint16)
        slope = np.linspace(1.1, 0.9, height, dtype=np.float32)[:, None]
        depth = np.repeat(np.float32(self._background_depth) * slope, width, axis=1)
        for item, window, transform, alpha in self.layers(t):
            distance = item.depth(t)
            if item.slant is not None:
                distance = warp(item.surface(t), transform, alpha.shape[::-1])[alpha > 127]
            depth[window][alpha > 127] = distance
        noise = self.noise_window(t, 1)[..., 0] / np.float32(32)
        measured = np.round((depth + noise * 2e-6 * depth**2) / 8) * 8
        around = np.ones((3, 3), np.uint8)
        edges = cv2.dilate(depth, around) - cv2.erode(depth, around) > 200
        measured[edges & (noise > 0)] = 0
        return np.clip(measured, 0, 65535).astype(np.uint16)

    def thermal(self, t: int) -> np.ndarray:
        """(H, W) uint8 image of the thermal camera at frame ``t``; grey while it is blind."""
        if self.blind("aux", t):
            return np.full((self.options.height, self.options.width), 128, np.uint8)
        return self._thermal_camera.image(self, t)

    def events(self, t: int) -> Events:
        """Events between frames ``t - 1`` and ``t``, in order of time; none while it is blind."""
        if self.blind("aux", t):
            return Events(*(np.zeros(0, kind) for kind in (np.int64, np.intp, np.intp, bool)))
        return self._event_camera.events(self, t)

    def aux(self, t: int, modality: str, event_form: str = DEFAULT_FORM) -> np.ndarray:
        """What a data set of the modality stores: depth, thermal or rendered event image."""
        if modality != "event":
            return self.depth(t) if modality == "depth" else self.thermal(t)
        shape, span = (
            (self.options.height, self.options.width),
            ((t - 1) * FRAME_TIME, t * FRAME_TIME),
        )
        return render_events(self.events(t), shape, event_form, span)

    @cached_property
    def _thermal_camera(self) -> ThermalCamera:
        return ThermalCamera(self.generator(4), self)

    @cached_property
    def _event_camera(self) -> EventCamera:
        return EventCamera(self.generator(5), self)

    def generator(self, *stream: int) -> np.random.Generator:
        """Random numbers of this scene that depend on nothing but its seed and ``stream``."""
        return np.random.default_rng((*self._seed, *stream))

    def background_window(self, background: np.ndarray, t: int) -> np.ndarray:
        """The part in sight at ``t`` of a background 96 pixels wider and higher than the image."""
        left, top = np.round(self._camera(t)).astype(int)
        return background[top : top + self.options.height, left : left + self.options.width]

    def layers(self, t: int):
        """Parts from far to near: (object, window in the frame, sprite transform, alpha)."""
        border = np.array([self.options.width, self.options.height])
        parts = (part for item in self.objects for part in item.parts)
        for item in sorted(parts, key=lambda part: -float(part.depth(t))):
            corners = item.to_frame(_CORNERS, t)
            low = np.maximum(np.floor(corners.min(0)), 0).astype(int)
            high = np.minimum(np.ceil(corners.max(0)) + 1, border).astype(int)
            if (high <= low).any():
                continue
            transform = item.transform(t, low)
            size = (int(high[0] - low[0]), int(high[1] - low[1]))
            alpha = warp(item.mask, transform, size, cv2.BORDER_CONSTANT)
            yield item, np.s_[low[1] : high[1], low[0] : high[0]], transform, alpha

    def noise_window(self, t: int, stream: int) -> np.ndarray:
        """(H, W, 3) int16, standard deviation 32, its own for every frame and sensor."""
        tile = noise_tile()
        size = (self.options.height, self.options.width)
        y, x = self.generator(stream, t).integers(0, np.array(tile.shape[:2]) - size)
        return tile[y : y + size[0], x : x + size[1]]
