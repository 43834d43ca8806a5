"""Lays scores, curves and films out as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltr_ext.dataset.sequence import Sequence
from pytracking_ext.analysis.frames import Prediction
from pytracking_ext.analysis.scoring import Score
from pytracking_ext.analysis.tables import Table
from pytracking_ext.evaluation.scores import attribute_table, sequence_tables, total_table
from pytracking_ext.report.charts import legend, radar_chart
from pytracking_ext.report.figures import write_figures, write_radar
from pytracking_ext.report.films import film
from pytracking_ext.report.layout import (
    folded_table,
    notes_html,
    plots_html,
    section,
    table_html,
    write_page,
)
from pytracking_ext.report.plots import benchmark_plots

RADAR_AXES = 3  # fewer attributes make no polygon


def write_report(
    out: Path,
    benchmark: str,
    sequences: list[Sequence],
    scores: Mapping[str, Score],
    predictions: Mapping[str, Mapping[str, Prediction]],
    headers: Mapping[str, Mapping[str, Any]],
    published: bool = True,
) -> Path:
    """Writes ``out/report.html`` and the figures for papers beside it.

    Args:
        out: folder, made if need be.
        benchmark: name in titles and of the published rows.
        sequences: of the benchmark.
        scores: by tracker.
        predictions: by tracker and sequence, for the films and the speed.
        headers: by tracker what ``run.json`` says of the run, or nothing.
        published: show the paper's rows, as the scores are by the benchmark's own rules.

    Returns:
        The page. It needs no other file and no network.

    Raises:
        UserError: ``out`` cannot be written to.
    """
    columns = next(iter(scores.values())).total
    metric = "F" if "F" in columns else next(iter(columns))
    plots, radar = benchmark_plots(scores), _radar(scores, metric)
    sections = [
        section(
            "Scores", table_html(total_table(benchmark, scores, published=published), len(scores))
        ),
        section("Curves", plots_html(plots)),
        _attributes(scores, metric, radar),
        section("Speed and size", _speed(predictions, headers)),
        section("Films", _films(sequences, scores, predictions, metric)),
        section("Sequences", _sequences(scores, metric)),
    ]
    page = out / "report.html"
    write_page(page, f"{benchmark}: {', '.join(scores)}", sections)
    write_figures(out, plots)
    if radar:
        write_radar(out, radar)
    return page


def _radar(scores: Mapping[str, Score], metric: str) -> dict[str, dict[str, float]]:
    """By tracker the metric per attribute that all have; empty when these are too few."""
    by_tracker = {label: score.by_attribute(metric) for label, score in scores.items()}
    shared = set.intersection(*(set(rows) for rows in by_tracker.values()))
    if len(shared) < RADAR_AXES:
        return {}
    return {
        label: {name: rows[name][0] for name in sorted(shared)}
        for label, rows in by_tracker.items()
    }


def _attributes(
    scores: Mapping[str, Score], metric: str, radar: Mapping[str, Mapping[str, float]]
) -> str:
    table = attribute_table(scores, metric)
    if table is None:
        return ""
    chart = radar_chart(radar) if radar else ""
    return section(
        "Attributes",
        f'{legend(list(scores))}<div class="charts">{chart}<div>{table_html(table)}</div></div>',
    )


def _sequences(scores: Mapping[str, Score], metric: str) -> str:
    """The table of ``metric``, those of the other metrics folded."""
    tables = sorted(sequence_tables(scores), key=lambda t: not t.title.startswith(f"{metric} "))
    return table_html(tables[0]) + "".join(map(folded_table, tables[1:]))


def _speed(
    predictions: Mapping[str, Mapping[str, Prediction]], headers: Mapping[str, Mapping[str, Any]]
) -> str:
    """Table XII: size of the network, and frames per second over all frames after the first."""
    columns = ["tracker", "parameters (M)", "GFLOPs", "frames/s", "batch", "device"]
    table = Table("image reading left out of the time", columns)
    for label, results in predictions.items():
        timed = [p.times[p.times > 0][1:] for p in results.values() if p.times is not None]
        times = np.concatenate(timed) if timed else np.empty(0)
        about = headers.get(label, {})
        rate = float(len(times) / times.sum()) if times.size else None
        known = [about.get(key) for key in ("parameters_m", "gflops", "batch", "device")]
        if rate or any(known):
            table.add(label, [*known[:2], rate, *known[2:]])
    return table_html(table) if table.rows else ""


def _films(
    sequences: list[Sequence],
    scores: Mapping[str, Score],
    predictions: Mapping[str, Mapping[str, Prediction]],
    metric: str,
) -> str:
    """The best and the worst sequence, the one where trackers differ most, and the slowest."""
    shared = [s for s in sequences if all(s.name in score.sequences for score in scores.values())]
    if not shared:
        return ""
    values = np.array(
        [[score.sequences[s.name][metric] for score in scores.values()] for s in shared]
    )
    seconds = np.array([_mean_time(s.name, predictions) for s in shared])
    picks = {"best": int(values.mean(1).argmax()), "worst": int(values.mean(1).argmin())}
    if len(scores) > 1:
        picks["trackers differ most"] = int(np.ptp(values, axis=1).argmax())
    if seconds.any():
        picks["slowest"] = int(seconds.argmax())
    captions: dict[int, list[str]] = {}
    for reason, index in picks.items():
        captions.setdefault(index, []).append(reason)
    films = []
    for index, reasons in captions.items():
        sequence = shared[index]
        shown = ", ".join(
            f"{label} {100 * value:.1f}" for label, value in zip(scores, values[index], strict=True)
        )
        results = [results[sequence.name] for results in predictions.values()]
        films.append(film(sequence, results, f"{', '.join(reasons)}; {metric}: {shown}"))
    note = notes_html(["Dashed white: ground truth."])
    return f'{legend(list(scores))}{note}<div class="films">{"".join(films)}</div>'


def _mean_time(name: str, predictions: Mapping[str, Mapping[str, Prediction]]) -> float:
    times = [results[name].times for results in predictions.values()]
    return float(np.mean([t.mean() for t in times if t is not None] or [0.0]))
