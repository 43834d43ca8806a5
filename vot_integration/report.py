"""Tables of a workspace's figures, and their check against the toolkit's analysis."""

from __future__ import annotations

from collections.abc import Mapping

from pytracking_ext.analysis.published import METRICS, published_rows
from pytracking_ext.analysis.tables import Table
from srft_plugin.errors import UserError

from .score import Score
from .workspace import Workspace

# Largest difference from the toolkit's figure: it sums in another order in the multistart protocol.
TOLERANCE = {"Pr": 0.0, "Re": 0.0, "F": 0.0, "EAO": 1e-12, "A": 1e-12, "R": 1e-12}
COMMON_NAMES = {"A": "Acc", "R": "Rob"}


def figures_table(workspace: Workspace, scores: Mapping[str, Score]) -> Table:
    """One row per tracker, in per cent, and the rows of the paper below."""
    measures = workspace.benchmark.measures
    table = Table("Figures in per cent", ["tracker", *measures])
    for name, score in scores.items():
        table.add(name, [100 * score.figures[measure] for measure in measures])
    published = "vot_rgbd2022" if workspace.benchmark.multistart else "depthtrack"
    columns = [METRICS[published].index(COMMON_NAMES.get(m, m)) for m in measures]
    for row in published_rows(published):
        table.add(f"paper: {row.method}, {row.base}", [row.values[column] for column in columns])
    return table


def sequence_tables(workspace: Workspace, scores: Mapping[str, Score]) -> list[Table]:
    """One table per tracker with a row per sequence, in per cent."""
    measures = workspace.benchmark.measures
    tables = []
    for name, score in scores.items():
        table = Table(f"{name}, per sequence", ["sequence", *measures])
        for sequence, figures in score.per_sequence.items():
            table.add(sequence, [100 * figures[measure] for measure in measures])
        tables.append(table)
    return tables


def check_against_toolkit(workspace: Workspace, scores: Mapping[str, Score]) -> float:
    """Largest difference from what the toolkit's analysis gives for the same results.

    Raises:
        UserError: a difference is larger than rounding can make it.
    """
    from .runner import analyse

    official = analyse(workspace, list(scores))
    largest = 0.0
    for name, score in scores.items():
        for measure, value in score.figures.items():
            difference = abs(value - official[name][measure])
            largest = max(largest, difference)
            if difference > TOLERANCE[measure]:
                raise UserError(
                    f"{measure} of {name} is {value} here and {official[name][measure]} in the "
                    "toolkit; report this with the workspace's results folder"
                )
    return largest
