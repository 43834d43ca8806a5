"""Evaluation and analysis through the toolkit's Python API, with results that can be trusted.

The toolkit's own commands exit with 0 after a crash, take half-written files as results, and answer
from a cache that knows names only. Here a run counts when its files are whole, a failure is an
error, and nothing is cached.
"""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachetools import LRUCache
from vot.analysis import AnalysisProcessor, Measure
from vot.analysis.processor import AnalysisError
from vot.tracker import TrackerException
from vot.utilities import ThreadPoolExecutor

from srft_plugin.errors import UserError

from .results import Run, is_done, run_files, runs_of
from .toolkit import KeptRuntime, ResultsStorage, StagedResults, toolkit_workspace
from .workspace import Workspace, open_workspace, tracker_settings

Progress = Callable[["Outcome"], None]


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


def evaluate(
    workspace: str | Path | Workspace,
    trackers: Sequence[str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Runs the workspace's experiment for all its trackers, like ``vot evaluate``.

    Whole results stay, missing and damaged ones are made. A failing sequence does not stop the
    others.

    Args:
        workspace: folder made by `create_workspace`.
        trackers: names in trackers.ini; default all.
        force: discard existing results.
        progress: called after each sequence.

    Returns:
        One outcome per tracker and sequence.

    Raises:
        UserError: a sequence failed (after the others have run), or the workspace is unusable.
    """
    workspace = _opened(workspace)
    names = _chosen(workspace, trackers)
    outcomes = []
    for name in names:
        with Worker(workspace, name) as worker:
            for sequence in workspace.sequences:
                outcomes.append(worker.run(sequence, force))
                if progress is not None:
                    progress(outcomes[-1])
    forget_analyses(workspace)
    raise_failures(workspace, outcomes)
    return outcomes


def analyse(
    workspace: str | Path | Workspace, trackers: Sequence[str] | None = None
) -> dict[str, dict[str, float]]:
    """The toolkit's figures for complete results, like ``vot analysis`` without its cache.

    Returns:
        ``{tracker: {"Pr": ..., "Re": ..., "F": ...}}``, or EAO, A and R for multistart.

    Raises:
        UserError: results are missing or damaged, or the toolkit's analysis fails.
    """
    workspace = _opened(workspace)
    names = _chosen(workspace, trackers)
    for name in names:
        check_complete(workspace, name)
    with toolkit_workspace(workspace.directory) as loaded:
        experiment = loaded.stack[workspace.benchmark.experiment]
        resolved = loaded.registry.resolve(*names, skip_unknown=False)
        sequences = experiment.transform(loaded.dataset)
        figures: dict[str, dict[str, float]] = {name: {} for name in names}
        executor = ThreadPoolExecutor(1)
        try:
            with AnalysisProcessor(executor, LRUCache(10_000)) as processor:
                for analysis in experiment.analyses:
                    try:
                        grid = processor.run(analysis, experiment, resolved, sequences)
                    except AnalysisError as error:
                        raise UserError(
                            f"{workspace.directory}: the toolkit's analysis failed: "
                            f"{error.root_cause}"
                        ) from error
                    for row, name in enumerate(names):
                        figures[name] |= _measures(analysis, grid[row, 0])
        finally:
            executor.shutdown(wait=True)
    return figures


def check_complete(workspace: Workspace, tracker: str) -> None:
    """Raises UserError if a run of ``tracker`` is missing or damaged."""
    missing = [run.name for folder, run in all_runs(workspace, tracker) if not is_done(folder, run)]
    if missing:
        raise UserError(
            f"{workspace.directory}: {len(missing)} runs of {tracker} are missing or damaged "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}); "
            "`srft vot evaluate` makes them"
        )


def all_runs(workspace: Workspace, tracker: str) -> Iterator[tuple[Path, Run]]:
    """Result folder and run, for every run of the protocol."""
    for sequence in workspace.sequences:
        folder = results_folder(workspace, tracker) / workspace.benchmark.experiment / sequence
        for run in runs_of(
            workspace.directory / "sequences" / sequence, workspace.benchmark.multistart
        ):
            yield folder, run


def results_folder(workspace: Workspace, tracker: str) -> Path:
    """Where the toolkit keeps the results of a tracker."""
    return workspace.directory / "results" / tracker


def forget_analyses(workspace: Workspace) -> None:
    """Removes the toolkit's analysis cache, which would answer with the figures of old results."""
    shutil.rmtree(workspace.directory / "cache" / "analysis", ignore_errors=True)


def raise_failures(workspace: Workspace, outcomes: Sequence[Outcome]) -> None:
    """Raises UserError if any outcome is a failure."""
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if failed:
        lines = [f"  {o.tracker}, {o.sequence}: {o.error}" for o in failed]
        raise UserError(
            f"{len(failed)} of {len(outcomes)} sequences failed; the tracker's output is in "
            f"{workspace.directory / 'logs'}\n" + "\n".join(lines)
        )


class Worker:
    """Runs sequences with one tracker process, started at the first and kept for all."""

    def __init__(self, workspace: Workspace, tracker: str) -> None:
        self.workspace = workspace
        self.name = tracker
        self._staging = workspace.directory / "results" / tracker / f".staging-{os.getpid()}"
        self._runtime: KeptRuntime | None = None
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Worker:
        loaded = self._exit.enter_context(toolkit_workspace(self.workspace.directory))
        self._experiment = loaded.stack[self.workspace.benchmark.experiment]
        self._dataset = loaded.dataset
        (tracker,) = loaded.registry.resolve(self.name, skip_unknown=False)
        self._tracker = copy.copy(tracker)
        self._tracker.runtime = self._start  # asked for once per sequence
        self._start_process = tracker.runtime
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()
        shutil.rmtree(self._staging, ignore_errors=True)
        self._exit.close()

    def run(self, sequence: str, force: bool = False) -> Outcome:
        """Makes the runs of a sequence that are missing or damaged, all of them with ``force``."""
        folder = results_folder(self.workspace, self.name)
        folder = folder / self.workspace.benchmark.experiment / sequence
        source = self.workspace.directory / "sequences" / sequence
        runs = runs_of(source, self.workspace.benchmark.multistart)
        todo = [run for run in runs if force or not is_done(folder, run)]
        start = time.perf_counter()
        error = None
        if todo:
            for run in todo:
                for path in run_files(folder, run):
                    path.unlink()
            results = StagedResults(folder, self._staging / sequence)
            self._experiment._storage = ResultsStorage(results)
            try:
                (view,) = self._experiment.transform(self._dataset[sequence])
                self._experiment.execute(self._tracker, view, callback=lambda _: results.commit())
                results.commit()
            except TrackerException as failure:
                self._log(sequence, failure)
                self._stop()
                error = _reason(failure)
        return Outcome(
            self.name,
            sequence,
            frames=sum(len(run.frames) - 1 for run in todo),
            seconds=time.perf_counter() - start,
            rgb_only=sum(_filled_lines(folder / f"{run.name}_rgb_only.value") for run in runs),
            error=error,
        )

    def _start(self, log: bool = False) -> KeptRuntime:
        if self._runtime is None:
            self._runtime = KeptRuntime(self._start_process(log))
        return self._runtime

    def _stop(self) -> None:
        if self._runtime is not None:
            self._runtime.process.stop()
            self._runtime = None

    def _log(self, sequence: str, failure: Any) -> None:
        if failure.log:
            folder = self.workspace.directory / "logs"
            folder.mkdir(exist_ok=True)
            (folder / f"{self.name}_{sequence}.log").write_text(failure.log, encoding="utf-8")


def _opened(workspace: str | Path | Workspace) -> Workspace:
    return workspace if isinstance(workspace, Workspace) else open_workspace(workspace)


def _chosen(workspace: Workspace, trackers: Sequence[str] | None) -> list[str]:
    names = list(workspace.trackers if trackers is None else trackers)
    for name in names:
        tracker_settings(workspace, name)  # raises for an unknown one
    return names


def _measures(analysis: Any, values: Sequence[Any]) -> dict[str, float]:
    """The single numbers among an analysis' values, under the toolkit's abbreviations."""
    described = zip(analysis.describe(), values, strict=True)
    return {m.abbreviation: float(value) for m, value in described if isinstance(m, Measure)}


def _reason(failure: TrackerException) -> str:
    """The tracker's message without the toolkit's wrapping."""
    return str(failure).removeprefix("Server terminated the session: ")


def _filled_lines(path: Path) -> int:
    if not path.is_file():
        return 0
    return sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").split("\n"))
