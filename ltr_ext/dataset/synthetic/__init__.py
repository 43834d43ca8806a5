"""Generated videos: no download, any number, the same pixels on every machine."""

from .dataset import Synthetic, SyntheticStills, write_depthtrack
from .scene import Scene, SceneOptions, visible_scene

__all__ = [
    "Scene",
    "SceneOptions",
    "Synthetic",
    "SyntheticStills",
    "visible_scene",
    "write_depthtrack",
]
