"""Operation groups, and the schedule of Eq. 14 against hand-worked values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from srft_plugin import UserError, operation_groups
from srft_plugin.schedule import sensitivity_weights


def test_a_layer_is_an_operation_and_a_container_parameter_is_its_own(tracker):
    groups = operation_groups(tracker)
    assert groups["blocks.1.qkv"] == ["blocks.1.qkv.weight", "blocks.1.qkv.bias"]
    assert groups["blocks.0.proj"] == ["blocks.0.proj.weight"]
    assert groups["position_x"] == ["position_x"]
    assert groups["blocks.0.gamma"] == ["blocks.0.gamma"]
    members = [name for group in groups.values() for name in group]
    assert members == [name for name, _ in tracker.named_parameters()]


def test_a_single_layer_and_a_shared_weight():
    assert operation_groups(nn.Linear(2, 2)) == {"Linear": ["weight", "bias"]}
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[1].weight = network[0].weight
    assert operation_groups(network) == {"0": ["0.weight", "0.bias"], "1": ["1.bias"]}


@pytest.mark.parametrize(
    ("kappa", "step", "prior"),
    [
        (0.6, 0, 0.6),
        (0.6, 25, 0.55),
        (0.6, 100, 0.4),
        (0.3, 0, 0.3),
        (0.3, 50, 0.5),
        (0.3, 100, 0.7),
        (0.5, 77, 0.5),
        (1.0, 0, 1.0),
        (1.0, 100, 0.0),
        (0.6, 130, 0.4),
    ],
)
def test_schedule_by_hand(kappa, step, prior):
    assert sensitivity_weights(step, 100, kappa) == pytest.approx((prior, 1 - prior))


@given(st.floats(0, 1), st.integers(0, 50), st.integers(1, 50))
def test_weights_are_a_convex_combination(kappa, step, total):
    prior, transfer = sensitivity_weights(step, total, kappa)
    assert min(prior, transfer) >= -1e-12
    assert prior + transfer == pytest.approx(1)


@pytest.mark.parametrize(("kappa", "total"), [(-0.1, 10), (1.1, 10), (float("nan"), 10), (0.6, 0)])
def test_values_out_of_range_are_refused(kappa, total):
    with pytest.raises(UserError, match="expected"):
        sensitivity_weights(0, total, kappa)
