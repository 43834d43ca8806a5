"""The way of a frame on the device against the way with OpenCV."""

import copy
import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr_ext.data import crop
from ltr_ext.dataset.synthetic import Synthetic
from ltr_ext.models.checkpoint import BUNDLED, load_network
from ltr_ext.models.two_branch import two_branch_from
from pytracking_ext.engine import Engine, frame
from pytracking_ext.engine.crop import crop_window, sample_target
from pytracking_ext.engine.frame import FramePath, clip_box
from pytracking_ext.engine.graph import Graphed
from pytracking_ext.engine.recall import version
from pytracking_ext.parameter.srft import TrackerParameters
from pytracking_ext.tracker.srft import SRFTTracker
from pytracking_ext.tracker.srft import tracker as host
from srft_plugin.errors import UserError

boxes = st.tuples(st.floats(-60, 150), st.floats(-60, 110), st.floats(1, 120), st.floats(1, 120))


@settings(max_examples=60, deadline=None)
@given(
    boxes, st.sampled_from((2.0, 4.0, 5.0)), st.sampled_from((32, 128)), st.booleans(),
    st.integers(0, 9),
)  # fmt: skip
def test_crop_is_that_of_opencv_within_a_grey_level(box, factor, size, context, seed):
    frame = np.random.default_rng(seed).integers(0, 256, (90, 130, 3), np.uint8)
    expected, resize_factor = crop.sample_target(frame, box, factor, size, context)
    where = torch.tensor(box, dtype=torch.float64)
    pixels, window = sample_target(torch.from_numpy(frame), where, factor, size, context)
    assert tuple(window.tolist()) == tuple(crop.crop_window(box, factor, context))
    assert window[2].item() == round(size / resize_factor)
    distance = np.abs(pixels[0].permute(1, 2, 0).numpy() - expected)
    assert distance.max() <= 1 and distance.mean() < 0.5


@given(boxes)
def test_boxes_are_clipped_as_on_the_host(box):
    start, extent = torch.tensor(box, dtype=torch.float64).split(2)
    found = clip_box(start, extent, (90, 130, 3), 10.0)
    assert found.tolist() == list(host.clip_box(np.array(box), 90, 130, 10.0))


def test_windows_round_half_to_even():
    window = crop_window(torch.tensor((0.0, 1.0, 1.0, 1.0), dtype=torch.float64), 2.0)
    assert window.tolist() == [round(-0.5), round(0.5), 2]


@pytest.fixture(scope="module")
def network():
    return two_branch_from(load_network(BUNDLED)).eval()


def frame_of(sequence, index):
    return np.concatenate((sequence.frames.rgb(index), sequence.frames.aux(index)), 2)


def test_follows_the_tracker_on_the_host(network, device):
    sequence = Synthetic(1, seed=5, modality="depth")[0]
    tracker = SRFTTracker(TrackerParameters(network, Path("weights")))
    path = FramePath(Engine(copy.deepcopy(network).to(device)))
    first = {"aux": sequence.frames.aux(0), "init_bbox": tuple(sequence.boxes[0])}
    tracker.initialize(sequence.frames.rgb(0), first)
    path.start(torch.from_numpy(frame_of(sequence, 0)), sequence.boxes[0])
    for index in range(1, 15):
        tracker.box = tuple(path.box.tolist())  # a grey level apart is not carried on
        answer = tracker.track(sequence.frames.rgb(index), {"aux": sequence.frames.aux(index)})
        found = path.step(torch.from_numpy(frame_of(sequence, index)))
        expected = [*answer["target_bbox"], answer["object_presence_score"]]
        # Cuts differ by up to a grey level; the box by what the network makes of that.
        assert np.abs(found.cpu().numpy() - expected).max() < 0.5


def test_networks_that_are_told_of_the_templates_box(small):
    network = small("sutrack_t224")
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    path = FramePath(Engine(network))
    path.start(torch.from_numpy(np.concatenate((frame, frame), 2)), (30, 20, 16, 12))
    tracker = SRFTTracker(TrackerParameters(network, Path("weights")))
    tracker.initialize(frame, {"aux": frame, "init_bbox": (30, 20, 16, 12)})
    assert torch.allclose(path._fixed["template_box"][0], tracker._templates[0].box)
    answer = tracker.track(frame, {"aux": frame})["target_bbox"]
    found = path.step(torch.from_numpy(np.concatenate((frame, frame), 2)))
    assert np.abs(found[:4].numpy() - answer).max() < 0.5


def test_a_new_target_is_not_tracked_by_a_recording_of_the_last_one(small, monkeypatch):
    class Recording(Graphed):
        """Goes on with the tensors of its first call, as a CUDA graph does."""

        def __call__(self, *inputs):
            own = self.__dict__.setdefault("own", dict(path._fixed))
            path._fixed.update(own)
            return self.function(*inputs)

    monkeypatch.setattr(frame, "Graphed", Recording)
    network = small("sutrack_t224")
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(0, 256, (4, 60, 80, 6), np.uint8))
    found = []
    for starts in ([(30, 20, 16, 12), (10, 10, 30, 9)], [(10, 10, 30, 9)]):
        path = FramePath(Engine(network))
        for box in starts:
            path.start(frames[0], box)
            steps = [path.step(each) for each in frames[1:]]
        found.append(torch.stack(steps))
    assert torch.equal(*found)


def test_a_network_that_answers_with_nan_leaves_the_box_where_it_was(network):
    engine = Engine(network)
    path = FramePath(engine)
    frame = torch.zeros(60, 80, 6, dtype=torch.uint8)
    path.start(frame, (20, 20, 10, 10))
    engine.network.box_head.layers[0].weight.fill_(math.nan)
    assert math.isnan(path.step(frame)[4])
    assert path.box.tolist() == [20, 20, 10, 10]


def test_frames_of_another_kind_or_size_are_errors(network):
    path = FramePath(Engine(network))
    frame = torch.zeros(60, 80, 6, dtype=torch.uint8)
    with pytest.raises(UserError, match="expected .H, W, 6. bytes"):
        path.start(frame[..., :3], (20, 20, 10, 10))
    with pytest.raises(UserError, match="expected .H, W, 6. bytes"):
        path.start(frame.float(), (20, 20, 10, 10))
    path.start(frame, (20, 20, 10, 10))
    path.step(frame)
    with pytest.raises(UserError, match="expected .H, W, 6. bytes"):
        path.step(frame[..., :3])


@pytest.mark.parametrize(
    "box", [(20, 20, 0, 10), (500, 500, 10, 10), (20, math.nan, 5, 5), (1, 2, 3), "none"]
)
def test_boxes_that_are_no_target_are_errors(network, box):
    path = FramePath(Engine(network))
    with pytest.raises(UserError, match="initial box"):
        path.start(torch.zeros(60, 80, 6, dtype=torch.uint8), box)


def test_an_engine_is_shared_with_a_tracker_that_records(network):
    engine = Engine(network)
    FramePath(engine).start(torch.zeros(60, 80, 6, dtype=torch.uint8), (20, 20, 10, 10))
    calls = []
    engine._graphed = lambda *inputs: calls.append(inputs) or engine._flat_run(*inputs)
    images = [torch.zeros(1, 6, s, s) for s in (network.spec.template_size, 128)]
    engine(*images)
    engine(*images)
    assert len(calls) == 1


def test_frames_of_another_size_run_unrecorded_with_one_warning(network, monkeypatch, caplog):
    recorded = []

    class Recording(Graphed):
        def __call__(self, frame, box):
            recorded.append(tuple(frame.shape))
            return self.function(frame, box)

    monkeypatch.setattr(frame, "Graphed", Recording)
    generator = torch.Generator().manual_seed(0)
    large = torch.randint(256, (60, 80, 6), dtype=torch.uint8, generator=generator)
    path = FramePath(Engine(network))
    path.start(large, (20, 20, 10, 10))
    with caplog.at_level(logging.WARNING):
        path.step(large)  # the engine meets the template
        for image in (large, large[:50, :70], large[:40], large):
            found = path.step(image)
            assert found[1] + found[3] <= len(image) and found[0] + found[2] <= image.shape[1]
    assert recorded == [(60, 80, 6), (60, 80, 6)]
    assert [record.message for record in caplog.records] == [
        "a frame of 70x50 pixels, the first one was 80x60; those of another size run without "
        "CUDA graph"
    ]


def test_two_targets_share_an_engine(network, monkeypatch):
    """A recording reads what the engine remembers, which is the other target's in between."""

    class Recording(Graphed):
        """Takes what the engine remembers for its own, as a CUDA graph does."""

        def __call__(self, *inputs):
            path = self.function.__self__
            template = path._fixed["template"]
            path.engine._template = [(template, version(template))]
            return self.function(*inputs)

    monkeypatch.setattr(frame, "Graphed", Recording)
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(0, 256, (4, 60, 80, 6), np.uint8))
    boxes = ((30, 20, 16, 12), (10, 10, 30, 9))

    def paths(*engines):
        made = [FramePath(engine) for engine in engines]
        for path, box in zip(made, boxes, strict=True):
            path.start(frames[0], box)
        return made

    shared = Engine(network)
    together, apart = paths(shared, shared), paths(Engine(network), Engine(network))
    for each in frames[1:]:
        for one, other in zip(together, apart, strict=True):
            for _ in range(2):  # seen for the first time, recorded
                assert torch.equal(one.step(each), other.step(each))
