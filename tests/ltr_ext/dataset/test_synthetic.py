"""Generated scenes: pure functions of their seed, with boxes that fit what is drawn."""

import os
import socket
import subprocess
import sys
from dataclasses import replace

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
from ltr_ext.dataset.synthetic.objects import WAY_OUT
from ltr_ext.dataset.synthetic.scene import MINIMUM_VISIBLE
from srft_plugin.errors import UserError

BUSY = SceneOptions(length=30, look_alike=1.0, distractors=(2, 4), occluders=(1, 2), dark=1.0)

LIVELY = replace(BUSY, dark=0.0, limbs=(1, 3), tilt=0.3)


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


def drawn(scene, parts, t):
    """(H, W) bool: the pixels that ``parts`` cover, hidden or not."""
    canvas = np.zeros((240, 320), bool)
    for item, window, _, alpha in scene.layers(t):
        if item in parts:
            canvas[window] |= alpha > 127
    return canvas


@given(seed=st.integers(0, 10_000), t=st.integers(0, 29), options=st.sampled_from([BUSY, LIVELY]))
@settings(max_examples=40, deadline=None)
def test_the_box_is_the_extent_of_the_drawn_silhouette(seed, t, options):
    scene = visible_scene((seed,), options)
    assert bool(options.tilt) == (scene.target.slant is not None) == (len(scene.target.parts) > 1)
    if np.isfinite(scene.boxes[t]).all():
        canvas = drawn(scene, scene.target.parts, t)
        rows, columns = np.flatnonzero(canvas.any(1)), np.flatnonzero(canvas.any(0))
        box = np.array([columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1])
        sprite_pixel = max(part.size(t).max() for part in scene.target.parts) / 96
        assert np.abs(box - scene.boxes[t]).max() <= 2 + 2 * sprite_pixel


@given(seed=st.integers(0, 10_000), t=st.integers(0, 29))
@settings(max_examples=20, deadline=None)
def test_what_is_probed_for_sight_is_what_is_drawn(seed, t):
    scene = visible_scene((seed,), LIVELY)
    pixels = np.stack(np.meshgrid(np.arange(320), np.arange(240)), -1).reshape(-1, 2)
    for item in scene.target.parts:
        probed = item.covers(pixels, t).reshape(240, 320)
        canvas = drawn(scene, [item], t)
        rim = cv2.dilate(canvas.astype(np.uint8), np.ones((5, 5))) - cv2.erode(
            canvas.astype(np.uint8), np.ones((5, 5))
        )
        assert not ((probed != canvas) & (rim == 0)).any()


@given(seed=st.integers(0, 10_000), t=st.floats(0, 100))
@settings(max_examples=30, deadline=None)
def test_perspective_is_a_division_by_the_distance(seed, t):
    target = visible_scene((seed,), LIVELY).target
    points = np.random.default_rng(seed).uniform(-1, 1, (9, 2))
    slant = target.slant(t)
    assert np.abs(slant).max() <= LIVELY.tilt
    expected = [
        target.centre(t) + target.linear(t) @ (point / (1 + slant @ point)) for point in points
    ]
    np.testing.assert_allclose(target.to_frame(points, t), expected)
    corner = np.array([3.0, 4.0])
    pixels = np.c_[(points + 1) * 95 / 2, np.ones(9)] @ target.transform(t, corner).T
    np.testing.assert_allclose(pixels[:, :2] / pixels[:, 2:] + corner, expected)


def test_a_tilted_surface_is_seen_at_its_distance():
    scene = visible_scene((1,), replace(LIVELY, distractors=(0, 0), occluders=(0, 0)))
    target = scene.target
    slopes = [np.abs(target.slant(t)).max() for t in range(30)]
    t = int(np.argmax(slopes))
    points = np.array([[0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5]])
    nearest = np.round(target.to_frame(points, t)).astype(int)
    expected = target.depth(t) * (1 + points @ target.slant(t))
    bodies = drawn(scene, [target], t) & ~drawn(scene, target.parts[1:], t)
    seen = [bodies[y, x] and scene.depth(t)[y, x] > 0 for x, y in nearest]
    assert sum(seen) >= 2
    reading = np.array([scene.depth(t)[y, x] for x, y in nearest], float)
    tolerance = 30 + 3 * np.abs(target.slant(t)).sum() * target.depth(t) / target.size(t).min()
    assert np.abs(reading - expected)[seen].max() < tolerance
    assert np.ptp(expected[seen]) > tolerance  # a flat one would not pass


def test_look_alikes_have_the_limbs_of_the_target_and_these_stay_at_their_hinges():
    scene = visible_scene((4,), LIVELY)
    target, twins = scene.target, [o for o in scene.objects[1:] if o.skin is scene.target.skin]
    assert twins
    for twin in twins:
        for own, other in zip(target.parts[1:], twin.parts[1:], strict=True):
            np.testing.assert_array_equal(own.outline, other.outline)
    angles = []
    for limb in target.parts[1:]:
        for t in (0, 11, 29):
            end = limb.to_frame(np.array([[-0.8, 0.0]]), t)
            np.testing.assert_allclose(end, target.to_frame(limb.hinge, t))
            assert limb.depth(t) < target.depth(t)
        angles.append(np.ptp([limb.angle(t) - target.angle(t) for t in range(30)]))
    assert max(angles) > 0.1


@pytest.mark.parametrize("length", [60, 300])
def test_a_target_leaves_and_comes_back(length):
    alone = SceneOptions(length=length, distractors=(0, 0), occluders=(0, 0))
    for seed in range(5):
        stays = visible_scene((seed,), alone)
        leaves = visible_scene((seed,), replace(alone, leave=1.0))
        out = ~np.isfinite(leaves.boxes).all(1)
        away = np.flatnonzero(out & np.isfinite(stays.boxes).all(1))
        assert 0.2 * length - 1 <= len(away) <= 0.4 * length + 2 * WAY_OUT
        assert not drawn(leaves, [leaves.target], len(away) // 2 + away[0]).any()
        back = away[-1] + WAY_OUT + 1
        np.testing.assert_array_equal(leaves.rgb(0), stays.rgb(0))
        np.testing.assert_array_equal(leaves.boxes[back:], stays.boxes[back:])
        np.testing.assert_array_equal(leaves.rgb(length - 1), stays.rgb(length - 1))


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_target_that_leaves_at_once_is_there_in_the_first_frame(length):
    scene = visible_scene((0,), SceneOptions(length=length, leave=1.0, dark=0.0))
    assert np.isfinite(scene.boxes[0]).all()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"leave": 1.5}, "leave is 1.5; expected a number from 0 to 1"),
        ({"tilt": float("nan")}, "tilt is nan; expected a number from 0 to 0.3"),
        ({"limbs": (3, 1)}, r"limbs is \(3, 1\); expected two, the smaller first, from 0 to 20"),
        ({"distractors": (2,)}, r"distractors is \(2,\); expected two"),
        ({"width": 8}, "width is 8; expected a number from 64 to 1000"),
    ],
)
def test_scenes_that_cannot_be(option, message):
    with pytest.raises(UserError, match=message):
        SceneOptions(**option)


def test_a_target_too_large_to_be_seen_ends_the_search():
    options = SceneOptions(width=64, height=64, target_size=(500.0, 500.0), length=2)
    with pytest.raises(UserError, match=r"target_size is \(500.0, 500.0\) in 64x64 pixels"):
        visible_scene((1, 0), options)


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
