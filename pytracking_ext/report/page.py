"""Lays scores, curves and films out as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ltr_ext.admin.files import write_text
from ltr_ext.dataset.sequence import Sequence
from pytracking_ext.analysis import metrics
from pytracking_ext.analysis.scoring import Prediction, Score
from pytracking_ext.analysis.tables import Table, cell_text
from pytracking_ext.evaluation.scores import attribute_table, sequence_table, total_table
from pytracking_ext.report.charts import legend, line_chart, radar_chart
from pytracking_ext.report.figures import write_figures
from pytracking_ext.report.strips import strip

HERE = Path(__file__).parent
RADAR_AXES = 3  # fewer attributes make no polygon


def write_report(
    out: Path,
    benchmark: str,
    sequences: list[Sequence],
    scores: Mapping[str, Score],
    predictions: Mapping[str, Mapping[str, Prediction]],
    headers: Mapping[str, Mapping[str, Any]],
) -> Path:
    """Writes ``out/report.html`` and the figures for papers beside it.

    Args:
        out: folder, made if need be.
        benchmark: name in titles and of the published rows.
        sequences: of the benchmark.
        scores: by tracker.
        predictions: by tracker and sequence, for the films and the speed.
        headers: by tracker what ``run.json`` says of the run, or nothing.

    Returns:
        The page. It needs no other file and no network.
    """
    out.mkdir(parents=True, exist_ok=True)
    columns = next(iter(scores.values())).total
    metric = "F" if "F" in columns else next(iter(columns))
    sections = [
        _section("Scores", _table(total_table(benchmark, scores), len(scores))),
        _section("Curves", _charts(scores)),
        _attributes(scores, metric),
        _section("Speed and size", _speed(predictions, headers)),
        _section("Films", _films(sequences, scores, predictions, metric)),
        _section("Sequences", _table(sequence_table(scores))),
    ]
    page = out / "report.html"
    write_text(page, _html(f"{benchmark}: {', '.join(scores)}", "".join(sections)))
    write_figures(out, scores)
    return page


def _html(title: str, content: str) -> str:
    style, script = ((HERE / name).read_text("utf-8") for name in ("style.css", "script.js"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f'<header><h1>{escape(title)}</h1><button type="button" id="theme">light / dark</button>'
        f"</header>{content}<script>{script}</script></body></html>"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def _table(table: Table, own: int | None = None) -> str:
    """A sortable table; rows after the first ``own`` are published ones."""
    head = "".join(
        f'<th scope="col"><button type="button">{escape(column)}</button></th>'
        for column in table.columns
    )
    rows = []
    for index, (label, cells) in enumerate(table.rows):
        published = ' class="published"' if own is not None and index >= own else ""
        body = "".join(f"<td>{escape(text)}</td>" for text in (label, *map(cell_text, cells)))
        rows.append(f"<tr{published}>{body}</tr>")
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    return (
        f'<p class="faint">{escape(table.title)}</p><div class="scroll"><table><thead><tr>{head}'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{notes}"
    )


def _charts(scores: Mapping[str, Score]) -> str:
    curves = {label: score.curves for label, score in scores.items()}
    charts = [
        line_chart(
            {label: (metrics.SUCCESS_THRESHOLDS, c.success) for label, c in curves.items()},
            "overlap threshold",
            "success",
        ),
        line_chart(
            {label: (metrics.PRECISION_THRESHOLDS, c.precision) for label, c in curves.items()},
            "centre distance (pixels)",
            "precision",
        ),
    ]
    if all(score.long_term is not None for score in scores.values()):
        series = {}
        for label, score in scores.items():
            recall = score.long_term.recalls.mean(0)
            series[label] = recall, score.long_term.precisions.mean(0)
        charts.append(line_chart(series, "recall", "tracking precision"))
    return legend(list(scores)) + f'<div class="charts">{"".join(charts)}</div>'


def _attributes(scores: Mapping[str, Score], metric: str) -> str:
    table = attribute_table(scores, metric)
    if table is None:
        return ""
    by_tracker = {label: score.by_attribute(metric) for label, score in scores.items()}
    shared = set.intersection(*(set(rows) for rows in by_tracker.values()))
    radar = ""
    if len(shared) >= RADAR_AXES:
        radar = radar_chart(
            {
                label: {name: rows[name][0] for name in sorted(shared)}
                for label, rows in by_tracker.items()
            }
        )
    return _section(
        "Attributes",
        f'{legend(list(scores))}<div class="charts">{radar}<div>{_table(table)}</div></div>',
    )


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
    return _table(table) if table.rows else ""


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
        results = {label: results[sequence.name] for label, results in predictions.items()}
        films.append(strip(sequence, results, f"{', '.join(reasons)}; {metric}: {shown}"))
    note = '<p class="note">Dashed white: ground truth.</p>'
    return f'{legend(list(scores))}{note}<div class="films">{"".join(films)}</div>'


def _mean_time(name: str, predictions: Mapping[str, Mapping[str, Prediction]]) -> float:
    times = [results[name].times for results in predictions.values()]
    return float(np.mean([t.mean() for t in times if t is not None] or [0.0]))
