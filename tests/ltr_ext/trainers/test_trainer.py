"""Steps of the trainer: what is skipped, split, computed twice, averaged, compiled, logged."""

import json
import os
import shutil
from functools import partial
from itertools import count

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from timm.layers import Attention
from torch.utils._python_dispatch import TorchDispatchMode

from ltr_ext.models.registry import build_network
from ltr_ext.trainers import trainer as trainer_module
from ltr_ext.trainers.preparation import blocks
from srft_plugin import ranking
from srft_plugin.errors import UserError
from srft_plugin.statistics import gradient_statistics
from srft_plugin.transfer import ranks_from_counts
from srft_plugin.tuning.trainable import select_trainable

SETTINGS = {
    "fp32": [],
    "bf16, average": ["precision=bf16", "ema=0.9"],
    "fp16, parts": ["precision=fp16", "accumulate=2"],
    "srft, recomputed": ["regularizer=srft:transfer", "checkpoint_activations=true"],
}


def records(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def poison(trainer, steps):
    """Boxes of the batches ``steps`` (from 0) become NaN, and with them the loss."""
    loader = trainer.loader

    def poisoned(start):
        for step, batch in enumerate(loader(start), start):
            if step in steps:
                batch["search_box"] *= float("nan")
            yield batch

    trainer.loader = poisoned


def board(folder):
    """Steps of the losses that TensorBoard shows."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [event.step for event in events.Scalars("train/loss")]


@pytest.mark.parametrize("minutes", ["0", "inf"])
@pytest.mark.parametrize("overrides", SETTINGS.values(), ids=SETTINGS)
def test_a_run_stopped_in_an_epoch_ends_in_the_same_weights(
    mini, tmp_path, overrides, minutes, monkeypatch, device
):
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 2)
    overrides = [*overrides, "epochs=3", "validation=any", f"save_minutes={minutes}"]
    whole = mini.mini_trainer(tmp_path / "whole", *overrides, device=device)
    whole.train()

    broken = mini.mini_trainer(tmp_path / "broken", *overrides, device=device)
    poison(broken, [])
    calls = []
    step = broken._train_step

    def stopping(*arguments):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return step(*arguments)

    broken._train_step = stopping
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    names = [path.name for path in (tmp_path / "broken").glob("checkpoint*.pt")]
    assert ("checkpoint_ep0001_step00000005.pt" in names) == (minutes == "0")
    torch.rand(3)  # where the generators happen to be does not matter
    resumed = mini.mini_trainer(tmp_path / "broken", *overrides, device=device)
    step, taken = resumed._train_step, []
    resumed._train_step = lambda number, batch: taken.append(number) or step(number, batch)
    resumed.train()
    assert taken == list(range(5 if minutes == "0" else 3, 9))
    assert resumed.epoch == 3 and resumed.best == whole.best
    assert board(whole.folder) == board(resumed.folder) == [2, 3, 5, 6, 8, 9]
    assert_same(whole.weights(), resumed.weights())
    assert_same(whole.network.state_dict(), resumed.network.state_dict())
    timing = {"samples_per_second", "data_wait"}
    first, second = (
        [{k: v for k, v in record.items() if k not in timing} for record in records(t.folder)]
        for t in (whole, resumed)
    )
    assert first == second


def test_a_skipped_step_is_as_if_it_had_not_been(mini, tmp_path):
    """Of batches 0 1 2 3 4 5 the two that are poisoned leave no trace but the count."""
    settings = ["regularizer=srft:transfer", "epochs=1", "samples_per_epoch=24"]
    trainer = mini.mini_trainer(tmp_path / "a", *settings, network=mini.mini_network(0.0))
    poison(trainer, [1, 4])
    trainer.train()
    clean = mini.mini_trainer(
        tmp_path / "b", *settings, "samples_per_epoch=16", network=mini.mini_network(0.0)
    )
    batches = list(mini.mini_batches(trainer.recipe, trainer.processes, 0))
    clean.loader = lambda _: [batches[i] for i in (0, 2, 3, 5)]
    clean.train()
    assert_same(clean.weights(), trainer.weights())
    assert trainer.optimizer.steps == clean.optimizer.steps == 4
    assert {int(s["step"]) for s in trainer.optimizer.state.values()} == {4}
    (found,), (expected,) = records(tmp_path / "a"), records(tmp_path / "b")
    assert (found["skipped"], expected["skipped"]) == (2, 0)
    for name in ("loss", "iou", "grad_norm", "gradient_sparsity", "weight_distance"):
        assert found[name] == pytest.approx(expected[name], rel=1e-6)


def test_a_skipped_step_leaves_no_trace_in_statistics_and_averages(mini, tmp_path):
    """A network whose own values overflow, with a head in training and an average."""

    def trainer_of(name, *overrides):
        network = mini.mini_network(0.0)
        select_trainable(network, "backbone+head")
        settings = ("ema=0.5", "epochs=1", "samples_per_epoch=24", *overrides)
        return mini.mini_trainer(tmp_path / name, *settings, network=network)

    trainer, calls = trainer_of("a"), count()
    trainer.network.box_head.register_forward_pre_hook(
        lambda _, inputs: (inputs[0] * float("inf"),) if next(calls) in (1, 4) else None
    )
    trainer.train()
    assert trainer.total_skipped == 2
    clean = trainer_of("b", "samples_per_epoch=16")
    batches = list(mini.mini_batches(trainer.recipe, trainer.processes, 0))
    clean.loader = lambda _: [batches[i] for i in (0, 2, 3, 5)]
    clean.train()
    assert_same(clean.network.state_dict(), trainer.network.state_dict())
    assert_same(clean.weights(), trainer.weights())
    counts = [v for n, v in trainer.network.state_dict().items() if "num_batches" in n]
    assert counts and {int(v) for v in counts} == {4}


def test_the_average_takes_what_the_regularizer_leaves(mini, tmp_path):
    trainer = mini.mini_trainer(tmp_path, "ema=0.5", "epochs=1")
    start = [p.detach().clone() for p in trainer.parameters]

    @torch.no_grad()
    def undo():
        torch._foreach_copy_(trainer.parameters, start)

    trainer.regularizer.after_step = undo
    trainer.train()
    assert all(map(torch.equal, trainer.average.values, start))


def test_an_epoch_judged_nan_is_not_the_best_for_ever(mini, tmp_path, monkeypatch):
    trainer = mini.mini_trainer(tmp_path, "epochs=4")
    judged = iter((float("nan"), 0.2, float("nan"), 0.1))
    monkeypatch.setattr(trainer, "_judge", lambda: {"validation_iou": next(judged)})
    trainer.train()
    assert trainer.best == {"epoch": 2, "iou": 0.2}


def test_skipped_steps_count_nothing_in_the_iou_of_their_epoch(mini, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 2)
    trainer = mini.mini_trainer(tmp_path, "samples_per_epoch=20")
    poison(trainer, [0, 1, 3, 7])
    trainer.train()
    ious = [record["iou"] for record in records(tmp_path)]
    taken = [0, 1, 1, 2, 1, 1]
    epochs = [
        sum(n * iou for n, iou in zip(taken[part], ious[part], strict=True) if n) / sum(taken[part])
        for part in (slice(3), slice(3, 6))
    ]
    assert ious[0] is None
    assert trainer.best["iou"] == pytest.approx(max(epochs))


def test_an_infinite_gradient_of_a_finite_loss_is_skipped(mini, tmp_path):
    trainer = mini.mini_trainer(tmp_path)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.parameters[5].register_hook(lambda gradient: gradient / 0)
    trainer.train()
    assert_same(before, trainer.network.state_dict())
    assert [record["skipped"] for record in records(tmp_path)] == [3, 6]
    assert [record["loss"] for record in records(tmp_path)] == [None, None]


def test_too_many_in_a_row_stop_the_run_with_the_batch_saved(mini, tmp_path):
    trainer = mini.mini_trainer(tmp_path, "epochs=3", "max_skipped=4")
    poison(trainer, [1, 3, 4, 5, 6, 7, 8])
    with pytest.raises(UserError, match="last 6 steps up to step 9.*skipped_batch_rank0"):
        trainer.train()
    saved = load_file(tmp_path / "skipped_batch_rank0.safetensors")
    assert torch.equal(saved["search"], mini.mini_batch(32, 36)["search"])
    assert saved["search_box"].isnan().all()
    assert [path.name for path in trainer.checkpoints.files()] == [
        "checkpoint_ep0001.pt", "checkpoint_ep0002.pt",
    ]  # fmt: skip
    assert not (tmp_path / "network.safetensors").exists()
    shutil.rmtree(tmp_path)
    allowed = mini.mini_trainer(tmp_path, "epochs=3", "max_skipped=7")
    poison(allowed, [1, 3, 4, 5, 6, 7, 8])
    allowed.train()
    assert allowed.total_skipped == 7


def test_fp16_finds_its_scale_and_keeps_it(mini, tmp_path):
    trainer = mini.mini_trainer(tmp_path, "precision=fp16", "epochs=1")
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    trainer.train()
    assert trainer.total_skipped == 3
    assert trainer.scaler.get_scale() == 2.0**37
    resumed = mini.mini_trainer(tmp_path, "precision=fp16", "epochs=1")
    resumed.train()
    assert resumed.scaler.get_scale() == 2.0**37


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_give_its_gradient(mini, tmp_path, parts):
    gradients = []
    for accumulate in (1, parts):
        trainer = mini.mini_trainer(
            tmp_path, f"accumulate={accumulate}", "grad_clip=1e9", network=mini.mini_network(0.0)
        )
        trainer._train_step(0, mini.mini_batch(0, 4))
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.parameters]))
    assert (gradients[0] - gradients[1]).norm() <= 1e-6 * gradients[0].norm()


def saved_bytes(trainer, batch):
    total = [0]

    def count(tensor):
        total[0] += tensor.nbytes
        return tensor

    trainer.network.train()
    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        trainer._train_step(0, batch)
    return total[0]


def test_recomputed_activations_give_the_same_gradient_in_less_memory(mini, tmp_path):
    sizes, gradients = [], []
    for flag in ("false", "true"):
        trainer = mini.mini_trainer(tmp_path, f"checkpoint_activations={flag}")
        sizes.append(saved_bytes(trainer, mini.mini_batch(0, 4)))
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.parameters]))
    assert torch.equal(*gradients)  # the masks of stochastic depth are drawn alike
    assert sizes[1] < 0.5 * sizes[0]


def test_bfloat16_leaves_the_attention_kernel_and_keeps_the_direction_of_the_gradient(
    mini, tmp_path
):
    gradients = []
    for precision in ("fp32", "bf16"):
        trainer = mini.mini_trainer(tmp_path / precision, f"precision={precision}", "grad_clip=1e9")
        fused = {m.fused_attn for m in trainer.network.modules() if isinstance(m, Attention)}
        assert fused == {precision == "fp32"}
        trainer.network.train()
        torch.manual_seed(3)
        trainer._train_step(0, mini.mini_batch(0, 4))
        gradients.append(torch.cat([p.grad.flatten() for p in trainer.parameters]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


def test_blocks_that_run_in_parts_are_not_recomputed(mini, tmp_path):
    network = mini.mini_network(name="sdstrack_tiny")
    with pytest.raises(UserError, match="sdstrack_tiny runs its blocks in parts"):
        mini.mini_trainer(tmp_path, "checkpoint_activations=true", network=network)


def test_blocks_of_all_families():
    with torch.device("meta"):
        found = {n: len(blocks(build_network(n))) for n in ("two_branch_tiny", "swintrack_t224")}
    # two branches of four and four fusions; 2 + 2 + 6 blocks in three stages
    assert found == {"two_branch_tiny": 12, "swintrack_t224": 10}


def test_average_is_the_recursion_and_what_the_run_leaves(mini, tmp_path):
    trainer = mini.mini_trainer(tmp_path, "ema=0.75", "epochs=1", "validation=any")
    expected = [p.detach().clone() for p in trainer.parameters]
    step = trainer._train_step

    def following(*arguments):
        values = step(*arguments)
        for value, p in zip(expected, trainer.parameters, strict=True):
            value.mul_(0.75).add_(p.detach(), alpha=0.25)
        return values

    trainer._train_step = following
    trainer.train()
    weights, raw = trainer.weights(), trainer.network.state_dict()
    names = [name for name, p in trainer.network.named_parameters() if p.requires_grad]
    for name, value in zip(names, expected, strict=True):
        torch.testing.assert_close(weights[name], value, rtol=1e-6, atol=1e-8)
    assert any(not torch.equal(weights[name], raw[name]) for name in names)
    assert_same(load_file(tmp_path / "best.safetensors"), weights)
    trainer.network.load_state_dict(weights)
    trainer.network.eval()
    with torch.no_grad():
        _, log = trainer.judge(mini.mini_batch(1000, 1004))
    assert records(tmp_path)[0]["validation_loss"] == pytest.approx(log["loss"].item())


def test_rates_by_name(mini, tmp_path):
    trainer = mini.mini_trainer(tmp_path, r"lr_groups=fusion\.0=0,fusion=0.5", "decay=linear")
    rates = [(len(group["params"]), group["lr"]) for group in trainer.optimizer.param_groups]
    assert [rate for _, rate in rates] == [0.0, 0.5, 1e-3]
    assert sum(number for number, _ in rates) == len(trainer.parameters)
    assert rates[1][0] == 3 * rates[0][0]
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.train()
    moved = {n for n, v in trainer.network.state_dict().items() if not torch.equal(v, before[n])}
    assert not any("fusion.0" in name for name in moved)
    assert any("fusion.1" in name for name in moved)
    assert trainer.optimizer.param_groups[1]["lr"] == pytest.approx(0.5 * (1 / 6) / 0.2)  # step 5


def test_rates_of_nothing_are_refused(mini, tmp_path):
    with pytest.raises(UserError, match="'box_head' is found in no name of a parameter that tra"):
        mini.mini_trainer(tmp_path, "lr_groups=box_head=1e-3")
    with pytest.raises(UserError, match="'fusion.0' is found in no name"):
        mini.mini_trainer(tmp_path, "lr_groups=fusion=1e-3,fusion.0=1e-4")


class Reads(TorchDispatchMode):
    """Collects operations that wait for the device to tell a value or a shape."""

    def __init__(self, waits):
        super().__init__()
        self.waits, self.found = waits, []

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        if self.waits(operation):
            self.found.append(operation)
        return operation(*arguments, **(options or {}))


@pytest.mark.parametrize("overrides", SETTINGS.values(), ids=SETTINGS)
def test_a_step_reads_nothing_from_the_device(mini, tmp_path, overrides, monkeypatch, waits):
    # On a CPU, where it costs nothing, the tables of ranks are cut to the bins in use.
    monkeypatch.setattr(ranking, "tables_from_counts", ranks_from_counts)
    trainer = mini.mini_trainer(tmp_path, *overrides)
    trainer._train_step(0, mini.mini_batch(0, 4))
    with Reads(waits) as reads:
        trainer._train_step(1, mini.mini_batch(4, 8))
    assert not reads.found


def test_log_has_the_statistics_of_its_last_step(mini, tmp_path):
    trainer = mini.mini_trainer(tmp_path, "regularizer=srft:transfer", "epochs=1")
    start = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.train()
    (record,) = records(tmp_path)
    for name, value in gradient_statistics(trainer.optimizer).items():
        assert record[name] == value.item()
    assert record["mean_sensitivity"] == pytest.approx(0.99 / 2)
    names = [name for name, p in trainer.network.named_parameters() if p.requires_grad]
    old, new = (torch.cat([s[n].double().flatten() for n in names])
                for s in (start, trainer.network.state_dict()))  # fmt: skip
    assert record["weight_distance"] == pytest.approx(((new - old).norm() / old.norm()).item())


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_network_trains_like_the_plain_one(mini, tmp_path, backend, monkeypatch):
    if backend == "inductor" and "SRFT_TEST_INDUCTOR" not in os.environ:
        pytest.skip("compiling C++ takes a minute; set SRFT_TEST_INDUCTOR=1 where there is g++")
    losses = []
    for flag in ("false", "true"):
        torch.manual_seed(0)
        network = build_network(
            "ostrack_tiny", dim=16, depth=1, heads=2, head_channels=8, template_size=32,
            search_size=64,
        )  # fmt: skip
        monkeypatch.setattr(network, "compile", partial(network.compile, backend=backend))
        trainer = mini.mini_trainer(tmp_path / flag, f"compile={flag}", network=network)
        for step in range(2):
            batch = mini.mini_batch(4 * step, 4 * step + 4)
            batch = {name: v[:, :3] if v.ndim == 4 else v for name, v in batch.items()}
            values = trainer._train_step(step, batch)
        losses.append(values["loss"].item())
        assert (network._compiled_call_impl is not None) == (flag == "true")
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
