"""From bytes to what a network reads."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(batch: Tensor) -> Tensor:
    """(B, C, H, W) uint8 images to float32 with ImageNet's mean and deviation, on their device.

    C is a multiple of 3: every image of the stack (RGB, then auxiliary) is normalised alike, as the
    auxiliary branch starts from weights that were trained on RGB.
    """
    mean, std = statistics(batch.shape[1] // 3, batch.device)
    return batch.to(torch.float32, copy=True).sub_(mean).div_(std)


@functools.cache
def statistics(images: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation of bytes, (C, 1, 1); kept, as making them waits for the device.

    Who traces a network with fake tensors does not leave fake ones here.
    """
    with torch.inference_mode(False), _disable_current_modes():
        mean = 255 * torch.tensor(IMAGENET_MEAN * images, device=device).view(-1, 1, 1)
        std = 255 * torch.tensor(IMAGENET_STD * images, device=device).view(-1, 1, 1)
    return mean, std
