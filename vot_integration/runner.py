"""Evaluation through the toolkit's Python API or in process, with results that can be trusted.

The toolkit's own commands exit with 0 after a crash, take half-written files as results, and answer
from a cache that knows names only. Here a run counts when its files are whole, a failure is an
error, and nothing is cached. The toolkit is imported by those who run the tracker through it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pytracking_ext.evaluation.datasets import Shard, part
from srft_plugin.errors import UserError

from .guard import WHOLE, claim_results, evaluation_lock
from .jobs import run_tasks
from .parameters import is_ours
from .results import Run, sequence_length
from .tasks import STAGING, Outcome, Task
from .workspace import (
    Workspace,
    open_workspace,
    require_toolkit,
    results_folder,
    tracker_environment,
    tracker_settings,
)

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
            use, or holds results of another checkpoint, a tracker would not use ``gpus``, or the
            toolkit is not installed.
    """
    if not in_process:
        require_toolkit()
    workspace = opened(workspace)
    names = chosen(workspace, trackers)
    if gpus:
        _check_devices(workspace, names)
    sequences = part_of(workspace, shard)
    if not in_process:
        _check_paths(workspace, sequences)
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
    raise_failures(outcomes, None if in_process else workspace.directory / "logs")
    return outcomes


def _check_devices(workspace: Workspace, names: Sequence[str]) -> None:
    """Raises UserError where a tracker of ours does not run on the GPU that its job sees."""
    for name in names:
        variables = tracker_environment(workspace, name)
        device = variables.get("SRFT_DEVICE", "cpu")
        if is_ours(variables.get("SRFT_TRACKER")) and device not in ("cuda", "cuda:0"):
            raise UserError(
                f"{workspace.directory / 'trackers.ini'}: {name} runs on {device}, and a job that "
                "is given a GPU sees it as cuda:0; write that in env_SRFT_DEVICE, or leave out the "
                "GPUs"
            )


def _check_paths(workspace: Workspace, sequences: Sequence[str]) -> None:
    """Raises UserError where TraX cannot hand a tracker the names of the images."""
    for sequence in sequences:
        path = str(workspace.source(sequence))
        if not path.isascii() or "%" in path:
            raise UserError(
                f"{path}: TraX takes no path with a letter beyond ASCII or a %; move the "
                "workspace, or evaluate with --in-process"
            )


def part_of(workspace: Workspace, shard: Shard) -> list[str]:
    """The sequences of a shard, longest first, of about the same length in each."""
    return part(workspace.sequences, shard, lambda name: sequence_length(workspace.source(name)))


def all_runs(workspace: Workspace, tracker: str) -> Iterator[tuple[Path, Run]]:
    """Result folder and run, for every run of the protocol."""
    for sequence in workspace.sequences:
        folder = workspace.results(tracker, sequence)
        for run in workspace.runs(sequence):
            yield folder, run


def forget_analyses(workspace: Workspace) -> None:
    """Removes the toolkit's analysis cache, which would answer with the figures of old results."""
    shutil.rmtree(workspace.directory / "cache" / "analysis", ignore_errors=True)


def raise_failures(outcomes: Sequence[Outcome], logs: Path | None) -> None:
    """Raises UserError if any outcome is a failure; ``logs`` has what the trackers printed."""
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if failed:
        where = f"; the tracker's output is in {logs}" if logs else ""
        lines = [f"  {o.tracker}, {o.sequence}: {o.error}" for o in failed]
        raise UserError(
            f"{len(failed)} of {len(outcomes)} sequences failed{where}\n" + "\n".join(lines)
        )


def opened(workspace: str | Path | Workspace) -> Workspace:
    """The workspace itself, or that in a folder."""
    return workspace if isinstance(workspace, Workspace) else open_workspace(workspace)


def chosen(workspace: Workspace, trackers: Sequence[str] | None) -> list[str]:
    """Names of trackers, by default all.

    Raises:
        UserError: the workspace has no such tracker, or none at all.
    """
    names = list(workspace.trackers if trackers is None else trackers)
    if not names:
        raise UserError(f"{workspace.directory} has no tracker; `srft vot init` adds one")
    for name in names:
        tracker_settings(workspace, name)  # raises for an unknown one
    return names
