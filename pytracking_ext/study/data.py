"""The study's videos: written once, in the layouts of the public data sets, the same everywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from ltr_ext.dataset.generate import generate
from ltr_ext.dataset.registry import open_dataset
from ltr_ext.dataset.sequence import Sequence
from ltr_ext.dataset.synthetic import SceneOptions

from .plan import Budget

KINDS = {"depth": "depthtrack", "thermal": "lasher", "event": "visevent"}  # modality to layout
RGB_KIND = "depthtrack"  # of the RGB videos, whose second camera nobody looks at


class VideoSet(list):
    """Sequences with the name that a sampler's messages want."""

    def __init__(self, name: str, sequences: Iterable[Sequence]) -> None:
        super().__init__(sequences)
        self.name = name


class StudyData:
    """Training and test videos of one modality, and RGB test videos for what is forgotten.

    Args:
        folder: where they are, or will be written.
        modality: ``"depth"``, ``"thermal"`` or ``"event"``.
    """

    def __init__(self, folder: Path, modality: str) -> None:
        self.kind = KINDS[modality]
        self.root, self.rgb_root = folder / modality, folder / "rgb"

    @property
    def train_set(self) -> str:
        """The training set as a recipe names it."""
        return f"{self.kind}:{self.root}"

    def write(self, budget: Budget) -> None:
        """Writes what is missing; an interrupted call can be repeated."""
        test = budget.test_sequences, budget.test_length
        generate(self.kind, self.root, "train", budget.train_sequences, budget.train_length)
        generate(self.kind, self.root, "test", *test)
        bright = SceneOptions(dark=0.0)
        generate(RGB_KIND, self.rgb_root, "test", *test, seed=1, options=bright)

    def train(self) -> VideoSet:
        """The videos that networks are tuned on."""
        return VideoSet("train", open_dataset(self.kind, self.root, "train"))

    def target(self) -> VideoSet:
        """Test videos with the second camera."""
        return VideoSet("target", open_dataset(self.kind, self.root, "test"))

    def rgb(self) -> VideoSet:
        """Test videos of the RGB camera alone."""
        return VideoSet("rgb", map(_blind, open_dataset(RGB_KIND, self.rgb_root, "test")))


def _blind(sequence: Sequence) -> Sequence:
    frames = dataclasses.replace(sequence.frames, aux_folder=None, aux_names=(), modality=None)
    return dataclasses.replace(sequence, frames=frames, modality=None)
