"""Runs sequences with a tracker process that stays."""

from __future__ import annotations

import contextlib
import copy
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vot.tracker import TrackerException

from ltr_ext.admin.files import write_text

from .results import run_files
from .tasks import STAGING, Outcome, Task
from .toolkit import KeptRuntime, ResultsStorage, StagedResults, toolkit_workspace
from .workspace import Workspace, results_folder


class Worker:
    """Runs tasks with one tracker process, kept until a task asks for another tracker."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._name: str | None = None
        self._tracker: Any = None
        self._runtime: KeptRuntime | None = None
        self._interrupted = False
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Worker:
        self._toolkit = self._exit.enter_context(toolkit_workspace(self.workspace.directory))
        self._experiment = self._toolkit.stack[self.workspace.benchmark.experiment]
        if threading.current_thread() is threading.main_thread():
            self._exit.callback(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
            signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()
        self._exit.close()

    def _interrupt(self, number: int, frame: Any) -> None:
        """Ctrl-C: the exception is lost where it meets the toolkit's C code, the mark is not."""
        self._interrupted = True
        signal.default_int_handler(number, frame)

    def run(self, task: Task) -> Outcome:
        """Makes the runs of a sequence that are missing or damaged, all of them with ``force``."""
        folder = self.workspace.results(task.tracker, task.sequence)
        todo = self.workspace.runs_to_make(task.tracker, task.sequence, task.force)
        for run in todo:
            for path in run_files(folder, run):
                path.unlink()
        start, error = time.perf_counter(), None
        if todo:
            root = results_folder(self.workspace, task.tracker)
            root.mkdir(parents=True, exist_ok=True)
            # Processes of other machines, or of containers, may have the same number.
            staging = Path(tempfile.mkdtemp(f"-{os.getpid()}", STAGING, root))
            try:
                self._execute(task, StagedResults(folder, staging))
            except TrackerException as failure:
                if self._interrupted:
                    raise KeyboardInterrupt from failure
                error = self._report(task, failure)
            finally:
                shutil.rmtree(staging)
        return Outcome(
            task.tracker,
            task.sequence,
            frames=sum(len(run.frames) - 1 for run in todo),
            seconds=time.perf_counter() - start,
            rgb_only=sum(_filled_lines(folder / f"{run.name}_rgb_only.value") for run in todo),
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
            write_text(folder / f"{task.tracker}_{task.sequence}.log", failure.log)
        return _reason(str(failure), failure.log or "")


def _reason(message: str, log: str) -> str:
    """What the tracker said; of one that ended without a word the toolkit's log has the status."""
    ended = re.search(r"Process exited with code \((-?\d+)\)", log)
    if ended and message.startswith("Exception when waiting for response"):
        return f"the tracker's process ended with exit code {ended[1]}"
    return message.removeprefix("Server terminated the session: ")


def _filled_lines(path: Path) -> int:
    if not path.is_file():
        return 0
    return sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").split("\n"))
