"""Evaluation and analysis through the toolkit's Python API, with results that can be trusted.

The toolkit's own commands exit with 0 after a crash, take half-written files as results, and answer
from a cache that knows names only. Here a run counts when its files are whole, a failure is an
error, and nothing is cached.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cachetools import LRUCache
from vot.analysis import AnalysisProcessor, Measure
from vot.analysis.processor import AnalysisError
from vot.utilities import ThreadPoolExecutor

from pytracking_ext.evaluation.datasets import Shard, part
from srft_plugin.errors import UserError

from .guard import WHOLE, claim_results, evaluation_lock
from .jobs import run_tasks
from .results import Run, is_done, runs_of, sequence_length
from .toolkit import toolkit_workspace
from .worker import STAGING, Outcome, Task
from .workspace import Workspace, open_workspace, results_folder, tracker_settings

Progress = Callable[[Outcome], None]


def evaluate(
    workspace: str | Path | Workspace,
    trackers: Sequence[str] | None = None,
    jobs: int = 1,
    shard: Shard = WHOLE,
    gpus: Sequence[str] = (),
    force: bool = False,
    adopt: bool = False,
    in_process: bool = False,
    batch: int = 8,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Runs the workspace's experiment for all its trackers, like ``vot evaluate``.

    Whole results stay, missing and damaged ones are made. A failing sequence does not stop the
    others.

    Args:
        workspace: folder made by `create_workspace`.
        trackers: names in trackers.ini; default all.
        jobs: processes that share the sequences and the cores. A script that asks for several
            needs ``if __name__ == "__main__":``, as for all of multiprocessing.
        shard: the part of the sequences to run.
        gpus: indices for CUDA_VISIBLE_DEVICES, given to the jobs in turn.
        force: discard existing results.
        adopt: keep results that carry no record of their checkpoint.
        in_process: without TraX, in every job ``batch`` runs in each network call.
        batch: runs in a network call, with ``in_process``.
        progress: called after each sequence.

    Returns:
        One outcome per tracker and sequence.

    Raises:
        UserError: a sequence failed (after the others have run), the workspace is unusable or in
            use, or holds results of another checkpoint.
    """
    workspace = _opened(workspace)
    names = _chosen(workspace, trackers)
    sequences = part_of(workspace, shard)
    outcomes = []
    with evaluation_lock(workspace, shard):
        for name in names:
            claim_results(workspace, name, shard, force, adopt)
            if shard == WHOLE:  # then nobody else is writing: these are of killed processes
                for path in results_folder(workspace, name).glob(f"{STAGING}*"):
                    shutil.rmtree(path)
        tasks = [Task(name, sequence, force) for name in names for sequence in sequences]
        try:
            for outcome in run_tasks(workspace, tasks, jobs, gpus, batch if in_process else None):
                outcomes.append(outcome)
                if progress is not None:
                    progress(outcome)
        finally:
            forget_analyses(workspace)
    raise_failures(workspace, outcomes)
    return outcomes


def part_of(workspace: Workspace, shard: Shard) -> list[str]:
    """The sequences of a shard, longest first, of about the same length in each."""
    folder = workspace.directory / "sequences"
    return part(workspace.sequences, shard, lambda name: sequence_length(folder / name))


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
            with (
                AnalysisProcessor(executor, LRUCache(10_000)) as processor,
                warnings.catch_warnings(),
            ):
                # The toolkit computes F at thresholds where precision and recall are both 0.
                warnings.filterwarnings("ignore", "invalid value", RuntimeWarning, "vot")
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
