"""Generated scenes as a data set, rendered on demand."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ltr_ext.data.events import DEFAULT_FORM
from ltr_ext.data.representation import represent
from ltr_ext.dataset.sequence import Sequence

from .scene import Scene, SceneOptions, visible_scene


@lru_cache(maxsize=64)
def _scene(seed: tuple[int, int], options: SceneOptions) -> Scene:
    return visible_scene(seed, options)


@dataclass(frozen=True)
class _SceneFrames:
    """Frames that are drawn when asked for."""

    scene: Scene
    modality: str | None
    event_form: str

    def __len__(self) -> int:
        return len(self.scene)

    def rgb(self, index: int) -> np.ndarray:
        return self.scene.rgb(index)

    def aux(self, index: int) -> np.ndarray | None:
        if self.modality is None:
            return None
        return represent(self.scene.aux(index, self.modality, self.event_form), self.modality)


@dataclass(frozen=True)
class Synthetic:
    """A data set of ``count`` generated videos; video i is a pure function of (seed, i).

    Args:
        count: number of sequences.
        seed: two data sets with different seeds share no scene.
        options: what the scenes contain.
        modality: ``depth``, ``thermal`` or ``event``, None for RGB.
        event_form: representation of events, a key of ``EVENT_FORMS``.

    A sequence has ``extra["attributes"]``: see ``Scene.attributes``.
    """

    count: int
    seed: int = 0
    options: SceneOptions = SceneOptions()
    modality: str | None = None
    name: str = "synthetic"
    event_form: str = DEFAULT_FORM

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sequence:
        if not 0 <= index < self.count:
            raise IndexError(f"sequence {index} of {self.count}")
        scene = _scene((self.seed, index), self.options)
        frames = _SceneFrames(scene, self.modality, self.event_form)
        name, extra = f"{self.name}{index:04d}", {"attributes": scene.attributes}
        return Sequence(name, frames, scene.boxes, self.modality, extra)


@dataclass(frozen=True)
class _Stills:
    """A few frames of a scene, drawn once and kept."""

    images: np.ndarray  # (N, H, W, 3) uint8

    def __len__(self) -> int:
        return len(self.images)

    def rgb(self, index: int) -> np.ndarray:
        return self.images[index]

    def aux(self, index: int) -> np.ndarray | None:
        return None


class SyntheticStills:
    """RGB scenes for training from scratch: every object of a scene serves as a target.

    A few moments of each scene are drawn when it is first asked for and stay in memory, so that a
    training pair costs little more than its two crops.

    Args:
        scenes: number of scenes; each takes ``moments * height * width * 3`` bytes.
        seed: two data sets with different seeds share no scene.
        options: what the scenes contain.
        targets: sequences per scene; sequence i has object ``i % targets`` of its scene for a
            target, or the main one where that cannot be seen twice.
        moments: frames of each scene, evenly spread over it.
    """

    name = "synthetic_stills"

    def __init__(self, scenes: int, seed: int, options: SceneOptions, targets=4, moments=5):
        self.seed, self.options, self.targets = seed, options, targets
        self.times = np.linspace(0, options.length - 1, moments).astype(int)
        self._scenes: list[list[Sequence] | None] = [None] * scenes

    def __len__(self) -> int:
        return len(self._scenes) * self.targets

    def __getitem__(self, index: int) -> Sequence:
        number, target = divmod(index, self.targets)
        if self._scenes[number] is None:
            self._scenes[number] = self._draw(number)
        return self._scenes[number][target]

    def _draw(self, number: int) -> list[Sequence]:
        scene = visible_scene((self.seed, number), self.options)
        stills = _Stills(np.stack([scene.rgb(t) for t in self.times]))
        sequences = []
        for target in range(self.targets):
            item = scene.objects[target % len(scene.objects)]
            sequence = Sequence(
                f"{self.name}{number:05d}-{target}", stills, scene.boxes_of(item, self.times)
            )
            if sequence.visible.sum() < 2 and sequences:
                sequence = sequences[0]
            sequences.append(sequence)
        return sequences
