"""Generated videos: no download, any number, the same pixels on every machine."""

from .dataset import Synthetic, write_depthtrack
from .scene import Scene, SceneOptions

__all__ = ["Scene", "SceneOptions", "Synthetic", "write_depthtrack"]
