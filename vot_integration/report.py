"""A workspace's figures in tables and on a page, and their check against the toolkit's analysis."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pytracking_ext.analysis.published import add_published
from pytracking_ext.analysis.tables import Table
from pytracking_ext.report.figures import write_figures
from pytracking_ext.report.layout import notes_html, plots_html, section, table_html, write_page
from pytracking_ext.report.plots import Plot, long_term_plots
from srft_plugin.errors import UserError

from .score import Score
from .workspace import Workspace, require_toolkit

# Largest difference from the toolkit's figure: it sums in another order in the multistart protocol.
TOLERANCE = {"Pr": 0.0, "Re": 0.0, "F": 0.0, "EAO": 1e-12, "A": 1e-12, "R": 1e-12}


def figures_table(workspace: Workspace, scores: Mapping[str, Score]) -> Table:
    """One row per tracker, in per cent, and the rows of the paper below."""
    measures = workspace.benchmark.measures
    table = Table("Figures in per cent", ["tracker", *measures])
    for name, score in scores.items():
        table.add(name, [100 * score.figures[measure] for measure in measures])
    published = "vot_rgbd2022" if workspace.benchmark.multistart else "depthtrack"
    add_published(table, published, len(workspace.sequences))
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
        UserError: a difference is larger than rounding can make it, or there is no toolkit.
    """
    require_toolkit()
    from .analysis import analyse

    official = analyse(workspace, list(scores))
    largest = 0.0
    for name, score in scores.items():
        for measure, value in score.figures.items():
            difference = abs(value - official[name][measure])
            largest = max(largest, difference)
            if not difference <= TOLERANCE[measure]:  # nor may it be NaN
                raise UserError(
                    f"{measure} of {name} is {value} here and {official[name][measure]} in the "
                    "toolkit; report this with the workspace's results folder"
                )
    return largest


def write_report(
    out: Path,
    workspace: Workspace,
    scores: Mapping[str, Score],
    table: Table,
    warnings: list[str],
) -> Path:
    """Writes ``out/report.html`` and its curves as PDF and PNG.

    Args:
        table: that of `figures_table`.
        warnings: where the figures do not mean what they seem to.

    Returns:
        The page. It needs no other file and no network.
    """
    plots = curves(scores)
    tables = "".join(map(table_html, sequence_tables(workspace, scores)))
    sections = [
        section("Scores", table_html(table, len(scores)) + notes_html(warnings)),
        section("Curves", plots_html(plots)),
        section("Sequences", tables),
    ]
    write_page(out / "report.html", f"{workspace.directory.name}: {', '.join(scores)}", sections)
    write_figures(out, plots)
    return out / "report.html"


def curves(scores: Mapping[str, Score]) -> list[Plot]:
    """Expected average overlap by the number of frames, or the curves of the long-term protocol."""
    overlaps = {name: score.expected_overlaps for name, score in scores.items()}
    if all(curve is not None for curve in overlaps.values()):
        lines = {name: (np.arange(len(curve)), curve) for name, curve in overlaps.items()}
        return [Plot("eao", "frames", "expected average overlap", lines)]
    return long_term_plots({name: score.long_term for name, score in scores.items()})
