"""Tiny RGB-D sequences and workspaces with the trackers of `fake_tracker`."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from vot_integration.workspace import Workspace, create_workspace

WIDTH, HEIGHT = 64, 48
HERE = Path(__file__).parent


def write_sequence(
    folder: Path, length: int, seed: int = 0, absent: range = range(0), anchors: str = ""
) -> Path:
    """A red square that moves over a grey frame, in DepthTrack layout."""
    rng = np.random.default_rng(seed)
    (folder / "color").mkdir(parents=True)
    (folder / "depth").mkdir()
    start, step, side = rng.uniform(4, 20, 2), rng.uniform(-1, 1, 2), int(rng.integers(8, 14))
    lines = []
    for index in range(length):
        image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        depth = np.full((HEIGHT, WIDTH), 4000, np.uint16)
        x, y = np.clip(start + step * index, 0, (WIDTH - side, HEIGHT - side)).astype(int)
        if index in absent:
            lines.append("nan,nan,nan,nan")
        else:
            image[y : y + side, x : x + side] = (20, 20, 230)  # BGR
            depth[y : y + side, x : x + side] = 1500
            lines.append(f"{x},{y},{side},{side}")
        cv2.imwrite(str(folder / "color" / f"{index + 1:08d}.jpg"), image)
        cv2.imwrite(str(folder / "depth" / f"{index + 1:08d}.png"), depth)
    (folder / "groundtruth.txt").write_text("".join(line + "\n" for line in lines))
    if anchors:
        (folder / "anchor.value").write_text("".join(f"{value}\n" for value in anchors.split()))
    return folder


def write_data_set(root: Path, lengths: dict[str, int]) -> Path:
    """Sequences with an absence in the middle and three anchors each: two forward, one backward."""
    for seed, (name, length) in enumerate(lengths.items()):
        absent = range(length // 2, length // 2 + length // 5)
        anchors = ["1"] + ["0"] * (length - 2) + ["-1"]
        anchors[length // 3] = "1"
        write_sequence(root / name, length, seed, absent, " ".join(anchors))
    return root


@pytest.fixture(scope="session")
def data_set(tmp_path_factory) -> Path:
    """Three sequences, ``a``, ``b`` and ``c``, of 20 to 30 frames; not to be written to."""
    return write_data_set(tmp_path_factory.mktemp("rgbd"), {"a": 20, "b": 30, "c": 25})


@pytest.fixture
def make_workspace(tmp_path, data_set) -> Callable[..., Workspace]:
    """Function of a tracker of `fake_tracker` that gives a new workspace, or adds the tracker."""

    def make(tracker: str = "blob", benchmark: str = "depthtrack", **options) -> Workspace:
        options = {"name": tracker, "paths": [HERE], "sequences": data_set, **options}
        return create_workspace(
            tmp_path / "workspace",
            tracker_param=f"fake_tracker:{tracker}",
            benchmark=benchmark,
            **options,
        )

    return make
