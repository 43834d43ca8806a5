"""The training loop: step, log, checkpoint, resume."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ltr_ext.actors.tracking import TrackingActor, to_device
from ltr_ext.admin.files import write_text
from ltr_ext.models.network import TrackingNetwork
from ltr_ext.recipe import Recipe
from srft_plugin.errors import UserError
from srft_plugin.tuning.regularizer import Regularizer

from .checkpoints import CheckpointFolder
from .processes import Processes

LOG_EVERY = 20  # steps between reads of the running means: each read waits for the device


class Trainer:
    """Trains ``network`` by ``recipe``; calling ``train`` again continues where it stopped.

    Args:
        network: trainable parameters have ``requires_grad``.
        recipe: the settings; stored beside the checkpoints, and a resume with other ones refused.
        regularizer: wraps the optimizer, may add a loss term.
        loader: step number -> the batches from that step to the end of the run.
        folder: where checkpoints, ``log.jsonl`` and TensorBoard files go.
        device: where to compute.
        processes: this process among those that train together; each has its share of a batch.
    """

    def __init__(
        self,
        network: TrackingNetwork,
        recipe: Recipe,
        regularizer: Regularizer,
        loader: Callable[[int], Iterable[dict[str, Tensor]]],
        folder: Path,
        device: torch.device,
        processes: Processes,
    ):
        self.recipe, self.loader, self.folder, self.device = recipe, loader, folder, device
        self.network = network.to(device)
        self.processes = processes
        parallel = self.network
        if processes.count > 1:
            devices = None if device.type == "cpu" else [device.index]
            parallel = DistributedDataParallel(self.network, devices)
        self.actor = TrackingActor(parallel)
        self.regularizer = regularizer
        parameters = [p for p in network.parameters() if p.requires_grad]
        adamw = torch.optim.AdamW(
            parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )
        self.parameters = parameters
        self.optimizer = regularizer.wrap_optimizer(adamw)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, recipe.rate)
        self.checkpoints = CheckpointFolder(folder)
        self.epoch = 0

    def train(self) -> None:
        """Runs the epochs that are left, writing a checkpoint after each.

        Raises:
            UserError: the loss became infinite or NaN, a resume with other settings, a full disk.
        """
        self._resume()
        first = self.processes.is_first
        if first:
            self._write_recipe()
            self._trim_log()
        batches = iter(self.loader(self.step)) if self.epoch < self.recipe.epochs else iter(())
        with (
            SummaryWriter(self.folder / "tensorboard", purge_step=self.step)
            if first
            else nullcontext() as board,
            tqdm(
                total=self.recipe.total_steps,
                initial=self.step,
                disable=None if first else True,
                unit="step",
            ) as bar,
        ):
            while self.epoch < self.recipe.epochs:
                bar.set_description(f"epoch {self.epoch + 1}/{self.recipe.epochs}")
                self._train_epoch(batches, board, bar)
                self.epoch += 1
                if first:
                    self.checkpoints.save(self.epoch, self.state_dict())
        self.processes.wait()

    @property
    def step(self) -> int:
        """Optimizer steps at the start of the current epoch."""
        return self.epoch * self.recipe.steps_per_epoch

    def _train_epoch(
        self, batches: Iterator[dict[str, Tensor]], board: SummaryWriter, bar: tqdm
    ) -> None:
        self.network.train()
        self.network.start_epoch(self.epoch)
        recipe, sums, count, waited = self.recipe, {}, 0, 0.0
        started = mark = time.perf_counter()
        for index, batch in enumerate(islice(batches, recipe.steps_per_epoch)):
            waited += time.perf_counter() - mark
            log = self._train_step(to_device(batch, self.device))
            for name, value in log.items():
                sums[name] = sums.get(name, 0) + value
            count += 1
            bar.update()
            if count == LOG_EVERY or index + 1 == recipe.steps_per_epoch:
                stacked = torch.stack(list(sums.values())).to(torch.float32) / count
                means = dict(zip(sums, self.processes.mean(stacked).tolist(), strict=True))
                elapsed = time.perf_counter() - started
                self._log(self.step + index + 1, means, count, elapsed, waited, board, bar)
                sums, count, waited, started = {}, 0, 0.0, time.perf_counter()
            mark = time.perf_counter()

    def _train_step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        bf16 = self.recipe.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            loss, log = self.actor(batch)
            loss = loss + self.regularizer.loss_term()
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.recipe.grad_clip)
        self.optimizer.step()
        self.scheduler.step()
        self.regularizer.after_step()
        return {**log, "grad_norm": norm.detach()}

    def _log(self, step, means, count, elapsed, waited, board: SummaryWriter | None, bar) -> None:
        if not math.isfinite(means["loss"]):
            raise UserError(
                f"the loss is {means['loss']} near step {step}; nothing of this epoch was saved. "
                "Lower lr, or check the boxes of the data set"
            )
        if board is None:
            return
        rate = count * self.recipe.batch_size / elapsed
        bar.set_postfix(
            loss=f"{means['loss']:.3f}",
            iou=f"{means['iou']:.3f}",
            samples=f"{rate:.0f}/s",
            wait=f"{waited / elapsed:.0%}",
        )
        for name, value in means.items():
            board.add_scalar(f"train/{name}", value, step)
        record = {"step": step, **means, "lr": self.scheduler.get_last_lr()[0]}
        timing = {"samples_per_second": rate, "data_wait": waited / elapsed}
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record | timing) + "\n")

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next epoch depends on; tensors and plain values only."""
        return {
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "regularizer": self.regularizer.state_dict(),
            "rng": torch.get_rng_state(),
        }

    def _resume(self) -> None:
        state = self.checkpoints.load_newest()
        if state is None:
            return
        self._refuse_other_settings()
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.regularizer.load_state_dict(state["regularizer"])
        torch.set_rng_state(state["rng"])
        self.epoch = state["epoch"]

    def _trim_log(self) -> None:
        """Takes back what an interrupted epoch logged: it is run, and logged, again."""
        log = self.folder / "log.jsonl"
        if log.exists():
            lines = log.read_text("utf-8").splitlines(keepends=True)
            whole = (line for line in lines if line.endswith("\n"))
            kept = [line for line in whole if json.loads(line)["step"] <= self.step]
            write_text(log, "".join(kept))

    def _write_recipe(self) -> None:
        text = json.dumps(dataclasses.asdict(self.recipe), indent=2) + "\n"
        write_text(self.folder / "recipe.json", text)

    def _refuse_other_settings(self) -> None:
        """A run is continued only with the settings it was started with, workers apart."""
        file = self.folder / "recipe.json"
        before = json.loads(file.read_text(encoding="utf-8"))
        now = json.loads(json.dumps(dataclasses.asdict(self.recipe)))
        changed = [k for k in now if k != "workers" and before.get(k) != now[k]]
        if changed:
            lines = ", ".join(f"{key}: {before.get(key)!r} -> {now[key]!r}" for key in changed)
            raise UserError(
                f"{self.folder} holds a run with other settings ({lines}); "
                "give the run another name, or delete the folder"
            )
