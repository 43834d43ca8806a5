"""TRACER's terms for trackers: two samples by hand, and what networks offer."""

from math import exp, log

import pytest
import torch

from ltr_ext.actors.distillation import SCALE, TRACKING, embedding_at
from ltr_ext.models.registry import build_network

TINY = {
    "dim": 24, "depth": 4, "heads": 2, "head_channels": 8, "template_size": 32, "search_size": 64,
    "drop_path": 0.0,
}  # fmt: skip


def sigmoid(x):
    return 1 / (1 + exp(-x))


def output(scores, rgb, aux):
    """Two samples on a grid of one row and two cells; features of two channels."""
    rgb, aux = torch.tensor(rgb), torch.tensor(aux)
    return {
        "score_map": torch.tensor(scores).sigmoid()[:, None, None],
        "search_features": ((rgb + aux) / 2).mT[:, :, None],
        "rgb_features": rgb.mT[:, :, None],
        "aux_features": aux.mT[:, :, None],
    }


def test_embedding_is_the_unit_vector_of_the_cell():
    features = torch.arange(12.0).view(1, 2, 2, 3)
    expected = torch.tensor([[4.0, 10.0]]) / (4**2 + 10**2) ** 0.5
    torch.testing.assert_close(embedding_at(features, torch.tensor([4])), expected)


def test_terms_of_two_samples():
    right, up, off = [1.0, 0.0], [0.0, 1.0], [5.0, 5.0]  # ``off`` is where the target is not
    teacher = output([[2.0, 0.0], [0.0, 1.0]], [[right, off], [off, up]], [[right, off], [off, up]])
    student = output([[1.0, 0.0], [0.0, 1.0]], [[right, off], [off, up]], [[up, off], [off, up]])
    terms = TRACKING.terms(teacher, student, 1.0)
    assert terms.keys() == TRACKING.weights.keys()

    t, s = sigmoid(2), sigmoid(1)
    divergence = t * log(t / s) + (1 - t) * log((1 - t) / (1 - s))
    assert terms["crd"].item() == pytest.approx(divergence / 2, rel=1e-4)

    # fused: one of four cells has (1/2, 1/2), the teacher (1, 0): 2 - sqrt(2) apart, squared
    assert terms["fd"].item() == pytest.approx((2 - 2**0.5) / 8, rel=1e-5)

    # student RGB x teacher auxiliary is the identity; student auxiliary has (0, 1) in both samples
    sure = log(1 + exp(-SCALE))
    lost = (log(1 + exp(SCALE)) + sure) / 2
    assert terms["icl"].item() == pytest.approx((sure + lost) / 2, rel=1e-4)
    # the teacher is all but certain, so its divergence from logits is their cross entropy
    assert terms["cross_kd"].item() == pytest.approx((0 + lost) / 2, abs=1e-3)
    # own cosines, RGB x auxiliary: [[0, 0], [1, 1]]; rows are even, columns are [0, 1] twice
    rows, columns = log(2), lost
    assert terms["contrastive"].item() == pytest.approx((rows + columns) / 2, rel=1e-4)


@pytest.mark.parametrize("name", ["two_branch_tiny", "ostrack_tiny"])
def test_networks_offer_the_terms_of_their_kind(name):
    torch.manual_seed(0)
    network = build_network(name, **TINY)
    channels = network.spec.in_channels
    out = network(torch.randn(2, channels, 32, 32), torch.randn(2, channels, 64, 64))
    terms = TRACKING.terms(out, out, 2.0)
    assert terms["crd"].item() == pytest.approx(0, abs=1e-6) and terms["fd"].item() == 0
    single = {"crd", "fd"}
    assert terms.keys() == (single if name == "ostrack_tiny" else TRACKING.weights.keys())
    if name == "two_branch_tiny":
        mean = (out["rgb_features"] + out["aux_features"]) / 2
        torch.testing.assert_close(mean, out["search_features"])
