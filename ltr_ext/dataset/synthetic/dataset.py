"""Generated scenes as a data set, rendered on demand or written to disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

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

    def __len__(self) -> int:
        return len(self.scene)

    def rgb(self, index: int) -> np.ndarray:
        return self.scene.rgb(index)

    def aux(self, index: int) -> np.ndarray | None:
        if self.modality is None:
            return None
        return represent(self.scene.depth(index), self.modality)


@dataclass(frozen=True)
class Synthetic:
    """A data set of ``count`` generated videos; video i is a pure function of (seed, i).

    Args:
        count: number of sequences.
        seed: two data sets with different seeds share no scene.
        options: what the scenes contain.
        modality: ``"depth"`` for RGB-D, None for RGB.
    """

    count: int
    seed: int = 0
    options: SceneOptions = SceneOptions()
    modality: str | None = None
    name: str = "synthetic"

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sequence:
        if not 0 <= index < self.count:
            raise IndexError(f"sequence {index} of {self.count}")
        scene = _scene((self.seed, index), self.options)
        frames = _SceneFrames(scene, self.modality)
        return Sequence(f"{self.name}{index:04d}", frames, scene.boxes, self.modality)


def write_depthtrack(
    root: Path, scenes: dict[str, Scene], description: str = "sequences", jpeg_quality: int = 92
) -> Path:
    """Writes scenes in DepthTrack layout with VOT's ``list.txt``; finished sequences are kept.

    ``root/NAME/color/%08d.jpg``, ``depth/%08d.png`` (uint16, millimetres), numbered from 1, and
    ``groundtruth.txt`` (x,y,w,h per line, nan where absent). A sequence appears under its name only
    when complete, so an interrupted call can be repeated.
    """
    root.mkdir(parents=True, exist_ok=True)
    for name, scene in tqdm(scenes.items(), desc=f"writing {description}", disable=None):
        folder, partial = root / name, root / f".{name}.partial"
        if folder.exists():
            continue
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "color").mkdir(parents=True)
        (partial / "depth").mkdir()
        for t in range(len(scene)):
            color = cv2.cvtColor(scene.rgb(t), cv2.COLOR_RGB2BGR)
            quality = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
            cv2.imwrite(str(partial / "color" / f"{t + 1:08d}.jpg"), color, quality)
            cv2.imwrite(str(partial / "depth" / f"{t + 1:08d}.png"), scene.depth(t))
        np.savetxt(partial / "groundtruth.txt", scene.boxes, fmt="%.2f", delimiter=",")
        partial.rename(folder)
    (root / "list.txt").write_text("".join(f"{name}\n" for name in scenes), encoding="ascii")
    return root
