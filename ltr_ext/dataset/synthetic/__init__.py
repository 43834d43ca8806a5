"""Generated videos: no download, any number, the same pixels on every machine."""

from .dataset import Synthetic, SyntheticStills
from .scene import Scene, SceneOptions, visible_scene
from .writing import write_sequences

__all__ = [
    "Scene",
    "SceneOptions",
    "Synthetic",
    "SyntheticStills",
    "visible_scene",
    "write_sequences",
]
