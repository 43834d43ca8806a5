"""Thermal and event cameras of generated scenes, against what their models say by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr_ext.data.events import render_events
from ltr_ext.dataset.synthetic import SceneOptions, Synthetic, visible_scene
from ltr_ext.dataset.synthetic.cameras import FRAME_TIME, MOST_EVENTS, EventCamera
from ltr_ext.dataset.training_sets import open_training_sets

BUSY = SceneOptions(length=30, look_alike=1.0, distractors=(2, 4), occluders=(1, 2), dark=1.0)


class Flat:
    """A scene of one grey level per frame, in full light."""

    options = SimpleNamespace(height=60, width=80)

    def __init__(self, levels, light=1.0):
        self.levels, self.light = levels, lambda t: light

    def radiance(self, t):
        return np.full((60, 80, 3), self.levels[t], np.uint8)

    def generator(self, *stream):
        return np.random.default_rng((1, *stream))


def quiet_camera(scene) -> EventCamera:
    camera = EventCamera(np.random.default_rng(0), scene)
    camera.activity = 0.0
    return camera


@pytest.mark.parametrize(("light", "damped"), [(1.0, 110.3 / 160.3), (0.01, 1.4 / 1.9)])
def test_events_count_the_change_of_log_light(light, damped):
    """ln((150 + 10) L + 0.3) - ln((100 + 10) L + 0.3), over the threshold of each pixel."""
    scene = Flat([100, 150, 100], light)
    camera = quiet_camera(scene)
    expected = -np.log(damped) / camera.threshold
    brighter, darker = camera.events(scene, 1), camera.events(scene, 2)
    assert len(brighter.t) == pytest.approx(expected.sum(), rel=0.02)
    counts = np.bincount(brighter.y * 80 + brighter.x, minlength=4800).reshape(60, 80)
    assert (counts >= np.floor(expected)).all() and (counts <= np.ceil(expected)).all()
    assert brighter.on.all() and not darker.on.any()
    assert abs(brighter.t.mean() / FRAME_TIME - 0.5) < 0.02  # spread over the interval
    assert (np.diff(brighter.t) >= 0).all()
    assert brighter.t.min() >= 0 and darker.t.min() >= FRAME_TIME > brighter.t.max()


def test_a_pixel_has_no_more_events_than_its_pause_allows_and_none_without_change():
    scene = Flat([0, 255, 255])
    camera = quiet_camera(scene)
    camera.threshold[:] = 0.01
    flash = camera.events(scene, 1)
    assert len(flash.t) == 60 * 80 * MOST_EVENTS
    assert len(camera.events(scene, 2).t) == 0


def test_background_activity_is_even_in_space_and_polarity():
    scene = Flat([90, 90])
    camera = quiet_camera(scene)
    camera.activity = 2.0
    noise = camera.events(scene, 1)
    assert len(noise.t) == pytest.approx(2 * 4800, rel=0.05)
    assert noise.on.mean() == pytest.approx(0.5, abs=0.02)
    assert noise.x.mean() == pytest.approx(39.5, abs=1) and noise.x.max() < 80


@given(seed=st.integers(0, 10_000), t=st.integers(0, 29))
@settings(max_examples=8, deadline=None)
def test_event_images_are_those_of_the_stream(seed, t):
    scene = visible_scene((seed,), BUSY)
    events, span = scene.events(t), ((t - 1) * FRAME_TIME, t * FRAME_TIME)
    for form in ("colour_polarity", "event_volume"):
        image = render_events(events, (240, 320), form, span)
        np.testing.assert_array_equal(scene.aux(t, "event", form), image)


def test_any_frame_is_the_same_without_the_others():
    first, second = visible_scene((3,), BUSY), visible_scene((3,), BUSY)
    for t in (0, 7, 24):
        first.thermal(t), first.events(t)
    np.testing.assert_array_equal(first.thermal(25), second.thermal(25))
    for one, other in zip(first.events(25), second.events(25), strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_cameras_and_rare_events_leave_colour_and_depth_as_they_were():
    """Numbers from the version that the bundled tracker was trained with."""
    scene = visible_scene((3,), BUSY)
    scene.thermal(0), scene.events(0)
    expected = [283.09291417, 84.23010299, 25.45339318, 24.19841365]
    np.testing.assert_allclose(scene.boxes[0], expected, atol=1e-6)
    assert scene.rgb(0).mean() == pytest.approx(169.366, abs=0.02)
    assert scene.depth(0).mean() == pytest.approx(4973.53, abs=0.5)


def test_a_thermal_image_shows_temperatures_and_not_colours():
    """The middle of an object is as bright as its temperature says; alike objects differ."""
    options = SceneOptions(length=5, look_alike=1.0, distractors=(3, 3), occluders=(0, 0))
    differences, checked = [], 0
    for seed in range(15):
        scene = visible_scene((seed,), options)
        image, camera = scene.thermal(0).astype(float), scene._thermal_camera
        *_, (nearest, window, _, alpha) = scene.layers(0)  # nothing hides it
        inside = np.flatnonzero(alpha > 127)
        if len(inside) > 200:
            checked += 1
            heat = 128 + camera.gain * camera.heat[nearest][24:-24, 24:-24].mean()
            assert abs(np.median(image[window].ravel()[inside]) - np.clip(heat, 0, 255)) < 12
        means = [camera.heat[item].mean() for item in scene.objects]
        differences += [abs(mean - means[0]) for mean in means[1:]]
        assert 100 < image.mean() < 156 and image.std() < 45  # low contrast
    assert checked > 8 and np.mean(np.array(differences) > 1) > 0.7


def test_some_targets_are_as_warm_as_their_surroundings():
    scenes = [visible_scene((seed,), SceneOptions(length=2)) for seed in range(40)]
    warmth = np.abs([scene._thermal_camera.heat[scene.target].mean() for scene in scenes])
    assert 0.05 < (warmth < 0.8).mean() < 0.35


def test_a_blind_camera_delivers_nothing_and_the_other_goes_on():
    options = SceneOptions(length=40, failure=1.0, dark=0.0)
    seen = set()
    for seed in range(8):
        scene = visible_scene((seed,), options)
        camera = scene._failure[0]
        seen.add(camera)
        assert f"{camera}_failure" in scene.attributes
        blind = scene.tags[f"{camera}_failure"]
        assert not blind[:8].any() and 4 <= blind.sum() <= 16
        t = int(np.flatnonzero(blind)[2])
        dead = camera == "rgb"
        assert (scene.rgb(t).max() == 0) == dead
        assert (scene.depth(t).max() == 0) != dead
        assert (np.ptp(scene.thermal(t)) == 0) != dead
        assert (len(scene.events(t).t) == 0) != dead
        assert scene.rgb(0).max() > 0 and scene.depth(0).max() > 0
    assert seen == {"rgb", "aux"}


def test_tags_say_what_happens():
    calm = SceneOptions(length=40, dark=0.0, look_alike=0.0, occluders=(0, 0), distractors=(1, 1))
    assert visible_scene((1,), calm).attributes == ()
    fast = SceneOptions(length=40, dark=1.0, fast=1.0, look_alike=1.0, distractors=(1, 2))
    found = [visible_scene((seed,), fast) for seed in range(6)]
    assert all({"low_light", "distractor"} <= set(scene.attributes) for scene in found)
    for scene in found:
        t = np.arange(1, 40)
        step = np.linalg.norm(scene.target.centre(t) - scene.target.centre(t - 1), axis=1)
        size = [np.sqrt(np.abs(np.linalg.det(scene.target.linear(frame)))) * 2 for frame in t]
        np.testing.assert_array_equal(scene.tags["fast_motion"][1:], step > 0.3 * np.array(size))
        dark = np.array([scene.rgb(frame).mean() for frame in scene.tags["low_light"].nonzero()[0]])
        assert dark.max() < 0.5 * scene.rgb(0).mean()
    assert np.mean(["fast_motion" in scene.attributes for scene in found]) > 0.5


@pytest.mark.parametrize("modality", ["thermal", "event"])
def test_training_sets_of_every_modality(modality):
    (data,) = open_training_sets((f"synthetic_rgb{modality[0]}",))
    sequence = data[5]
    assert sequence.modality == modality and isinstance(sequence.extra["attributes"], tuple)
    aux = sequence.frames.aux(3)
    assert aux.shape == (240, 320, 3) and aux.dtype == np.uint8
    again = Synthetic(10, data.seed, data.options, modality)[5]
    np.testing.assert_array_equal(again.frames.aux(3), aux)
    if modality == "event":
        other = Synthetic(10, data.seed, data.options, modality, event_form="event_count")[5]
        assert not np.array_equal(other.frames.aux(3), aux)
