"""The curves as PDF and PNG, for papers (Figs. 6 and 7)."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ltr_ext.admin.files import atomic_write
from pytracking_ext.report.plots import Plot
from srft_plugin.plots.figures import legend_text

NAME_WIDTH = 36  # of a line in a legend, in letters


def write_figures(out: Path, plots: Iterable[Plot]) -> None:
    """Writes ``out/<name>.pdf`` and ``.png`` for every plot.

    Raises:
        UserError: ``out`` cannot be written to.
    """
    for plot in plots:
        figure = Figure(figsize=(4.2, 3.2), layout="constrained")
        axes = figure.subplots()
        for label, (x, y) in plot.lines.items():
            axes.plot(x, y, label=legend_text(textwrap.fill(label, NAME_WIDTH)))
        axes.set(xlabel=plot.x_label, ylabel=plot.y_label, ylim=(0, 1), xlim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        _save(figure, out, plot.name)


def write_radar(out: Path, series: Mapping[str, Mapping[str, float]]) -> None:
    """Writes ``out/radar.pdf`` and ``.png``: per label one polygon over the axes that all share.

    Raises:
        UserError: ``out`` cannot be written to.
    """
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    axes = figure.add_subplot(projection="polar", theta_offset=np.pi / 2, theta_direction=-1)
    names = list(next(iter(series.values())))
    angles = 2 * np.pi * np.arange(len(names) + 1) / len(names)
    for label, values in series.items():
        closed = [values[name] for name in (*names, names[0])]
        axes.plot(angles, closed, label=legend_text(textwrap.fill(label, NAME_WIDTH)))
        axes.fill(angles, closed, alpha=0.08)
    axes.set_xticks(angles[:-1], names)
    axes.set_ylim(0)
    axes.tick_params(labelsize="small", pad=8)
    figure.legend(fontsize="small", loc="outside lower center")
    _save(figure, out, "radar")


def _save(figure: Figure, out: Path, name: str) -> None:
    for kind in ("pdf", "png"):
        save = functools.partial(figure.savefig, format=kind, dpi=200)
        atomic_write(out / f"{name}.{kind}", save)
