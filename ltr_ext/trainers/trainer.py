"""The training loop: step, judge, checkpoint, resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ltr_ext.actors.tracking import TrackingActor, to_device
from ltr_ext.admin.files import atomic_write
from ltr_ext.models.checkpoint import differences, save_network, shown
from ltr_ext.models.network import TrackingNetwork
from ltr_ext.recipe import DRAWN_BY, Recipe
from srft_plugin import SRFT
from srft_plugin.errors import UserError
from srft_plugin.statistics import gradient_statistics
from srft_plugin.tuning.regularizer import Regularizer

from .checkpoints import CheckpointFolder
from .log import RunLog
from .preparation import parameter_groups
from .processes import (
    Processes,
    gather,
    generator_states,
    gradient_sync,
    seed_everything,
    set_generator_states,
    share_like,
)
from .settings import check_settings, with_settings, write_settings
from .weights import RunningAverage, WeightDistance, batch_statistics

LOG_EVERY = 20  # steps between reads of what the device has: each read waits for it
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
# What the IoU of an epoch is measured on: with other settings it is no measure for those before.
JUDGED_BY = {"datasets", "ratios", "validation", "validation_samples", "ema", *DRAWN_BY}
NETWORK, BEST = "network.safetensors", "best.safetensors"  # at the end, and after the best epoch


class Trainer:
    """Trains ``network`` by ``recipe``; calling ``train`` again continues where it stopped.

    The generators are seeded from (seed, epoch, rank) before each epoch, the learning rate is a
    function of the step, and the sampler of the index: the rest is in the checkpoint, which within
    an epoch has the states of the generators, too.

    Args:
        network: at its starting weights; trainable parameters have ``requires_grad``.
        model: what ``preparation.prepare`` made of it.
        recipe: the settings; stored beside the checkpoints, and a resume with other ones refused.
        regularizer: wraps the optimizer, may add a loss term.
        loader: step number -> the batches from that step to the end of the run.
        validation: batches that each epoch is judged on; None judges it by its training pairs.
        folder: where checkpoints, ``log.jsonl`` and TensorBoard files go.
        device: where to compute.
        processes: this process among those that train together; each has its share of a batch.
    """

    def __init__(
        self,
        network: TrackingNetwork,
        model: nn.Module,
        recipe: Recipe,
        regularizer: Regularizer,
        loader: Callable[[int], Iterable[dict[str, Tensor]]],
        validation: Iterable[dict[str, Tensor]] | None,
        folder: Path,
        device: torch.device,
        processes: Processes,
    ):
        self.network, self.model, self.recipe = network, model, recipe
        self.loader, self.validation = loader, validation
        self.folder, self.device, self.processes = folder, device, processes
        self.actor, self.judge = TrackingActor(model, regularizer), TrackingActor(model)
        self.regularizer = regularizer
        if recipe.parallel == "fsdp" and processes.count > 1 and regularizer.state_dict():
            raise UserError(
                f"parallel=fsdp: {recipe.regularizer} keeps tensors of its own, which processes "
                "cannot share yet; use parallel=ddp"
            )
        self.adamw = torch.optim.AdamW(
            parameter_groups(network, recipe), weight_decay=recipe.weight_decay, fused=True
        )
        for group in self.adamw.param_groups:
            group["initial_lr"] = group["lr"]
        self.optimizer = regularizer.wrap_optimizer(self.adamw)
        self.parameters = [p for group in self.adamw.param_groups for p in group["params"]]
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        self.distance = WeightDistance(self.parameters)
        self.average = RunningAverage(self.parameters, recipe.ema)
        self.statistics: list[Tensor] = []  # what a forward pass changes
        # Steps skipped since the last read, and in a row until now; all processes agree on them.
        self.skipped, self.in_a_row = (torch.zeros((), device=device) for _ in range(2))
        self.checkpoints = CheckpointFolder(folder, recipe.keep)
        self.epoch = self.step = self.total_skipped = 0  # done so far
        self.epoch_ious: list[tuple[float, int]] = []  # of this epoch's steps, with their number
        self.generators: list[dict[str, Any]] = []  # where they were, by rank
        # When this process last saved, and how long ago that was at the last read, mean over all.
        self.saved_at, self.unsaved = time.monotonic(), 0.0
        self.best: dict[str, float] | None = None

    def train(self, accept_changes: bool = False) -> None:
        """Runs what is left, with a checkpoint after each epoch and every ``save_minutes`` in it.

        Args:
            accept_changes: resume with other settings than the run was begun with.

        Raises:
            UserError: too many steps in a row without a finite gradient, a resume with other
                settings, a full disk.
        """
        resumed = self._resume(accept_changes)
        self.processes.wait()  # until all of them have compared the settings
        if self.processes.is_first and not resumed:
            write_settings(self.folder, self.recipe)
        batches = iter(self.loader(self.step)) if self.epoch < self.recipe.epochs else iter(())
        with RunLog(self.folder, self.recipe, self.step, self.processes.is_first) as log:
            while self.epoch < self.recipe.epochs:
                log.start_epoch(self.epoch)
                self._finish_epoch(self._train_epoch(batches, log))
        self.processes.wait()

    def weights(self) -> dict[str, Tensor]:
        """What the run has come to, for tracking: the averaged weights if there are any.

        All processes have to call it when they share the weights.
        """
        with self.average.applied():
            return {name: gather(v).clone() for name, v in self.network.state_dict().items()}

    def write_network(self, file: Path) -> None:
        """Writes ``weights`` for tracking, with how they came about."""
        weights = self.weights()
        described = {"steps": self.step, "regularizer": self.recipe.regularizer}
        if self.processes.is_first:
            atomic_write(
                file, lambda partial: save_network(self.network, partial, weights, **described)
            )

    def _train_epoch(self, batches: Iterator[dict[str, Tensor]], log: RunLog) -> float:
        """The epoch, or what is left of it; the IoU that it is judged by."""
        end = (self.epoch + 1) * self.recipe.steps_per_epoch
        self._set_generators(at_start=self.step == end - self.recipe.steps_per_epoch)
        self.network.train()
        self.network.start_epoch(self.epoch)
        self.statistics = batch_statistics(self.network)
        sums, count, waited = {}, 0, 0.0
        started = mark = time.perf_counter()
        for batch in islice(batches, end - self.step):
            waited += time.perf_counter() - mark
            batch = to_device(batch, self.device)
            for name, value in self._train_step(self.step, batch).items():
                sums[name] = sums.get(name, 0) + value
            count += 1
            self.step += 1
            log.advance()
            if count == LOG_EVERY or self.step == end:
                means = self._read(sums, count, batch)
                elapsed = time.perf_counter() - started
                means["samples_per_second"] = count * self.recipe.batch_size / elapsed
                means["data_wait"] = waited / elapsed
                if self.step == end:
                    means |= self._judge()
                log.write(self.step, means)
                if self.step < end and self.unsaved >= 60 * self.recipe.save_minutes:
                    self._save()
                sums, count, waited, started = {}, 0, 0.0, time.perf_counter()
            mark = time.perf_counter()
        trained = sum(number for _, number in self.epoch_ious)
        iou = sum(iou * number for iou, number in self.epoch_ious if number) / max(trained, 1)
        return means.get("validation_iou", iou)

    def _set_generators(self, at_start: bool) -> None:
        """Seeds them at the start of an epoch; within one, they are where the checkpoint says."""
        rank = self.processes.rank
        if at_start:
            seed_everything(self.recipe.seed, self.epoch, rank)
            self.epoch_ious = []
        elif rank < len(self.generators):
            set_generator_states(self.generators[rank], self.device)
        else:  # the run goes on with more processes than it had
            seed_everything(self.recipe.seed, self.epoch, rank, self.step)

    def _train_step(self, step: int, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Optimizer step ``step`` (from 0); the values to log, 0 if it is skipped."""
        recipe, values = self.recipe, {}
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * recipe.rate(step)
        self.optimizer.zero_grad()
        before = [value.clone() for value in self.statistics]
        parts = [dict(zip(batch, part, strict=True))
                 for part in zip(*(v.chunk(recipe.accumulate) for v in batch.values()), strict=True)
                ]  # fmt: skip
        for index, part in enumerate(parts):
            with gradient_sync(self.model, on=index + 1 == len(parts)):
                with self._autocast():
                    loss, log = self.actor(part)
                # A loss that is not finite makes every gradient so, on all processes.
                factor = torch.where(loss.detach().isfinite(), 1 / len(parts), torch.nan)
                self.scaler.scale(loss * factor).backward()
            for name, value in log.items():
                values[name] = values.get(name, 0) + value / len(parts)
        self.scaler.unscale_(self.adamw)
        values["grad_norm"] = gather(nn.utils.clip_grad_norm_(self.parameters, recipe.grad_clip))
        skip = ~values["grad_norm"].isfinite()
        self.adamw.found_inf = skip.float()  # the fused kernel leaves all as it is, without a read
        self.optimizer.step()
        self.scaler.update()
        for value, start in zip(self.statistics, before, strict=True):
            value.copy_(torch.where(skip, start, value))
        self.regularizer.after_step()
        self.average.update(skip)
        self.skipped += skip
        self.in_a_row.add_(1).mul_(skip)
        return {name: value.detach().masked_fill(skip, 0) for name, value in values.items()}

    def _read(
        self, sums: dict[str, Tensor], count: int, batch: dict[str, Tensor]
    ) -> dict[str, float]:
        """Means over the last ``count`` steps, and statistics of the last one.

        Raises:
            UserError: the last ``max_skipped`` steps or more were skipped.
        """
        unsaved = self.skipped.new_tensor(time.monotonic() - self.saved_at)
        stacked = torch.stack([*sums.values(), self.skipped, self.in_a_row, unsaved]).float()
        *totals, skipped, in_a_row, self.unsaved = self.processes.mean(stacked).tolist()
        self.skipped.zero_()
        self.total_skipped += int(skipped)
        self.regularizer.take_back(int(skipped))
        if in_a_row >= self.recipe.max_skipped:
            self._stop(int(in_a_row), batch)
        taken = count - skipped
        means = {n: t / taken if taken else float("nan") for n, t in zip(sums, totals, strict=True)}
        self.epoch_ious.append((means["iou"], int(taken)))
        means["skipped"] = self.total_skipped
        means["lr"] = self.optimizer.param_groups[-1]["lr"]
        for name, value in gradient_statistics(self.optimizer).items():
            means[name] = value.item()
        if isinstance(self.optimizer, SRFT):
            means["mean_sensitivity"] = self.optimizer.mean_sensitivity()
        return means

    def _stop(self, in_a_row: int, batch: dict[str, Tensor]) -> None:
        file = self.folder / f"skipped_batch_rank{self.processes.rank}.safetensors"
        tensors = {name: value.cpu().contiguous() for name, value in batch.items()}
        atomic_write(file, lambda partial: save_file(tensors, partial))
        raise UserError(
            f"the loss or the gradient of the last {in_a_row} steps up to step {self.step} was NaN "
            f"or infinite, and the steps were skipped; the last batch is in {file}, nothing since "
            "the last checkpoint was saved. Lower lr, or check the boxes of the data set"
        )

    @torch.no_grad()
    def _judge(self) -> dict[str, float]:
        """Relative distance of the weights from the start; loss and IoU of the validation pairs."""
        values = {"weight_distance": self.distance.relative(self.processes)}
        if self.validation is None:
            return values
        self.processes.follow_first(self.statistics)  # which are those that the run leaves behind
        self.network.eval()
        logs = []
        with self.average.applied():
            for batch in self.validation:
                with self._autocast():
                    _, log = self.judge(to_device(batch, self.device))
                logs.append(torch.stack([log["loss"], log["iou"]]))
        loss, iou = self.processes.mean(torch.stack(logs).mean(0)).tolist()
        return values | {"validation_loss": loss, "validation_iou": iou}

    def _autocast(self) -> torch.autocast:
        dtype = AUTOCAST.get(self.recipe.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    def _finish_epoch(self, iou: float) -> None:
        """Counts the epoch just run; the network for tracking is written if it is the best."""
        self.epoch += 1
        if self.best is None or iou > self.best["iou"] or math.isnan(self.best["iou"]):
            self.best = {"epoch": self.epoch, "iou": iou}
            self.write_network(self.folder / BEST)
        self._save()

    def _save(self) -> None:
        """Checkpoint of the run as it is, after an epoch or within one."""
        state = self.state_dict()
        if self.processes.is_first:
            within = self.step % self.recipe.steps_per_epoch
            best = self.best and self.best["epoch"]
            self.checkpoints.save(self.epoch, state, best, self.step if within else None)
            write_settings(self.folder, self.recipe)  # never sooner than a state of theirs
        self.saved_at = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on; tensors and plain values only."""
        return gather({
            "epoch": self.epoch,
            "step": self.step,
            "epoch_ious": self.epoch_ious,
            "generators": self.processes.collect(generator_states(self.device)),
            "net": self.network.state_dict(),
            "average": self.average.values,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "regularizer": self.regularizer.state_dict(),
            "skipped": self.total_skipped,
            "in_a_row": int(self.in_a_row),
            "best": self.best,
        })  # fmt: skip

    def _resume(self, accept_changes: bool) -> bool:
        """Goes on from the newest checkpoint, by the settings of the recipe; False without one."""
        state = self.checkpoints.load_newest()
        if state is None:
            return False
        changed = check_settings(self.folder, self.recipe, accept_changes)
        network = self.network.state_dict()
        if different := differences(network, state["net"]):
            raise UserError(
                f"{self.folder} holds a run of another {self.recipe.network} ({shown(different)}); "
                "give the run another name, delete the folder, or go back to the version or the "
                "class of network that it was begun with"
            )
        optimizer = with_settings(state["optimizer"], self.optimizer.state_dict())
        for index, values in optimizer["state"].items():
            template = self.parameters[index]
            optimizer["state"][index] = {k: share_like(v, template) for k, v in values.items()}
        self.network.load_state_dict(
            {name: share_like(value, network[name]) for name, value in state["net"].items()}
        )
        self.optimizer.load_state_dict(optimizer)
        self.average.load(state["average"] if self.recipe.ema else [])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.regularizer.load_state_dict(state["regularizer"])
        self.epoch, self.total_skipped = state["epoch"], state["skipped"]
        self.step, self.epoch_ious = state["step"], state["epoch_ious"]
        self.generators = state["generators"]
        self.in_a_row.fill_(state["in_a_row"])
        self.best = None if changed & JUDGED_BY else state["best"]
        return True
