"""The terms of distillation on cases of two samples, worked out by hand."""

from math import exp, log

import pytest
import torch

from srft_plugin.tuning.distillation import (
    LOGITS,
    TWO_TOWERS,
    cross_modal_terms,
    divergence,
    feature_distance,
    info_nce,
)


def kl(teacher, student):
    """KL of two distributions over two outcomes, given the first outcome's probabilities."""
    pairs = ((teacher, student), (1 - teacher, 1 - student))
    return sum(t * log(t / s) for t, s in pairs)


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def sigmoid(x):
    return 1 / (1 + exp(-x))


def test_divergence_of_two_samples():
    teacher = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # softmax of (a, 0) gives sigmoid(a); the second rows agree
    assert divergence(teacher, student).item() == pytest.approx(kl(sigmoid(2), sigmoid(1)) / 2)
    tempered = divergence(teacher, student, temperature=2.0).item()
    assert tempered == pytest.approx(kl(sigmoid(1), sigmoid(0.5)) / 2)
    assert divergence(teacher, teacher).item() == 0


def test_feature_distance_normalises_each_vector():
    teacher = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    student = torch.tensor([[0.0, 0.5], [0.0, 7.0]])
    # unit vectors: (1, 0) against (0, 1), squares 1 and 1; the second ones agree; mean of four
    assert feature_distance(teacher, student).item() == pytest.approx(0.5)
    maps = feature_distance(teacher.mT[None, :, :, None], student.mT[None, :, :, None])
    assert maps.item() == pytest.approx(0.5)


def test_info_nce_of_two_samples():
    logits = torch.tensor([[3.0, 1.0], [0.0, 0.0]])
    assert info_nce(logits).item() == pytest.approx((log(1 + exp(-2)) + log(2)) / 2)


def test_cross_modal_terms_by_hand():
    """The student's first tower agrees with the teacher, its second has swapped the samples."""
    axes = torch.eye(2)
    terms = cross_modal_terms((axes, axes), (axes, axes.flip(0)), teacher_scale=3.0, scale=2.0)
    # first x second' = [[2, 0], [0, 2]]: right; second x first' = [[0, 2], [2, 0]]: wrong
    right, wrong = log(1 + exp(-2)), log(1 + exp(2))
    assert terms["icl"].item() == pytest.approx((right + wrong) / 2)
    # the teacher's own logits are [[3, 0], [0, 3]] both ways
    crossed = (kl(sigmoid(3), sigmoid(2)) + kl(sigmoid(3), sigmoid(-2))) / 2
    assert terms["cross_kd"].item() == pytest.approx(crossed)
    # the student's own logits are [[0, 2], [2, 0]] both ways
    assert terms["contrastive"].item() == pytest.approx(wrong)


def test_two_towers_by_hand():
    axes, swapped = torch.eye(2), torch.eye(2).flip(0)
    teacher, student = (2 * axes, axes, 3.0), (axes, 5 * swapped, 2.0)
    terms = TWO_TOWERS.terms(teacher, student, 1.0)
    assert terms.keys() == TWO_TOWERS.weights.keys()
    # logits: teacher [[3, 0], [0, 3]], student [[0, 2], [2, 0]], the same transposed
    assert terms["crd"].item() == pytest.approx(kl(sigmoid(3), sigmoid(-2)))
    # first towers agree; second ones are 2 apart in each row's squares, mean of four
    assert terms["fd"].item() == pytest.approx(1.0)
    assert terms["contrastive"].item() == pytest.approx(log(1 + exp(2)))


def test_cross_entropy_of_tracer_has_twice_the_gradient_of_crd():
    """D without weights, CE(softmax(teacher), student) in both directions, is crd=2 alone."""
    torch.manual_seed(0)
    teacher = (torch.randn(5, 3), torch.randn(5, 3), torch.tensor(4.0))
    leaves = [torch.randn(5, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)]
    student = (*leaves, torch.tensor(6.0))
    normal = torch.nn.functional.normalize
    logits = [
        out[2] * normal(out[0], dim=1) @ normal(out[1], dim=1).mT for out in (teacher, student)
    ]
    both = sum(
        torch.nn.functional.cross_entropy(s, t.softmax(1))
        for t, s in (logits, [values.mT for values in logits])
    )
    ours = torch.autograd.grad(2 * TWO_TOWERS.terms(teacher, student, 1.0)["crd"], leaves)
    for one, other in zip(ours, torch.autograd.grad(both, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)  # float32 inside


def test_logits_alone_have_one_term():
    logits = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    terms = LOGITS.terms(*logits, 1.0)
    assert {name: value.item() for name, value in terms.items()} == {
        "crd": pytest.approx(kl(sigmoid(2), sigmoid(1)), rel=1e-4)  # computed in float32
    }
