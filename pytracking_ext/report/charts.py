"""Charts as inline SVG; colours come from the page's style, so they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

import numpy as np
from numpy.typing import ArrayLike

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 420, 300, 46, 40, 14, 12
RADIUS, LABELS = 110, 1.16  # of the radar's outer ring; where names stand, in radii


def line_chart(
    series: Mapping[str, tuple[ArrayLike, ArrayLike]], x_label: str, y_label: str
) -> str:
    """Lines of (x, y) by label; x from 0 to its largest value or to 1, y in [0, 1]."""
    right = max(1.0, *(float(np.max(x)) for x, _ in series.values()))
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + x / right * inner_width, TOP + (1 - y) * inner_height

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
             f'aria-label="{escape(y_label)} against {escape(x_label)}">']  # fmt: skip
    for step in range(6):
        x, y = place(right * step / 5, step / 5)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}M{x:.1f} {TOP}V'
                     f'{HEIGHT - BOTTOM}"/>')  # fmt: skip
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" class="end">{step / 5:.1f}</text>')
        label = f"{right * step / 5:g}"
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" class="mid">{label}</text>')
    for index, (label, (xs, ys)) in enumerate(series.items()):
        points = (place(float(x), float(y)) for x, y in zip(xs, ys, strict=True))
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(f'<path class="line c{index % 8}" d="{path}"><title>{escape(label)}</title>'
                     "</path>")  # fmt: skip
    parts.append(f'<text x="{LEFT + inner_width / 2}" y="{HEIGHT - 6}" class="mid">'
                 f"{escape(x_label)}</text>")  # fmt: skip
    parts.append(f'<text transform="translate(12 {TOP + inner_height / 2}) rotate(-90)" '
                 f'class="mid">{escape(y_label)}</text></svg>')  # fmt: skip
    return "".join(parts)


def radar_chart(series: Mapping[str, Mapping[str, float]]) -> str:
    """One polygon per label over the axes that they share; values in [0, 1], Fig. 7.

    The rings run from 0 to the largest value.
    """
    axes = list(next(iter(series.values())))
    top = max(value for values in series.values() for value in values.values()) or 1.0
    size = 2 * RADIUS + 130
    centre = size / 2

    def place(axis: int, value: float) -> tuple[float, float]:
        angle = 2 * math.pi * axis / len(axes) - math.pi / 2
        length = value / top * RADIUS
        return centre + length * math.cos(angle), centre + length * math.sin(angle)

    def polygon(values: list[float]) -> str:
        return " ".join("{:.1f},{:.1f}".format(*place(i, v)) for i, v in enumerate(values))

    heights = [place(axis, LABELS * top)[1] for axis in range(len(axes))]
    above, below = min(heights) - 16, max(heights) + 12
    parts = [f'<svg class="chart radar" viewBox="0 {above:.0f} {size} {below - above:.0f}" '
             'role="img" aria-label="scores per attribute">']  # fmt: skip
    for ring in (0.25, 0.5, 0.75, 1.0):
        parts.append(f'<polygon class="grid" points="{polygon([ring * top] * len(axes))}"/>')
    for index, axis in enumerate(axes):
        x, y = place(index, LABELS * top)
        best = max(values[axis] for values in series.values())
        parts.append(f'<text x="{x:.1f}" y="{y + 4:.1f}" class="mid">{escape(axis)} '
                     f"{100 * best:.0f}</text>")  # fmt: skip
    for index, (label, values) in enumerate(series.items()):
        points = polygon([values[axis] for axis in axes])
        parts.append(f'<polygon class="area c{index % 8}" points="{points}"><title>'
                     f"{escape(label)}</title></polygon>")  # fmt: skip
    return "".join(parts) + "</svg>"


def legend(labels: list[str]) -> str:
    """Coloured names of the series."""
    items = (
        f'<li><span class="swatch c{index % 8}"></span>{escape(label)}</li>'
        for index, label in enumerate(labels)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'
