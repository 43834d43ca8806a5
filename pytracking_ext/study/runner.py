"""Runs the cells of a study: several at a time, on several devices, each only once."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import cycle
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

import torch
from tqdm import tqdm

from srft_plugin.errors import UserError

from .cell import finished_result, run_cell
from .data import StudyData
from .plan import VARIANTS, Budget, Cell
from .priors import write_priors


def run_study(
    plan: list[Cell], budget: Budget, folder: Path, devices: list[str], jobs: int
) -> None:
    """Writes the data, and runs every cell that has no result yet.

    Args:
        plan: what to run.
        budget: how much.
        folder: everything is kept below it.
        devices: the jobs take turns on them.
        jobs: cells that run at the same time; CPU threads are shared out evenly.

    Raises:
        UserError: a cell failed; the others have been run, and are kept.
    """
    folder = folder.resolve()
    data = {key: StudyData(folder / "data", *key) for key in dict.fromkeys(map(_data_key, plan))}
    for videos in data.values():
        videos.write(budget)
    write_priors(plan, budget, folder, devices[0])
    failures: dict[Cell, str] = {}
    log = folder / "study.log"
    workers = ProcessPoolExecutor(jobs, get_context("spawn"), _start_worker, (jobs, log))
    with tqdm(total=len(plan), desc="study", unit="cell", disable=None) as progress:
        running = {
            workers.submit(run_cell, cell, budget, folder, data[_data_key(cell)], device): cell
            for cell, device in zip(plan, cycle(devices))
        }
        try:
            for future in as_completed(running):
                error = future.exception()
                if error is not None:
                    failures[running[future]] = str(error) or type(error).__name__
                if not isinstance(error, UserError | None):
                    with open(log, "a", encoding="utf-8") as file:
                        traceback.print_exception(error, file=file)
                progress.update()
        finally:  # whoever stops the study does not wait for the cells that have not begun
            workers.shutdown(cancel_futures=True)
    if failures:
        lines = "\n".join(f"  {cell.path}: {text}" for cell, text in failures.items())
        raise UserError(f"{len(failures)} of {len(plan)} cells failed (see {log}):\n{lines}")


def finished(plan: list[Cell], budget: Budget, folder: Path) -> dict[Cell, dict]:
    """The results that ``folder`` holds so far.

    Raises:
        UserError: there are none, or some are of another budget or base tracker.
    """
    found = {cell: finished_result(cell, budget, folder) for cell in plan}
    results = {cell: result for cell, result in found.items() if result is not None}
    if not results:
        raise UserError(f"{folder} holds no result of this study; `srft study run` makes them")
    return results


def _data_key(cell: Cell) -> tuple[str, str | None]:
    variant = VARIANTS[cell.variant]
    return cell.modality, variant and variant.form


def _start_worker(jobs: int, log: Path) -> None:
    """An even share of the cores, one file for what every cell prints, and the study's end.

    Stopped, a worker would go on with cells that wait in its queue, and then for others.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    Thread(target=_end_with_the_study, daemon=True).start()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    sys.stdout = sys.stderr = open(log, "a", encoding="utf-8", buffering=1)  # noqa: SIM115


def _end_with_the_study() -> None:
    parent_process().join()
    os._exit(1)
