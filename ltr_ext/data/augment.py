"""Random changes of a training pair that keep its boxes right."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass
class View:
    """One side of a training pair.

    Attributes:
        image: (S, S, C) uint8, RGB in the first three channels, the auxiliary image in the rest.
        box: (4,) cxcywh in [0, 1] of the image.
    """

    image: np.ndarray
    box: np.ndarray

    def flip(self) -> None:
        """Mirrors left and right, all channels alike."""
        self.image = self.image[:, ::-1]
        self.box = self.box * [-1, 1, 1, 1] + [1, 0, 0, 0]

    def grey(self) -> None:
        """Takes the colour out of the RGB channels; the auxiliary image keeps its own."""
        luminance = cv2.cvtColor(np.ascontiguousarray(self.image[..., :3]), cv2.COLOR_RGB2GRAY)
        self.image = self.image.copy()
        self.image[..., :3] = luminance[..., None]

    def brighten(self, gain: float) -> None:
        """Multiplies all channels, saturating at 255."""
        self.image = cv2.convertScaleAbs(np.ascontiguousarray(self.image), alpha=gain)


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of the public SRFT code; 0 switches a part off.

    Args:
        grey: probability that both views lose their colour.
        joint_flip: probability that both views are mirrored.
        flip: probability that a view is mirrored, drawn for each.
        brightness: each view is multiplied by a gain drawn from 1 -+ this.
    """

    grey: float = 0.05
    joint_flip: float = 0.5
    flip: float = 0.5
    brightness: float = 0.2

    def __call__(self, views: list[View], rng: np.random.Generator) -> None:
        """Changes the views in place. What is drawn does not depend on what is switched on."""
        grey, joint_flip = rng.random(2)
        for view in views:
            flip, shade = rng.random(2)
            if grey < self.grey:
                view.grey()
            if (joint_flip < self.joint_flip) != (flip < self.flip):
                view.flip()
            if self.brightness:
                view.brighten(1 + self.brightness * (2 * shade - 1))


DEFAULT_AUGMENTATION = Augmentation()
