"""SRFT on a plain classifier, no tracker in sight: python examples/classifier.py"""

from copy import deepcopy

import torch
from torch.nn import GELU, Conv2d, Flatten, Linear, Sequential, functional

from srft_plugin import SRFT, estimate_prior

STEPS, OLD, NEW = 150, [0, 1, 2], [3, 4, 5]


def images(classes, count, seed):  # noisy gratings; the class is their orientation
    random = torch.Generator().manual_seed(seed)
    labels = torch.tensor(classes)[torch.randint(len(classes), (count,), generator=random)]
    grid, angle = torch.arange(16) / 2.5, labels[:, None, None] * torch.pi / 6
    waves = torch.sin(grid[:, None] * torch.cos(angle) + grid * torch.sin(angle))
    return (waves + 0.8 * torch.randn(count, 16, 16, generator=random))[:, None], labels


def losses(network, batch):
    return functional.cross_entropy(network(batch[0]), batch[1], reduction="none")


def train(network, classes, prior=None):
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    optimizer = SRFT(optimizer, prior.bind(network), STEPS) if prior else optimizer
    for step in range(STEPS):
        optimizer.zero_grad()
        losses(network, images(classes, 64, step)).mean().backward()
        optimizer.step()
    final = [losses(network, images(known, 512, 1000)).mean() for known in (OLD, NEW)]
    print("loss on old and new classes: {:.2f} {:.2f}".format(*final))


torch.manual_seed(0)
network = Sequential(Conv2d(1, 8, 5, 4, 2), GELU(), Flatten(), Linear(128, 6))
train(network, OLD)
train(deepcopy(network), NEW)
train(deepcopy(network), NEW, estimate_prior(network, losses, [images(OLD, 256, 999)]))
