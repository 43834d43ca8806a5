"""`srft data generate`: videos in the layout of a public data set, for those who have none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ltr_ext.data.events import DEFAULT_FORM
from srft_plugin.errors import UserError

from .kinds import KINDS
from .registry import find_split
from .synthetic import SceneOptions, visible_scene, write_sequences
from .training_sets import RGB_OPTIONS, RGBD_OPTIONS, RGBX_OPTIONS

PARTS = {"train": 1, "test": 2}  # part to its bank of textures: no test texture is seen in training


def scene_options(kind: str) -> SceneOptions:
    """What the scenes contain that recipes of the modality of ``kind`` train on."""
    special = {None: RGB_OPTIONS, "depth": RGBD_OPTIONS}
    return special.get(KINDS[kind].layout.modality, RGBX_OPTIONS)


def generate(
    kind: str,
    root: Path,
    part: str,
    count: int,
    length: int,
    seed: int = 0,
    options: SceneOptions | None = None,
    event_form: str = DEFAULT_FORM,
) -> Path:
    """Writes ``count`` videos as one part of a data set; those that are there are kept.

    Args:
        kind: a layout that ``write_sequences`` knows: ``depthtrack``, ``lasher``, ``got10k``, ...
        root: folder of the data set.
        part: ``train`` or ``test``, as far as the data set has them.
        count, length: videos, and frames of each.
        seed: other seeds give other videos.
        options: what the scenes contain; by default ``scene_options(kind)``.
        event_form: key of ``EVENT_FORMS``, for event images.

    Returns:
        The folder of the part.

    Raises:
        UserError: unknown kind or part, numbers that make no video, files that cannot be written.
    """
    if min(count, length) < 1 or seed < 0:
        raise UserError(
            f"{count} videos of {length} frames, seed {seed}: expected 1 or more of both and a "
            "seed from 0 on"
        )
    split = find_split(kind, part)
    options = replace(options or scene_options(kind), length=length, texture_seed=PARTS[part])
    scenes = {
        f"{part}{i:03d}": visible_scene((PARTS[part], seed, i), options) for i in range(count)
    }
    folder = root / split.folders[0]
    listing = split.lists[0]
    return write_sequences(folder, scenes, f"{kind} {part}", kind, listing, event_form)
