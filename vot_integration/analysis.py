"""The toolkit's own figures for results that are complete."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cachetools import LRUCache
from vot.analysis import AnalysisProcessor, Measure
from vot.analysis.processor import AnalysisError
from vot.utilities import ThreadPoolExecutor

from srft_plugin.errors import UserError, some

from .results import is_done
from .runner import all_runs, chosen, opened
from .toolkit import toolkit_workspace
from .workspace import Workspace


def analyse(
    workspace: str | Path | Workspace, trackers: Sequence[str] | None = None
) -> dict[str, dict[str, float]]:
    """The toolkit's figures for complete results, like ``vot analysis`` without its cache.

    Returns:
        ``{tracker: {"Pr": ..., "Re": ..., "F": ...}}``, or EAO, A and R for multistart.

    Raises:
        UserError: results are missing or damaged, or the toolkit's analysis fails.
    """
    workspace = opened(workspace)
    names = chosen(workspace, trackers)
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
            f"({some(missing)}); "
            "`srft vot evaluate` makes them"
        )


def _measures(analysis: Any, values: Sequence[Any]) -> dict[str, float]:
    """The single numbers among an analysis' values, under the toolkit's abbreviations."""
    described = zip(analysis.describe(), values, strict=True)
    return {m.abbreviation: float(value) for m, value in described if isinstance(m, Measure)}
