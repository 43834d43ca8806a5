"""CUDA graphs: all kernels of a function launched at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

WARM_UP = 3  # eager calls before the recording: libraries choose their kernels in them


class Graphed:
    """Calls a function of tensors by replaying a recording of its kernels.

    There is one recording per shape of the inputs. What the function returns is overwritten by its
    next call. On other devices than GPUs, and after a recording that failed, the function is
    simply called.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.enabled = True
        self._recordings: dict[tuple, tuple[list[Tensor], torch.cuda.CUDAGraph, Any]] = {}

    def __call__(self, *inputs: Tensor) -> Any:
        if not (self.enabled and inputs[0].is_cuda):
            return self.function(*inputs)
        with torch.cuda.device_of(inputs[0]):  # streams are those of the current device
            return self._replayed(inputs)

    def _replayed(self, inputs: tuple[Tensor, ...]) -> Any:
        key = tuple((value.shape, value.dtype) for value in inputs)
        if key not in self._recordings:
            stream = torch.cuda.current_stream()
            try:
                self._recordings[key] = self._record(inputs)
            except RuntimeError as error:
                torch.cuda.set_stream(stream)  # torch does not come back from a failed recording
                self.enabled = False
                log.warning("no CUDA graph can be recorded (%s); running without", error)
                return self.function(*inputs)
        own, graph, outputs = self._recordings[key]
        for buffer, value in zip(own, inputs, strict=True):
            buffer.copy_(value)
        graph.replay()
        return outputs

    def _record(self, inputs: tuple[Tensor, ...]) -> tuple[list[Tensor], torch.cuda.CUDAGraph, Any]:
        own = [value.clone() for value in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.function(*own)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads, of the caller's, may use the GPU meanwhile.
        with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
            outputs = self.function(*own)
        return own, graph, outputs
