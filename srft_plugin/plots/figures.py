"""Fig. 4 (sensitivity map), Fig. 5 (gradient sparsity), Figs. 8 and 9 (weight distance)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor

from srft_plugin.errors import UserError
from srft_plugin.prior import Prior
from srft_plugin.transfer import sparsity


def sensitivity_map(prior: Prior, path: str | Path) -> None:
    """Draw the prior sensitivity of every operation: layers down, operations across (Fig. 4).

    Operations outside numbered layers ("patch_embed.proj") have a bar each below the map.
    """
    _draw_map(prior.sensitivity(), path, "prior sensitivity $s^p$")


def weight_distance(distances: Mapping[str, float], path: str | Path) -> None:
    """Draw ``operation_distances`` as a map: layers down, operations across (Fig. 8).

    Operations that did not move are left out.
    """
    _draw_map(distances, path, r"$\|\theta_t-\theta_0\| / \|\theta_0\|$")


def gradient_sparsity(
    gradients: Mapping[str, Tensor], groups: Mapping[str, list[str]], path: str | Path
) -> dict[str, float]:
    """Draw the sparsity measure of Eq. 9 of each operation's gradient (Fig. 5 in one number each).

    Args:
        gradients: parameter name to its gradient; parameters without one are left out.
        groups: operation to the names of its parameters.
        path: PNG file to write.

    Returns:
        Operation to its measure: 1 for equal magnitudes, small for few that dominate.
    """
    measures = {}
    for group, members in groups.items():
        parts = [gradients[name].flatten() for name in members if name in gradients]
        if parts and any(part.any() for part in parts):
            measures[group] = float(sparsity(torch.cat(parts)))
    _draw_map(measures, path, r"sparsity $\|g\|_1 / (\sqrt{n}\,\|g\|_2)$", logarithmic=False)
    return measures


def weighted_distance_curves(
    curves: Mapping[str, Sequence[tuple[int, float]]], path: str | Path
) -> None:
    """Draw ``sensitivity_weighted_distance`` over training, a curve per run (Fig. 9).

    Args:
        curves: run name to (step, distance) pairs.
        path: PNG file to write.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.add_subplot()
    for name, points in curves.items():
        axis.plot(*zip(*points, strict=True), marker=".", label=legend_text(name))
    axis.set(xlabel="step", ylabel="sensitivity-weighted weight distance")
    axis.legend()
    _write(figure, path)


def legend_text(label: str) -> str:
    """``label`` as it is: no formula between dollars, and not left out as beginning with ``_``."""
    return (" " if label.startswith("_") else "") + label.replace("$", r"\$")


def training_curves(
    runs: Mapping[str, Sequence[Mapping[str, float | None]]],
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """Loss and IoU over the steps, a curve per run; those of the validation pairs are dashed.

    Args:
        runs: label to records, as ``ltr_ext.trainers.log.read_log`` gives them.
        colours: of each label; matplotlib's own without.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for label, records in runs.items():
        for axis, key in zip(axes, ("loss", "iou"), strict=True):
            colour = (colours or {}).get(label)
            for name, style, suffix in (
                (key, "-", ""),
                (f"validation_{key}", "--", ", validation"),
            ):
                known = [(r["step"], r[name]) for r in records if r.get(name) is not None]
                if known:
                    steps, values = zip(*known, strict=True)
                    (line,) = axis.plot(
                        steps, values, style, label=legend_text(label + suffix), color=colour
                    )
                    colour = line.get_color()
            axis.set(xlabel="step", ylabel=key)
    axes[0].legend(fontsize=8)
    return figure


def layers_by_operation(
    values: Mapping[str, float],
) -> tuple[list[str], list[str], np.ndarray, dict[str, float]]:
    """Arrange values by layer and operation.

    "backbone.blocks.3.attn.qkv" is layer "backbone.blocks.3", operation "attn.qkv".

    Returns:
        Layers, operations, the (layers, operations) map with NaN where there is none, and the
        values of the operations outside numbered layers.
    """
    cells: dict[tuple[str, str], float] = {}
    rest = {}
    for name, value in values.items():
        match = re.match(r"(.*?\.\d+)\.(.+)", name)
        if match:
            cells[match.group(1), match.group(2)] = value
        else:
            rest[name] = value
    layers = list(dict.fromkeys(layer for layer, _ in cells))
    operations = list(dict.fromkeys(operation for _, operation in cells))
    grid = np.full((len(layers), len(operations)), np.nan)
    for (layer, operation), value in cells.items():
        grid[layers.index(layer), operations.index(operation)] = value
    return layers, operations, grid, rest


def _draw_map(
    values: Mapping[str, float], path: str | Path, label: str, logarithmic: bool = True
) -> None:
    if not values:
        raise UserError("nothing to draw: no operation has a value")
    positive = {name: value for name, value in values.items() if value > 0}
    if logarithmic and positive:  # what is zero, as the distance of frozen weights, has no place
        values = positive
    layers, operations, grid, rest = layers_by_operation(values)
    heights = [max(len(layers), 1) * 0.28 + 1.2, max(len(rest), 1) * 0.22 + 0.6]
    size = max(6, len(operations) * 0.9 + 3), sum(heights)
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=heights)
    norm = LogNorm(min(values.values()), max(values.values())) if values is positive else None
    if layers:
        image = above.imshow(grid, norm=norm, aspect="auto", cmap="viridis")
        above.set_xticks(range(len(operations)), operations, rotation=30, ha="right", fontsize=8)
        above.set_yticks(range(len(layers)), layers, fontsize=8)
        figure.colorbar(image, ax=above, label=label)
    else:
        above.set_axis_off()
    below.barh(range(len(rest)), list(rest.values()), log=norm is not None)
    below.set_yticks(range(len(rest)), list(rest), fontsize=8)
    below.margins(y=0.02)
    below.invert_yaxis()
    below.set_xlabel(label)
    _write(figure, path)


def _write(figure: Figure, path: str | Path) -> None:
    FigureCanvasAgg(figure).print_png(str(path))
