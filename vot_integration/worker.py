"""Runs sequences with tracker processes, one after the other or several at a time."""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from vot.tracker import TrackerException

from .results import is_done, run_files, runs_of
from .toolkit import KeptRuntime, ResultsStorage, StagedResults, toolkit_workspace
from .workspace import Workspace, results_folder

STAGING = ".staging-"  # folders beside the experiments, one per process


@dataclass(frozen=True)
class Task:
    """One sequence for one tracker; ``force`` discards its results first."""

    tracker: str
    sequence: str
    force: bool = False


@dataclass(frozen=True)
class Outcome:
    """What happened to one sequence with one tracker.

    Attributes:
        frames: frames tracked now (none if the results were there).
        seconds: wall time.
        rgb_only: frames whose auxiliary image was missing or unreadable.
        error: the tracker's message; None if all went well.
    """

    tracker: str
    sequence: str
    frames: int
    seconds: float
    rgb_only: int = 0
    error: str | None = None


def run_tasks(
    workspace: Workspace, tasks: Sequence[Task], jobs: int = 1, gpus: Sequence[str] = ()
) -> Iterator[Outcome]:
    """Runs all tasks and yields what became of each as soon as it is known.

    With several jobs, each is a process that is handed the next task when it has finished one. For
    a job that dies a new one is started; its task has failed.
    """
    jobs = max(1, jobs)
    if jobs == 1 and not gpus:
        with Worker(workspace) as worker:
            yield from map(worker.run, tasks)
        return
    environments = [_environment(index, jobs, gpus) for index in range(min(jobs, len(tasks)))]
    waiting, busy = list(reversed(tasks)), {}
    idle = [_Job(workspace, environment) for environment in environments]
    try:
        while idle or busy:
            while idle:
                job = idle.pop()
                if waiting:
                    busy[job.connection] = (job, waiting.pop())
                    job.connection.send(busy[job.connection][1])
                else:
                    job.stop()
            for connection in wait(list(busy)) if busy else ():
                job, task = busy.pop(connection)
                try:
                    outcome = connection.recv()
                except EOFError:
                    error = f"the evaluation process died (exit code {job.stop()})"
                    outcome = Outcome(task.tracker, task.sequence, 0, 0.0, error=error)
                    job = _Job(workspace, job.environment)
                idle.append(job)
                yield outcome
    finally:
        for job in [*idle, *(job for job, _ in busy.values())]:
            job.stop()


def _environment(index: int, jobs: int, gpus: Sequence[str]) -> dict[str, str]:
    """Variables of job ``index``: its share of the cores, unless the user has said, and its GPU."""
    variables = {}
    if "OMP_NUM_THREADS" not in os.environ:
        variables["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    if gpus:
        variables["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    return variables


class _Job:
    """A process that runs the tasks sent through ``connection`` and sends their outcomes back."""

    def __init__(self, workspace: Workspace, environment: dict[str, str]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit threads and locks
        self.environment = environment
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_job, args=(theirs, workspace, environment))
        self._process.start()
        theirs.close()

    def stop(self) -> int | None:
        """Lets the process end after its present task; its exit code."""
        self.connection.close()
        self._process.join()
        return self._process.exitcode


def _job(connection: Connection, workspace: Workspace, environment: dict[str, str]) -> None:
    """Body of a job process: runs what it is sent until the other end is closed."""
    os.environ.update(environment)
    with Worker(workspace) as worker, contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            connection.send(worker.run(connection.recv()))


class Worker:
    """Runs tasks with one tracker process, kept until a task asks for another tracker."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._name: str | None = None
        self._tracker: Any = None
        self._runtime: KeptRuntime | None = None
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Worker:
        self._toolkit = self._exit.enter_context(toolkit_workspace(self.workspace.directory))
        self._experiment = self._toolkit.stack[self.workspace.benchmark.experiment]
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()
        self._exit.close()

    def run(self, task: Task) -> Outcome:
        """Makes the runs of a sequence that are missing or damaged, all of them with ``force``."""
        folder = results_folder(self.workspace, task.tracker)
        staging = folder / f"{STAGING}{os.getpid()}"
        folder = folder / self.workspace.benchmark.experiment / task.sequence
        source = self.workspace.directory / "sequences" / task.sequence
        runs = runs_of(source, self.workspace.benchmark.multistart)
        todo = [run for run in runs if task.force or not is_done(folder, run)]
        for run in todo:
            for path in run_files(folder, run):
                path.unlink()
        start, error = time.perf_counter(), None
        if todo:
            try:
                self._execute(task, StagedResults(folder, staging))
            except TrackerException as failure:
                error = self._report(task, failure)
            finally:
                shutil.rmtree(staging)
        return Outcome(
            task.tracker,
            task.sequence,
            frames=sum(len(run.frames) - 1 for run in todo),
            seconds=time.perf_counter() - start,
            rgb_only=sum(_filled_lines(folder / f"{run.name}_rgb_only.value") for run in runs),
            error=error,
        )

    def _execute(self, task: Task, results: StagedResults) -> None:
        if task.tracker != self._name:
            self._stop()
            (tracker,) = self._toolkit.registry.resolve(task.tracker, skip_unknown=False)
            self._tracker, self._name = copy.copy(tracker), task.tracker
            # The toolkit asks for a runtime per sequence, and stops it at the end of each.
            self._tracker.runtime = lambda: self._kept(tracker.runtime)
        self._experiment._storage = ResultsStorage(results)
        (view,) = self._experiment.transform(self._toolkit.dataset[task.sequence])
        self._experiment.execute(self._tracker, view, callback=lambda _: results.commit())
        results.commit()

    def _kept(self, start: Callable[[], Any]) -> KeptRuntime:
        if self._runtime is None:
            self._runtime = KeptRuntime(start())
        return self._runtime

    def _stop(self) -> None:
        if self._runtime is not None:
            self._runtime.process.stop()
            self._runtime = None

    def _report(self, task: Task, failure: TrackerException) -> str:
        """Ends the failed process, keeps its output, and gives the tracker's own message."""
        self._stop()
        if failure.log:
            folder = self.workspace.directory / "logs"
            folder.mkdir(exist_ok=True)
            (folder / f"{task.tracker}_{task.sequence}.log").write_text(failure.log)
        return str(failure).removeprefix("Server terminated the session: ")


def _filled_lines(path: Path) -> int:
    if not path.is_file():
        return 0
    return sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").split("\n"))
