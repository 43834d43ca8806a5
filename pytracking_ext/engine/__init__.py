"""Inference engine: the same weights, the same answers, fewer and larger operations."""

from pytracking_ext.engine.engine import Engine
from pytracking_ext.engine.precision import PRECISIONS

__all__ = ["PRECISIONS", "Engine"]
