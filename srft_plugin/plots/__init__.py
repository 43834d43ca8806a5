"""Figures of the method, written as PNG files."""

from srft_plugin.plots.figures import (
    gradient_sparsity,
    sensitivity_map,
    training_curves,
    weight_distance,
    weighted_distance_curves,
)

__all__ = [
    "gradient_sparsity",
    "sensitivity_map",
    "training_curves",
    "weight_distance",
    "weighted_distance_curves",
]
