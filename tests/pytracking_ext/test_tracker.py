"""The tracker: geometry, the window, missing auxiliary images, batches."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ltr_ext.data.crop import sample_target
from ltr_ext.models.network import TrackingNetwork
from ltr_ext.models.sutrack import SUTrackSpec
from pytracking_ext.tracker.srft import SRFTTracker, get_tracker_class, track_together
from pytracking_ext.tracker.srft.localise import hann_window, localise
from pytracking_ext.tracker.srft.tracker import clip_box
from srft_plugin.errors import UserError


def run(tracker, sequence, infos=None):
    infos = infos or [{} for _ in range(len(sequence))]
    tracker.initialize(sequence.frames.rgb(0), {"init_bbox": tuple(sequence.boxes[0]), **infos[0]})
    return [tracker.track(sequence.frames.rgb(i), infos[i]) for i in range(1, len(sequence))]


def test_follows_the_target_to_the_pixel(parameters, white_square):
    sequence = white_square()
    answers = run(get_tracker_class()(parameters), sequence)
    boxes = np.array([answer["target_bbox"] for answer in answers])
    # One pixel of the search region is half a pixel of the frame here.
    assert np.abs(boxes - sequence.boxes[1:]).max() < 1.1
    assert all(0.5 < answer["object_presence_score"] <= 0.9 for answer in answers)


def test_a_second_initialisation_forgets_the_first(parameters, white_square):
    tracker, fresh = SRFTTracker(parameters), SRFTTracker(parameters)
    run(tracker, white_square(speed=-1))
    assert run(tracker, white_square()) == run(fresh, white_square())


def test_without_a_target_there_is_nothing_to_track(parameters, white_square):
    tracker, frames = SRFTTracker(parameters), white_square().frames
    with pytest.raises(UserError, match="no target: initialise it"):
        tracker.track(frames.rgb(0))
    tracker.initialize(frames.rgb(0), {"init_bbox": (70, 50, 20, 20)})
    tracker.track(frames.rgb(1))
    with pytest.raises(UserError, match="modality 'depht'"):  # after a good box
        tracker.initialize(frames.rgb(0), {"init_bbox": (10, 10, 20, 20), "modality": "depht"})
    with pytest.raises(UserError, match="no target: initialise it"):
        tracker.track(frames.rgb(2))


def test_a_batch_gives_what_single_steps_give(parameters, white_square):
    sequences = [white_square(str(speed), speed=speed) for speed in (1, 3, -1)]
    alone = [run(SRFTTracker(parameters), sequence) for sequence in sequences]
    trackers = [SRFTTracker(parameters) for _ in sequences]
    for tracker, sequence in zip(trackers, sequences, strict=True):
        tracker.initialize(sequence.frames.rgb(0), {"init_bbox": sequence.boxes[0]})
    parameters.network.batch_sizes.clear()
    for step in range(1, 12):
        answers = track_together(trackers, [s.frames.rgb(step) for s in sequences], [{}] * 3)
        assert answers == [steps[step - 1] for steps in alone]
    assert parameters.network.batch_sizes == [3] * 11


def test_auxiliary_channels_come_from_array_or_file(
    tmp_path, parameters, white_square, white_finder
):
    import cv2

    parameters.network = white_finder(in_channels=6, channel=3).eval()
    sequence = white_square()
    dark = np.zeros((120, 160, 3), np.uint8)
    aux = [sequence.frames.rgb(i) for i in range(12)]
    sequence.frames.images[:] = [dark] * 12  # only the auxiliary image shows the target
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for path, image in zip(paths, aux, strict=True):
        cv2.imwrite(str(path), image)
    arrays = run(SRFTTracker(parameters), sequence, [{"aux": image} for image in aux])
    files = run(SRFTTracker(parameters), sequence, [{"aux_path": str(path)} for path in paths])
    grey = run(SRFTTracker(parameters), sequence, [{"aux": image[..., 0]} for image in aux])
    assert arrays == files == grey
    boxes = np.array([answer["target_bbox"] for answer in arrays])
    assert np.abs(boxes - sequence.boxes[1:]).max() < 1.1


def test_a_network_of_the_auxiliary_image_alone_follows_it(parameters, white_square, white_finder):
    parameters.network = white_finder(in_channels=3, aux_only=True).eval()
    sequence = white_square()
    aux = [image.copy() for image in sequence.frames.images]
    sequence.frames.images[:] = [np.zeros_like(aux[0])] * 12
    answers = run(SRFTTracker(parameters), sequence, [{"aux": image} for image in aux])
    boxes = np.array([answer["target_bbox"] for answer in answers])
    assert np.abs(boxes - sequence.boxes[1:]).max() < 1.1


class AsksForModality(TrackingNetwork):
    """Wraps the finder: keeps what modality it was told."""

    input_names = ("template", "search", "modality")

    def __init__(self, finder):
        super().__init__(finder.spec)
        self.finder, self.told = finder, []

    def forward(self, template, search, modality):
        self.told.append(modality.tolist())
        return self.finder(template, search)


def test_modality_is_that_of_the_video_or_else_of_the_training(
    parameters, white_square, white_finder
):
    parameters.network = network = AsksForModality(white_finder(in_channels=6))
    network.metadata = {"modality": "thermal"}
    sequence = white_square(length=2)
    trackers = []
    for info in ({}, {"modality": "event"}, {"modality": "depth"}):
        trackers.append(SRFTTracker(parameters))
        run(trackers[-1], sequence, [info, {}])
    track_together(trackers, [sequence.frames.rgb(1)] * 3, [{}] * 3)
    assert network.told == [[2], [3], [1], [2, 3, 1]]
    network.metadata = {}
    with pytest.raises(UserError, match="for several modalities, and nobody says which"):
        run(SRFTTracker(parameters), sequence, [{"aux": sequence.frames.rgb(0)}, {}])
    with pytest.raises(UserError, match="unknown modality 'termal'; did you mean 'thermal'"):
        run(SRFTTracker(parameters), sequence, [{"modality": "termal"}, {}])


def test_missing_auxiliary_images_are_replaced_by_rgb_and_counted(
    tmp_path, parameters, caplog, white_square, white_finder
):
    parameters.network = white_finder(in_channels=6, channel=3).eval()
    sequence = white_square()
    infos = [{} for _ in range(12)]
    infos[5] = {"aux_path": tmp_path / "gone.png"}
    tracker = SRFTTracker(parameters)
    boxes = np.array([answer["target_bbox"] for answer in run(tracker, sequence, infos)])
    assert np.abs(boxes - sequence.boxes[1:]).max() < 1.1
    assert tracker.aux_missing == 12
    assert "gone.png" in caplog.text
    run(tracker, sequence, [{"aux": sequence.frames.rgb(i)} for i in range(12)])
    assert tracker.aux_missing == 0


def test_sixteen_bits_are_depth_unless_the_network_is_for_another_camera(
    parameters, white_square, white_finder
):
    parameters.network = white_finder(in_channels=6)
    sequence = white_square(length=2)
    raw = np.full((120, 160), 30_000, np.uint16)
    run(SRFTTracker(parameters), sequence, [{"aux": raw}] * 2)
    parameters.network.metadata = {"modality": "thermal"}
    with pytest.raises(UserError, match="a thermal image .* uint16.*scale it to 8 bits"):
        run(SRFTTracker(parameters), sequence, [{"aux": raw}] * 2)
    run(SRFTTracker(parameters), sequence, [{"aux": raw, "modality": "depth"}, {"aux": raw}])


def test_depth_of_another_size_is_refused(parameters, draw, white_finder):
    parameters.network = white_finder(in_channels=6)
    tracker = SRFTTracker(parameters)
    with pytest.raises(UserError, match="80x60 but the RGB image is 160x120"):
        tracker.initialize(
            draw(np.array([20, 30, 20, 16])),
            {"init_bbox": (20, 30, 20, 16), "aux": np.zeros((60, 80), np.uint16)},
        )


@pytest.mark.parametrize(
    "box",
    [
        *((1, 2, 0, 5), (1, 2, math.nan, 5), (200, 2, 5, 5), (-9, 2, 5, 5), (1, 2, math.inf, 5)),
        *((1, 2, 1e7, 5), (1, 2, 5, 1e300), (1, 2, 1e-200, 1e-200), (math.nan, 2, 5, 5)),
    ],
)
def test_an_impossible_initial_box_is_named(parameters, draw, box):
    with pytest.raises(UserError, match="initial box"):
        SRFTTracker(parameters).initialize(draw(np.array([20, 30, 20, 16])), {"init_bbox": box})


FRAME = np.zeros((60, 80, 3), np.uint8)


@pytest.mark.parametrize(
    "image", [FRAME[..., 0], FRAME[..., :1], FRAME.astype(np.float32), FRAME.astype(np.uint16),
              np.concatenate((FRAME, FRAME[..., :1]), 2)],
    ids=["grey", "one channel", "float", "16 bits", "RGBA"],
)  # fmt: skip
def test_frames_that_are_no_rgb_bytes_are_errors(parameters, image):
    tracker = SRFTTracker(parameters)
    with pytest.raises(UserError, match=r"the frame is \w+ \(60, 80.*expected \(H, W, 3\) uint8"):
        tracker.initialize(image, {"init_bbox": (10, 10, 20, 20), "aux": FRAME})
    tracker.initialize(FRAME, {"init_bbox": (10, 10, 20, 20), "aux": FRAME})
    box = tracker.box
    with pytest.raises(UserError, match="the frame is"):
        tracker.track(image, {"aux": FRAME})
    assert tracker.box == box


def test_a_lost_target_keeps_a_box_inside_the_frame(parameters, white_square):
    tracker = SRFTTracker(parameters)
    run(tracker, white_square(length=2))
    for _ in range(50):
        answer = tracker.track(np.zeros((120, 160, 3), np.uint8))
        x, y, w, h = answer["target_bbox"]
        assert w >= 10 and h >= 10 and x <= 150 and y <= 110 and x + w >= 10 and y + h >= 10
        assert answer["object_presence_score"] < 0.01


def test_parameters_look_like_pytrackings(parameters):
    parameters.debug = 0
    assert parameters.get("debug") == 0
    assert parameters.get("object_presence_score_threshold", 0.55) == 0.55


def test_hann_window_is_the_golden_one(shared):
    golden = np.load(shared / "golden" / "pipeline.npz")["hann_16_centered"]
    assert np.abs(hann_window(16).numpy() - golden.reshape(16, 16)).max() < 1e-6


def reference_localise(score, size, offset, window, weight):
    """The definition for one sample, cell by cell."""
    response = score * window if weight is None else (1 - weight) * score + weight * window
    row, column = np.unravel_index(response.argmax(), response.shape)
    height, width = score.shape
    box = (
        (column + offset[0, row, column]) / width,
        (row + offset[1, row, column]) / height,
        *size[:, row, column],
    )
    return box, response[row, column] if weight is None else score[row, column]


@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    weight=st.sampled_from([None, 0.0, 0.49]),
)
def test_localise_equals_the_definition(seed, height, width, weight):
    rng = np.random.default_rng(seed)
    maps = {
        "score_map": rng.random((3, 1, height, width)),
        "size_map": rng.random((3, 2, height, width)),
        "offset_map": rng.random((3, 2, height, width)),
    }
    window = hann_window(height, width).double()
    tensors = {key: torch.from_numpy(value) for key, value in maps.items()}
    boxes, confidences = localise(tensors, window, weight)
    for index in range(3):
        box, confidence = reference_localise(
            maps["score_map"][index, 0], maps["size_map"][index], maps["offset_map"][index],
            window.numpy(), weight,
        )  # fmt: skip
        np.testing.assert_allclose(boxes[index], box, atol=1e-12)
        assert confidences[index] == pytest.approx(confidence, abs=1e-12)


def test_without_a_window_it_is_the_networks_own_box(tiny_parameters):
    network = tiny_parameters.network
    torch.manual_seed(1)
    with torch.inference_mode():
        outputs = network(torch.randn(3, 3, 64, 64), torch.randn(3, 3, 128, 128))
    boxes, confidences = localise(outputs, torch.ones(8, 8))
    torch.testing.assert_close(boxes, outputs["pred_boxes"])
    torch.testing.assert_close(confidences, outputs["score_map"].flatten(1).max(1).values)


def test_both_images_are_cut_like_one_of_six_channels(parameters, white_finder):
    """Training cuts six channels at once, tracking three and three: to the pixel the same."""
    rng = np.random.default_rng(0)
    image, aux = rng.integers(0, 256, (2, 90, 120, 3), np.uint8)
    parameters.network = white_finder(in_channels=6)
    tracker = SRFTTracker(parameters)
    for box in ((30, 20, 25, 31), (-8, 60, 40, 44), (100, 5, 18, 12)):
        tracker.initialize(image, {"init_bbox": box, "aux": aux})
        region = tracker._cut(image, {"aux": aux}, 4.0, 128)
        expected, factor = sample_target(np.concatenate((image, aux), 2), box, 4.0, 128)
        np.testing.assert_array_equal(region.pixels, expected)
        assert region.resize_factor == factor


def test_pytrackings_run_video_gives_bgr_images_and_copies(parameters, white_square):
    parameters.network.channel = 2  # looks at blue alone
    sequence = white_square()
    for image in sequence.frames.images:
        image[..., 1:] = 0  # the target is blue, in BGR order
    parameters.param_name = "default_rgb"
    tracker = copy.deepcopy(SRFTTracker(parameters))
    assert tracker.network is parameters.network
    boxes = np.array([answer["target_bbox"] for answer in run(tracker, sequence)])
    assert np.abs(boxes - sequence.boxes[1:]).max() < 1.1


class TwoTemplates(TrackingNetwork):
    """Wraps the finder: takes two templates with their boxes, and keeps what it was given."""

    input_names = ("template", "search", "template_box")

    def __init__(self, finder):
        super().__init__(SUTrackSpec(name="two", template_size=64, search_size=128, in_channels=3))
        self.finder = finder
        self.seen = []

    def forward(self, templates, search, boxes):
        self.seen.append([float(images.mean()) for images in templates])
        for box in boxes:
            assert box.shape == (len(search), 4) and (box[:, :2] - 0.5).abs().max() < 0.02
        return self.finder(templates[0], search)


def test_pytrackings_debug_view_gets_image_and_boxes(parameters):
    """Its visdom window wants lists, and first gets the tuple that the sequence handed out."""
    shown, image = [], np.zeros((4, 4, 3), np.uint8)
    tracker = SRFTTracker(parameters)
    tracker.visdom = SimpleNamespace(register=lambda *arguments: shown.append(arguments))
    tracker.visdom_draw_tracking(image, [(1, 2, 3, 4)], None)
    assert shown == [((image, [1, 2, 3, 4]), "Tracking", 1, "Tracking")]


def test_confident_frames_renew_the_second_template(parameters, white_square, white_finder):
    parameters.network = network = TwoTemplates(white_finder())
    parameters.update_interval, parameters.update_confidence = 4, 0.5
    sequence = white_square(length=14, speed=1)
    for index in range(1, 14):  # the target dims, so that its templates differ
        sequence.frames.images[index] = sequence.frames.images[index] // 255 * (255 - 5 * index)
    run(SRFTTracker(parameters), sequence)
    first, second = zip(*network.seen, strict=True)
    assert len(set(first)) == 1
    assert second[:4] == first[:4]  # frames 1 to 4: the first template, twice
    changes = [i + 2 for i in range(12) if second[i] != second[i + 1]]
    assert changes == [5, 9, 13]  # after frames 4, 8 and 12
    assert second[4] > second[8] > second[12]
    network.seen.clear()
    parameters.update_confidence = 0.95
    run(SRFTTracker(parameters), sequence)
    assert all(a == b for a, b in network.seen)


finite = st.floats(-500, 500)


@given(x=finite, y=finite, w=st.floats(0, 400), h=st.floats(0, 400))
def test_clipping_follows_ostrack(x, y, w, h):
    left, top, width, height = clip_box(np.array([x, y, w, h]), 120, 160, 10)
    assert 0 <= left <= 150 and 0 <= top <= 110 and width >= 10 and height >= 10
    assert left + width <= 160 + 1e-9 and top + height <= 120 + 1e-9
    if x >= 0 and y >= 0 and x + w <= 160 and y + h <= 120 and w >= 10 and h >= 10:
        np.testing.assert_allclose((left, top, width, height), (x, y, w, h), atol=1e-9)


def test_clipping_by_hand():
    assert clip_box(np.array([-20.0, 50, 40, 20]), 120, 160, 10) == (0, 50, 20, 20)
    assert clip_box(np.array([155.0, 50, 40, 20]), 120, 160, 10) == (150, 50, 10, 20)
    assert clip_box(np.array([-80.0, -80, 20, 20]), 120, 160, 10) == (0, 0, 10, 10)
    assert clip_box(np.array([30.0, 30, 2, 3]), 120, 160, 10) == (30, 30, 10, 10)
