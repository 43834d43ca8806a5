"""Generated scenes: pure functions of their seed, with boxes that fit what is drawn."""

import os
import socket
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr_ext.dataset.synthetic import (
    SceneOptions,
    Synthetic,
    SyntheticStills,
    visible_scene,
    write_sequences,
)
from ltr_ext.dataset.synthetic.scene import MINIMUM_VISIBLE

BUSY = SceneOptions(length=30, look_alike=1.0, distractors=(2, 4), occluders=(1, 2), dark=1.0)


def test_any_frame_is_the_same_without_the_others():
    first, second = visible_scene((3,), BUSY), visible_scene((3,), BUSY)
    for t in (0, 7, 20):
        first.rgb(t)
    np.testing.assert_array_equal(first.rgb(25), second.rgb(25))
    np.testing.assert_array_equal(first.depth(25), second.depth(25))
    np.testing.assert_array_equal(first.boxes, second.boxes)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_boxes_lie_in_the_image_and_the_first_frame_shows_the_target(seed):
    scene = visible_scene((seed,), BUSY)
    assert np.isfinite(scene.boxes[0]).all()
    seen = scene.boxes[np.isfinite(scene.boxes).all(1)]
    assert (seen[:, :2] >= 0).all() and (seen[:, 2:] > 0).all()
    assert (seen[:, :2] + seen[:, 2:] <= [320, 240]).all()


@given(seed=st.integers(0, 10_000), t=st.integers(0, 29))
@settings(max_examples=20, deadline=None)
def test_the_box_is_the_extent_of_the_drawn_silhouette(seed, t):
    scene = visible_scene((seed,), BUSY)
    for item, window, _, alpha in scene.layers(t):
        if item is not scene.target:
            continue
        rows = np.flatnonzero((alpha > 127).any(1))
        columns = np.flatnonzero((alpha > 127).any(0))
        drawn = np.array([window[1].start + columns[0], window[0].start + rows[0],
                          len(columns), len(rows)])  # fmt: skip
        if np.isfinite(scene.boxes[t]).all():
            sprite_pixel = scene.target.size(t).max() / 96
            assert np.abs(drawn - scene.boxes[t]).max() <= 2 + 2 * sprite_pixel


def test_hidden_targets_are_absent():
    """Where the box says absent, the depth camera sees something nearer at nearly all of it."""
    options = SceneOptions(length=60, occluders=(3, 3), distractors=(0, 0))
    checked = 0
    for seed in range(30):
        scene = visible_scene((seed,), options)
        for t in np.flatnonzero(~np.isfinite(scene.boxes).all(1))[::5]:
            layers = list(scene.layers(t))
            target = [layer for layer in layers if layer[0] is scene.target]
            if not target:
                continue  # out of the image
            _, window, _, alpha = target[0]
            inside = alpha > 127
            if not inside.any():
                continue
            checked += 1
            reading = scene.depth(t)[window][inside].astype(float)
            reading = reading[reading > 0]
            own = np.abs(reading - float(scene.target.depth(t))) < 60
            assert own.mean() < MINIMUM_VISIBLE + 0.25
    assert checked > 3


def test_depth_tells_a_look_alike_from_the_target():
    scene = visible_scene((5,), BUSY)
    own = float(scene.target.depth(10))
    others = [float(o.depth(10)) for o in scene.objects[1:]]
    assert min(abs(other / own - 1) for other in others) > 0.05


def test_rgb_fails_in_the_dark_and_depth_does_not():
    scene = visible_scene((2,), BUSY)
    lights = np.array([scene.light(t) for t in range(len(scene))])
    dark = int(lights.argmin())
    assert lights[dark] < 0.12 < 0.4 < lights[0]
    assert scene.rgb(dark).mean() < 0.4 * scene.rgb(0).mean()
    assert (scene.depth(dark) > 0).mean() > 0.9


def test_data_set_counts_and_differs_by_seed():
    one, other = Synthetic(3, 1, BUSY), Synthetic(3, 2, BUSY)
    assert len(one) == 3 and one[0].name != one[1].name
    assert not np.array_equal(one[0].boxes, other[0].boxes)
    assert one[0].modality is None and one[0].frames.aux(0) is None
    rgbd = Synthetic(1, 1, BUSY, "depth")[0]
    assert rgbd.frames.aux(0).shape == (240, 320, 3)
    with pytest.raises(IndexError):
        one[3]


def test_written_sequences_are_complete_or_absent(tmp_path):
    scenes = {"a": visible_scene((1,), SceneOptions(length=3))}
    with subprocess.Popen([sys.executable, "-c", ""]) as killed:
        pass
    partial = tmp_path / f".a.{socket.gethostname()}-{killed.pid}.partial"
    theirs = tmp_path / f".a.{socket.gethostname()}-{os.getppid()}.partial"  # lives
    for folder in (partial, theirs):
        folder.mkdir()
        (folder / "left-over").touch()
    write_sequences(tmp_path, scenes)
    assert not partial.exists() and theirs.exists()
    assert (tmp_path / "list.txt").read_text() == "a\n"
    depth = cv2.imread(str(tmp_path / "a/depth/00000003.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(depth, scenes["a"].depth(2))
    boxes = np.loadtxt(tmp_path / "a/groundtruth.txt", delimiter=",")
    np.testing.assert_allclose(boxes, scenes["a"].boxes, atol=0.005)
    before = (tmp_path / "a/groundtruth.txt").stat().st_mtime_ns
    write_sequences(tmp_path, scenes)  # keeps what is there
    assert (tmp_path / "a/groundtruth.txt").stat().st_mtime_ns == before


def test_stills_take_every_object_for_a_target_in_turn():
    stills = SyntheticStills(2, 3, BUSY, targets=3, moments=4)
    assert len(stills) == 6
    scene = visible_scene((3, 1), BUSY)
    for target in range(3):
        sequence = stills[3 + target]
        assert len(sequence) == len(sequence.frames) == 4
        assert sequence.visible.sum() >= 2
        expected = scene.boxes_of(scene.objects[target], stills.times)
        if np.isfinite(expected).all(1).sum() >= 2:
            np.testing.assert_array_equal(sequence.boxes, expected)
        np.testing.assert_array_equal(sequence.frames.rgb(3), scene.rgb(29))
    assert stills[3].frames is stills[4].frames  # drawn once
