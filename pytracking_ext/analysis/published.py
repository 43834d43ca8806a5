"""Rows of the paper's Tables I to III, in percent, to print beside measured scores."""

from __future__ import annotations

from typing import NamedTuple

from ltr_ext.dataset.kinds import KINDS
from pytracking_ext.analysis.tables import Table


class PublishedRow(NamedTuple):
    """One method on one benchmark; ``values`` in the order of the benchmark's metrics."""

    method: str
    base: str
    values: tuple[float, ...]


# Columns of Tables I and II.
METRICS = {
    "fe108": ("SR", "PR"),
    "visevent": ("SR", "PR"),
    "coesot": ("SR", "PR"),
    "depthtrack": ("Pr", "Re", "F"),
    "vot_rgbd2022": ("A", "R", "EAO"),
    "lasher": ("SR", "PR"),
    "rgbt234": ("MSR", "MPR"),
}

_TABLE_I = """
DiMP|ResNet|48.5 71.7|45.2 66.2|56.7 69.1
Stark-S|ResNet|51.4 75.1|44.6 61.3|55.7 66.7
OSTrack|OSTrack-256|50.7 73.7|53.4 69.6|64.5 77.0
DropTrack|DropTrack-384|52.0 75.9|54.8 72.4|66.1 79.1
FENet|DiMP|63.3 92.4|50.8 70.4|53.8 66.1
AFNet|DiMP|63.8 92.6|51.8 70.8|52.5 63.8
CEUTrack|OSTrack-B256|56.7 84.2|55.0 71.6|62.0 76.4
ProTrack|OSTrack-B256|58.0 85.5|47.1 63.2|66.1 78.4
HRTrack|OSTrack-B256|-|-|63.2 71.9
ViPT|OSTrack-B256|65.1 93.5|59.2 75.8|67.7 80.6
SDSTrack|OSTrack-B256|60.0 87.2|59.7 76.7|67.9 80.9
UnTrack|OSTrack-B256|-|58.9 75.6|-
SRFT|OSTrack-B256|67.5 96.5|61.8 78.6|69.6 83.0
ViPT|DropTrack-B384|65.6 93.9|60.0 77.4|68.6 81.4
SDSTrack|DropTrack-B384|65.6 94.4|60.6 78.0|69.0 82.2
UnTrack|DropTrack-B384|-|60.0 77.2|-
SRFT|DropTrack-B384|68.7 97.1|63.0 80.3|71.3 84.9
MamTrack|HiViT-B384|66.4 94.2|61.6 79.2|-
SUTrack|SUTrack-B384|-|63.1 79.6|-
SRFT|SUTrack-B384|70.8 98.2|65.4 81.5|73.5 85.6
"""
_TABLE_II = """
DiMP|ResNet|46.3 42.8 44.5|70.3 73.1 54.3|42.8 54.4|42.1 62.5
Stark-S|ResNet|39.3 37.6 38.4|65.4 62.8 48.2|37.7 46.3|48.9 66.5
OSTrack|OSTrack-B256|53.6 52.2 52.9|80.3 83.3 67.6|47.2 58.5|54.9 72.9
DropTrack|DropTrack-B384|56.4 55.8 56.1|81.5 85.1 69.2|47.7 59.4|57.2 75.8
SPT|Stark-S|52.7 54.9 53.8|79.8 85.1 65.1|33.4 46.7|55.5 78.6
APFNet|Stark-S|51.6 51.4 51.5|79.0 83.7 64.2|36.2 50.0|57.9 82.7
ProTrack|OSTrack-B256|58.3 57.3 57.8|80.1 80.2 65.1|42.0 53.8|59.9 79.5
ViPT|OSTrack-B256|59.2 59.6 59.4|81.5 87.1 72.1|52.5 65.1|61.7 83.5
SDSTrack|OSTrack-B256|61.9 60.9 61.4|81.2 88.3 72.8|53.1 66.5|62.5 84.8
UnTrack|OSTrack-B256|61.1 60.8 61.0|82.0 86.9 72.1|51.3 63.7|62.5 84.2
SRFT|OSTrack-B256|64.7 65.4 65.1|82.1 88.8 74.1|56.3 70.1|64.4 87.2
ViPT|DropTrack-B384|62.6 61.9 62.2|81.7 87.3 72.3|52.5 65.6|63.4 84.7
SDSTrack|DropTrack-B384|63.3 62.2 62.7|81.4 88.6 73.0|55.1 69.0|65.0 87.1
UnTrack|DropTrack-B384|62.4 61.7 62.0|82.1 87.1 72.2|52.4 65.9|64.1 85.2
SRFT|DropTrack-B384|67.2 67.1 67.1|82.9 89.2 74.5|58.8 73.6|66.7 89.1
MamTrack|HiViT-B384|-|-|54.2 67.4|62.4 84.4
SUTrack|SUTrack-B384|58.8 58.6 58.7|83.0 90.6 75.4|60.8 75.6|69.2 92.1
SRFT|SUTrack-B384|65.1 65.2 65.2|84.1 92.6 77.7|62.9 77.8|70.3 93.3
"""
_TABLE_III = """
OneTracker|OSTrack-B384|60.8 76.7|60.7 60.4 60.9|81.9 87.2 72.7|53.8 67.2|64.2 85.7
SRFT|OSTrack-B384|62.6 79.4|65.3 66.1 65.6|82.4 88.9 74.3|57.0 71.2|65.4 87.9
"""
_TABLES = (
    (_TABLE_I, ("fe108", "visevent", "coesot")),
    (_TABLE_II, ("depthtrack", "vot_rgbd2022", "lasher", "rgbt234")),
    (_TABLE_III, ("visevent", "depthtrack", "vot_rgbd2022", "lasher", "rgbt234")),
)


def published_rows(benchmark: str) -> list[PublishedRow]:
    """Rows of a benchmark; empty for those that the paper does not report."""
    rows = []
    for table, columns in _TABLES:
        if benchmark not in columns:
            continue
        for line in table.strip().splitlines():
            method, base, *cells = line.split("|")
            cell = cells[columns.index(benchmark)]
            if cell != "-":
                rows.append(PublishedRow(method, base, tuple(map(float, cell.split()))))
    return rows


def add_published(table: Table, benchmark: str, sequences: int) -> None:
    """Adds the paper's rows below those of a table whose columns are metrics.

    Beside a part of the benchmark, or generated data in its layout, they would compare nothing:
    then a note says so. Benchmarks and metrics that the paper does not report add nothing.

    Args:
        benchmark: name of the data set.
        sequences: how many the table's own rows are about.
    """
    metrics = METRICS.get(benchmark, ())
    if not set(metrics) & set(table.columns):
        return
    official = KINDS[benchmark].splits["test"].count
    if sequences != official:
        table.notes.append(
            f"The paper's rows stand beside all {official} sequences of {benchmark}; "
            f"here are {sequences}."
        )
        return
    for row in published_rows(benchmark):
        values = dict(zip(metrics, row.values, strict=True))
        table.add(f"{row.method} ({row.base})", [values.get(name) for name in table.columns[1:]])
    table.notes.append("Rows with a base model in brackets: Tables I to III of the paper.")
