"""Scores folders of results on a test set, and lays the scores out in tables."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from itertools import combinations
from pathlib import Path

from ltr_ext.dataset.sequence import Sequence
from pytracking_ext.analysis.conventions import Convention
from pytracking_ext.analysis.frames import SequenceTruth
from pytracking_ext.analysis.published import add_published
from pytracking_ext.analysis.scoring import Score, score_benchmark
from pytracking_ext.analysis.significance import LEVEL, differences, intervals, verdict
from pytracking_ext.analysis.tables import Table
from pytracking_ext.evaluation.loading import read_predictions
from srft_plugin.errors import some


def ground_truths(
    sequences: Iterable[Sequence],
    how: Convention,
    attributes: Mapping[str, tuple[str, ...]] | None = None,
    tracked: Container[str] | None = None,
) -> dict[str, SequenceTruth]:
    """What the sequences are scored against; images are opened only where their size counts.

    Args:
        sequences: any number.
        how: the convention.
        attributes: by sequence, in place of those that the data set itself has.
        tracked: names of the sequences with a result; of the others no image is opened.
    """
    truths = {}
    for sequence in sequences:
        size = None
        if (how.long_term or how.in_image) and (tracked is None or sequence.name in tracked):
            start = int(sequence.visible.argmax())  # where its tracker started
            height, width = sequence.frames.rgb(start).shape[:2]
            size = width, height
        truths[sequence.name] = SequenceTruth(
            sequence.boxes,
            size,
            sequence.extra.get("infrared"),
            (attributes or {}).get(sequence.name, sequence.extra.get("attributes", ())),
        )
    return truths


def score_folder(
    sequences: Iterable[Sequence], folder: Path, how: Convention, others: Iterable[str] = ()
) -> Score:
    """Scores the results in ``folder``; sequences without one are listed in ``Score.missing``.

    ``others`` name sequences that cannot be opened: their files are not those of ``sequences``.
    """
    sequences = list(sequences)
    names = [sequence.name for sequence in sequences]
    predictions = read_predictions(folder, names, others=others)
    return score_benchmark(ground_truths(sequences, how, tracked=predictions), predictions, how)


def total_table(
    benchmark: str, scores: Mapping[str, Score], bootstrap: bool = False, published: bool = True
) -> Table:
    """One row per tracker, the paper's rows below; with intervals where asked for.

    ``published`` says whether the paper's rows compare: the rules are the benchmark's own.
    """
    columns = list(next(iter(scores.values())).total)
    table = Table(f"{benchmark} (percent)", ["tracker", *columns])
    for label, score in scores.items():
        cells: list = [100 * score.total[metric] for metric in columns]
        if bootstrap:
            bounds = intervals(score)
            cells = [
                f"{cell:.1f} [{100 * bounds[metric].low:.1f}, {100 * bounds[metric].high:.1f}]"
                for cell, metric in zip(cells, columns, strict=True)
            ]
        table.add(label, cells)
        if score.missing:
            table.notes.append(
                f"{label}: {len(score.missing)} of {len(score.missing) + len(score.sequences)} "
                f"sequences have no result and are left out: {some(score.missing, 5)}"
            )
        if score.uncounted:
            table.notes.append(
                f"{label}: left out are sequences without the target after their first frame: "
                f"{some(score.uncounted, 5)}"
            )
    if published:
        add_published(table, benchmark, max(len(score.sequences) for score in scores.values()))
    else:
        table.notes.append(f"By other rules than those of {benchmark}: no paper's rows compare.")
    if bootstrap:
        table.notes.append(f"Square brackets: {LEVEL:.0%} intervals, sequences resampled.")
        table.notes += _verdicts(scores)
    return table


def sequence_tables(scores: Mapping[str, Score]) -> list[Table]:
    """One row per sequence: all metrics of one tracker, or a table per metric for several."""
    names = list(dict.fromkeys(name for score in scores.values() for name in score.sequences))
    metrics = list(next(iter(scores.values())).total)
    if len(scores) == 1:
        (score,) = scores.values()
        table = Table("per sequence (percent)", ["sequence", *metrics])
        for name in names:
            table.add(name, [100 * score.sequences[name][metric] for metric in metrics])
        return [table]
    tables = []
    for metric in metrics:
        table = Table(f"{metric} per sequence (percent)", ["sequence", *scores])
        for name in names:
            rows = (score.sequences.get(name, {}) for score in scores.values())
            table.add(name, [_percent(row.get(metric)) for row in rows])
        tables.append(table)
    return tables


def attribute_table(scores: Mapping[str, Score], metric: str) -> Table | None:
    """One row per attribute; None when the benchmark labels none."""
    by_tracker = {label: score.by_attribute(metric) for label, score in scores.items()}
    counts: dict[str, set[int]] = {}
    for rows in by_tracker.values():
        for name, (_, count) in rows.items():
            counts.setdefault(name, set()).add(count)
    if not counts:
        return None
    table = Table(f"{metric} per attribute (percent)", ["attribute", "sequences", *scores])
    for name, found in sorted(counts.items()):
        values = [rows.get(name, (None,))[0] for rows in by_tracker.values()]
        table.add(name, [min(found), *map(_percent, values)])
        if len(found) > 1:
            table.notes.append(
                f"{name}: trackers have results of {min(found)} to {max(found)} of its sequences."
            )
    return table


def _verdicts(scores: Mapping[str, Score]) -> list[str]:
    """Which differences between trackers are real, a line each."""
    lines = []
    for (first, a), (second, b) in combinations(scores.items(), 2):
        if list(a.sequences) != list(b.sequences):
            lines.append(f"{first} and {second} have results of different sequences.")
            continue
        for metric, found in differences(a, b).items():
            low, high = (f"{100 * bound:+.1f}" for bound in found)
            judged = verdict(found, len(a.sequences))
            lines.append(f"{first} - {second}, {metric}: [{low}, {high}], {judged}")
    return lines


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
