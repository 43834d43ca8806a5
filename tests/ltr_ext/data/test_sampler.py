"""Which pairs are drawn, and that resuming and sharding are only a matter of indices."""

import logging
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ltr_ext.data.augment import Augmentation
from ltr_ext.data.loader import even_batch, make_loader
from ltr_ext.data.sampler import PairDataset, choose_frames, frames_before
from ltr_ext.dataset.sequence import Sequence
from ltr_ext.models.network import NetworkSpec
from srft_plugin.errors import UserError


def spec(in_channels=6, **fields):
    return NetworkSpec(
        name="test", template_size=32, search_size=64, in_channels=in_channels, **fields
    )


SPEC = spec()


@dataclass
class PaintedFrames:
    """Frame t is black with the target painted in (t, 100, 200); aux in (200, t, 100)."""

    boxes: np.ndarray
    broken: bool = False
    read: int = 0

    def __len__(self):
        return len(self.boxes)

    def _paint(self, index, colour):
        self.read += 1
        if self.broken:
            raise UserError(f"frame{index}.jpg: the image is truncated")
        image = np.zeros((100, 140, 3), np.uint8)
        x, y, w, h = self.boxes[index].astype(int)
        image[y : y + h, x : x + w] = colour
        return image

    def rgb(self, index):
        return self._paint(index, (index, 100, 200))

    def aux(self, index):
        return self._paint(index, (200, index, 100))


class Painted:
    """Three sequences of 40 frames; boxes move, some frames lack the target."""

    def __init__(self, name="painted", modality="depth", broken=False, size=None):
        self.name, self.modality, self.broken, self.size = name, modality, broken, size

    def __len__(self):
        return 3

    def __getitem__(self, index):
        t = np.arange(40)
        w, h = self.size or (24, 16 + index)
        boxes = np.stack([20 + t, 30 + 0 * t, w + 0 * t, h + 0 * t], 1).astype(float)
        frames = PaintedFrames(boxes.copy(), self.broken)
        boxes[5:10] = np.nan
        return Sequence(f"{self.name}{index}", frames, boxes, self.modality)


def make(datasets=None, ratios=None, spec=None, **options):
    options = {"samples_per_epoch": 24, "augmentation": Augmentation(0, 0, 0, 0), **options}
    return PairDataset(datasets or [Painted()], ratios, spec or SPEC, **options)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@settings(deadline=None)
@given(
    visible=st.lists(st.booleans(), min_size=1, max_size=80).filter(any),
    gap=st.integers(1, 90),
    seed=st.integers(0, 1000),
)
def test_frames_are_causal_visible_and_near(visible, gap, seed):
    visible = np.array(visible)
    template, search = choose_frames(visible, gap, np.random.default_rng(seed))
    assert visible[template] and visible[search]
    if visible.sum() == 1:
        assert template == search
        return
    assert template < search
    if search - template > gap:  # the gap grew, in steps of 5, as far as it had to
        following = template + 1 + int(np.argmax(visible[template + 1 :]))
        assert following - template > gap
        assert (search - following) < 5


def test_images_of_two_sizes_are_refused():
    class Smaller(PaintedFrames):
        def aux(self, index):
            return super().aux(index)[:50]

    class Unregistered(Painted):
        def __getitem__(self, index):
            found = super().__getitem__(index)
            return replace(found, frames=Smaller(found.frames.boxes))

    with pytest.raises(UserError, match=r"painted\d, frame \d+: .* 140x50 pixels, .* 140x100"):
        make([Unregistered()])[0]


def test_every_pair_within_the_gap_can_be_drawn():
    rng = np.random.default_rng(0)
    drawn = {choose_frames(np.ones(6, bool), 2, rng) for _ in range(600)}
    assert drawn == {(a, b) for a in range(5) for b in range(a + 1, min(a + 3, 6))}


def test_a_sequence_without_target_is_an_error():
    with pytest.raises(UserError, match="seq7: the target is in no frame"):
        choose_frames(np.zeros(5, bool), 10, np.random.default_rng(0), "seq7")


@pytest.mark.parametrize("channels", [3, 6])
@pytest.mark.parametrize("modality", [None, "depth"])
def test_shapes_and_channels(channels, modality):
    data = make([Painted(modality=modality)], spec=spec(in_channels=channels))
    item = data[0]
    assert item["template"].shape == (channels, 32, 32)
    assert item["search"].shape == (channels, 64, 64)
    assert item["template"].dtype == item["search"].dtype == torch.uint8
    for name in ("template", "search"):
        assert item[f"{name}_box"].shape == (4,) and item[f"{name}_box"].dtype == torch.float32
        image = item[name]
        assert image[2].max() == 200  # RGB first
        if channels == 6:
            assert image[3].max() == (200 if modality else image[0].max())
            assert image[5].max() == (100 if modality else 200)


@pytest.mark.parametrize("modality", ["depth", None])
def test_one_image_may_be_the_auxiliary_one(modality):
    """Table IX; where there is none, the RGB image stands for it."""
    item = make([Painted(modality=modality)], spec=spec(3, aux_only=True))[0]
    assert item["template"].shape == (3, 32, 32)
    both = make([Painted(modality=modality)])[0]
    assert torch.equal(item["search"], both["search"][3:])
    assert torch.equal(item["template"], both["template"][3:])


def test_networks_with_several_templates_get_earlier_ones_too():
    item = make(spec=spec(templates=2), max_gap=10)[0]
    assert item["template"].shape == (2, 6, 32, 32) and item["template_box"].shape == (2, 4)
    frames = item["template"][:, 0].flatten(1).max(1).values.tolist()  # red is the frame's number
    assert frames[0] - 10 <= frames[1] <= frames[0]
    assert make(spec=spec(templates=1))[0]["template"].shape == (6, 32, 32)


def test_crops_follow_the_rule_of_the_network():
    """48x8 pixels: 2 * sqrt(48 * 8) = 39.2, and with a margin of 28 sqrt(76 * 36) = 52.3."""
    for context, side in ((False, 40), (True, 53)):
        item = make([Painted(size=(48, 8))], spec=spec(context=context))[0]
        assert item["template_box"][2:].tolist() == pytest.approx([48 / side, 8 / side])


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.data())
def test_frames_before_are_visible_and_near(visible, data):
    visible = np.array(visible)
    frame = data.draw(st.integers(0, len(visible) - 1))
    near = [i for i in range(max(frame - 5, 0), frame) if visible[i]]
    found = frames_before(visible, frame, 5, 3, np.random.default_rng(0))
    assert len(found) == 3 and set(found) <= set(near or [frame])


def test_the_modality_of_all_data_is_known():
    assert make([Painted(modality="event")] * 2).modality == "event"
    assert make([Painted(modality="event"), Painted(modality="depth")]).modality is None


def test_the_modality_is_known_where_the_first_sequences_are_left_out():
    class Unreadable(Painted):
        def __getitem__(self, index):
            if index < 2:
                raise UserError("no ground-truth file")
            return super().__getitem__(index)

    assert make([Unreadable(modality="event")], skip_unreadable=2).modality == "event"
    for most in (0, 1):
        with pytest.raises(UserError, match="no ground-truth file"):
            _ = make([Unreadable()], skip_unreadable=most).modality


def test_grey_reaches_the_copy_that_stands_for_the_auxiliary_image():
    item = make([Painted(modality=None)], augmentation=Augmentation(grey=1))[0]
    assert torch.equal(item["search"][:3], item["search"][3:])
    assert torch.equal(item["search"][0], item["search"][1])


@pytest.mark.parametrize("index", range(8))
def test_boxes_are_where_the_target_is_seen_and_the_template_comes_first(index):
    item = make()[index]
    for name, size in (("template", 32), ("search", 64)):
        mask = (item[name][2] > 100).numpy()  # blue is 200 on the target
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        cx, cy, w, h = item[f"{name}_box"].numpy() * size
        low, high = (
            np.clip([cx - w / 2, cy - h / 2], 0, size),
            np.clip([cx + w / 2, cy + h / 2], 0, size),
        )
        np.testing.assert_allclose([columns[0], rows[0]], low, atol=1.5)
        np.testing.assert_allclose([columns[-1] + 1, rows[-1] + 1], high, atol=1.5)
    template_time, search_time = item["template"][0].max(), item["search"][0].max()
    assert template_time < search_time


def test_the_template_is_not_displaced_and_the_search_region_is():
    data = make(samples_per_epoch=60)
    template = torch.stack([data[i]["template_box"][:2] for i in range(30)])
    search = torch.stack([data[i]["search_box"][:2] for i in range(30)])
    assert (template - 0.5).abs().max() < 0.04  # rounding of the window to whole pixels
    assert search.std() > 0.1
    still = make(centre_jitter=0, scale_jitter=0)
    assert max((still[i]["search_box"][:2] - 0.5).abs().max() for i in range(8)) < 0.02


def test_jitter_is_the_published_one():
    data = make()
    rng, box = np.random.default_rng(0), np.array([50.0, 40, 20, 30])
    drawn = np.array([data._displace(box, rng) for _ in range(4000)])
    scale = np.log(drawn[:, 2:] / box[2:])
    np.testing.assert_allclose(scale.std(0), 0.25, rtol=0.06)
    np.testing.assert_allclose(scale.mean(0), 0, atol=0.02)
    centre = drawn[:, :2] + drawn[:, 2:] / 2 - [60, 55]
    reach = 3.0 * np.sqrt(drawn[:, 2:].prod(1, keepdims=True))
    uniform = centre / reach
    assert np.abs(uniform).max() <= 0.5
    np.testing.assert_allclose(uniform.std(0), 12**-0.5, rtol=0.06)


def test_a_sample_is_a_function_of_seed_and_index():
    data, again, other = make(), make(), make(seed=1)
    order = [5, 0, 3, 5]
    first = [data[i] for i in order]
    assert all(same(a, b) for a, b in zip(first, [again[i] for i in order], strict=True))
    assert not any(same(data[i], other[i]) for i in range(6))
    assert not any(same(data[i], data[i + 24]) for i in range(6))  # the next epoch is another


def test_mixing_follows_the_ratios():
    data = make([Painted("a", "depth"), Painted("b", None)], [3, 1], samples_per_epoch=400)
    rgb_only = sum(torch.equal(data[i]["search"][:3], data[i]["search"][3:]) for i in range(400))
    assert abs(rgb_only / 400 - 0.25) < 0.06


def test_a_mixed_batch_says_which_sample_has_what_modality():
    """The indices that UnTrack was published with, as long as the image says so, too."""
    kinds = [None, "depth", "thermal", "event"]
    data = make([Painted(str(kind), kind) for kind in kinds], samples_per_epoch=32)
    batch = next(iter(make_loader(data, 32)))
    assert batch["modality"].shape == (32,) and batch["modality"].dtype == torch.int64
    assert set(batch["modality"].tolist()) == {0, 1, 2, 3}
    alone = (batch["search"][:, :3] == batch["search"][:, 3:]).flatten(1).all(1)
    assert torch.equal(batch["modality"] == 0, alone)
    for index, kind in enumerate(kinds):
        assert make([Painted(modality=kind)])[0]["modality"] == index
    assert make([Painted(modality="sonar")])[0]["modality"] == 0


def test_resumed_in_the_middle_and_with_workers_the_batches_are_the_same():
    data = make()
    whole = list(make_loader(data, 4))
    rest = list(make_loader(data, 4, start=12, workers=1))
    assert len(whole) == 6 and len(rest) == 3
    assert all(same(a, b) for a, b in zip(whole[3:], rest, strict=True))


def test_the_loader_goes_to_the_end_of_the_epoch_it_starts_in():
    data = make()
    batches = list(make_loader(data, 4, start=24 + 16))
    assert len(batches) == 2
    assert torch.equal(batches[0]["search"][0], data[40]["search"])


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_processes_share_an_epoch_without_overlap(world_size):
    loaders = [make_loader(make(), 1, rank=r, world_size=world_size) for r in range(world_size)]
    indices = [list(loader.sampler) for loader in loaders]
    assert len({len(part) for part in indices}) == 1  # nobody waits for another
    together = sorted(index for part in indices for index in part)
    assert together == list(range(24 // world_size * world_size))


def test_an_unreadable_file_is_an_error_by_default():
    with pytest.raises(UserError, match="truncated"):
        make([Painted(broken=True)])[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_the_message_of_a_worker_arrives_as_it_was(workers):
    loader = make_loader(make([Painted(broken=True)]), 4, workers=workers)
    with pytest.raises(UserError, match=r"^frame\d+\.jpg: the image is truncated$"):
        next(iter(loader))


def test_unreadable_files_are_skipped_and_counted_up_to_the_limit(caplog):
    data = make([Painted("good"), Painted("bad", broken=True)], skip_unreadable=10)
    with caplog.at_level(logging.WARNING):
        for index in range(8):
            data[index]
    assert 0 < data.skipped == len(caplog.records)
    assert "frame" in caplog.text and "truncated" in caplog.text
    assert same(
        data[3], make([Painted("good"), Painted("bad", broken=True)], skip_unreadable=10)[3]
    )


def test_when_nothing_can_be_read_the_limit_ends_it():
    data = make([Painted(broken=True)], skip_unreadable=5)
    with pytest.raises(UserError, match="truncated"):
        data[0]
    assert data.skipped == 5


class Empty(Painted):
    def __len__(self):
        return 0


@pytest.mark.parametrize(
    ("datasets", "ratios", "message"),
    [
        ([], None, "0 data sets"),
        ([Painted()], [1, 2], "1 data sets, 2 ratios"),
        ([Painted()], [0], "at least one above"),
        ([Painted(), Painted()], [2, -1], "none below 0"),
        ([Painted(), Painted()], [1, float("nan")], "expected numbers"),
        ([Painted(), Painted()], [float("inf"), 1], "expected numbers"),
        ([Empty("hollow")], None, "hollow has no sequences"),
    ],
)
def test_wrong_mixtures_are_errors(datasets, ratios, message):
    with pytest.raises(UserError, match=message):
        PairDataset(datasets, ratios, SPEC, 10)


def test_an_epoch_without_a_batch_is_an_error():
    with pytest.raises(UserError, match="no batch of 30"):
        make_loader(make(), 30)


def test_batches_are_as_many_as_needed_and_even():
    sizes = [even_batch(*pair) for pair in ((512, 192), (6, 4), (3, 16), (64, 16))]
    assert sizes == [170, 3, 3, 16]
