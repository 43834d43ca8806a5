"""Processes that share the sequences of an evaluation, with a part of the cores and a GPU each."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait

from srft_plugin.errors import UserError

from .tasks import Outcome, Task
from .workspace import Workspace


def run_tasks(
    workspace: Workspace,
    tasks: Sequence[Task],
    jobs: int = 1,
    gpus: Sequence[str] = (),
    batch: int | None = None,
) -> Iterator[Outcome]:
    """Runs all tasks and yields what became of each as soon as it is known.

    With several jobs, each is a process. One with a TraX server is handed the next task when it has
    finished one; one that tracks by itself gets its share at the start, to fill its batches. For a
    job that dies a new one is started; what it had not finished has failed.

    Args:
        workspace: of the tasks.
        tasks: the longest first.
        jobs: number of processes.
        gpus: indices for CUDA_VISIBLE_DEVICES, given to the jobs in turn.
        batch: None runs the tracker by TraX; a number tracks in the jobs themselves, so many runs
            in each network call.

    Raises:
        UserError: the workspace or the tracker cannot be used.
    """
    jobs = max(1, min(jobs, len(tasks)))
    if jobs == 1 and not gpus:
        with _runner(workspace, batch) as run:
            yield from run(tasks)
        return
    start = functools.partial(_Job, workspace, batch)
    parts = [[task] for task in tasks] if batch is None else [tasks[i::jobs] for i in range(jobs)]
    waiting, busy = parts[::-1], {}
    idle = [start(_environment(index, jobs, gpus)) for index in range(jobs)]
    try:
        while idle or busy:
            while idle:
                job = idle.pop()
                if waiting:
                    job.begin(waiting.pop())
                    busy[job.connection] = job
                else:
                    job.stop()
            for connection in wait(list(busy)) if busy else ():
                job = busy[connection]
                try:
                    outcome = job.receive()
                except (EOFError, ConnectionError):
                    error = f"the evaluation process died (exit code {job.stop()})"
                    for task in job.unfinished:
                        yield Outcome(task.tracker, task.sequence, 0, 0.0, error=error)
                    job = start(job.environment)
                else:
                    yield outcome
                if not job.unfinished:
                    del busy[connection]
                    idle.append(job)
    finally:
        for job in [*idle, *busy.values()]:
            job.stop()


@contextlib.contextmanager
def _runner(
    workspace: Workspace, batch: int | None
) -> Iterator[Callable[[Sequence[Task]], Iterable[Outcome]]]:
    """Function that runs tasks in this process. Each way imports only what it needs."""
    if batch is None:
        from .worker import Worker  # imports the toolkit

        with Worker(workspace) as worker:
            yield functools.partial(map, worker.run)
    else:
        from .inprocess import run_in_process  # imports torch

        yield functools.partial(run_in_process, workspace, batch=batch)


def _environment(index: int, jobs: int, gpus: Sequence[str]) -> dict[str, str]:
    """Variables of job ``index``: its share of the cores, unless the user has said, and its GPU."""
    variables = {}
    if "OMP_NUM_THREADS" not in os.environ:
        variables["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // jobs))
    if gpus:
        variables["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
    return variables


class _Job:
    """A process that runs the tasks sent to it and sends their outcomes back.

    Attributes:
        connection: to wait on.
        environment: variables of the process.
        unfinished: tasks sent whose outcome is not known.
    """

    def __init__(
        self, workspace: Workspace, batch: int | None, environment: dict[str, str]
    ) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit threads and locks
        self.environment, self.unfinished = environment, list[Task]()
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_job, args=(theirs, workspace, batch, environment))
        self._process.start()
        theirs.close()

    def begin(self, tasks: Sequence[Task]) -> None:
        """Hands over tasks."""
        self.unfinished = list(tasks)
        self.connection.send(self.unfinished)

    def receive(self) -> Outcome:
        """The next outcome.

        Raises:
            EOFError, ConnectionError: the process has died.
            UserError: it cannot use the workspace or the tracker.
        """
        outcome = self.connection.recv()
        if isinstance(outcome, UserError):
            raise outcome
        of = (outcome.tracker, outcome.sequence)
        self.unfinished = [t for t in self.unfinished if (t.tracker, t.sequence) != of]
        return outcome

    def stop(self) -> int | None:
        """Lets the process end after its present tasks; its exit code."""
        self.connection.close()
        self._process.join()
        return self._process.exitcode


def _job(
    connection: Connection,
    workspace: Workspace,
    batch: int | None,
    environment: dict[str, str],
) -> None:
    """Body of a job process: runs what it is sent until the other end is closed.

    It does not outlive the evaluation that started it: what it would write then could meet the
    results of the next one.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(environment)  # before torch is imported
    try:
        with _runner(workspace, batch) as run, contextlib.suppress(EOFError, BrokenPipeError):
            while True:
                for outcome in run(connection.recv()):
                    connection.send(outcome)
    except UserError as error:
        connection.send(error)


def _end_with_parent() -> None:
    """Waits until the evaluation is gone, also when it was killed, and ends this process."""
    multiprocessing.parent_process().join()
    os._exit(1)
