"""The arithmetic of ``benchmarks/scaling_model.py``, by hand, and what it counts of a network."""

import dataclasses
import sys
from pathlib import Path

import pytest

from ltr_ext.models.registry import build_network
from ltr_ext.recipe import load_recipe
from srft_plugin.errors import UserError
from srft_plugin.tuning.trainable import select_trainable

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def model():
    sys.path.insert(0, str(FOLDER))  # its neighbours are imported by name
    try:
        import scaling_model
    finally:
        sys.path.remove(str(FOLDER))
    return scaling_model


@pytest.fixture
def machine(model):
    """A GPU does 10 FLOP/s, moves 520 bytes/s and sends 8; 4 GPUs in a node, 2 bytes/s outside."""
    return model.Machine(
        peak=20, utilisation=0.5, bandwidth=520, memory=1000, node=4, node_link=8, net_link=2,
        latency=0, overlap=0, launch=0, update_kernels=3, cores=2, depth=1, thermal=2, event=4,
        speed=1, price=1,
    )  # fmt: skip


@pytest.fixture
def work(model):
    """15 FLOPs a sample, 10 of 12 elements train."""
    return model.Work(
        flops=15, activations=100, kernels=7, tensors=2, operations=17, trained=10, total=12,
        units=3,
    )  # fmt: skip


def test_a_step_of_one_gpu_is_passes_and_update(model, machine, work):
    step = model.step(work, machine, 1, 8)
    assert step.compute == pytest.approx(8 * 15 / 10 + 52 * 10 / 520)  # 13 s
    assert (step.exchange, step.exposed, step.moved) == (0, 0, 0)
    assert step.data == pytest.approx(8 / (2 * 1))
    assert step.seconds == step.compute
    assert step.limit == "compute"


def test_an_all_reduce_takes_the_ring_formula_on_the_slowest_link(model, machine, work):
    inside, outside = (model.step(work, machine, n, 8) for n in (4, 8))
    assert inside.moved == pytest.approx(2 * 3 / 4 * 40)
    assert inside.exchange == pytest.approx(60 / 8)
    assert outside.exchange == pytest.approx(2 * 7 / 8 * 40 / 2)
    assert outside.limit == "exchange"
    assert outside.seconds == pytest.approx(outside.compute + outside.exchange)


def test_what_the_backward_pass_hides_is_not_waited_for(model, machine, work):
    half = model.step(work, dataclasses.replace(machine, overlap=0.5), 2, 8)
    assert half.exchange == pytest.approx(40 / 8)
    assert half.exposed == pytest.approx(5 - 0.5 * 2 / 3 * 4 * 15 / 10)
    whole = model.step(work, dataclasses.replace(machine, overlap=1, node_link=80), 2, 8)
    assert whole.exposed == 0


def test_fsdp_sends_the_weights_twice_and_shares_state_and_update(model, machine, work):
    step = model.step(work, machine, 4, 8, fsdp=True)
    assert step.moved == pytest.approx(3 / 4 * 4 * (2 * 12 + 10))
    assert step.compute == pytest.approx(2 * 15 / 10 + 52 * 10 / 4 / 520)
    assert work.state() == 4 * (12 + 3 * 10)
    assert work.state(4) == work.state() / 4
    slow = model.step(work, dataclasses.replace(machine, latency=1), 4, 8, fsdp=True)
    assert slow.exposed - step.exposed == 3 * 3 + 2  # units, 16 + 1 operations


def test_launches_and_data_limit_a_fast_gpu(model, machine, work):
    fast = dataclasses.replace(machine, peak=1e9, bandwidth=1e9)
    assert model.step(work, fast, 1, 8, "event").seconds == 8 / (2 * 4)
    assert model.step(work, fast, 1, 8).limit == "data"
    slow_host = model.step(work, dataclasses.replace(fast, launch=1), 1, 4)
    assert slow_host.seconds == slow_host.host == 7 + 3 * 2
    assert slow_host.limit == "launches"


def test_a_batch_is_cut_until_it_fits(model, machine, work):
    # 900 bytes, 168 of them state: 7 samples of 100 bytes, and 8 are cut into 2 parts.
    assert model.step(work, machine, 1, 8).parts == 2
    assert model.step(work, machine, 2, 8).parts == 1
    twice = model.step(work, dataclasses.replace(machine, launch=1), 1, 8)
    assert twice.host == 2 * 7 + 3 * 2
    with pytest.raises(UserError, match="a sample needs"):
        model.step(work, dataclasses.replace(machine, memory=250), 1, 8)


def test_a_network_is_counted(model):
    recipe = load_recipe("tiny_depth")
    network = build_network(recipe.network)
    select_trainable(network, recipe.trainable)
    plain = model.count(recipe)
    assert plain.total == sum(p.numel() for p in network.parameters())
    assert plain.trained == sum(p.numel() for p in network.parameters() if p.requires_grad)
    forward = 1.508627456e9  # docs/networks.md: 1.5 GFLOPs
    assert 2.8 * forward < plain.flops < 3.1 * forward
    again = model.count(dataclasses.replace(recipe, checkpoint_activations=True))
    assert 3.4 * forward < again.flops < 4.1 * forward
    assert again.activations < plain.activations / 2  # not those of the convolutions
    assert again.trained == plain.trained
    wide = load_recipe("ostrack256_depth")  # which has none
    kept = [
        model.count(dataclasses.replace(wide, checkpoint_activations=flag)).activations
        for flag in (True, False)
    ]
    assert kept[0] < kept[1] / 3
