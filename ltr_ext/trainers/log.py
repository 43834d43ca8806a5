"""What a run says while it trains: progress bar, ``log.jsonl`` and TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ltr_ext.admin.files import write_text
from ltr_ext.recipe import Recipe
from srft_plugin.errors import UserError

FILE = "log.jsonl"
VALIDATION = ("validation_loss", "validation_iou")
TIMING = ("samples_per_second", "data_wait")


def read_log(file: Path) -> list[dict[str, Any]]:
    """The records of a ``log.jsonl``, oldest first; a last line still being written is left out.

    Raises:
        UserError: a line is no record.
    """
    records = []
    for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], 1):
        try:
            record = json.loads(line)
            record["step"]
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{file}, line {number}: not a record of a run; delete it") from error
        records.append(record)
    return records


class RunLog:
    """Writes the log of the run in ``folder``, continuing after ``step`` steps.

    What was logged after ``step``, by a run that was stopped, is taken back: those steps are run,
    and logged, again.

    Args:
        writes: False for all processes but one; they say nothing.
    """

    def __init__(self, folder: Path, recipe: Recipe, step: int, writes: bool):
        self.recipe, self.writes, self.file = recipe, writes, folder / FILE
        if writes:
            self._trim(step)
            self.board = SummaryWriter(folder / "tensorboard", purge_step=step + 1)
        self.bar = tqdm(
            total=recipe.total_steps,
            initial=step,
            disable=None if writes else True,
            unit="step",
        )

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()
        if self.writes:
            with self._writing():
                self.board.close()

    def start_epoch(self, epoch: int) -> None:
        """Tells which epoch, from 0, begins."""
        self.bar.set_description(f"epoch {epoch + 1}/{self.recipe.epochs}")

    def advance(self) -> None:
        """Counts a step."""
        self.bar.update()

    def write(self, step: int, values: dict[str, float]) -> None:
        """Logs ``values`` after ``step`` steps; those that are not finite become null.

        Raises:
            UserError: the disk is full; the log up to here is whole.
        """
        if not self.writes:
            return
        shown = {
            "loss": f"{values['loss']:.3f}",
            "iou": f"{values['iou']:.3f}",
            "samples": f"{values['samples_per_second']:.0f}/s",
            "wait": f"{values['data_wait']:.0%}",
        }
        if values["skipped"]:
            shown["skipped"] = f"{values['skipped']:.0f}"
        self.bar.set_postfix(shown)
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        record = {"step": step} | {name: finite.get(name) for name in values}
        with self._writing():
            for name in finite.keys() - set(TIMING):
                tag = name.replace("_", "/", 1) if name in VALIDATION else f"train/{name}"
                self.board.add_scalar(tag, finite[name], step)
            with open(self.file, "a", encoding="utf-8") as file:
                file.write(_line(record))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write the log of the run, {self.file}: {error}; free some space and start "
                "the run again: its checkpoints are untouched"
            ) from error

    def _trim(self, step: int) -> None:
        if self.file.exists():
            kept = (record for record in read_log(self.file) if record["step"] <= step)
            write_text(self.file, "".join(map(_line, kept)))


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"
