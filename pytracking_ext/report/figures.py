"""The curves as PDF and PNG, for papers (Figs. 6 and 7)."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

from matplotlib.figure import Figure

from ltr_ext.admin.files import atomic_write
from pytracking_ext.report.plots import Plot


def write_figures(out: Path, plots: Iterable[Plot]) -> None:
    """Writes ``out/<name>.pdf`` and ``.png`` for every plot.

    Raises:
        UserError: ``out`` cannot be written to.
    """
    for plot in plots:
        figure = Figure(figsize=(4.2, 3.2), layout="constrained")
        axes = figure.subplots()
        for label, (x, y) in plot.lines.items():
            axes.plot(x, y, label=label)
        axes.set(xlabel=plot.x_label, ylabel=plot.y_label, ylim=(0, 1), xlim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        for kind in ("pdf", "png"):
            save = functools.partial(figure.savefig, format=kind, dpi=200)
            atomic_write(out / f"{plot.name}.{kind}", save)
