"""From bytes to what a network reads."""

from __future__ import annotations

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(batch: Tensor) -> Tensor:
    """(B, C, H, W) uint8 images to float32 with ImageNet's mean and deviation, on their device.

    C is a multiple of 3: every image of the stack (RGB, then auxiliary) is normalised alike, as the
    auxiliary branch starts from weights that were trained on RGB.
    """
    images = batch.shape[1] // 3
    mean = torch.tensor(IMAGENET_MEAN * images, device=batch.device).view(-1, 1, 1)
    std = torch.tensor(IMAGENET_STD * images, device=batch.device).view(-1, 1, 1)
    return batch.float().sub_(255 * mean).div_(255 * std)
