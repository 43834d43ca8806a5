"""Running averages of the weights: against sums over the whole trajectory, alone and resumed."""

import copy

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.func import functional_call

from srft_plugin.errors import UserError
from srft_plugin.tuning.regularizer import make_regularizer
from srft_plugin.tuning.teacher import ExponentialAverage, WeightedAverage


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.GELU(), nn.Linear(4, 2)).double()


def move(net):
    with torch.no_grad():
        for p in net.parameters():
            p += torch.randn_like(p)


@given(
    total=st.integers(1, 40),
    beta=st.sampled_from([0.1, 0.5, 1.0, 2.0, 7.5]),
    seed=st.integers(0, 9),
)
@settings(max_examples=30, deadline=None)
def test_weighted_average_is_the_sum_over_the_trajectory(total, beta, seed):
    net = network(seed)
    teacher = WeightedAverage(net, total, beta)
    density = torch.distributions.Beta(*torch.tensor([beta, beta], dtype=torch.float64)).log_prob
    time = (torch.arange(total + 1, dtype=torch.float64) + 0.5) / (total + 1)
    weights = density(time).exp()
    trajectory = [net[0].weight.detach().clone()]
    for step in range(1, total + 1):
        move(net)
        teacher.after_step()
        trajectory.append(net[0].weight.detach().clone())
        used = weights[: step + 1]
        mean = (used[:, None, None] * torch.stack(trajectory)).sum(0) / used.sum()
        torch.testing.assert_close(teacher.average["0.weight"], mean, rtol=1e-12, atol=1e-12)
        assert teacher.total == pytest.approx(used.sum().item(), rel=1e-12)


def test_half_precision_is_averaged_in_float32():
    """bfloat16 has 8 bits: 1/1000 of a step would be lost, and the teacher stand still."""
    net = network().bfloat16()
    teacher, exact = WeightedAverage(net, 1000, beta=1.0), []
    for _ in range(300):
        exact.append(net[0].weight.detach().double())
        net[0].weight.data.add_(0.01)
        teacher.after_step()
    mean = torch.stack([*exact, net[0].weight.detach().double()]).mean(0)
    torch.testing.assert_close(teacher.average["0.weight"].double(), mean, rtol=1e-5, atol=1e-5)
    assert teacher((torch.ones(4, 3).bfloat16(),)).dtype == torch.bfloat16


def test_weights_of_tracer_are_largest_at_both_ends():
    teacher = WeightedAverage(network(), 99)
    weights = [teacher.weight(t) for t in range(100)]
    assert weights[0] == pytest.approx(weights[99]) == max(weights)
    assert weights[50] == pytest.approx(2 / torch.pi, rel=1e-3)  # the density at 1/2
    assert teacher.weight(99) == teacher.weight(150)


def test_exponential_average_by_hand():
    net = nn.Linear(1, 1, bias=False)
    net.weight.data.fill_(0.0)
    teacher = ExponentialAverage(net, total_steps=20, every=2)  # m rises over the first 4 steps
    values = []
    for value in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0):
        net.weight.data.fill_(value)
        teacher.after_step()
        values.append(teacher.average["weight"].item())
    second = 0.475 * 0 + 0.525 * 2
    fourth = 0.9 * second + 0.1 * 4
    sixth = 0.9 * fourth + 0.1 * 6
    assert values == pytest.approx([0, second, second, fourth, fourth, sixth])


@pytest.mark.parametrize("kind", [WeightedAverage, lambda n, t: ExponentialAverage(n, t, 2)])
def test_resume_is_exact(kind):
    whole, net = kind(network(), 9), network()
    first = kind(net, 9)
    torch.manual_seed(1)
    for step in range(9):
        move(whole.network)
        net.load_state_dict(whole.network.state_dict())
        if step == 4:
            state = copy.deepcopy(first.state_dict())
            first = kind(network(7), 9)
            first.load_state_dict(state)
            first.network.load_state_dict(whole.network.state_dict())
            net = first.network
        whole.after_step()
        first.after_step()
    assert whole.state_dict().keys() == first.state_dict().keys()
    for name, value in whole.average.items():
        assert torch.equal(value, first.average[name])


def test_answers_are_those_of_a_copy_with_the_averaged_weights():
    net = network().train()
    teacher = WeightedAverage(net, 5)
    move(net)
    teacher.after_step()
    x = torch.randn(6, 3, dtype=torch.float64)
    before = copy.deepcopy(net.state_dict())
    answer = teacher((x,))
    separate = copy.deepcopy(net)
    separate.load_state_dict(before | teacher.average)
    assert torch.equal(answer, separate(x))
    for name, value in net.state_dict().items():  # weights, and batch statistics, of the student
        assert torch.equal(value, before[name]), name


def test_only_what_trains_is_copied_and_the_rest_is_shared():
    net = network()
    net[3].requires_grad_(False)
    teacher = WeightedAverage(net, 5)
    assert set(teacher.average) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    x = torch.randn(4, 3, dtype=torch.float64)
    before = teacher((x,))
    net[3].weight.data.add_(1)
    assert not torch.equal(teacher((x,)), before)


def test_no_gradient_reaches_the_teacher():
    net = network()
    regularizer = make_regularizer("tracer", net, None, 5)
    move(net)
    regularizer.after_step()
    x = torch.randn(6, 3, dtype=torch.float64)
    answer = regularizer.teacher((x,))
    assert answer.grad_fn is None and not answer.requires_grad
    output = net(x)
    term = regularizer.loss_term((x,), output)
    student = dict(net.named_parameters())
    assert not any(value.requires_grad for value in regularizer.teacher.average.values())
    expected = nn.functional.kl_div(
        functional_call(net, student, x).float().log_softmax(1),
        answer.float().softmax(1),
        reduction="batchmean",
    )
    ours = torch.autograd.grad(term, list(student.values()))
    theirs = torch.autograd.grad(expected, list(student.values()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_state_of_other_parameters_is_refused():
    state = WeightedAverage(network(), 5).state_dict()
    net = network()
    net[0].bias.requires_grad_(False)
    with pytest.raises(UserError, match="teacher's state is of other parameters.*0.bias"):
        WeightedAverage(net, 5).load_state_dict(state)


def test_nothing_to_average_is_refused():
    with pytest.raises(UserError, match="averages what trains, and nothing"):
        WeightedAverage(network().requires_grad_(False), 5)
    with pytest.raises(UserError, match="total_steps is 0"):
        WeightedAverage(network(), 0)


@pytest.mark.parametrize("name", ["tracer", "l2sp", "contrastive_wma"])
def test_sharded_parameters_are_refused(name):
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        net = fully_shard(nn.Linear(3, 2), mesh=dist.device_mesh.init_device_mesh("cpu", (1,)))
        with pytest.raises(UserError, match="sharded .FSDP.; take none or srft"):
            make_regularizer(name, net, None, 5)
    finally:
        dist.destroy_process_group()
