"""Runs the cells of a study: several at a time, on several devices, each only once."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import cycle, islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread

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
        devices: each job keeps one of them.
        jobs: cells that run at the same time; CPU threads are shared out evenly.

    Raises:
        UserError: a cell failed; the others have been run, and are kept.
    """
    folder = folder.resolve()
    data = {key: StudyData(folder / "data", *key) for key in dict.fromkeys(map(_data_key, plan))}
    for videos in data.values():
        videos.write(budget)
    write_priors(plan, budget, folder, devices[0])
    log = folder / "study.log"
    calls = [(cell, budget, folder, data[_data_key(cell)]) for cell in plan]
    failures: dict[Cell, str] = {}
    with tqdm(total=len(plan), desc="study", unit="cell", disable=None) as progress:
        for (cell, *_), failure in run_each(run_cell, calls, devices, jobs, log):
            if failure is not None:
                failures[cell] = failure
            progress.update()
    if failures:
        lines = "\n".join(f"  {cell.path}: {text}" for cell, text in failures.items())
        raise UserError(f"{len(failures)} of {len(plan)} cells failed (see {log}):\n{lines}")


def run_each(
    function: Callable[..., object], calls: list[tuple], devices: list[str], jobs: int, log: Path
) -> Iterator[tuple[tuple, str | None]]:
    """Calls ``function`` in ``jobs`` processes, each of which keeps one of the devices.

    Whoever stops it ends the processes, and begins no other call.

    Args:
        function: called with the arguments of a call, and a device.
        calls: its arguments; functions and arguments travel by pickle.
        devices: of the processes, in turn.
        jobs: calls at the same time.
        log: gets what the processes print.

    Yields:
        Each call when it has ended, and what went wrong; None if nothing did.
    """
    workers = [_Worker(device, jobs, log) for device in islice(cycle(devices), jobs)]
    idle: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def run(call: tuple) -> str | None:
        worker = idle.get()
        try:
            return worker.run(function, call)
        finally:
            idle.put(worker)

    threads = ThreadPoolExecutor(jobs)
    running = {threads.submit(run, call): call for call in calls}
    try:
        for future in as_completed(running):
            yield running[future], future.result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.stop()


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


class _Worker:
    """A process for one call after another on one device; after its death, a new one."""

    def __init__(self, device: str, jobs: int, log: Path) -> None:
        self.device, self._settings = device, (jobs, log)
        self._process: BaseProcess | None = None
        self._stopped = self._busy = False
        self._starting = Lock()

    def run(self, function: Callable[..., object], call: tuple) -> str | None:
        """What went wrong with a call; None if nothing did."""
        with self._starting:
            if self._stopped:
                return "stopped"
            if self._process is None:
                self._start()
            self._busy = True
        try:
            self._pipe.send((function, (*call, self.device)))
            answer = self._pipe.recv()
            self._busy = False
            return answer
        except (EOFError, OSError):
            process = self._process
            process.join()
            with self._starting:
                self._process = None
            return (
                f"its process has died (status {process.exitcode}), as where memory is short: "
                "fewer --jobs take less"
            )

    def stop(self) -> None:
        """Ends the process: it leaves in order, or at once if it is at work."""
        with self._starting:
            self._stopped = True
            if self._process is not None and self._busy:
                self._process.terminate()
            elif self._process is not None:
                self._pipe.close()

    def _start(self) -> None:
        context = get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, *self._settings))
        self._process.start()
        other.close()  # so that the pipe ends with the process


def _serve(pipe: Connection, jobs: int, log: Path) -> None:
    """The life of a worker: an even share of the cores, one file for what it prints.

    It does not outlive the study, and Ctrl-C is for the study alone, which then stops it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_the_study, daemon=True).start()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    sys.stdout = sys.stderr = open(log, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:  # the study has ended
            return
        failure = None
        try:
            function(*arguments)
        except Exception as error:
            failure = str(error) or type(error).__name__
            if not isinstance(error, UserError):
                traceback.print_exc()
        pipe.send(failure)


def _end_with_the_study() -> None:
    parent_process().join()
    os._exit(1)
