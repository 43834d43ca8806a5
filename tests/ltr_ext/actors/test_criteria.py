"""Criteria by hand, against plain loops, and for every kind of network."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn.parallel import DistributedDataParallel

from ltr_ext.actors.criteria import CRITERIA, center, dense, distilled
from ltr_ext.actors.losses import varifocal_loss
from ltr_ext.actors.tracking import TrackingActor, sample_loss
from ltr_ext.models.head import boxes_at_peak
from ltr_ext.models.registry import build_network
from srft_plugin.errors import UserError

SIDE = 4


def maps(seed, batch=2):
    generator = torch.Generator().manual_seed(seed)
    score = torch.rand(batch, 1, SIDE, SIDE, generator=generator) * 0.98 + 0.01
    size = torch.rand(batch, 2, SIDE, SIDE, generator=generator) * 0.9 + 0.05
    offset = torch.rand(batch, 2, SIDE, SIDE, generator=generator)
    boxes = boxes_at_peak(score, size, offset)
    return {"score_map": score, "size_map": size, "offset_map": offset, "pred_boxes": boxes}


def overlaps(first, second):
    """GIoU and IoU of two boxes x1, y1, x2, y2."""
    inner = [max(first[0], second[0]), max(first[1], second[1]),
             min(first[2], second[2]), min(first[3], second[3])]  # fmt: skip
    outer = [min(first[0], second[0]), min(first[1], second[1]),
             max(first[2], second[2]), max(first[3], second[3])]  # fmt: skip
    inter = max(0, inner[2] - inner[0]) * max(0, inner[3] - inner[1])
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (first, second, outer)]
    union = areas[0] + areas[1] - inter
    return inter / union - (areas[2] - union) / areas[2], inter / union


def dense_by_loop(output, box):
    """SwinTrack's loss of one sample, cell by cell."""
    cx, cy, w, h = np.float32(box)  # as the loss: rounding decides about edges on cell borders
    truth = np.clip([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 0, 1).astype(float)
    cells = [min(int(edge * SIDE), SIDE - 1) for edge in truth]
    positives, classification, regression, weights = 0, 0.0, 0.0, 0.0
    for row in range(SIDE):
        for column in range(SIDE):
            score = float(output["score_map"][0, row, column])
            width, height = output["size_map"][:, row, column].tolist()
            dx, dy = output["offset_map"][:, row, column].tolist()
            x, y = (column + dx) / SIDE, (row + dy) / SIDE
            own = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
            giou, iou = overlaps(own, truth)
            if cells[0] <= column <= cells[2] and cells[1] <= row <= cells[3]:
                positives += 1
                weights += score
                regression += score * (1 - giou)
                if iou > 0:
                    entropy = -(iou * np.log(score) + (1 - iou) * np.log(1 - score))
                    classification += iou * entropy
                    continue
            classification -= 0.75 * score**2 * np.log(1 - score)
    return 1.5 * classification / positives + 1.5 * regression / weights


coordinate = st.floats(0.05, 0.95)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), coordinate, coordinate, st.floats(0.02, 1.5), st.floats(0.02, 1.5))
@example(0, 0.5, 0.05, 1.0, 0.9)  # an edge on the border of two cells
def test_dense_equals_a_loop_over_the_cells(seed, x, y, w, h):
    output = maps(seed)
    box = torch.tensor([[x, y, w, h], [0.5, 0.5, 0.3, 0.3]])
    losses = dense(output, box)["loss"]
    for index in range(2):
        sample = {name: value[index] for name, value in output.items()}
        expected = dense_by_loop(sample, box[index].tolist())
        assert losses[index].item() == pytest.approx(expected, rel=1e-4)


def test_dense_gradient_does_not_pass_through_targets_and_weights():
    """Boxes learn from the GIoU loss alone, scores from the varifocal loss alone."""
    output = maps(3)
    score, size = (output[name].requires_grad_() for name in ("score_map", "size_map"))
    box = torch.tensor([[0.5, 0.5, 0.4, 0.4]]).expand(2, 4)
    losses = dense(output, box)
    assert torch.autograd.grad(
        losses["varifocal"].sum(), size, allow_unused=True, retain_graph=True
    ) == (None,)
    assert torch.autograd.grad(losses["giou"].sum(), score, allow_unused=True) == (None,)


def test_varifocal_by_hand():
    """A positive of quality 0.5 scored 0.8, a negative scored 0.4."""
    found = varifocal_loss(torch.tensor([0.8, 0.4]), torch.tensor([0.5, 0.0]))
    positive = -0.5 * (0.5 * np.log(0.8) + 0.5 * np.log(0.2))
    assert found.tolist() == pytest.approx([positive, -0.75 * 0.16 * np.log(0.6)])


def test_center_weighs_its_terms_as_equation_16():
    values = center(maps(0), torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.2, 0.7, 0.3, 0.2]]))
    expected = values["focal"] + 2 * values["giou"] + 5 * values["l1"]
    assert torch.equal(values["loss"], expected) and values["loss"].shape == (2,)


def test_distilled_weighs_clean_masked_and_distance():
    box = torch.tensor([[0.5, 0.5, 0.4, 0.4]]).expand(2, 4)
    clean, masked, distance = maps(0), maps(1), torch.tensor([3.0, 7.0])
    values = distilled(clean | {"masked": masked, "distance": distance}, box)
    expected = 0.6 * center(clean, box)["loss"] + 0.2 * center(masked, box)["loss"] + 0.1 * distance
    torch.testing.assert_close(values["loss"], expected)
    assert torch.equal(distilled(clean, box)["loss"], center(clean, box)["loss"])


SMALL = {"dim": 48, "heads": 3, "depth": 4, "template_size": 64, "search_size": 128}
KINDS = {
    "two_branch_tiny": {},
    "ostrack_tiny_aux": {},
    "vipt256": {**SMALL, "prompts": 4},
    "sdstrack256": {**SMALL, "cross_at": (1, 3)},
    "untrack256": SMALL,
    "sutrack_t224": {"dim": 64, "stage_depth": 1, "depth": 4, "template_size": 64,
                     "search_size": 128},
    "upvpt_swintrack_t224": {"dim": 24, "depths": (2, 2, 2), "encoder_layers": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_actor_trains_every_kind_of_network(name, random_batch):
    """Every parameter that trains gets a gradient: what several processes need, too."""
    torch.manual_seed(0)
    network = build_network(name, **KINDS[name]).train()
    network.freeze()
    actor = TrackingActor(network)
    loss, log = actor(random_batch(network.spec))
    loss.backward()
    assert torch.isfinite(loss) and 0 <= log["iou"] <= 1
    assert network.criterion in CRITERIA
    without = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


@pytest.mark.parametrize("name", KINDS)
def test_float64_shows_what_float32_rounds_away(name, random_batch):
    """Second differences of the loss, as in Eq. 7, need all digits."""
    torch.manual_seed(0)
    network = build_network(name, **KINDS[name]).double().eval()
    batch = random_batch(network.spec)
    data = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
    bias = next(p for n, p in network.named_parameters() if p.ndim == 1 and "head" in n)
    losses = []
    with torch.no_grad():
        for _ in range(3):
            losses.append(sample_loss(network, data))
            bias += 1e-9
    first, second, third = losses
    assert first.dtype == torch.float64 and (first != second).all()
    torch.testing.assert_close(third - second, second - first, rtol=1e-3, atol=1e-14)


@pytest.fixture
def process_group():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=store)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("name", ["sdstrack256", "untrack256", "sutrack_t224"])
def test_actor_runs_a_network_wrapped_for_several_processes(name, process_group, random_batch):
    """The wrapper refuses a second step after one that left a parameter without gradient."""
    torch.manual_seed(0)
    network = build_network(name, **KINDS[name]).train()
    network.freeze()
    actor, data = TrackingActor(DistributedDataParallel(network)), random_batch(network.spec)
    for _ in range(2):
        loss, log = actor(data)
        loss.backward()
    assert ("masked" in log) == (name == "sdstrack256")


def test_actor_gives_the_network_the_boxes_of_its_templates(random_batch):
    torch.manual_seed(0)
    network = build_network("sutrack_t224", **KINDS["sutrack_t224"]).eval()
    network.backbone.template_foreground_token.data.normal_()
    actor, one = TrackingActor(network), random_batch(network.spec)
    other = one | {"template_box": one["template_box"].flip(0)}
    assert not torch.equal(actor(one)[0], actor(other)[0])


def test_images_of_another_number_of_channels_are_refused(random_batch):
    network = build_network("two_branch_tiny")
    rgb = random_batch(network.spec)
    rgb["search"] = rgb["search"][:, :3]
    with pytest.raises(UserError, match=r"search has shape \(3, 3, 128, 128\); expected \(B, 6"):
        TrackingActor(network)(rgb)
