"""Generated videos: no download, any number, the same pixels on every machine."""

from .dataset import Synthetic, write_depthtrack
from .scene import Scene, SceneOptions, visible_scene

__all__ = ["Scene", "SceneOptions", "Synthetic", "visible_scene", "write_depthtrack"]
