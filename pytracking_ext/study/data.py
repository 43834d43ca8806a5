"""The study's videos: written once, in the layouts of the public data sets, the same everywhere."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

from ltr_ext.admin.files import read_object, write_text
from ltr_ext.data.events import DEFAULT_FORM
from ltr_ext.dataset.generate import generate
from ltr_ext.dataset.registry import open_dataset
from ltr_ext.dataset.sequence import Sequence
from ltr_ext.dataset.synthetic import SceneOptions
from ltr_ext.dataset.training_sets import RGBX_OPTIONS
from ltr_ext.train_settings.paper import TRAINING_SETS
from srft_plugin.errors import UserError

from .plan import REVISION, VIDEOS, Budget

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
        form: representation of the events; None for the default one.
    """

    def __init__(self, folder: Path, modality: str, form: str | None = None) -> None:
        self.kind, self.form = TRAINING_SETS[modality], form
        self.root = folder / (modality if form is None else f"{modality}_{form}")
        self.rgb_root = folder / "rgb"

    def train_set(self, seed: int) -> str:
        """The training set of a seed as a recipe names it."""
        return f"{self.kind}:{self._train_root(seed)}"

    def write(self, budget: Budget) -> None:
        """Writes what is missing; an interrupted call can be repeated.

        Raises:
            UserError: the folder has the videos of another budget or revision.
        """
        file = self.root / "videos.json"
        asked = {name: getattr(budget, name) for name in VIDEOS} | {"revision": REVISION}
        again = "delete the folder, and its videos are written again"
        found = read_object(file, again) if file.is_file() else asked
        if found != asked:
            raise UserError(
                f"{file}: found the videos of another budget or revision, {found}; expected "
                f"{asked}: choose another --out, or delete the folder"
            )
        self.root.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(asked) + "\n")
        given = {"options": RGBX_OPTIONS, "event_form": self.form or DEFAULT_FORM}
        for seed in range(budget.seeds):
            train = budget.train_sequences, budget.train_length, seed
            generate(self.kind, self._train_root(seed), "train", *train, **given)
        self.write_tests(budget.test_sequences, budget.test_length)

    def write_tests(self, count: int, length: int) -> None:
        """Writes the missing ones of ``count`` test videos with both cameras and as many by RGB."""
        form = self.form or DEFAULT_FORM
        generate(self.kind, self.root, "test", count, length, 0, RGBX_OPTIONS, form)
        generate(RGB_KIND, self.rgb_root, "test", count, length, 1, SceneOptions(dark=0.0))

    def train(self, seed: int) -> VideoSet:
        """The videos that networks are tuned on with a seed."""
        return VideoSet("train", open_dataset(self.kind, self._train_root(seed), "train"))

    def target(self) -> VideoSet:
        """Test videos with the second camera."""
        return VideoSet("target", open_dataset(self.kind, self.root, "test"))

    def rgb(self) -> VideoSet:
        """Test videos of the RGB camera alone."""
        return VideoSet("rgb", map(_blind, open_dataset(RGB_KIND, self.rgb_root, "test")))

    def _train_root(self, seed: int) -> Path:
        return self.root / f"seed{seed}"


def _blind(sequence: Sequence) -> Sequence:
    frames = dataclasses.replace(sequence.frames, aux_folder=None, aux_names=(), modality=None)
    return dataclasses.replace(sequence, frames=frames, modality=None)
