"""Training sets by the names that recipes use."""

from __future__ import annotations

from dataclasses import replace

from ltr_ext.admin.environment import DATASETS, environment
from ltr_ext.data.sampler import PairDataset
from ltr_ext.dataset.registry import open_dataset
from ltr_ext.dataset.synthetic import SceneOptions, Synthetic, SyntheticStills
from ltr_ext.models.network import TrackingNetwork
from ltr_ext.recipe import Recipe
from srft_plugin.errors import UserError, unknown

# Look-alikes at another depth and failing light: what only the second camera can resolve.
RGBD_OPTIONS = SceneOptions(length=60, look_alike=0.7, distractors=(1, 4), dark=0.6)
RGBX_OPTIONS = replace(RGBD_OPTIONS, fast=0.25, failure=0.1)
RGB_OPTIONS = SceneOptions(length=40)
GENERATED = {
    "synthetic_stills": SyntheticStills(4_000, 12, SceneOptions(length=100, distractors=(1, 4))),
    "synthetic_rgb": Synthetic(100_000, 10, RGB_OPTIONS),
    "synthetic_rgbd": Synthetic(100_000, 11, RGBD_OPTIONS, "depth"),
    "synthetic_rgbt": Synthetic(100_000, 13, RGBX_OPTIONS, "thermal"),
    "synthetic_rgbe": Synthetic(100_000, 14, RGBX_OPTIONS, "event"),
}


def open_training_sets(names: tuple[str, ...]) -> list:
    """The data sets called ``name``, ``name:root``, or with a part of theirs, ``name/val:root``.

    Without a part, the one for training; generated sets have neither parts nor roots.

    Raises:
        UserError: an unknown name or part, a path that is not set, not there, or not needed.
    """
    sets = []
    for entry in names:
        name, _, root = entry.partition(":")
        name, _, part = name.partition("/")
        if name in GENERATED and not part:
            if root:
                raise UserError(
                    f"{entry}: {name} is generated, not read from {root}; leave that out"
                )
            sets.append(GENERATED[name])
        elif not root and name not in DATASETS:
            raise unknown("data set", entry, (*GENERATED, *DATASETS))
        else:
            sets.append(open_dataset(name, root or environment().get(name), part or "train"))
    return sets


def training_pairs(
    recipe: Recipe,
    names: tuple[str, ...],
    network: TrackingNetwork,
    samples: int,
    seed: int,
    ratios: tuple[float, ...] = (),
) -> PairDataset:
    """Pairs from the data sets ``names``, drawn for ``network`` as the recipe says."""
    return PairDataset(
        open_training_sets(names),
        ratios or None,
        network.spec,
        samples,
        seed,
        recipe.max_gap,
        recipe.centre_jitter,
        recipe.scale_jitter,
        skip_unreadable=recipe.skip_unreadable,
    )
