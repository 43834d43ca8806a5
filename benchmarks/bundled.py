"""Scores of the bundled RGB tracker: generated videos that it has not seen, and real ones.

    python benchmarks/bundled.py [--checkpoint FILE ...] [--otb ROOT] [--rgbd ROOT]

Mean IoU over the frames that show the target, the first left out, ± half the 95 % interval over
videos, and in brackets over those frames where no more than 30 % of the target is hidden: boxes are
of the whole target. ``--otb`` takes videos in the layout of OTB, ``--rgbd`` in that of DepthTrack,
of which the RGB images alone are tracked.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence as Many
from pathlib import Path

import numpy as np

from ltr_ext.dataset.registry import open_dataset
from ltr_ext.dataset.sequence import Sequence
from ltr_ext.dataset.synthetic import SceneOptions, Synthetic
from ltr_ext.models.checkpoint import BUNDLED
from pytracking_ext.evaluation.running import judged_frames, judged_overlaps, track_many
from pytracking_ext.parameter.srft import from_checkpoint
from pytracking_ext.study.statistics import estimate

UNSEEN = 2  # textures that no training video has


def generated(count: int, seed: int, length: int, **options) -> list[Sequence]:
    """Generated RGB videos."""
    scenes = SceneOptions(length=length, texture_seed=UNSEEN, **options)
    return list(Synthetic(count, seed, scenes, name="rgb"))


def scores(checkpoint: Path, videos: Many[Sequence], batch: int = 8) -> str:
    """Mean IoU of all judged frames with its interval, and where little of the target is hidden."""
    overlaps, clear = [], []
    for video, outcome in track_many(videos, from_checkpoint(checkpoint, "cpu"), batch):
        if isinstance(outcome, str):
            raise SystemExit(f"{video.name}: {outcome}")
        overlaps.append(judged_overlaps(outcome, video))
        scene = getattr(video.frames, "scene", None)
        if scene is not None:
            clear.append(overlaps[-1][~scene.tags["occlusion"][judged_frames(video)]])
    text = f"{np.concatenate(overlaps).mean():.3f}"
    if len(videos) > 1:
        text += f" ± {estimate([video.mean() for video in overlaps]).half:.3f}"
    return f"{text} ({np.concatenate(clear).mean():.3f})" if clear else text


def main() -> None:
    """Prints a row per set of videos and a column per checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, nargs="+", default=[BUNDLED])
    parser.add_argument("--otb", help="folder of real videos in the layout of OTB")
    parser.add_argument("--rgbd", help="the same in the layout of DepthTrack")
    arguments = parser.parse_args()
    sets = {
        "8 of 100 frames (srft demo)": generated(8, 300, 100, dark=0.0),
        "64 others of that kind": generated(64, 800, 100, dark=0.0),
        "24 of 60": generated(24, 400, 60),
        "24 of 60, good light": generated(24, 400, 60, dark=0.0),
        "24 of 60, good light, no distractors": generated(
            24, 400, 60, dark=0.0, distractors=(0, 0)
        ),
        "the same; limbs, perspective, absences": generated(
            24, 400, 60, dark=0.0, distractors=(0, 0), leave=0.5, limbs=(1, 3), tilt=0.25
        ),
    }
    for kind, root in (("otb", arguments.otb), ("depthtrack", arguments.rgbd)):
        if root:
            sets |= {f"{video.name} (real)": [video] for video in open_dataset(kind, root, "test")}
    for name, videos in sets.items():
        print(f"{name:40s}", *(scores(file, videos) for file in arguments.checkpoint), flush=True)


if __name__ == "__main__":
    main()
