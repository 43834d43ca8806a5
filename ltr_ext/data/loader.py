"""Batches from a pair data set: which process prepares which samples, from where on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from srft_plugin.errors import UserError


class PairLoader(DataLoader):
    """A loader that passes a worker's ``UserError`` on without the worker's traceback."""

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from super().__iter__()
        except UserError as error:
            *_, message = str(error).rpartition(f"{UserError.__name__}: ")
            raise UserError(message.rstrip()) from error


def make_loader(
    dataset: Dataset,
    batch_size: int,
    start: int = 0,
    stop: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> PairLoader:
    """Batches of the samples ``start`` to ``stop`` of a data set whose samples are random already.

    Every process gets as many samples; an incomplete last batch is left out. With ``start`` at the
    samples that all processes together have seen, a resumed run sees exactly what the uninterrupted
    one would have seen, whatever the number of workers.

    Args:
        dataset: map-style; its index may exceed its length (see ``PairDataset``).
        batch_size: samples per batch of this process.
        start, stop: global indices; ``stop`` defaults to the end of the epoch that ``start`` is in.
        rank, world_size: which of how many training processes this is.
        workers: loading processes; 0 loads in the calling one.
        pin_memory: page-locked batches, for copies to a GPU that do not wait.

    Raises:
        UserError: the range holds no whole batch.
    """
    if stop is None:
        stop = (start // len(dataset) + 1) * len(dataset)
    stop = start + (stop - start) // world_size * world_size  # as many for every process
    indices = range(start + rank, stop, world_size)
    if len(indices) < batch_size:
        raise UserError(
            f"samples {start} to {stop} over {world_size} processes hold no batch of {batch_size}; "
            "lower the batch size or raise the samples per epoch"
        )
    if workers:
        # OpenCV's threads do not survive the fork that starts a worker: the first crop would wait
        # for them for ever. There is a process per core, so they are of no use either.
        cv2.setNumThreads(0)
    return PairLoader(
        dataset,
        batch_size=batch_size,
        sampler=indices,
        num_workers=workers,
        pin_memory=pin_memory,
        drop_last=True,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # or a new iterator would draw from that of the training
    )


def even_batch(samples: int, most: int) -> int:
    """Size of the fewest batches that hold ``samples``, ``most`` in each, all but a few of them."""
    return samples // math.ceil(samples / most)
